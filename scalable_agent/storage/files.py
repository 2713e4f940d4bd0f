"""Files that are either as they were or whole, whenever the process dies."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

from absl import logging

_T = TypeVar('_T')
# Of a read that fails for no reason in the file, and seconds between two.
_ATTEMPTS = 5
_PAUSE = 2.0


class WriteError(OSError):
  """A file of a run could not be written; the message has the remedy."""


def write_error(path: str, error: Exception) -> WriteError:
  """Returns what to raise where `error` has kept `path` from being written."""
  reason = getattr(error, 'strerror', None) or str(error).partition('\n')[0]
  return WriteError(
    f'cannot write {path}: {reason}. Free some space there, or choose another '
    '--logdir.'
  )


class UnreadableError(OSError):
  """A file is there but cannot be read now; it may well be intact."""


def read(function: Callable[[str], _T], path: str) -> _T:
  """Returns `function(path)`; tries again where the system cannot read now.

  A network file system answers ESTALE or EIO for moments; what it holds is
  intact, and must be taken for neither damaged nor absent.

  Args:
    function: reads a file or a folder.
    path: of it.

  Raises:
    FileNotFoundError, NotADirectoryError, IsADirectoryError: there is none.
    PermissionError: it may not be read.
    UnreadableError: all attempts failed.
    Exception: what else `function` raises of what it has read.
  """
  for attempt in range(1, _ATTEMPTS + 1):
    try:
      return function(path)
    except (
      FileNotFoundError,
      NotADirectoryError,
      IsADirectoryError,
      PermissionError,
    ):
      raise  # For good.
    except OSError as error:
      logging.warning('%s cannot be read: %s.', path, error)
      if attempt == _ATTEMPTS:
        raise UnreadableError(
          f'{path} cannot be read, but may be intact: {error}. Look at the '
          'disk or the network, then try again; or move it away.'
        ) from error
      time.sleep(_PAUSE)
  raise AssertionError


def set_aside(path: str) -> str:
  """Renames a damaged file, over no other one; returns its new path."""
  aside = f'{path}.damaged'
  number = 1
  while os.path.lexists(aside):
    number += 1
    aside = f'{path}.damaged{number}'
  os.rename(path, aside)
  return aside


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
