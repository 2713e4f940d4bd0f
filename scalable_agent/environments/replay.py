"""Saves the state of emulators that cannot: by the actions that led there.

Now and then an environment starts its next episode from a new seed. This seed
and the actions since then are its state: they are played again.
"""

import abc
from typing import Any

import numpy as np
import tree
from absl import logging

from scalable_agent import structures
from scalable_agent.environments import batched
from scalable_agent.environments.suite import TEST_SEEDS, Level

# Seeds are signed 32 bits in ALE, where a negative one means none.
_SEED_BITS = 31

# Agent steps from one seed to the next, and on to the end of the episode. To
# seed ALE takes it as long as 250 steps, because it loads the game anew; with
# fewer steps here, short games would take twice their time. With more, so
# would the start of a resumed run.
STEPS_PER_SEED = 2000


def derived_seed(seed: int, index: int) -> int:
  """Returns a seed in [0, TEST_SEEDS).

  Args:
    seed: of the environment.
    index: how many times the environment was given a seed before.
  """
  # Hashed: with sums, environments of neighbouring seeds would play each
  # other's episodes.
  word = np.random.SeedSequence([seed, index]).generate_state(1)[0]
  derived = int(word) >> (32 - _SEED_BITS)
  if derived >= TEST_SEEDS:
    derived -= 2**_SEED_BITS - TEST_SEEDS
  return derived


class ReplayedEnvironment(batched.BatchedEnvironment):
  """A BatchedEnvironment whose state is a seed and actions, if `replayable`.

  The simulators must reset themselves at the step after the end of an episode,
  and what follows a seeded start must depend on nothing but the seed and the
  actions. A kind of environment implements `_start` and `_advance`.
  """

  def __init__(
    self,
    level: Level,
    num_envs: int,
    spec: structures.EnvironmentSpec,
    seed: int,
    *,
    render: bool,
    replayable: bool,
  ):
    """See `BatchedEnvironment`.

    Args:
      level: the level.
      num_envs: E.
      spec: shapes of one environment.
      seed: environment i is seeded with seed + i.
      render: whether `render` will be called.
      replayable: whether `get_state` will be called.
    """
    super().__init__(level, num_envs, spec, seed, render)
    self._replayable = replayable
    self._everywhere = np.ones([num_envs], bool)
    # How many seeds each environment had before, and its actions since then.
    self._index = np.zeros([num_envs], np.int64)
    self._actions: list[list[Any]] = [[] for _ in range(num_envs)]
    self._observation: Any = None

  @abc.abstractmethod
  def _start(self, seeds: np.ndarray, where: np.ndarray) -> Any:
    """Starts episodes from seeds, wherever the simulators are.

    Args:
      seeds: [E] int64.
      where: [E] bool, the environments to start; the others stay as they are,
        also those whose episode has ended.

    Returns:
      Nest of observations [E, ...]; only those of the started count.
    """

  @abc.abstractmethod
  def _advance(self, actions: np.ndarray) -> batched.Arrival:
    """Steps all; one whose episode had ended starts anew on its own."""

  def _reset(self) -> Any:
    if not self._replayable:
      seeds = self._seed + np.arange(self.num_envs)
      return self._start(seeds, self._everywhere)
    self._index = np.zeros([self.num_envs], np.int64)
    self._actions = [[] for _ in range(self.num_envs)]
    self._observation = self._start(self._seeds(), self._everywhere)
    return self._observation

  def _step(self, actions: np.ndarray) -> batched.Arrival:
    arrival = self._advance(actions)
    if not self._replayable:
      return arrival
    seeded = np.zeros([self.num_envs], bool)
    for i, action in enumerate(actions.tolist()):
      seeded[i] = self._ended[i] and len(self._actions[i]) >= STEPS_PER_SEED
      if seeded[i]:
        self._actions[i] = []
      else:
        # Also one that is ignored: it takes its step in the replay.
        self._actions[i].append(action)
    self._index = self._index + seeded
    self._observation = self._started(arrival.observation, seeded)
    return arrival._replace(observation=self._observation)

  def _started(self, observation: Any, where: np.ndarray) -> Any:
    """Starts episodes `where`; returns all observations after that."""
    if not where.any():
      return observation
    started = self._start(self._seeds(), where)

    def mix(old, new):
      return np.where(where.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return tree.map_structure(mix, observation, started)

  def _seeds(self) -> np.ndarray:
    return np.array(
      [derived_seed(self._seed + i, int(k)) for i, k in enumerate(self._index)],
      np.int64,
    )

  def _get_state(self) -> Any:
    if not self._replayable:
      raise NotImplementedError(
        f'{self.level.name} ({self.level.suite.name}) cannot save its state. '
        'Make it with replayable=True to have its actions saved and '
        'replayed instead.'
      )
    return {
      'seed': self._seed,
      'index': self._index.copy(),
      'actions': [self._as_array(actions) for actions in self._actions],
      'observation': self._observation,
    }

  def _set_state(self, state: Any) -> None:
    if not self._replayable:
      raise NotImplementedError(
        f'{self.level.name} ({self.level.suite.name}) cannot restore a state. '
        'Make it with replayable=True.'
      )
    if len(state['actions']) != self.num_envs:
      raise ValueError(
        f'The state is one of {len(state["actions"])} environments of '
        f'{self.level.name}, not of {self.num_envs}.'
      )
    for actions in state['actions']:
      try:
        # ALE would wait for ever for a wrong one.
        self.spec.action_space.check(actions)
      except ValueError as error:
        raise ValueError(
          f'The state of {self.level.name} was saved with other options, e.g. '
          f'full_action_space: {error}.'
        ) from error
    self._seed = int(state['seed'])
    self._index = state['index'].copy()
    self._actions = [actions.tolist() for actions in state['actions']]
    self._observation = self._replay()
    self._warn_of_differences(state['observation'])

  def _as_array(self, actions: list[Any]) -> np.ndarray:
    space = self.spec.action_space
    return np.array(actions, space.dtype).reshape(-1, *space.shape)

  def _replay(self) -> Any:
    """Plays the recorded actions; returns the observations at the end.

    All arrive together. Whoever has fewer steps to go plays anything until its
    start is due: the simulators step together or not at all.
    """
    lengths = np.array([len(actions) for actions in self._actions])
    due = lengths.max() - lengths
    space = self.spec.action_space
    schedule = np.zeros(
      [lengths.max(), self.num_envs, *space.shape], space.dtype
    )
    for i, actions in enumerate(self._actions):
      schedule[due[i] :, i] = self._as_array(actions)
    observation = self._start(self._seeds(), self._everywhere)
    for step, actions in enumerate(schedule, start=1):
      observation = self._advance(actions).observation
      observation = self._started(observation, due == step)
    return observation

  def _warn_of_differences(self, saved: Any) -> None:
    now_and_then = list(
      zip(tree.flatten(self._observation), tree.flatten(saved), strict=True)
    )
    different = [
      i
      for i in range(self.num_envs)
      if any(
        now[i].tobytes() != then[i].tobytes() for now, then in now_and_then
      )
    ]
    if different:
      logging.warning(
        'The replayed episodes of %s ended elsewhere than those that were '
        'saved (environments %s): it was made with other options or another '
        'version, or its episodes depend on more than their seed. The run '
        'goes on, but not as it would have without the restart.',
        self.level.name,
        different,
      )
