"""Catch: a ball falls, a paddle must be under it. Learnable in a minute.

The board is that of bsuite (Osband et al., 2019): 10 rows, 5 columns. In
`catch_hidden` the ball is seen in the top row only, so whoever has no memory
catches at most three balls of five: all it keeps is where its first move put
the paddle.
"""

from typing import Any

import numpy as np

from scalable_agent import action_spaces, structures
from scalable_agent.environments import batched
from scalable_agent.environments.suite import Level

ROWS = 10
COLUMNS = 5
EPISODE_STEPS = ROWS - 1
_PIXELS = 16


class CatchEnvironment(batched.BatchedEnvironment):
  """E games of Catch; actions are left, stay and right.

  Observations are float32 [50], the board row by row with ones at the ball and
  the paddle. The last step gives reward 1 for a catch, else -1.
  """

  def __init__(
    self, level: Level, num_envs: int, seed: int, render: bool = False
  ):
    """See `BatchedEnvironment`."""
    board = structures.TensorSpec((ROWS * COLUMNS,), np.dtype(np.float32))
    spec = structures.EnvironmentSpec(
      observation=board,
      action_space=action_spaces.Discrete(3),
      frames_per_step=1,
      action_meanings=('LEFT', 'STAY', 'RIGHT'),
    )
    super().__init__(level, num_envs, spec, seed, render)
    self._hidden = level.name == 'catch_hidden'
    self._envs = np.arange(num_envs)
    self._generators = self._seeded_generators()
    self._ball_row = np.zeros([num_envs], np.int32)
    self._ball_column = np.zeros([num_envs], np.int32)
    self._paddle = np.zeros([num_envs], np.int32)

  def _seeded_generators(self) -> list[np.random.Generator]:
    return [np.random.default_rng(self._seed + int(i)) for i in self._envs]

  def _reset(self) -> np.ndarray:
    self._generators = self._seeded_generators()
    self._drop_balls(np.ones([self.num_envs], bool))
    return self._board()

  def _step(self, actions: np.ndarray) -> batched.Arrival:
    self._paddle = np.clip(self._paddle + actions - 1, 0, COLUMNS - 1)
    self._ball_row = self._ball_row + 1
    self._drop_balls(self._ended)
    landed = self._ball_row == ROWS - 1
    caught = np.where(self._paddle == self._ball_column, 1.0, -1.0)
    return batched.Arrival(
      observation=self._board(),
      reward=np.where(landed, caught, 0.0),
      terminated=landed,
      truncated=np.zeros_like(landed),
    )

  def _drop_balls(self, where: np.ndarray) -> None:
    for i in np.flatnonzero(where):
      self._ball_column[i] = self._generators[i].integers(COLUMNS)
    self._ball_row = np.where(where, 0, self._ball_row)
    self._paddle = np.where(where, COLUMNS // 2, self._paddle)

  def _board(self) -> np.ndarray:
    board = np.zeros([self.num_envs, ROWS, COLUMNS], np.float32)
    seen = 1.0 if not self._hidden else self._ball_row == 0
    board[self._envs, self._ball_row, self._ball_column] = seen
    board[self._envs, ROWS - 1, self._paddle] = 1.0
    return board.reshape([self.num_envs, ROWS * COLUMNS])

  def _render(self) -> np.ndarray:
    image = np.zeros([ROWS, COLUMNS, 3], np.uint8)
    # The ball is drawn in catch_hidden as well: videos are for people.
    image[self._ball_row[0], self._ball_column[0]] = (255, 160, 0)
    image[ROWS - 1, self._paddle[0]] += np.array([0, 95, 255], np.uint8)
    return image.repeat(_PIXELS, axis=0).repeat(_PIXELS, axis=1)

  def _get_state(self) -> Any:
    return {
      'generators': [g.bit_generator.state for g in self._generators],
      'ball_row': self._ball_row.copy(),
      'ball_column': self._ball_column.copy(),
      'paddle': self._paddle.copy(),
    }

  def _set_state(self, state: Any) -> None:
    for generator, saved in zip(
      self._generators, state['generators'], strict=True
    ):
      generator.bit_generator.state = saved
    self._ball_row = state['ball_row'].copy()
    self._ball_column = state['ball_column'].copy()
    self._paddle = state['paddle'].copy()
