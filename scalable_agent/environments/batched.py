"""E environments stepped as one, with the episode rules of the whole package.

A new kind of environment implements `_reset` and `_step`; the bookkeeping that
must not differ between kinds (step types, discounts, returns) is done here.
"""

import abc
import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tree

from scalable_agent import structures
from scalable_agent.environments.suite import Level


class Arrival(NamedTuple):
  """What one step of the environments gave, before any bookkeeping.

  Of an environment whose episode had ended at the step before, only the
  observation counts: it is the first one of the next episode.

  Attributes:
    observation: nest of [E, ...], never written to again by the environment.
    reward: [E] raw reward.
    terminated: [E] bool, the episode came to its natural end.
    truncated: [E] bool, the episode was cut off, e.g. by a time limit.
    life_lost: [E] bool or None, the future is worth nothing to the learner
      although the episode goes on.
  """

  observation: Any
  reward: np.ndarray
  terminated: np.ndarray
  truncated: np.ndarray
  life_lost: np.ndarray | None = None


class BatchedEnvironment(abc.ABC):
  """E environments of one level, stepped together by one thread.

  Arrays that `reset` and `step` return are never written to again. After LAST
  the next step ignores the action of that environment and gives FIRST.
  """

  def __init__(
    self,
    level: Level,
    num_envs: int,
    spec: structures.EnvironmentSpec,
    seed: int,
    render: bool = False,
  ):
    """Checks and keeps what all environments have.

    Args:
      level: the level, as from `parse_level`.
      num_envs: E.
      spec: shapes of one environment.
      seed: environment i is seeded with seed + i.
      render: whether `render` will be called.
    """
    self._state = 'new'
    self.level = level
    self.num_envs = num_envs
    self.spec = spec
    self._seed = seed
    self._render_enabled = render
    self._has_floats = any(
      one.dtype.kind == 'f' for one in tree.flatten(spec.observation)
    )
    self._ended = np.zeros([num_envs], bool)
    # Summed in double precision: a float32 loses unit rewards from 2^24 on.
    self._episode_return = np.zeros([num_envs], np.float64)
    self._episode_step = np.zeros([num_envs], np.int32)

  def reset(self) -> structures.StepOutput:
    """Starts every environment from its own seed; returns FIRST of [E, ...].

    Each call goes back to the same seeds, so it replays the same episodes.
    """
    self._check_usable(may_be_new=True)
    self._state = 'failed'
    with self._simulated():
      observation = self._reset()
    self._check_finite(observation)
    self._state = 'running'
    self._ended = np.zeros([self.num_envs], bool)
    self._episode_return = np.zeros([self.num_envs], np.float64)
    self._episode_step = np.zeros([self.num_envs], np.int32)
    return structures.StepOutput(
      step_type=np.full([self.num_envs], structures.FIRST, np.int32),
      reward=np.zeros([self.num_envs], np.float32),
      discount=np.ones([self.num_envs], np.float32),
      observation=observation,
      info=structures.EpisodeInfo(
        episode_return=np.zeros([self.num_envs], np.float32),
        episode_step=self._episode_step,
      ),
    )

  @contextlib.contextmanager
  def _simulated(self) -> Iterator[None]:
    """Of a simulator that exits, the program must not end as if all were well.

    Raises:
      RuntimeError: it has called sys.exit.
    """
    try:
      yield
    except SystemExit as error:
      raise RuntimeError(
        f'{self.level.name} has called sys.exit({error.code!r})'
      ) from error

  def step(self, actions: np.ndarray) -> structures.StepOutput:
    """Takes one agent step in every environment.

    Args:
      actions: [E, ...] of the action space; also those that will be ignored,
        because the episode has ended, must be in range.

    Returns:
      StepOutput of numpy [E, ...].
    """
    self._check_usable()
    actions = self._checked(actions)
    self._state = 'failed'
    with self._simulated():
      arrival = self._step(actions)
    self._check_finite(arrival.observation)
    self._state = 'running'

    first = self._ended
    going = ~first
    ended = (arrival.terminated | arrival.truncated) & going
    no_future = arrival.terminated
    if arrival.life_lost is not None:
      no_future = no_future | arrival.life_lost
    reward = arrival.reward.astype(np.float32)
    reward[first] = 0
    self._ended = ended
    self._episode_return += reward
    self._episode_return[first] = 0
    self._episode_step = self._episode_step + 1
    self._episode_step[first] = 0
    return structures.StepOutput(
      # FIRST is 0, MID 1 and LAST 2.
      step_type=np.add(going, ended, dtype=np.int32),
      reward=reward,
      discount=(~(no_future & going)).astype(np.float32),
      observation=arrival.observation,
      info=structures.EpisodeInfo(
        episode_return=self._episode_return.astype(np.float32),
        episode_step=self._episode_step,
      ),
    )

  def render(self) -> np.ndarray:
    """Returns what environment 0 looks like now: uint8 [height, width, 3]."""
    if not self._render_enabled:
      raise RuntimeError(
        f'{self.level.name} was made without render. Make it with '
        'Purpose(render=True) to record videos.'
      )
    self._check_usable()
    return self._render()

  def close(self) -> None:
    """Ends the environments and their processes; safe to call twice."""
    if self._state == 'closed':
      return
    healthy, self._state = self._state != 'failed', 'closed'
    self._close(healthy)

  def get_state(self) -> Any:
    """Returns a pickle-able state for `set_state`, where that is possible."""
    self._check_usable()
    return {
      'ended': self._ended.copy(),
      'episode_return': self._episode_return.copy(),
      'episode_step': self._episode_step.copy(),
      'environment': self._get_state(),
    }

  def set_state(self, state: Any) -> None:
    """Goes back to where `get_state` was called; needs no `reset` before."""
    self._check_usable(may_be_new=True)
    self._state = 'failed'
    self._set_state(state['environment'])
    self._ended = state['ended'].copy()
    self._episode_return = state['episode_return'].copy()
    self._episode_step = state['episode_step'].copy()
    self._state = 'running'

  @abc.abstractmethod
  def _reset(self) -> Any:
    """Seeds and resets all; returns observations, a nest of [E, ...]."""

  @abc.abstractmethod
  def _step(self, actions: np.ndarray) -> Arrival:
    """Steps all. `self._ended` tells which ones must start anew instead.

    Args:
      actions: [E, ...] as simulators take them, in range.
    """

  def _render(self) -> np.ndarray:
    raise NotImplementedError(f'{self.level.name} cannot be rendered.')

  def _close(self, healthy: bool) -> None:
    """Frees what needs freeing; `healthy` is False after an exception."""
    del healthy

  def _get_state(self) -> Any:
    raise NotImplementedError(
      f'{self.level.name} ({self.level.suite.name}) cannot save its state; '
      'after a restart its episodes begin anew.'
    )

  def _set_state(self, state: Any) -> None:
    raise NotImplementedError(
      f'{self.level.name} ({self.level.suite.name}) cannot restore a state.'
    )

  def _check_usable(self, may_be_new: bool = False) -> None:
    if self._state == 'running' or (may_be_new and self._state == 'new'):
      return
    reason = {
      'new': 'has not been reset: call reset() first.',
      'closed': 'is closed: make a new one.',
      'failed': 'has failed with an exception before: make a new one.',
    }[self._state]
    raise RuntimeError(f'The environment {self.level.name} {reason}')

  def _check_finite(self, observation: Any) -> None:
    """Raises ValueError where a policy would be no number, and say so late."""
    if not self._has_floats or all(
      part.dtype.kind != 'f' or np.isfinite(part).all()
      for part in tree.flatten(observation)
    ):
      return
    for path, part in tree.flatten_with_path(observation):
      if part.dtype.kind == 'f' and not np.isfinite(part).all():
        where = ''.join(f'[{key!r}]' for key in path)
        raise ValueError(
          f'{self.level.name} has given an observation{where} that is not '
          f'finite: {part[~np.isfinite(part)][0]}. Correct the environment, or '
          'wrap it.'
        )

  def _checked(self, actions: np.ndarray) -> np.ndarray:
    """Returns actions for the simulator; ALE waits for ever for a wrong one."""
    actions = np.asarray(actions)
    space = self.spec.action_space
    try:
      shape = (self.num_envs, *space.shape)
      if actions.shape != shape:
        raise ValueError(
          f'actions must have the shape {list(shape)}, not '
          f'{list(actions.shape)}'
        )
      space.check(actions)
    except ValueError as error:
      raise ValueError(f'{self.level.name}: {error}.') from error
    return space.to_environment(actions.astype(space.dtype))
