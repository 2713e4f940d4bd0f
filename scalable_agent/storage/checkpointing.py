"""Checkpoints that hold everything a run needs to go on.

`checkpoint_files` says what one is on the disk. Here is when they are written,
which are kept, and which one a run goes on from.
"""

import math
import os
import re
import shutil
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from absl import logging

from scalable_agent.storage import checkpoint_files, files, nest_files
from scalable_agent.storage.checkpoint_files import DamagedError

# What TensorFlow makes of the system's, such as EIO, when it reads.
_READ_ERRORS = (
  tf.errors.UnknownError,
  tf.errors.InternalError,
  tf.errors.AbortedError,
  tf.errors.UnavailableError,
)


def saved_frames(logdir: str) -> list[int]:
  """Returns the frames of the checkpoints in a logdir, the fewest first."""
  names = checkpoint_files.names_in(checkpoint_files.folder_of(logdir))
  return [checkpoint_files.frames_of(name) for name in names]


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
    self._folder = checkpoint_files.folder_of(logdir)
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
    name = checkpoint_files.name_of(frames)
    path = self._path(name)
    try:
      self._write(path, state, score)
    except (OSError, tf.errors.OpError) as error:
      raise files.WriteError(
        f'cannot save {path}: {error}. Free some space there, or choose '
        'another --logdir. Older checkpoints are intact.'
      ) from error
    finally:
      shutil.rmtree(self._path(checkpoint_files.SCRATCH), ignore_errors=True)
    try:
      names = checkpoint_files.names_in(self._folder)
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
    names = checkpoint_files.names_in(self._folder)
    return self._restore_first(list(reversed(names))) if names else None

  def restore_best(self) -> Any | None:
    """Like `restore`, but tries the one with the best score first."""
    names = list(reversed(checkpoint_files.names_in(self._folder)))
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
    for name in reversed(checkpoint_files.names_in(self._folder)):
      try:
        return checkpoint_files.read_intact(self._path(name))
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
    scratch = self._path(checkpoint_files.SCRATCH)
    shutil.rmtree(scratch, ignore_errors=True)
    os.makedirs(scratch)
    self._checkpoint.write(os.path.join(scratch, checkpoint_files.VARIABLES))
    nest_files.write(os.path.join(scratch, checkpoint_files.STATE), state)
    checkpoint_files.seal(scratch, score)
    checkpoint_files.install(scratch, path)

  def _prune(self, past: list[str]) -> None:
    kept = {*past[-self._keep :], self._best(past).get('checkpoint')}
    for name in files.read(os.listdir, self._folder):
      if checkpoint_files.is_ours(name) and name not in kept:
        shutil.rmtree(self._path(name), ignore_errors=True)

  def _restore_first(self, names: list[str]) -> Any:
    """Restores the first of `names` that is intact."""
    reasons = []
    for name in names:
      path = self._path(name)
      try:
        state = checkpoint_files.read_intact(path)
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
      status = files.read(read, os.path.join(path, checkpoint_files.VARIABLES))
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
