"""The folder of a run's checkpoints, and what is in one of them.

```
checkpoints/000001234560/   one checkpoint, named by its environment frames
  variables.index, .data-*  written by tf.train.Checkpoint
  state.npz                 everything that is no variable
  manifest.json             sizes and checksums of the above
checkpoints/best.json       which one has the best score
```

A checkpoint is written beside the others and renamed when it is complete.
"""

import os
import re
import shutil
from collections.abc import Callable
from typing import Any

from scalable_agent.storage import files, nest_files

STATE = 'state.npz'
VARIABLES = 'variables'
# Where one is written.
SCRATCH = '.scratch'
_FORMAT = 1
_MANIFEST = 'manifest.json'
_NAME = re.compile(r'\d{12,}$')
# Of an older checkpoint of the same frames while a new one takes its place.
_REPLACED = '.replaced'


class DamagedError(Exception):
  """A checkpoint is not what was written."""


def folder_of(logdir: str) -> str:
  """Returns the folder of all checkpoints of a run."""
  return os.path.join(logdir, 'checkpoints')


def name_of(frames: int) -> str:
  """Returns the name of a new checkpoint."""
  return f'{int(frames):012d}'


def frames_of(name: str) -> int:
  """Returns the environment frames of the checkpoint of a name."""
  return int(name.removesuffix(_REPLACED))


def is_ours(name: str) -> bool:
  """Whether a name in the folder is of what a Checkpointer writes into it."""
  return _is_checkpoint(name) or name == SCRATCH


def _is_checkpoint(name: str) -> bool:
  return _NAME.match(name.removesuffix(_REPLACED)) is not None


def names_in(folder: str) -> list[str]:
  """Returns the names of all checkpoints in a folder, the oldest first."""
  try:
    entries = files.read(os.listdir, folder)
  except FileNotFoundError:
    entries = []
  names = set(filter(_is_checkpoint, entries))
  # One that was to be replaced counts only if its successor never came.
  names -= {name + _REPLACED for name in names}
  return sorted(names, key=frames_of)


def seal(scratch: str, score: float | None) -> None:
  """Writes the manifest of what is in a folder, once that is on the disk.

  Args:
    scratch: folder of one checkpoint.
    score: see `Checkpointer.save`.
  """
  contents = {}
  for name in sorted(os.listdir(scratch)):
    file = os.path.join(scratch, name)
    files.sync(file)
    contents[name] = {
      'bytes': os.path.getsize(file),
      'sha256': files.digest(file),
    }
  files.write_json(
    os.path.join(scratch, _MANIFEST),
    {'format': _FORMAT, 'score': score, 'files': contents},
  )


def install(scratch: str, path: str) -> None:
  """Renames a checkpoint to where it belongs; a kill loses no older one.

  Args:
    scratch: what was sealed, in the folder of all checkpoints.
    path: of the checkpoint; one that is there is replaced.
  """
  replaced = path + _REPLACED
  if os.path.exists(path):
    shutil.rmtree(replaced, ignore_errors=True)
    os.rename(path, replaced)
  os.rename(scratch, path)
  files.sync(os.path.dirname(path))
  shutil.rmtree(replaced, ignore_errors=True)


def read_intact(path: str) -> Any:
  """Checks every file of a checkpoint and returns its state.

  Args:
    path: of the checkpoint.

  Raises:
    DamagedError: a file is not what was written.
    files.UnreadableError: one cannot be read now.
    ValueError: the checkpoint is of another version of this program.
  """
  manifest_path = os.path.join(path, _MANIFEST)
  manifest = _or_damaged(files.read_json, manifest_path)
  version = manifest.get('format') if isinstance(manifest, dict) else None
  if isinstance(version, int) and version > _FORMAT:
    raise ValueError(
      f'{path} has format {version}, this program knows up to {_FORMAT}. Use '
      'the version that wrote it.'
    )
  try:
    contents = [
      (os.path.join(path, name), entry['bytes'], entry['sha256'])
      for name, entry in manifest['files'].items()
    ]
  except (AttributeError, KeyError, TypeError) as error:
    raise DamagedError(f'{manifest_path}: not a manifest') from error
  for file, size, sha256 in contents:
    actual = _or_damaged(os.path.getsize, file)
    if actual != size:
      raise DamagedError(f'{file}: {actual} bytes instead of {size}')
    if _or_damaged(files.digest, file) != sha256:
      raise DamagedError(f'{file}: wrong checksum')
  try:
    return files.read(nest_files.read, os.path.join(path, STATE))
  except (ValueError, ImportError) as error:
    raise ValueError(
      f'{path} is intact, but of another version of this program: {error}. Use '
      'the version that wrote it, or another --logdir.'
    ) from error


def _or_damaged(function: Callable[[str], Any], path: str) -> Any:
  try:
    return files.read(function, path)
  except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
    raise DamagedError(f'{path}: missing') from error
  except ValueError as error:
    raise DamagedError(f'{path}: {error}') from error
