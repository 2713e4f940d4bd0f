"""The suite of MuJoCo in Gymnasium: declarations only; see `mujoco_factory`.

https://gymnasium.farama.org/environments/mujoco
"""

import dataclasses

from scalable_agent.environments import control_suite, extras
from scalable_agent.environments.gymnasium_suite import (
  MUJOCO as ENTRY_POINT,
)
from scalable_agent.environments.gymnasium_suite import (
  Gymnasium,
  GymnasiumOptions,
)
from scalable_agent.environments.suite import Level


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

  def factory(self):
    from scalable_agent.environments import mujoco_factory

    return mujoco_factory.MujocoFactory


MUJOCO = Mujoco()
