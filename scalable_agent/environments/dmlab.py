"""Levels of DeepMind Lab, a process for each environment."""

import importlib.util
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from scalable_agent import action_spaces, structures
from scalable_agent.environments import (
  batched,
  dmlab_actions,
  dmlab_engine,
  gymnasium_processes,
  gymnasium_vector,
)
from scalable_agent.environments.suite import Level, Purpose

if TYPE_CHECKING:
  from scalable_agent.environments.dmlab_suite import DmLabOptions


class DmLabEnvironment(gymnasium_vector.VectorEnvironment):
  """E environments of one level, each in a process.

  Observations are a dict: 'RGB_INTERLEAVED', uint8 [height, width, 3], and
  'INSTR', text. The engine shows nothing at the end of an episode: LAST has the
  observation before it. Every end is a termination, as in 2018, but for that of
  --max_episode_length.
  """

  def __init__(
    self,
    level: Level,
    num_envs: int,
    options: 'DmLabOptions',
    seed: int,
    purpose: Purpose,
  ):
    """Starts the processes; they load the level at the first reset.

    Args:
      level: of DeepMind Lab.
      num_envs: E.
      options: of the suite.
      seed: environment i is seeded with seed + i.
      purpose: what they are for.

    Raises:
      ValueError: the engine has no such pictures; there is no DeepMind Lab, and
        not only the spec is asked for; or a file or folder is not there.
    """
    _check_size(level.name, options)
    actions = dmlab_actions.ACTION_SETS[options.action_set]
    spec = structures.EnvironmentSpec(
      observation={
        name: part.spec for name, part in dmlab_engine.parts_of(options).items()
      },
      action_space=action_spaces.Discrete(len(actions)),
      frames_per_step=options.num_action_repeats,
      action_meanings=tuple(actions),
    )
    super().__init__(
      level,
      num_envs,
      spec,
      seed,
      render=purpose.render,
      replayable=purpose.replayable,
    )
    # A learner whose actors are elsewhere needs no engine.
    self._has_processes = not purpose.probe
    if self._has_processes:
      _check_installed(level.name)
      _check_paths(level.name, options)
      factory = dmlab_engine.Factory(level.name, options, purpose.test)
      self._envs = gymnasium_processes.ProcessVectorEnv(
        level.name, [factory] * num_envs
      )
    self._screen = np.zeros([options.height, options.width, 3], np.uint8)

  def _start(self, seeds: np.ndarray, where: np.ndarray) -> Any:
    observation = super()._start(seeds, where)
    self._screen = observation[dmlab_engine.RGB][0]
    return observation

  def _advance(self, actions: np.ndarray) -> batched.Arrival:
    arrival = super()._advance(actions)
    self._screen = arrival.observation[dmlab_engine.RGB][0]
    return arrival

  def _render(self) -> np.ndarray:
    return self._screen

  def _close(self, healthy: bool) -> None:
    if self._has_processes:
      super()._close(healthy)


def _check_size(level_name: str, options: 'DmLabOptions') -> None:
  for name in 'width', 'height':
    value = getattr(options, name)
    if value % 4:
      raise ValueError(
        f'--{name}={value} of {level_name}: DeepMind Lab takes multiples of 4. '
        f'Set --{name}={value - value % 4 + 4}.'
      )


def _check_installed(level_name: str) -> None:
  if importlib.util.find_spec('deepmind_lab') is not None:
    return
  raise ValueError(
    f'{level_name} needs DeepMind Lab, and there is no module deepmind_lab. It '
    'is in no registry: build a wheel, as google-deepmind/lab says, or on '
    'Python 3.13, where Docker or Podman is, by: pip install dmlab-gym && '
    'dmlab-gym build --no-install. Then: pip install dm-env '
    'lab/deepmind_lab-*.whl. See docs/dmlab.md.'
  )


def _check_paths(level_name: str, options: 'DmLabOptions') -> None:
  path = options.dataset_path
  # By its name the engine knows the last one.
  if path and not os.path.isdir(path) and path != 'dummy':
    raise ValueError(
      f'--dataset_path={path} is no folder. Give that of '
      'brady_konkle_oliva2008, see docs/dmlab.md; or "dummy", or leave it out.'
    )
  if level_name.startswith('/') and not os.path.isfile(f'{level_name}.lua'):
    raise ValueError(
      f'--level_name={level_name} is the path of a level, and there is no file '
      f'{level_name}.lua. Correct it.'
    )
