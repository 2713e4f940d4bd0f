"""The suite of ViZDoom: declarations only; see `vizdoom_factory`.

https://vizdoom.farama.org
"""

import dataclasses
import importlib
from typing import Any

from scalable_agent.environments import atari_suite, extras
from scalable_agent.environments.gymnasium_suite import (
  Gymnasium,
  GymnasiumOptions,
)
from scalable_agent.environments.presets import make_presets
from scalable_agent.environments.suite import Level, Purpose
from scalable_agent.options import FrameOptions

_MODULE = 'vizdoom.gymnasium_wrapper'

# As for Atari, of whose games these are like the most.
_PRESETS = make_presets(
  {
    **atari_suite.SCREENS,
    'total_environment_frames': 5e6,
    # A monster is worth 100, a frame costs 1: clipped, they would be equal.
    'reward_clipping': 'none',
    'reward_scale': 0.01,
    'entropy_cost': 0.003,
  },
  **atari_suite.OF_ALGORITHMS,
)


@dataclasses.dataclass(frozen=True)
class VizDoomOptions(FrameOptions, GymnasiumOptions):
  """ViZDoom."""


class VizDoom(Gymnasium):
  name = 'vizdoom'
  help = (
    'ViZDoom ids (VizdoomBasic-v1, VizdoomHealthGathering-v1), with the extra '
    'vizdoom.'
  )
  options = VizDoomOptions
  presets = _PRESETS
  defaults = {  # noqa: RUF012
    'height': 72,
    'width': 96,
    'num_action_repeats': 4,
  }
  # Of the engine.
  fps = 35
  frees_the_interpreter = True

  def parse(self, level_name: str) -> Level | None:
    if not level_name.startswith('Vizdoom'):
      return None
    extras.check('vizdoom', level_name)
    importlib.import_module(_MODULE)
    return super().parse(level_name)

  def level_names(self) -> tuple[str, ...]:
    if not extras.is_installed('vizdoom'):
      return ()
    importlib.import_module(_MODULE)
    from scalable_agent.environments import gymnasium_registry

    return gymnasium_registry.ids(('vizdoom',))

  def make(
    self, level: Level, num_envs: int, options: Any, seed: int, purpose: Purpose
  ):
    # Games that begin at one moment in several processes crash now and then.
    if options.env_processes:
      raise ValueError(
        f'--env_processes={options.env_processes} is not for ViZDoom '
        f'({level.name}), whose games are processes already. Leave it out.'
      )
    return super().make(level, num_envs, options, seed, purpose)

  def factory(self):
    from scalable_agent.environments import vizdoom_factory

    return vizdoom_factory.VizDoomFactory


VIZDOOM = VizDoom()
