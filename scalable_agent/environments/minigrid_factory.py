"""What the agent sees of MiniGrid: names of things, not colours of pixels."""

import gymnasium
import numpy as np
from gymnasium import spaces
from minigrid.core import constants
from minigrid.envs.babyai.core import roomgrid_level

from scalable_agent.environments import gymnasium_registry

# An object, its colour and its state make a cell.
_NUM_NAMES = 1 + max(
  max(names.values())
  for names in (
    constants.OBJECT_TO_IDX,
    constants.COLOR_TO_IDX,
    constants.STATE_TO_IDX,
  )
)

# It would tell the console of every draw that it rejects, thousands of them.
roomgrid_level.print = lambda *_: None


class MiniGridFactory(gymnasium_registry.Factory):
  """Makes an environment whose spaces say what its numbers are."""

  def make(self, **arguments: str) -> gymnasium.Env:
    environment = super().make(**arguments)
    space = environment.observation_space
    if isinstance(space, spaces.Dict):
      environment.observation_space = spaces.Dict(
        {key: _meant(key, part) for key, part in space.spaces.items()}
      )
    return environment


def _meant(key: str, space: spaces.Space) -> spaces.Space:
  if key == 'mission':
    # A kind of space of its own, which only its author knows.
    return spaces.Text(1)
  if key == 'image':
    return spaces.MultiDiscrete(np.full(space.shape, _NUM_NAMES))
  return space
