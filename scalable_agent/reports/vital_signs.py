"""Whether a run learns at all: entropy and explained variance over time."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# Of the learner's metrics; see `objectives.Loss`.
_NAMES = (
  'entropy',
  'vs_variance',
  'mean_vs',
  'error_variance',
  'mean_baseline',
)
_WINDOW_FRAMES = 250_000
# A game whose rewards are rare may take a while to begin.
_PATIENCE_FRAMES = 1_000_000
_LEAST_CHANGE = 0.02
_ROUNDING = 1e-6
_LEAST_EXPLAINED = 0.05
# A slow reader must not fill the memory.
MOST_UPDATES = 1000
# They come at times of their own.
_READERS = ('line', 'summary')


class Signs(NamedTuple):
  """Over some updates.

  Attributes:
    entropy: of the policy, nats; a mean.
    explained_variance: share of the variance of all targets together that the
      baseline explains, at most 1; 0 where they do not vary. Of one batch it
      says little, as its targets are few.
  """

  entropy: float
  explained_variance: float


def values_of(learner_metrics: Mapping[str, Any]) -> list[Any] | None:
  """Returns what `VitalSigns.look` needs of an update; None if it lacks any.

  Tensors are returned as they are.
  """
  if not all(name in learner_metrics for name in _NAMES):
    return None
  return [learner_metrics[name] for name in _NAMES]


class VitalSigns:
  """Looks at updates, and tells readers what it saw; not thread-safe."""

  def __init__(self, resumed: bool = False) -> None:
    """Initialises.

    Args:
      resumed: whether the run goes on from a checkpoint. It is never warned: a
        solved game that stays solved looks like one that never begins, and the
        signs of the start are not in the checkpoint.
    """
    self._unread: dict[str, collections.deque] = {
      reader: collections.deque(maxlen=MOST_UPDATES) for reader in _READERS
    }
    self._window: list[list[float]] = []
    self._window_start = 0
    self._first: Signs | None = None
    self._judged = resumed

  def look(self, frames: int, new: Sequence[list[Any]]) -> str | None:
    """Looks at `new` updates; returns a warning where one is due.

    It waits for their tensors. It warns once, after a million frames, if the
    entropy is what it was at the start and the baseline explains nothing.

    Args:
      frames: environment frames learned from so far.
      new: of `values_of`, one of each update since the last call.
    """
    if not new:
      return None
    values = [[float(value) for value in update] for update in new]
    self._window += values
    for unread in self._unread.values():
      unread.extend(values)
    warning = None
    if frames - self._window_start >= _WINDOW_FRAMES:
      warning = self._judge(frames, _signs(self._window))
      self._window, self._window_start = [], frames
    return warning

  def read(self, reader: str) -> Signs | None:
    """Returns the signs over all that was looked at since this reader's last.

    Args:
      reader: 'line' or 'summary'.
    """
    unread = self._unread[reader]
    signs = _signs(list(unread)) if unread else None
    unread.clear()
    return signs

  def _judge(self, frames: int, signs: Signs) -> str | None:
    if self._first is None:
      self._first = signs
    change = abs(signs.entropy - self._first.entropy)
    if (
      self._judged
      or frames < _PATIENCE_FRAMES
      or change >= _LEAST_CHANGE * abs(self._first.entropy)
      or signs.explained_variance >= _LEAST_EXPLAINED
    ):
      return None
    self._judged = True
    return (
      f'This run does not seem to learn. After {frames:,} frames the entropy '
      f'of its policy is {signs.entropy:.3f} nats, as it was at the start, and '
      f'its baseline explains {max(signs.explained_variance, 0):.0%} of the '
      'variance of its targets. Look at episode_return in TensorBoard (are '
      'there any rewards?), at a video of --mode=test (is there anything to '
      'see?), at learner/gradient_norm, and try a lower --learning_rate.'
    )


def _signs(values: list[list[float]]) -> Signs:
  entropy, *moments = np.array(values).T
  variances, means, error_variances, baselines = moments
  variance = _pooled(variances, means)
  errors = _pooled(error_variances, means - baselines)
  # Of targets that are all alike, rounding is what there is of a variance.
  least = _ROUNDING * float(np.mean(means**2))
  explained = 1 - errors / variance if variance > least else 0.0
  return Signs(float(entropy.mean()), explained)


def _pooled(variances: np.ndarray, means: np.ndarray) -> float:
  """Returns the variance of all batches as one, all of the same weight."""
  return float(np.mean(variances + (means - means.mean()) ** 2))
