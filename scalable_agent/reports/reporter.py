"""What a run writes now and then: summaries, and its progress in a line."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import psutil
from absl import logging

from scalable_agent.reports import (
  console,
  episode_log,
  progress,
  summaries,
  vital_signs,
)

_MEGABYTE = 2**20
_OWN_GAUGES = ('queue_fill', 'stage_seconds', 'batcher', 'episodes')


class Due(NamedTuple):
  """What it is time to write."""

  summary: bool
  line: bool


class Recorded(NamedTuple):
  """Where a run is, and what was recorded since the last report.

  Attributes:
    frames: environment frames that the learner has seen.
    updates: learner updates.
    learner_metrics: of the latest update.
    lags: (mean, greatest) policy lag of each update.
    signs: of `vital_signs.values_of`, of each update.
    actions: of the latest unroll, see `Summaries.actions`.
    returns: of `Scores.describe`.
    evaluation: return of the latest episode that was played to see it.
    dropped_batches: that were not learned from.
    episodes: since the last summary, see `Summaries.episodes`, by level; none
      where no summary is due.
    scores: of `Scores.summaries`, likewise.
  """

  frames: int
  updates: int
  learner_metrics: Mapping[str, Any]
  lags: Sequence[tuple[Any, Any]]
  signs: Sequence[list[Any]]
  actions: tuple[np.ndarray, np.ndarray] | None
  returns: str | None
  evaluation: float | None
  dropped_batches: int
  episodes: Mapping[str, Sequence[tuple[float, int]]]
  scores: Mapping[str, float]


class Reporter:
  """Owns the TensorBoard events, rates and due times; not thread-safe.

  What writes raises files.WriteError where that fails.
  """

  def __init__(
    self,
    logdir: str,
    total_frames: float,
    summary_secs: float,
    console_: console.Console,
    frames: int = 0,
    updates: int = 0,
    resumed: bool = False,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Opens a new event file, and starts the clock.

    Args:
      logdir: folder of the events.
      total_frames: environment frames at which the run ends.
      summary_secs: seconds between two summaries.
      console_: shows the progress.
      frames: environment frames learned from so far.
      updates: learner updates so far.
      resumed: see `VitalSigns`.
      clock: seconds, monotonic.
    """
    self._total_frames = total_frames
    self._summary_secs = summary_secs
    self._console = console_
    self._clock = clock
    self._signs = vital_signs.VitalSigns(resumed)
    self._summaries = summaries.Summaries(logdir)
    self._process = psutil.Process()
    self._rates = progress.Rates()
    now = clock()
    # Else a run of one report would have no rates.
    self._rates.add(now, {'frames': frames, 'updates': updates})
    self._next_summary = now + summary_secs
    self._next_line = now + console_.secs

  def due(self) -> Due:
    """Returns what is due by now; thread-safe."""
    now = self._clock()
    return Due(summary=now >= self._next_summary, line=now >= self._next_line)

  def report(
    self, due: Due, recorded: Recorded, gauges: Mapping[str, Any]
  ) -> None:
    """Writes what is due; waits for the tensors in it.

    Args:
      due: what to write.
      recorded: since the last report.
      gauges: see `Metrics.set_gauges`.
    """
    stages = gauges.get('stage_seconds', {})
    counters = {
      'frames': recorded.frames,
      'updates': recorded.updates,
      **stages,
    }
    if gauges.get('episodes') is not None:
      counters['episodes'] = gauges['episodes'][0]
    self._rates.add(self._clock(), counters)
    warning = self._signs.look(recorded.frames, recorded.signs)
    if warning is not None:
      logging.warning('%s', warning)
    lags = recorded.lags
    values = {
      'frames_per_second': self._rates['frames'],
      'updates_per_second': self._rates['updates'],
      'policy_lag': float(np.mean([m for m, _ in lags])) if lags else None,
      'queue_fill': gauges.get('queue_fill'),
    }
    busy = {stage: self._rates[stage] for stage in stages}
    if due.line:
      self._next_line = self._clock() + self._console.secs
      self._show(recorded, gauges, values, busy)
    if due.summary:
      self._next_summary = self._clock() + self._summary_secs
      self._summarise(recorded, gauges, values, busy)

  def _show(self, recorded: Recorded, gauges, values, busy) -> None:
    self._console.show(
      progress.format_progress(
        frames=recorded.frames,
        total_frames=self._total_frames,
        returns=recorded.returns,
        bottleneck=progress.bottleneck(busy),
        actors=gauges.get('actors'),
        evaluation=recorded.evaluation,
        signs=self._signs.read('line'),
        episodes=gauges.get('episodes'),
        episodes_per_second=self._rates['episodes'],
        **values,
      )
    )

  def _summarise(self, recorded: Recorded, gauges, values, busy) -> None:
    frames, learner_metrics = recorded.frames, recorded.learner_metrics
    for level, finished in recorded.episodes.items():
      self._summaries.episodes(frames, level, finished)
    signs = self._signs.read('summary')
    if signs is not None:
      learner_metrics = {**learner_metrics, **signs._asdict()}
    self._summaries.learner(frames, learner_metrics)
    self._summaries.scalars(
      frames,
      {
        **values,
        'policy_lag_max': max((m for _, m in recorded.lags), default=None),
        'learner/dropped_batches': recorded.dropped_batches,
        'rss_mb': self._process.memory_info().rss / _MEGABYTE,
        **recorded.scores,
        **{f'busy/{stage}': rate for stage, rate in busy.items()},
        **{k: v for k, v in gauges.items() if k not in _OWN_GAUGES},
      },
    )
    if recorded.actions is not None:
      self._summaries.actions(frames, *recorded.actions)
    if gauges.get('batcher') is not None:
      self._summaries.batcher(frames, gauges['batcher'])
    self._summaries.flush()

  def evaluation(self, episode: episode_log.Episode) -> None:
    """Writes an episode that was played to see how well the agent does."""
    tags = {
      f'{episode.level}/evaluation_return': episode.episode_return,
      f'{episode.level}/evaluation_frames': episode.episode_frames,
    }
    self._summaries.scalars(episode.frames, tags)

  def close(self) -> None:
    """Closes the event file."""
    self._summaries.close()
