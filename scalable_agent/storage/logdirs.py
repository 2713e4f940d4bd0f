"""The folder of a run: its config.json, and the lock of who trains in it."""

import errno
import fcntl
import os
import tempfile

from absl import logging

from scalable_agent import options
from scalable_agent.storage import checkpointing, files


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


def prepare_logdir(logdir: str, config: options.Config) -> LogdirLock:
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
  _check_name(logdir)
  try:
    os.makedirs(logdir, exist_ok=True)
    lock = LogdirLock(logdir)
  except OSError as error:
    raise _not_writable(logdir, error) from error
  try:
    old_config = _read_config(logdir, config.catalog)
    # Without a checkpoint there is nothing to go on from.
    if old_config is not None and checkpointing.saved_frames(logdir):
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


def write_config(logdir: str, config: options.Config) -> None:
  """Writes the options of a run to its config.json.

  Args:
    logdir: an existing folder.
    config: resolved options.

  Raises:
    ValueError: it cannot be written.
  """
  try:
    files.write_json(_config_path(logdir), dict(config.values))
  except OSError as error:
    raise _not_writable(logdir, error) from error


def load_config(logdir: str, catalog: options.Catalog) -> options.Config:
  """Returns the options that a folder's agent was trained with.

  Args:
    logdir: folder of the run.
    catalog: all options there are.

  Raises:
    ValueError: there is no config.json, or it cannot be read.
  """
  _check_name(logdir)
  config = _read_config(logdir, catalog)
  if config is None:
    raise ValueError(
      f'--logdir={logdir} has no config.json: nothing was trained there. '
      'Give the folder of a run.'
    )
  return config


def _read_config(
  logdir: str, catalog: options.Catalog
) -> options.Config | None:
  """Like `load_config`; None where there is no config.json."""
  path = _config_path(logdir)
  try:
    config = options.from_dict(catalog, files.read(files.read_json, path))
  except FileNotFoundError:
    return None
  except files.UnreadableError as error:
    raise ValueError(f'--logdir={logdir}: {error}') from error
  except (OSError, ValueError, TypeError) as error:
    raise ValueError(
      f'--logdir={logdir}: {path} cannot be read: {str(error).rstrip(".")}. '
      'Repair it, delete it if the options of this call are those of the run, '
      'or choose another --logdir.'
    ) from error
  # Options that mean nothing to a level were once left open.
  return options.fill_in(config)


def _check_name(logdir: str) -> None:
  """Refuses what TensorFlow would take for a pattern or for another disk.

  It could write checkpoints there, but not read them.
  """
  encoded = logdir.encode('utf-8', 'replace').decode()
  if encoded != logdir or '://' in logdir or set(logdir) & set('*?[\\'):
    raise ValueError(
      f'--logdir={logdir} cannot be used: no checkpoint could be read from a '
      'folder whose name has *, ?, [, \\, :// or bytes that are not UTF-8. '
      'Choose another name; a folder that is there can be renamed.'
    )


def _config_path(logdir: str) -> str:
  return os.path.join(logdir, 'config.json')


def _not_writable(logdir: str, error: OSError) -> ValueError:
  remedy = 'Choose a folder that you may write to'
  if error.errno in (errno.ENOSPC, errno.EDQUOT):
    remedy = 'Free some space there, or choose another'
  return ValueError(
    f'--logdir={logdir} cannot be written: {error.strerror or error}. {remedy}.'
  )


def _compare(logdir: str, old: options.Config, new: options.Config) -> None:
  """Refuses what a checkpoint cannot be carried across, warns of the rest."""
  declared = new.catalog.options
  changed = [
    name
    for name, one in declared.items()
    if one.part is not options.Part.PLACE
    and old.values[name] != new.values[name]
  ]
  refused = [
    f'--{name} was {old.values[name]} and is {new.values[name]}'
    for name in changed
    if declared[name].fixed
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
      old.values[name],
      logdir,
      new.values[name],
    )
