"""Recent returns of a run's levels."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

RECENT_EPISODES = 100
# The mean of fewer episodes is luck: it must not mark a best agent.
MINIMUM_EPISODES = 20


class Scores:
  """The latest returns of each level; not thread-safe."""

  def __init__(self, levels: Sequence[str]):
    """Initialises.

    Args:
      levels: names of the run's levels.
    """
    self._returns: dict[str, collections.deque[float]] = {
      level: collections.deque(maxlen=RECENT_EPISODES) for level in levels
    }

  def add(self, level: str, episode_return: float) -> None:
    """Adds one finished episode."""
    self._returns[level].append(episode_return)

  @property
  def mean(self) -> float | None:
    """Mean return of the last 100 episodes, averaged over levels.

    Levels without an episode are left out; None if there is no other.
    """
    means = [np.mean(returns) for returns in self._returns.values() if returns]
    return float(np.mean(means)) if means else None

  @property
  def score(self) -> float | None:
    """`mean` once every level has 20 episodes, else None."""
    if min(map(len, self._returns.values())) < MINIMUM_EPISODES:
      return None
    return self.mean

  def get_state(self) -> dict[str, Any]:
    """Returns everything as JSON-able data."""
    returns = {level: list(values) for level, values in self._returns.items()}
    return {'returns': returns}

  def set_state(self, state: Mapping[str, Any]) -> None:
    """Continues from what `get_state` returned; unknown levels are dropped."""
    for level, returns in self._returns.items():
      returns.clear()
      returns.extend(state['returns'].get(level, ()))
