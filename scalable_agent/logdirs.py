"""The folder of a run: its config.json, and the lock of who trains in it."""

import dataclasses
import fcntl
import json
import os
from collections.abc import Mapping
from typing import Any

from absl import logging

from scalable_agent import config as config_lib
from scalable_agent import files

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
_IDENTITY = 'identity'


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


def prepare_logdir(
  logdir: str,
  config: config_lib.Config,
  identity: Mapping[str, Any] | None = None,
) -> LogdirLock:
  """Makes the folder of a run, or checks that the run can go on in it.

  Call it before anything expensive.

  Args:
    logdir: folder of the run.
    config: resolved options; written to config.json.
    identity: JSON-able facts that the options do not show and that a
      checkpoint cannot be carried across either, such as the number of actions.

  Returns:
    The lock of the folder, a context manager; close it when training ends.

  Raises:
    ValueError: the folder cannot be written, its config.json cannot be read or
      is of another run, or another process trains in it.
  """
  path = os.path.join(logdir, 'config.json')
  options = json.loads(config_lib.to_json(config))
  identity = json.loads(json.dumps(dict(identity or {})))
  try:
    os.makedirs(logdir, exist_ok=True)
    lock = LogdirLock(logdir)
  except OSError as error:
    raise ValueError(
      f'--logdir={logdir} cannot be written: {error.strerror or error}. Choose '
      'a folder that you may write to.'
    ) from error
  try:
    if os.path.exists(path):
      old_config, old_identity = _read(path, logdir)
      old_options = dataclasses.asdict(old_config)
      _refuse_another_run(logdir, old_options, options, old_identity, identity)
      for name in options:
        if options[name] != old_options[name]:
          logging.warning(
            '--%s was %s so far in %s and is %s from now on.',
            name,
            old_options[name],
            logdir,
            options[name],
          )
    files.write_json(path, {**options, _IDENTITY: identity})
  except OSError as error:
    lock.close()
    raise ValueError(
      f'--logdir={logdir}: {path} cannot be written: {error.strerror}. Choose '
      'a folder that you may write to.'
    ) from error
  except BaseException:
    lock.close()
    raise
  return lock


def load_config(logdir: str) -> config_lib.Config:
  """Returns the options that a folder's agent was trained with.

  Args:
    logdir: folder of the run.

  Raises:
    ValueError: there is no config.json, or it cannot be read.
  """
  path = os.path.join(logdir, 'config.json')
  if not os.path.exists(path):
    raise ValueError(
      f'--logdir={logdir} has no config.json: nothing was trained there. '
      'Give the folder of a run.'
    )
  return _read(path, logdir)[0]


def _read(path: str, logdir: str) -> tuple[config_lib.Config, dict[str, Any]]:
  """Returns the options and the identity in a config.json."""
  try:
    values = files.read_json(path)
    if not isinstance(values, dict):
      raise ValueError('expected a JSON object of options')
    identity = values.pop(_IDENTITY, {})
    return config_lib.from_json(json.dumps(values)), identity
  except (OSError, ValueError, TypeError) as error:
    raise ValueError(
      f'--logdir={logdir}: {path} cannot be read: {error}. Repair it, delete '
      'it if the options of this call are those of the run, or choose another '
      '--logdir.'
    ) from error


def _refuse_another_run(logdir, old_options, options, old_identity, identity):
  differences = [
    f'--{name} was {old_options[name]} and is {options[name]}'
    for name in FIXED_OPTIONS
    if old_options[name] != options[name]
  ] + [
    f'{name} was {old_identity[name]} and is {value}'
    for name, value in identity.items()
    if name in old_identity and old_identity[name] != value
  ]
  if differences:
    raise ValueError(
      f'--logdir={logdir} holds a run that cannot go on with these options: '
      f'{"; ".join(differences)}. Change them back, or choose another '
      '--logdir.'
    )
