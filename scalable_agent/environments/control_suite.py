"""The suite of continuous control in Gymnasium: declarations only."""

import dataclasses
from typing import Any

from scalable_agent.environments import extras
from scalable_agent.environments.gymnasium_suite import (
  CONTINUOUS,
  MUJOCO,
  Gymnasium,
  GymnasiumOptions,
)
from scalable_agent.environments.suite import Level, Purpose

_ALL = {
  'total_environment_frames': 1e6,
  'num_actors': 2,
  'envs_per_actor': 16,
  'normalise_numbers': True,
  # Rewards are costs and speeds, of which 1 is no bound.
  'reward_clipping': 'none',
  'reward_scale': 0.1,
  'baseline_cost': 0.5,
  # The deviation of a number needs no bonus to stay above zero.
  'entropy_cost': 0.0,
  # Pendulum is learned in half the frames that 0.97 takes.
  'discounting': 0.95,
  'optimizer': 'adam',
  'learning_rate': 3e-3,
  'epsilon': 1e-5,
}
_AUTO = _ALL | {'batch_size': 16, 'lambda_': 0.95}
_ADVANTAGE_AUTO = _ALL | {
  'unroll_length': 20,
  'gae_lambda': 0.95,
  'clip_gradient_norm': 40.0,
}
_PRESETS = {
  'impala': {'auto': _AUTO},
  'ga3c': {'auto': _ALL},
  'a3c': {'auto': _ADVANTAGE_AUTO},
  'a2c': {'auto': _ADVANTAGE_AUTO | {'num_actors': 0}},
}


@dataclasses.dataclass(frozen=True)
class ControlOptions(GymnasiumOptions):
  """Continuous control."""


class Control(Gymnasium):
  name = 'control'
  help = (
    "Gymnasium's ids of continuous control: Pendulum-v1, and HalfCheetah-v5 "
    'and its like with the extra mujoco.'
  )
  options = ControlOptions
  presets = _PRESETS

  def parse(self, level_name: str) -> Level | None:
    if level_name in CONTINUOUS:
      return super().parse(level_name)
    from scalable_agent.environments import gymnasium_registry

    entry_point = gymnasium_registry.entry_point(level_name)
    if not entry_point.startswith(MUJOCO):
      return None
    extras.check('mujoco', level_name)
    return super().parse(level_name)

  def level_names(self) -> tuple[str, ...]:
    from scalable_agent.environments import gymnasium_registry

    return CONTINUOUS + gymnasium_registry.ids((MUJOCO,))

  def make(
    self, level: Level, num_envs: int, options: Any, seed: int, purpose: Purpose
  ):
    from scalable_agent.environments import gymnasium_vector

    if level.name in CONTINUOUS:
      return super().make(level, num_envs, options, seed, purpose)
    from scalable_agent.environments import mujoco_factory

    return gymnasium_vector.GymnasiumEnvironment(
      level, num_envs, options, seed, purpose, mujoco_factory.MujocoFactory
    )


CONTROL = Control()
