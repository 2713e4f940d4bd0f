"""Catch as uint8 images on a ground of one grey.

Importing this module registers `PixelCatch-<ground>-v0` for all `GROUNDS`.
"""

import gymnasium
import numpy as np
from gymnasium import spaces

from scalable_agent.environments.catch import COLUMNS, ROWS

# The ground's grey and that of ball and paddle. What moves is small and pale,
# as in games, so that a ground that is not taken out hides it.
GROUNDS = {'black': (0, 150), 'grey': (110, 200), 'white': (255, 150)}
# Pixels, of which a quarter are filled.
_CELL = 4


class PixelCatch(gymnasium.Env):
  """Actions are left, stay and right; reward 1 for a catch, else -1."""

  observation_space = spaces.Box(
    0, 255, (ROWS * _CELL, COLUMNS * _CELL, 1), np.uint8
  )
  action_space = spaces.Discrete(3)

  def __init__(self, ground: int, ink: int):
    self._ground, self._ink = ground, ink
    self._row = self._column = self._paddle = 0

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self._row, self._paddle = 0, COLUMNS // 2
    self._column = int(self.np_random.integers(COLUMNS))
    return self._image(), {}

  def step(self, action):
    self._paddle = min(max(self._paddle + int(action) - 1, 0), COLUMNS - 1)
    self._row += 1
    landed = self._row == ROWS - 1
    caught = 1.0 if self._paddle == self._column else -1.0
    return self._image(), caught if landed else 0.0, landed, False, {}

  def _image(self):
    image = np.full(self.observation_space.shape, self._ground, np.uint8)
    for row, column in (self._row, self._column), (ROWS - 1, self._paddle):
      top, left = row * _CELL + _CELL // 2, column * _CELL + _CELL // 2
      image[top : top + _CELL // 2, left : left + _CELL // 2] = self._ink
    return image


def level_name(ground: str) -> str:
  """Returns the --level_name of Catch on a ground."""
  return f'{__name__}:PixelCatch-{ground}-v0'


for _name, (_ground, _ink) in GROUNDS.items():
  gymnasium.register(
    f'PixelCatch-{_name}-v0',
    PixelCatch,
    kwargs={'ground': _ground, 'ink': _ink},
  )
