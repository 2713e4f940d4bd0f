"""An environment in which every number tells when it happened.

The observation of environment i at column t is [100 * i + t] and its reward is
the same number (0 at FIRST), so any error in time or column is another integer.
Columns count from 0 at `reset` and go on through the ends of episodes.
"""

from typing import Any

import numpy as np

from scalable_agent import action_spaces, environments, structures
from scalable_agent.environments import batched

LEVEL = environments.Level(environments.Suite(), 'clockwork')
STRIDE = 100


class ClockworkEnvironment(batched.BatchedEnvironment):
  """E clocks with staggered episodes.

  Episodes of environment i take `episode_steps` + i steps (`episode_steps` for
  all with `staggered=False`). Its episode k ends by termination if i + k is
  even, else by truncation.

  Attributes:
    actions: actions received so far, a list of [E] int32; `actions[t]` led
      from column t to column t + 1.
    column: the column of the latest output.
  """

  def __init__(
    self,
    num_envs: int = 3,
    episode_steps: int = 4,
    staggered: bool = True,
    num_actions: int = 5,
    frames_per_step: int = 1,
    life_losses: frozenset[int] = frozenset(),
  ):
    """Makes the clocks.

    Args:
      num_envs: E.
      episode_steps: steps of an episode of environment 0.
      staggered: whether every environment has a length of its own.
      num_actions: A.
      frames_per_step: as in the spec.
      life_losses: columns at which all environments lose a life.
    """
    spec = structures.EnvironmentSpec(
      observation=structures.TensorSpec((1,), np.dtype(np.float32)),
      action_space=action_spaces.Discrete(num_actions),
      frames_per_step=frames_per_step,
    )
    super().__init__(LEVEL, num_envs, spec, seed=0)
    self._envs = np.arange(num_envs)
    self._lengths = episode_steps + (
      self._envs if staggered else 0 * self._envs
    )
    self._life_losses = life_losses
    self._start()

  def _start(self) -> None:
    self.column = 0
    self.actions: list[np.ndarray] = []
    self._step_of_episode = np.zeros([self.num_envs], np.int32)
    self._episode = np.zeros([self.num_envs], np.int32)

  def _numbers(self) -> np.ndarray:
    return (STRIDE * self._envs + self.column).astype(np.float32)

  def _reset(self) -> np.ndarray:
    self._start()
    return self._numbers()[:, None]

  def _step(self, actions: np.ndarray) -> batched.Arrival:
    self.column += 1
    self.actions.append(actions)
    self._episode = self._episode + self._ended
    self._step_of_episode = np.where(self._ended, 0, self._step_of_episode + 1)
    over = self._step_of_episode == self._lengths
    terminates = (self._envs + self._episode) % 2 == 0
    return batched.Arrival(
      observation=self._numbers()[:, None],
      reward=self._numbers(),
      terminated=over & terminates,
      truncated=over & ~terminates,
      life_lost=np.full([self.num_envs], self.column in self._life_losses),
    )

  def _get_state(self) -> Any:
    return {
      'column': self.column,
      'actions': list(self.actions),
      'step_of_episode': self._step_of_episode,
      'episode': self._episode,
    }

  def _set_state(self, state: Any) -> None:
    self.column = state['column']
    self.actions = list(state['actions'])
    self._step_of_episode = state['step_of_episode']
    self._episode = state['episode']
