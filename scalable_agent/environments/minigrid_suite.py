"""The suite of MiniGrid and BabyAI: declarations only; see `minigrid_factory`.

https://minigrid.farama.org
"""

import dataclasses
import importlib
import re

from scalable_agent.environments import extras
from scalable_agent.environments.gymnasium_suite import (
  Gymnasium,
  GymnasiumOptions,
)
from scalable_agent.environments.presets import make_presets
from scalable_agent.environments.suite import Level

# Words of the longest mission of BabyAI's grammar: four times "put the grey
# ball in front of you next to the grey box in front of you", two "and", and
# "after you" in the middle.
LONGEST_MISSION = 4 * 17 + 2 + 2
LONG_MISSIONS = re.compile(r'BabyAI-(Mini)?Boss|BabyAI-SynthSeq')

_PRESETS = make_presets(
  {
    'total_environment_frames': 1e6,
    'num_actors': 2,
    'envs_per_actor': 16,
    # Rewards are few, at the end of an episode.
    'entropy_cost': 0.01,
    'optimizer': 'adam',
    'learning_rate': 1e-3,
    'epsilon': 1e-5,
  },
  impala={'batch_size': 16, 'lambda_': 0.95},
  advantage={
    'unroll_length': 20,
    'discounting': 0.99,
    'gae_lambda': 0.95,
    'clip_gradient_norm': 40.0,
  },
  ga3c={},
)


@dataclasses.dataclass(frozen=True)
class MiniGridOptions(GymnasiumOptions):
  """MiniGrid."""


class MiniGrid(Gymnasium):
  name = 'minigrid'
  help = (
    'MiniGrid and BabyAI (MiniGrid-Empty-5x5-v0, BabyAI-GoToObj-v0), with the '
    'extra minigrid.'
  )
  options = MiniGridOptions
  presets = _PRESETS
  # Of the longest mission of all other levels.
  defaults = {'instruction_length': 24}  # noqa: RUF012
  fps = 10

  def parse(self, level_name: str) -> Level | None:
    env_id = level_name.rpartition(':')[2]
    if not env_id.startswith(('MiniGrid-', 'BabyAI-')):
      return None
    extras.check('minigrid', level_name)
    importlib.import_module('minigrid')
    level = super().parse(level_name)
    if level is not None and LONG_MISSIONS.match(env_id):
      return level._replace(options={'instruction_length': LONGEST_MISSION})
    return level

  def level_names(self) -> tuple[str, ...]:
    if not extras.is_installed('minigrid'):
      return ()
    importlib.import_module('minigrid')
    from scalable_agent.environments import gymnasium_registry

    return gymnasium_registry.ids(('minigrid',))

  def factory(self):
    from scalable_agent.environments import minigrid_factory

    return minigrid_factory.MiniGridFactory


MINIGRID = MiniGrid()
