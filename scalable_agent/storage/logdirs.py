"""The folder of a run: its config.json, and the lock of who trains in it."""

import dataclasses
import fcntl
import os
import tempfile

from absl import logging

from scalable_agent.options import config as config_lib
from scalable_agent.storage import checkpointing, files

# Options that a checkpoint cannot be carried across: they change the weights'
# shapes, the optimizer's slots, or what the agent has learned to play.
FIXED_OPTIONS = (
  'level_name',
  'algorithm',
  'network',
  'lstm',
  'frame_stack',
  'last_action_reward',
  'width',
  'height',
  'grayscale',
  'full_action_space',
  'num_action_repeats',
  'optimizer',
)


class LogdirLock:
  """Keeps other training processes out of a folder until it is closed.

  The system frees it when the process dies, in whatever way.
  """

  def __init__(self, logdir: str):
    """Takes the lock.

    Args:
      logdir: an existing folder.

    Raises:
      ValueError: another process has it.
    """
    path = os.path.join(logdir, '.lock')
    self._file = open(path, 'a+', encoding='utf-8')  # noqa: SIM115
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      self._file.seek(0)
      owner = self._file.read().strip() or 'unknown'
      self._file.close()
      raise ValueError(
        f'--logdir={logdir} is in use by a running training process (id '
        f'{owner}). Wait for it, stop it, or choose another --logdir.'
      ) from error
    self._file.truncate(0)
    self._file.write(f'{os.getpid()}\n')
    self._file.flush()

  def close(self) -> None:
    """Frees the lock."""
    self._file.close()

  def __enter__(self) -> 'LogdirLock':
    return self

  def __exit__(self, kind, failure, traceback) -> None:
    self.close()


def prepare_logdir(logdir: str, config: config_lib.Config) -> LogdirLock:
  """Makes the folder of a run, or checks that the run can go on in it.

  Call it before anything expensive, and `write_config` when the run is sure to
  begin: a start that is refused leaves no options behind.

  Args:
    logdir: folder of the run.
    config: resolved options.

  Returns:
    The lock of the folder, a context manager; close it when training ends.

  Raises:
    ValueError: the folder cannot be written, its config.json cannot be read or
      is of another run, or another process trains in it.
  """
  try:
    os.makedirs(logdir, exist_ok=True)
    lock = LogdirLock(logdir)
  except OSError as error:
    raise _not_writable(logdir, error) from error
  try:
    if os.path.exists(_config_path(logdir)):
      old_config = load_config(logdir)
      # Without a checkpoint there is nothing to go on from.
      if checkpointing.saved_frames(logdir):
        _compare(logdir, old_config, config)
  except BaseException:
    lock.close()
    raise
  return lock


def check_writable(logdir: str) -> None:
  """Raises ValueError if no file can be made in a folder."""
  try:
    tempfile.TemporaryFile(dir=logdir).close()
  except OSError as error:
    raise _not_writable(logdir, error) from error


def write_config(logdir: str, config: config_lib.Config) -> None:
  """Writes the options of a run to its config.json.

  Args:
    logdir: an existing folder.
    config: resolved options.

  Raises:
    ValueError: it cannot be written.
  """
  try:
    files.write_json(_config_path(logdir), dataclasses.asdict(config))
  except OSError as error:
    raise _not_writable(logdir, error) from error


def load_config(logdir: str) -> config_lib.Config:
  """Returns the options that a folder's agent was trained with.

  Args:
    logdir: folder of the run.

  Raises:
    ValueError: there is no config.json, or it cannot be read.
  """
  path = _config_path(logdir)
  if not os.path.exists(path):
    raise ValueError(
      f'--logdir={logdir} has no config.json: nothing was trained there. '
      'Give the folder of a run.'
    )
  try:
    return config_lib.from_dict(files.read_json(path))
  except (OSError, ValueError, TypeError) as error:
    raise ValueError(
      f'--logdir={logdir}: {path} cannot be read: {error}. Repair it, delete '
      'it if the options of this call are those of the run, or choose another '
      '--logdir.'
    ) from error


def _config_path(logdir: str) -> str:
  return os.path.join(logdir, 'config.json')


def _not_writable(logdir: str, error: OSError) -> ValueError:
  return ValueError(
    f'--logdir={logdir} cannot be written: {error.strerror or error}. Choose '
    'a folder that you may write to.'
  )


def _compare(
  logdir: str, old: config_lib.Config, new: config_lib.Config
) -> None:
  """Refuses what a checkpoint cannot be carried across, warns of the rest."""
  changed = [
    name
    for name in config_lib.FIELDS
    if name not in config_lib.PLACE and getattr(old, name) != getattr(new, name)
  ]
  refused = [
    f'--{name} was {getattr(old, name)} and is {getattr(new, name)}'
    for name in FIXED_OPTIONS
    if name in changed
  ]
  if refused:
    raise ValueError(
      f'--logdir={logdir} holds a run that cannot go on with these options: '
      f'{"; ".join(refused)}. Change them back, or choose another --logdir.'
    )
  for name in changed:
    logging.warning(
      '--%s was %s so far in %s and is %s from now on.',
      name,
      getattr(old, name),
      logdir,
      getattr(new, name),
    )
