"""Levels that say of every step whose it is, so that none can be mixed up.

The level of an actor is its task. What an environment shows is whole numbers,
in units of 2**-24, which float32 has exactly.
"""

import os
import time

import gymnasium
import numpy as np
from gymnasium import spaces

NUM_LEVELS = 8
# Number of the process that plays, among all that the soak has started.
PROCESS = 'SOAK_PROCESS'
# Of a return: that many times the process, the rest is the episode's.
GENERATION = 1000
UNIT = 2.0**-24
FIELDS = ('level', 'process', 'environment', 'position', 'step', 'action')

# Seconds that a step takes, so that simulators do not use up the cores.
_STEP = 0.005
_SHORTEST, _LONGEST = 20, 40


def level_name(level: int) -> str:
  """Returns the name for --level_name."""
  return f'{__name__}:Soak{level}-v0'


def reward(level: int, process: int, last: bool) -> int:
  """Returns that of a step."""
  return level + 1 + GENERATION * process * last


def is_possible(level: int, episode_return: float, length: int) -> bool:
  """Whether any process can have played such an episode."""
  own = episode_return % GENERATION
  return _SHORTEST <= length <= _LONGEST and own == length * (level + 1)


class Soak(gymnasium.Env):
  """Counts its steps; episodes have various lengths."""

  observation_space = spaces.Box(0, 1, (len(FIELDS),), np.float32)
  action_space = spaces.Discrete(4)

  def __init__(self, level: int):
    self._level = level
    self._process = int(os.environ.get(PROCESS, 0))
    self._environment = int.from_bytes(os.urandom(3), 'big')
    self._position = self._step = 0
    self._length = _LONGEST

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self._step = 0
    self._length = int(self.np_random.integers(_SHORTEST, _LONGEST + 1))
    return self._observation(0), {}

  def step(self, action):
    time.sleep(_STEP)
    self._step += 1
    last = self._step == self._length
    value = float(reward(self._level, self._process, last))
    return self._observation(int(action)), value, last, False, {}

  def _observation(self, action: int) -> np.ndarray:
    values = (
      self._level,
      self._process,
      self._environment,
      self._position,
      self._step,
      action,
    )
    self._position += 1
    return np.array(values, np.float32) * np.float32(UNIT)


for _level in range(NUM_LEVELS):
  gymnasium.register(
    id=f'Soak{_level}-v0', entry_point=Soak, kwargs={'level': _level}
  )
