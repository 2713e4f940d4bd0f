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
# Balls that an environment's generator draws at once: one by one, they took
# most of the time of a step.
_BALLS = 256


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
    # Where in all boards together each begins.
    self._begins = np.arange(num_envs) * ROWS * COLUMNS
    self._never = np.zeros([num_envs], bool)
    self._generators = self._seeded_generators()
    # Columns that balls fall in, of each environment, and how many have.
    self._balls = np.zeros([num_envs, _BALLS], np.int64)
    self._dropped = np.zeros([num_envs], np.int64)
    self._ball_row = np.zeros([num_envs], np.int64)
    self._ball_column = np.zeros([num_envs], np.int64)
    self._paddle = np.zeros([num_envs], np.int64)

  def _seeded_generators(self) -> list[np.random.Generator]:
    return [np.random.default_rng(self._seed + i) for i in range(self.num_envs)]

  def _reset(self) -> np.ndarray:
    self._generators = self._seeded_generators()
    self._dropped[:] = 0
    self._drop_balls(~self._never)
    return self._board()

  def _step(self, actions: np.ndarray) -> batched.Arrival:
    self._paddle = (self._paddle + actions - 1).clip(0, COLUMNS - 1)
    self._ball_row += 1
    if self._ended.any():
      self._drop_balls(self._ended)
    landed = self._ball_row == ROWS - 1
    caught = np.where(self._paddle == self._ball_column, 1.0, -1.0)
    return batched.Arrival(
      observation=self._board(),
      reward=np.where(landed, caught, 0.0),
      terminated=landed,
      truncated=self._never,
    )

  def _drop_balls(self, where: np.ndarray) -> None:
    envs = np.flatnonzero(where)
    places = self._dropped[envs] % _BALLS
    for i in envs[places == 0]:
      self._balls[i] = self._generators[i].integers(COLUMNS, size=_BALLS)
    self._dropped[envs] += 1
    self._ball_column[envs] = self._balls[envs, places]
    self._ball_row[envs] = 0
    self._paddle[envs] = COLUMNS // 2

  def _board(self) -> np.ndarray:
    boards = np.zeros([self.num_envs * ROWS * COLUMNS], np.float32)
    seen = 1.0 if not self._hidden else self._ball_row == 0
    rows = self._begins + self._ball_row * COLUMNS
    boards[rows + self._ball_column] = seen
    boards[self._begins + (ROWS - 1) * COLUMNS + self._paddle] = 1.0
    return boards.reshape([self.num_envs, ROWS * COLUMNS])

  def _render(self) -> np.ndarray:
    image = np.zeros([ROWS, COLUMNS, 3], np.uint8)
    # The ball is drawn in catch_hidden as well: videos are for people.
    image[self._ball_row[0], self._ball_column[0]] = (255, 160, 0)
    image[ROWS - 1, self._paddle[0]] += np.array([0, 95, 255], np.uint8)
    return image.repeat(_PIXELS, axis=0).repeat(_PIXELS, axis=1)

  def _get_state(self) -> Any:
    return {
      'generators': [g.bit_generator.state for g in self._generators],
      'balls': self._balls.copy(),
      'dropped': self._dropped.copy(),
      'ball_row': self._ball_row.copy(),
      'ball_column': self._ball_column.copy(),
      'paddle': self._paddle.copy(),
    }

  def _set_state(self, state: Any) -> None:
    for generator, saved in zip(
      self._generators, state['generators'], strict=True
    ):
      generator.bit_generator.state = saved
    # Not in the checkpoints of earlier versions, which drew balls one by one:
    # the next one is the generators' next.
    self._balls = state.get('balls', self._balls).copy()
    self._dropped = state.get('dropped', np.zeros_like(self._dropped)).copy()
    self._ball_row = state['ball_row'].copy()
    self._ball_column = state['ball_column'].copy()
    self._paddle = state['paddle'].copy()
