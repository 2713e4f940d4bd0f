"""Checkpoints that hold everything a run needs to go on.

```
checkpoints/000001234560/   one checkpoint, named by its environment frames
  variables.index, .data-*  written by tf.train.Checkpoint
  state.npz                 everything that is no variable
  manifest.json             sizes and checksums of the above
checkpoints/best.json       which one has the best score
```

A checkpoint is written beside the others and renamed when it is complete.
"""

import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
from absl import logging

from scalable_agent.storage import files, nest_files

_FORMAT = 1
_FOLDER = 'checkpoints'
_MANIFEST = 'manifest.json'
_STATE = 'state.npz'
_VARIABLES = 'variables'
_NAME = re.compile(r'\d{12,}$')
# Of an older checkpoint of the same frames while a new one takes its place.
_REPLACED = '.replaced'
_SCRATCH = '.scratch'
# What TensorFlow makes of the system's, such as EIO, when it reads.
_READ_ERRORS = (
  tf.errors.UnknownError,
  tf.errors.InternalError,
  tf.errors.AbortedError,
  tf.errors.UnavailableError,
)


class DamagedError(Exception):
  """A checkpoint is not what was written."""


def saved_frames(logdir: str) -> list[int]:
  """Returns the frames of the checkpoints in a logdir, the fewest first."""
  return [_frames_of(name) for name in _names(os.path.join(logdir, _FOLDER))]


class Checkpointer:
  """Saves and restores the checkpoints of one run.

  Attributes:
    restored: path of the checkpoint that was restored last, None before.
  """

  def __init__(self, logdir: str, items: Mapping[str, Any], keep: int = 3):
    """Initialises; touches no file.

    Args:
      logdir: folder of the run.
      items: what to save by name: Sonnet modules, Keras optimizers, variables,
        or anything else that tf.train.Checkpoint takes. An optimizer need not
        be built yet: its slots are restored when it is.
      keep: newest checkpoints to keep, besides the best.
    """
    self._logdir = logdir
    self._folder = os.path.join(logdir, _FOLDER)
    self._checkpoint = tf.train.Checkpoint(**items)
    self._keep = keep
    self.restored: str | None = None

  def save(
    self,
    frames: int,
    state: Any,
    score: float | None = None,
    measure: str = 'return',
  ) -> str:
    """Saves; only the newest checkpoints and the best are kept.

    Nothing may change the items meanwhile. Checkpoints of more frames than
    this one are given up: the run went back behind them. None is deleted while
    it cannot be read which one is the best.

    Args:
      frames: environment frames, by which checkpoints are ordered.
      state: nest that `nest_files` can write.
      score: the higher the better; None is never the best.
      measure: what the score is; one of another measure is no rival.

    Returns:
      The path of the checkpoint.

    Raises:
      files.WriteError: it could not be written; the older ones are as they
        were.
    """
    name = f'{int(frames):012d}'
    path = self._path(name)
    try:
      self._write(path, state, score)
    except (OSError, tf.errors.OpError) as error:
      raise files.WriteError(
        f'cannot save {path}: {error}. Free some space there, or choose '
        'another --logdir. Older checkpoints are intact.'
      ) from error
    finally:
      shutil.rmtree(self._path(_SCRATCH), ignore_errors=True)
    try:
      names = _names(self._folder)
      past = names[: names.index(name) + 1]
      self._record_if_best(past, score, measure)
      self._prune(past)
    except files.UnreadableError as error:
      logging.warning('Old checkpoints are kept: %s', error)
    return path

  def restore(self) -> Any | None:
    """Restores the newest checkpoint that is intact.

    Returns:
      The state that it was saved with, or None if there is no checkpoint.

    Raises:
      files.UnreadableError: it could not be read, and may be intact. Older ones
        are not tried, or the next save would give it up.
      DamagedError: there are checkpoints, but none is intact.
      ValueError: the newest intact one is of other items, or of a newer
        version of this program.
    """
    names = _names(self._folder)
    return self._restore_first(list(reversed(names))) if names else None

  def restore_best(self) -> Any | None:
    """Like `restore`, but tries the one with the best score first."""
    names = list(reversed(_names(self._folder)))
    best = self._best(names).get('checkpoint')
    if best:
      names.remove(best)
      names.insert(0, best)
    elif names:
      logging.warning(
        'No best checkpoint is recorded in %s; taking the newest. There is '
        'none before every level has had some episodes, and none of several '
        'levels of which some have no human score.',
        self._folder,
      )
    return self._restore_first(names) if names else None

  def newest_state(self) -> Any | None:
    """Returns the state of the newest intact checkpoint; restores nothing."""
    for name in reversed(_names(self._folder)):
      try:
        return _read_intact(self._path(name))
      except DamagedError as error:
        logging.warning('Checkpoint damaged: %s.', error)
    return None

  @property
  def _best_path(self) -> str:
    return self._path('best.json')

  def _path(self, name: str) -> str:
    return os.path.join(self._folder, name)

  def _record_if_best(
    self, past: list[str], score: float | None, measure: str
  ) -> None:
    # Of a reward that was no number, all that follow would be no better.
    if score is None or not math.isfinite(score):
      return
    name, best = past[-1], self._best(past)
    if (
      best.get('checkpoint', name) == name
      or best['measure'] != measure
      or score >= best['score']
    ):
      try:
        files.write_json(
          self._best_path,
          {'checkpoint': name, 'score': float(score), 'measure': measure},
        )
      except OSError as error:
        raise files.write_error(self._best_path, error) from error

  def _best(self, names: list[str]) -> dict[str, Any]:
    """Returns the content of best.json, {} if it is of none of `names`."""
    try:
      best = files.read(files.read_json, self._best_path)
      best = {
        'checkpoint': best['checkpoint'],
        'score': float(best['score']),
        # All were returns before this was written.
        'measure': best.get('measure', 'return'),
      }
      return best if best['checkpoint'] in names else {}
    except FileNotFoundError:
      return {}
    except (ValueError, KeyError, TypeError) as error:
      logging.warning('%s is damaged (%s): ignored.', self._best_path, error)
      return {}

  def _write(self, path: str, state: Any, score: float | None) -> None:
    scratch, replaced = self._path(_SCRATCH), path + _REPLACED
    shutil.rmtree(scratch, ignore_errors=True)
    os.makedirs(scratch)
    self._checkpoint.write(os.path.join(scratch, _VARIABLES))
    nest_files.write(os.path.join(scratch, _STATE), state)
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
    if os.path.exists(path):
      shutil.rmtree(replaced, ignore_errors=True)
      os.rename(path, replaced)
    os.rename(scratch, path)
    files.sync(self._folder)
    shutil.rmtree(replaced, ignore_errors=True)

  def _prune(self, past: list[str]) -> None:
    kept = {*past[-self._keep :], self._best(past).get('checkpoint')}
    for name in files.read(os.listdir, self._folder):
      known = _NAME.match(name.removesuffix(_REPLACED)) or name == _SCRATCH
      if known and name not in kept:
        shutil.rmtree(self._path(name), ignore_errors=True)

  def _restore_first(self, names: list[str]) -> Any:
    """Restores the first of `names` that is intact."""
    reasons = []
    for name in names:
      path = self._path(name)
      try:
        state = _read_intact(path)
      except DamagedError as error:
        reasons.append(str(error))
        logging.warning(
          'Checkpoint damaged: %s. Going back to another one.', error
        )
        continue
      self._read_variables(path)
      self.restored = path
      logging.info('Restored %s.', path)
      return state
    raise DamagedError(
      f'no checkpoint in {self._folder} is intact: {"; ".join(reasons)}. '
      'Restore that folder from a copy, delete it to start anew, or choose '
      'another --logdir.'
    )

  def _read_variables(self, path: str) -> None:
    def read(prefix):
      try:
        return self._checkpoint.read(prefix)
      except _READ_ERRORS as error:
        raise OSError(error.message) from error

    try:
      status = files.read(read, os.path.join(path, _VARIABLES))
      # Testing an agent needs no optimizer; a missing weight is an error.
      status.expect_partial()
      status.assert_existing_objects_matched()
    except (AssertionError, ValueError, tf.errors.OpError) as error:
      reason = str(error)
      # TensorFlow's own and those of Keras.
      missing = re.findall(r"<tf\.Variable '([^']*):0'", reason)
      missing += re.findall(r'<Variable path=([^,>]*)', reason)
      if missing:
        # TensorFlow shows their values, too.
        reason = f'it has no {", ".join(sorted(missing))}.'
      raise ValueError(
        f'{path} is intact, but of another agent, optimizer or version of this '
        f'program: {reason} Use the options in '
        f'{os.path.join(self._logdir, "config.json")}, the version that wrote '
        'it, or another --logdir.'
      ) from error


def _names(folder: str) -> list[str]:
  """Returns the names of all checkpoints in a folder, the oldest first."""
  try:
    entries = files.read(os.listdir, folder)
  except FileNotFoundError:
    entries = []
  names = {
    name for name in entries if _NAME.match(name.removesuffix(_REPLACED))
  }
  # One that was to be replaced counts only if its successor never came.
  names -= {name + _REPLACED for name in names}
  return sorted(names, key=_frames_of)


def _frames_of(name: str) -> int:
  return int(name.removesuffix(_REPLACED))


def _read_intact(path: str) -> Any:
  """Checks every file of a checkpoint and returns its state."""
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
    return files.read(nest_files.read, os.path.join(path, _STATE))
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
