"""Recent returns of a run's levels, and what they are worth together."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scalable_agent import environments

RECENT_EPISODES = 100
# The mean of fewer episodes is luck: it must not mark a best agent.
MINIMUM_EPISODES = 20
# Episodes of a level that wait for those of all others.
_MOST_UNTOLD = 1000
WITHOUT_SCORES = environments.Suite()
# Levels that `describe` names.
_SHOWN = 4


class Scores:
  """The latest returns of each level; not thread-safe.

  Points of two games have nothing in common. Levels are put together by their
  human-normalised scores where all of them have such, and not at all elsewhere.

  Attributes:
    measure: of `score`, 'return' or 'human_normalized_median'.
  """

  def __init__(
    self,
    levels: Sequence[str],
    suite: environments.Suite = WITHOUT_SCORES,
  ):
    """Initialises.

    Args:
      levels: names of the run's levels.
      suite: that they are of.
    """
    self._suite = suite
    self._returns: dict[str, collections.deque[float]] = {
      level: collections.deque(maxlen=RECENT_EPISODES) for level in levels
    }
    # Since the suite's own scores were told.
    self._untold: dict[str, collections.deque[float]] = {
      level: collections.deque(maxlen=_MOST_UNTOLD) for level in levels
    }
    self._normalizable = all(
      suite.human_normalized_score(level, 0.0) is not None for level in levels
    )
    self.measure = (
      'return' if len(self._returns) == 1 else 'human_normalized_median'
    )

  def add(self, level: str, episode_return: float) -> None:
    """Adds one finished episode."""
    self._returns[level].append(episode_return)
    self._untold[level].append(episode_return)

  @property
  def means(self) -> dict[str, float]:
    """Mean return of the last 100 episodes, by level that has had any."""
    return {
      level: float(np.mean(returns))
      for level, returns in self._returns.items()
      if returns
    }

  @property
  def human_normalized(self) -> list[float]:
    """Scores in percent of the levels that have had an episode.

    Empty if not all levels of the run have human and random scores.
    """
    if not self._normalizable:
      return []
    scores = (
      self._suite.human_normalized_score(level, mean)
      for level, mean in self.means.items()
    )
    return [score for score in scores if score is not None]

  @property
  def score(self) -> float | None:
    """What the best agent is the best in; None while it is not known.

    Of one level its mean return; of several the median of their
    human-normalised scores. None before every level has 20 episodes, and if
    some of several levels have no human score.
    """
    if min(map(len, self._returns.values())) < MINIMUM_EPISODES:
      return None
    if len(self._returns) == 1:
      return next(iter(self.means.values()))
    scores = self.human_normalized
    return float(np.median(scores)) if scores else None

  def describe(self) -> str | None:
    """Returns the recent returns in a few words; None without any."""
    means = self.means
    if not means:
      return None
    if len(self._returns) == 1:
      (level,) = means
      recent = len(self._returns[level])
      return f'return {means[level]:.2f} (last {recent} episodes)'
    scores = self.human_normalized
    if scores:
      of = f'{len(scores)} levels'
      if len(scores) < len(self._returns):
        of = f'{len(scores)} of {len(self._returns)} levels'
      return f'human-normalised {np.median(scores):.1f}% (median of {of})'
    shown = [f'{level} {mean:.2f}' for level, mean in means.items()][:_SHOWN]
    more = len(means) - len(shown)
    return f'returns {", ".join(shown)}{f" and {more} more" if more else ""}'

  def summaries(self) -> dict[str, float]:
    """Returns scores over several levels by their TensorBoard tag.

    Median and mean once every level has had an episode; those of a suite of its
    own over all episodes since they were returned before, as in 2018.
    """
    values: dict[str, float] = {}
    scores = self.human_normalized
    if len(scores) == len(self._returns) > 1:
      values['human_normalized/median'] = float(np.median(scores))
      values['human_normalized/mean'] = float(np.mean(scores))
    own = self._suite.training_scores(self._untold)
    if own is not None:
      values |= own
      for returns in self._untold.values():
        returns.clear()
    return values

  def get_state(self) -> dict[str, Any]:
    """Returns everything as JSON-able data."""
    returns = {level: list(values) for level, values in self._returns.items()}
    return {'returns': returns}

  def set_state(self, state: Mapping[str, Any]) -> None:
    """Continues from what `get_state` returned; unknown levels are dropped."""
    for level, returns in self._returns.items():
      returns.clear()
      returns.extend(state['returns'].get(level, ()))
