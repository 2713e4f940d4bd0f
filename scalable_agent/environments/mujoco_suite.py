"""The suite of MuJoCo in Gymnasium: declarations only; see `mujoco_factory`.

https://gymnasium.farama.org/environments/mujoco
"""

import dataclasses
from typing import Any

from scalable_agent.environments import control_suite, extras
from scalable_agent.environments.gymnasium_suite import (
  MUJOCO as ENTRY_POINT,
)
from scalable_agent.environments.gymnasium_suite import (
  Gymnasium,
  GymnasiumOptions,
)
from scalable_agent.environments.suite import Level, Purpose


@dataclasses.dataclass(frozen=True)
class MujocoOptions(GymnasiumOptions):
  """MuJoCo."""


class Mujoco(Gymnasium):
  name = 'mujoco'
  help = 'HalfCheetah-v5 and its like, with the extra mujoco.'
  options = MujocoOptions
  # Found on HalfCheetah-v5.
  presets = control_suite.continuous_presets(discounting=0.97)

  def parse(self, level_name: str) -> Level | None:
    from scalable_agent.environments import gymnasium_registry

    entry_point = gymnasium_registry.entry_point(level_name)
    if not entry_point.startswith(ENTRY_POINT):
      return None
    extras.check('mujoco', level_name)
    return super().parse(level_name)

  def level_names(self) -> tuple[str, ...]:
    from scalable_agent.environments import gymnasium_registry

    return gymnasium_registry.ids((ENTRY_POINT,))

  def make(
    self, level: Level, num_envs: int, options: Any, seed: int, purpose: Purpose
  ):
    from scalable_agent.environments import gymnasium_vector, mujoco_factory

    return gymnasium_vector.GymnasiumEnvironment(
      level, num_envs, options, seed, purpose, mujoco_factory.MujocoFactory
    )


MUJOCO = Mujoco()
