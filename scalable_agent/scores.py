"""Recent returns of a run's levels, and the best they have been."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

RECENT_EPISODES = 100
# The mean of fewer episodes is luck: it must not mark a best agent.
MINIMUM_EPISODES = 20


class Scores:
  """The latest returns of each level; not thread-safe.

  Attributes:
    best: the greatest `score` so far; None without one.
  """

  def __init__(self, levels: Sequence[str]):
    """Initialises.

    Args:
      levels: names of the run's levels.
    """
    self._returns: dict[str, collections.deque[float]] = {
      level: collections.deque(maxlen=RECENT_EPISODES) for level in levels
    }
    self.best: float | None = None

  def add(self, level: str, episode_return: float) -> None:
    """Adds one finished episode."""
    self._returns[level].append(episode_return)
    score = self.score
    if score is not None and (self.best is None or score > self.best):
      self.best = score

  @property
  def means(self) -> dict[str, float]:
    """Mean return of the last 100 episodes of each level that has any."""
    return {
      level: float(np.mean(returns))
      for level, returns in self._returns.items()
      if returns
    }

  @property
  def mean(self) -> float | None:
    """Mean over levels of `means`; None without an episode."""
    means = self.means
    return float(np.mean(list(means.values()))) if means else None

  @property
  def score(self) -> float | None:
    """`mean` once every level has 20 episodes, else None."""
    if min(map(len, self._returns.values())) < MINIMUM_EPISODES:
      return None
    return self.mean

  def get_state(self) -> dict[str, Any]:
    """Returns everything as JSON-able data."""
    returns = {level: list(values) for level, values in self._returns.items()}
    return {'best': self.best, 'returns': returns}

  def set_state(self, state: Mapping[str, Any]) -> None:
    """Continues from what `get_state` returned; unknown levels are dropped."""
    self.best = state['best']
    for level, returns in self._returns.items():
      returns.clear()
      returns.extend(state['returns'].get(level, ()))
