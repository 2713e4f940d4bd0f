"""Files that are either as they were or whole, whenever the process dies."""

import hashlib
import json
import os
from typing import Any


class WriteError(OSError):
  """A file of a run could not be written; the message has the remedy."""


def write_error(path: str, error: Exception) -> WriteError:
  """Returns what to raise where `error` has kept `path` from being written."""
  reason = getattr(error, 'strerror', None) or str(error).partition('\n')[0]
  return WriteError(
    f'cannot write {path}: {reason}. Free some space there, or choose another '
    '--logdir.'
  )


def sync(path: str) -> None:
  """Returns once a file, or the entries of a folder, are on the disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def write_json(path: str, value: Any) -> None:
  """Writes or replaces a JSON file in one step."""
  scratch = f'{path}.tmp'
  with open(scratch, 'w', encoding='utf-8') as file:
    json.dump(value, file, indent=2)
    file.write('\n')
  sync(scratch)
  os.replace(scratch, path)
  sync(os.path.dirname(path) or '.')


def read_json(path: str) -> Any:
  """Returns what is in a JSON file."""
  with open(path, encoding='utf-8') as file:
    return json.load(file)


def digest(path: str) -> str:
  """Returns the SHA-256 of a file's content."""
  sha256 = hashlib.sha256()
  with open(path, 'rb') as file:
    while block := file.read(2**20):
      sha256.update(block)
  return sha256.hexdigest()
