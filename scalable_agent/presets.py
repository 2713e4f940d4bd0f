"""Options that suit a kind of level, for where the user said nothing."""

import dataclasses
import hashlib
import os
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from scalable_agent import config as config_lib

# Up to here more actors of fewer environments each were measured: see
# docs/results.
_MOST_ACTORS = 8

# Characters, for lists of levels: file systems take 255 bytes.
_LONGEST_FOLDER = 80

# IMPALA paper, Table G.1 (Atari, shallow and deep feed-forward experts), with
# the net of the shallow ones. The learning rate decays to zero; RMSProp's decay
# of 0.99 is from the 2018 code.
_PAPER = {
  'network': 'nature',
  'total_environment_frames': 200e6,
  'batch_size': 32,
  'unroll_length': 20,
  'updates_per_batch': 1,
  'discounting': 0.99,
  'baseline_cost': 0.5,
  'entropy_cost': 0.01,
  'lambda_': 1.0,
  'optimizer': 'rmsprop',
  'learning_rate': 6e-4,
  'learning_rate_schedule': 'linear',
  'epsilon': 0.01,
  'clip_gradient_norm': 40.0,
  'frame_stack': 4,
  'num_action_repeats': 4,
  'width': 84,
  'height': 84,
  # On two cores, a third actor works while the others wait for inference.
  'num_actors': 3,
  'envs_per_actor': 32,
}

# Found on Pong with two cores and half an hour: see docs/results.
_ATARI = _PAPER | {
  # A third of the work of three convolutions.
  'network': 'shallow',
  'total_environment_frames': 15e6,
  # Two, as the policy lag in updates is the larger the smaller the batches.
  'num_actors': 2,
  'batch_size': 8,
  'entropy_cost': 0.002,
  'lambda_': 0.95,
  'optimizer': 'adam',
  'learning_rate': 4e-4,
  'learning_rate_schedule': 'late_linear',
  'epsilon': 1e-5,
}

# What is no Atari game: images or vectors.
_OTHER = _PAPER | {'network': 'auto', 'num_action_repeats': 1, 'frame_stack': 1}

# Found on CartPole-v1.
_VECTOR = _OTHER | {
  'total_environment_frames': 6e5,
  'num_actors': 2,
  'batch_size': 16,
  'baseline_cost': 0.05,
  'lambda_': 0.95,
  'optimizer': 'adam',
  'learning_rate': 3e-3,
  'epsilon': 1e-5,
  'envs_per_actor': 16,
}

# An LSTM forgets what it learned with CartPole's learning rate.
_CATCH = _VECTOR | {'total_environment_frames': 3e5, 'learning_rate': 2e-3}

PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
  'auto': {
    'atari': _ATARI,
    'gymnasium': _VECTOR,
    'catch': _CATCH,
  },
  'paper': {
    'atari': _PAPER,
    'gymnasium': _OTHER,
    'catch': _OTHER,
  },
}


def resolve(
  config: config_lib.Config,
  suite: str,
  implied: Mapping[str, Any] = MappingProxyType({}),
) -> config_lib.Config:
  """Returns `config` with every unset option filled in from the preset.

  Args:
    config: options as given; None where the user said nothing.
    suite: suite of the level: 'atari', 'gymnasium' or 'catch'.
    implied: options that the name of the level implies; they win over the
      preset's.
  """
  defaults = {**PRESETS[config.preset][suite], **implied}
  defaults['logdir'] = os.path.join('logs', _folder(config.level_name))
  unset = {
    name: value
    for name, value in defaults.items()
    if getattr(config, name) is None
  }
  return dataclasses.replace(config, **unset)


def follow_cores(
  config: config_lib.Config, suite: str, given: Collection[str], cores: int
) -> config_lib.Config:
  """Returns `config` with as many actor threads as suit the cores.

  Emulators run in their actor's thread, so there are as many threads of them.
  The number of environments stays what it is, and with it the policy lag:
  more actors have fewer each.

  Args:
    config: resolved, of a run on a single machine.
    suite: of the levels. Only Atari's emulators run without the interpreter's
      lock: more threads of others would wait for each other.
    given: names of the options that the user set; with one of the two set, the
      other is left to the preset, too.
    cores: that may be used.
  """
  if suite != 'atari' or {'num_actors', 'envs_per_actor'} & set(given):
    return config
  assert config.num_actors is not None
  assert config.envs_per_actor is not None
  total = config.num_actors * config.envs_per_actor
  most = max(min(cores, _MOST_ACTORS), config.num_actors)
  num_actors = max(n for n in range(1, most + 1) if total % n == 0)
  return dataclasses.replace(
    config, num_actors=num_actors, envs_per_actor=total // num_actors
  )


def _folder(level_name: str) -> str:
  """Returns the name of a folder for the runs of --level_name."""
  name = level_name.translate(str.maketrans('/:,', '__+'))
  if len(name) <= _LONGEST_FOLDER:
    return name
  # Lists that begin alike must not share a folder.
  digest = hashlib.sha256(level_name.encode()).hexdigest()[:8]
  return f'{name[:_LONGEST_FOLDER]}-{digest}'
