"""Gymnasium environments, in this process or in others."""

from typing import TYPE_CHECKING, Any

import numpy as np

from scalable_agent import action_spaces, structures
from scalable_agent.environments import (
  batched,
  gymnasium_processes,
  gymnasium_registry,
  gymnasium_serial,
  gymnasium_wrapper,
  replay,
)
from scalable_agent.environments.suite import Level, Purpose

if TYPE_CHECKING:
  from scalable_agent.environments.gymnasium_suite import GymnasiumOptions


class VectorEnvironment(replay.ReplayedEnvironment):
  """E environments that are stepped by a vector environment, as in Gymnasium.

  A kind of environment makes `_envs`, which resets at the step after the end.
  """

  _envs: Any
  _has_processes: bool

  def _start(self, seeds: np.ndarray, where: np.ndarray) -> Any:
    return self._envs.reset(seed=seeds.tolist(), options={'reset_mask': where})[
      0
    ]

  def _advance(self, actions: np.ndarray) -> batched.Arrival:
    observation, reward, terminated, truncated, _ = self._envs.step(actions)
    return batched.Arrival(
      observation=observation,
      reward=reward,
      terminated=terminated,
      truncated=truncated,
    )

  def _close(self, healthy: bool) -> None:
    if healthy or not self._has_processes:
      self._envs.close()


class GymnasiumEnvironment(VectorEnvironment):
  """E environments of one Gymnasium id."""

  def __init__(
    self,
    level: Level,
    num_envs: int,
    options: 'GymnasiumOptions',
    seed: int,
    purpose: Purpose,
    factory: type[gymnasium_registry.Factory],
  ):
    """Makes the environments and, where asked, a process for each.

    Args:
      level: a Gymnasium level.
      num_envs: E.
      options: of the suite.
      seed: environment i is seeded with seed + i.
      purpose: what they are for.
      factory: of the suite, makes one of them.

    Raises:
      ValueError: if the actions or observations are of an unsupported kind, or
        something that the environment needs is not installed.
    """
    if purpose.render and options.env_processes:
      raise ValueError(
        f'--env_processes={options.env_processes} and a video (render='
        f'{purpose.render}) of {level.name} exclude each other. Set '
        '--env_processes=0.'
      )
    self._has_processes = options.env_processes > 0 and not purpose.probe
    spec = gymnasium_registry.find_spec(level.name)
    factories = [
      factory(
        name=level.name,
        spec=spec,
        options=options,
        render=purpose.render and i == 0,
      )
      for i in range(num_envs)
    ]
    if self._has_processes:
      self._envs = gymnasium_processes.ProcessVectorEnv(level.name, factories)
    else:
      self._envs = gymnasium_serial.SerialVectorEnv(level.name, factories)
    observation, actions = self._envs.metadata[gymnasium_wrapper.SEEN]
    super().__init__(
      level,
      num_envs,
      structures.EnvironmentSpec(
        observation=observation,
        action_space=actions,
        frames_per_step=options.num_action_repeats,
        action_meanings=self._action_meanings(actions),
      ),
      seed,
      render=purpose.render,
      replayable=purpose.replayable,
    )

  def _action_meanings(
    self, actions: action_spaces.ActionSpace
  ) -> tuple[str, ...] | None:
    """What Atari's environments, and some others, have a method for."""
    if self._has_processes or not isinstance(actions, action_spaces.Discrete):
      return None
    environment = self._envs.envs[0].unwrapped
    if not hasattr(environment, 'get_action_meanings'):
      return None
    meanings = tuple(map(str, environment.get_action_meanings()))
    wrapped = len(meanings) != actions.num_actions
    return None if wrapped else meanings

  def _render(self) -> np.ndarray:
    what = f'{self.level.name} cannot be filmed'
    with gymnasium_registry.impossible(what, '--video_dir'):
      return np.array(self._envs.envs[0].render(), np.uint8)
