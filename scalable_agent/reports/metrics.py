"""What a run reports: TensorBoard, episodes.csv and the progress line.

Actors hand in their unrolls, the learner its updates. A report is written by
the thread that comes by when it is due.
"""

import collections
import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

import numpy as np
import psutil
from absl import logging

from scalable_agent import environments, structures
from scalable_agent.reports import (
  episode_log,
  evaluations,
  ga3c_log,
  progress,
  scores,
  summaries,
  vital_signs,
)
from scalable_agent.storage import files

_MEGABYTE = 2**20
_OWN_GAUGES = ('queue_fill', 'stage_seconds', 'batcher', 'episodes')


class Metrics:
  """Collects and reports; a context manager. All methods are thread-safe.

  What writes (to record, to report, to close) raises files.WriteError where
  that fails. Once another failure is on its way, closing does not.

  ```
  metrics = Metrics(logdir, ['pong'], 10e6, 4, 10.0, 2.0)
  metrics.set_state(state, updates)  # When a run continues.
  with metrics:
    metrics.set_gauges(lambda: {'queue_fill': len(queue) / queue.capacity})
    metrics.record_unroll(unroll)  # By each actor.
    metrics.record_update(frames, updates, learner_metrics)
  ```
  """

  def __init__(
    self,
    logdir: str,
    levels: Sequence[str],
    total_frames: float,
    frames_per_step: int,
    summary_secs: float = 10.0,
    progress_secs: float = 2.0,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
    silent: bool = False,
    suite: environments.Suite = scores.WITHOUT_SCORES,
    log_format: str = 'auto',
  ):
    """Initialises; the files are opened on entering the context.

    Args:
      logdir: folder of episodes.csv and of the TensorBoard events.
      levels: names of the run's levels; unrolls carry indices into them.
      total_frames: environment frames at which the run ends.
      frames_per_step: environment frames of one agent step.
      summary_secs: seconds between two TensorBoard summaries.
      progress_secs: seconds between two progress lines; at least 10 where
        there is no terminal.
      stream: of the progress line; default: standard error.
      clock: seconds, monotonic.
      silent: writes nothing: another process reports.
      suite: of the levels, for their human-normalised scores.
      log_format: 'auto', or 'pytorch_a3c': a line of each evaluation in place
        of the progress line.
    """
    self._silent = silent
    self._logdir = logdir
    self._levels = list(levels)
    self._total_frames = total_frames
    self._frames_per_step = frames_per_step
    self._summary_secs = summary_secs
    self._clock = clock
    self._frames = 0
    self._updates = 0
    self._episode_count = 0
    self._dropped_batches = 0
    self._elapsed_before = 0.0
    self._scores = scores.Scores(levels, suite)
    self._new_episodes: dict[str, list[tuple[float, int]]] = {
      level: [] for level in levels
    }
    self._lags: collections.deque = collections.deque(maxlen=1000)
    self._signs = vital_signs.VitalSigns()
    self._evaluations = evaluations.Evaluations(
      logdir, lines=log_format == 'pytorch_a3c'
    )
    self._learner_metrics: Mapping[str, Any] = {}
    self._last_actions: tuple[np.ndarray, np.ndarray] | None = None
    self._gauges: Callable[[], Mapping[str, Any]] = dict
    self._rates = progress.Rates()
    self._line = progress.ProgressLine(stream, progress_secs)
    self._ga3c_log: ga3c_log.GA3CLog | None = None
    self._process = psutil.Process()
    self._lock = threading.Lock()  # Held for moments only.
    self._report_lock = threading.Lock()  # Taken before `_lock`, never after.
    self._open = False
    self._restart_clock()

  def __enter__(self) -> 'Metrics':
    if self._silent:
      return self
    os.makedirs(self._logdir, exist_ok=True)
    self._episodes = episode_log.EpisodeLog(
      os.path.join(self._logdir, 'episodes.csv'),
      self._frames,
      self._episode_count,
    )
    self._episode_count = self._episodes.kept
    self._summaries = summaries.Summaries(self._logdir)
    if self._ga3c_log is not None:
      self._ga3c_log.open(self._episode_count, self._updates)
    self._restart_clock()
    # Else a run of one report would have no rates.
    self._rates.add(
      self._start, {'frames': self._frames, 'updates': self._updates}
    )
    self._open = True
    return self

  def __exit__(self, kind, failure, traceback) -> None:
    try:
      self.close()
    except files.WriteError as error:
      if failure is None:
        raise
      logging.warning('The last report: %s', error)

  def _restart_clock(self) -> None:
    self._start = self._clock()
    self._next_summary = self._start + self._summary_secs
    self._next_line = self._start + self._line.secs

  def set_gauges(self, gauges: Callable[[], Mapping[str, Any]]) -> None:
    """Has `gauges` asked whenever a report is due.

    Args:
      gauges: returns a dict with any of: 'queue_fill', 0 to 1, at best a mean
        since it was last asked; 'stage_seconds', a dict of the seconds that
        'environment', 'inference' and 'learner' have worked so far, their waits
        for a device included, in one thread; 'batcher', statistics of a
        dynamic batcher; 'actors', processes at work; 'episodes', those learned
        from and those that end the run. Other numbers become scalars.
    """
    self._gauges = gauges

  def show_instead(self, log: ga3c_log.GA3CLog) -> None:
    """Has `log` take the place of the progress line; before entering only."""
    self._ga3c_log = log

  def record_unroll(self, unroll: structures.ActorOutput) -> None:
    """Takes the episodes that ended in an unroll of numpy [T + 1, E]."""
    # Column 0 is the last one of the previous unroll: it has been counted.
    step_type = unroll.env_outputs.step_type[1:]
    self._last_actions = unroll.agent_outputs.action[1:], step_type
    ended = step_type == structures.LAST
    if self._ga3c_log is None and not ended.any():
      return
    info = unroll.env_outputs.info
    finished = zip(
      np.broadcast_to(unroll.level, ended.shape)[ended].tolist(),
      info.episode_return[1:][ended].tolist(),
      info.episode_step[1:][ended].tolist(),
      strict=True,
    )
    with self._lock:
      if not self._open:
        return
      seconds = self._elapsed()
      episodes = [
        episode_log.Episode(
          frames=self._frames,
          seconds=seconds,
          level=self._levels[level],
          episode_return=episode_return,
          episode_length=steps,
          episode_frames=steps * self._frames_per_step,
        )
        for level, episode_return, steps in finished
      ]
      if self._ga3c_log is not None:
        real = unroll.env_outputs.step_type[:-1] != structures.LAST
        self._ga3c_log.add(int(real.sum()), episodes, self._updates)
      self._episodes.append(episodes)
      self._episode_count += len(episodes)
      for e in episodes:
        self._scores.add(e.level, e.episode_return)
        self._new_episodes[e.level].append((e.episode_return, e.episode_frames))
    for e in episodes:
      logging.debug('Level: %s Episode return: %f', e.level, e.episode_return)

  def record_update(
    self,
    frames: int,
    updates: int,
    learner_metrics: Mapping[str, Any],
  ) -> None:
    """Takes what the learner knows after an update.

    Tensors are kept as they are until a report is due, which waits for them.

    Args:
      frames: environment frames that the learner has seen.
      updates: learner updates so far.
      learner_metrics: scalar tensors or numbers by name, of them `policy_lag`
        and `max_policy_lag`, the mean and the greatest age of the batch's
        policies in updates.
    """
    with self._lock:
      # Several trainers may come out of order.
      if frames >= self._frames:
        self._frames, self._updates = frames, updates
        self._learner_metrics = learner_metrics
      if 'policy_lag' in learner_metrics:
        self._lags.append(
          (learner_metrics['policy_lag'], learner_metrics['max_policy_lag'])
        )
      self._signs.add(learner_metrics)
    self.maybe_report()

  def record_evaluation(
    self,
    frames: int,
    now: int,
    level: int,
    episode_return: float,
    length: int,
  ) -> None:
    """Takes an episode that was played to see how well the agent does.

    Args:
      frames: environment frames that the agent had learned from.
      now: that have been learned from by now.
      level: its index.
      episode_return: sum of the raw rewards.
      length: agent steps.
    """
    name = self._levels[level]
    with self._report_lock:
      if not self._open:
        return
      self._evaluations.add(
        episode_log.Episode(
          frames=frames,
          seconds=self._elapsed(),
          level=name,
          episode_return=episode_return,
          episode_length=length,
          episode_frames=length * self._frames_per_step,
        ),
        now // self._frames_per_step,
      )
      tags = {
        f'{name}/evaluation_return': episode_return,
        f'{name}/evaluation_frames': length * self._frames_per_step,
      }
      self._summaries.scalars(frames, tags)

  def record_dropped_batch(self) -> None:
    """Counts a batch that was not learned from."""
    with self._lock:
      self._dropped_batches += 1

  def maybe_report(self) -> None:
    """Writes summaries and progress line if they are due."""
    now = self._clock()
    if now < self._next_summary and now < self._next_line:
      return
    if not self._report_lock.acquire(blocking=False):
      return  # Another thread is at it.
    try:
      if self._open:
        self._report(now >= self._next_summary, now >= self._next_line)
    finally:
      self._report_lock.release()

  def close(self) -> None:
    """Writes a last report and closes the files; may be called again."""
    with self._report_lock:
      if not self._open:
        return
      # All of them, whichever fails.
      with contextlib.ExitStack() as stack:
        stack.callback(self._line.close)
        stack.callback(self._summaries.close)
        stack.callback(self._close_episodes)
        stack.callback(self._evaluations.close)
        if self._ga3c_log is not None:
          stack.callback(self._ga3c_log.close)
        self._report(summary_due=True, line_due=True)

  def _close_episodes(self) -> None:
    with self._lock:
      self._open = False
      self._episodes.close()

  def _report(self, summary_due: bool, line_due: bool) -> None:
    gauges = self._gauges()
    with self._lock:
      frames, learner_metrics = int(self._frames), self._learner_metrics
      lags, actions = list(self._lags), self._last_actions
      self._lags.clear()
      new_signs = self._signs.take()
      returns = self._scores.describe()
      episodes = self._new_episodes
      level_scores = {}
      if summary_due:
        level_scores = self._scores.summaries()
        self._new_episodes = {level: [] for level in self._levels}
      stages = gauges.get('stage_seconds', {})
      counters = {'frames': frames, 'updates': int(self._updates), **stages}
    ended = gauges.get('episodes')
    if ended is not None:
      counters['episodes'] = ended[0]
    self._rates.add(self._clock(), counters)
    lag = float(np.mean([mean for mean, _ in lags])) if lags else None
    warning = self._signs.look(frames, new_signs)
    if warning is not None:
      logging.warning('%s', warning)
    values: dict[str, Any] = {
      'frames_per_second': self._rates['frames'],
      'updates_per_second': self._rates['updates'],
      'policy_lag': lag,
      'queue_fill': gauges.get('queue_fill'),
    }
    busy = {stage: self._rates[stage] for stage in stages}
    if line_due:
      self._next_line = self._clock() + self._line.secs
    of_others = self._evaluations.lines or self._ga3c_log is not None
    if line_due and not of_others:
      self._line.show(
        progress.format_progress(
          frames=frames,
          total_frames=self._total_frames,
          returns=returns,
          bottleneck=progress.bottleneck(busy),
          actors=gauges.get('actors'),
          evaluation=self._evaluations.latest,
          signs=self._signs.read('line'),
          episodes=ended,
          episodes_per_second=self._rates['episodes'],
          **values,
        )
      )
    if summary_due:
      self._next_summary = self._clock() + self._summary_secs
      for level, finished in episodes.items():
        self._summaries.episodes(frames, level, finished)
      signs = self._signs.read('summary')
      if signs is not None:
        learner_metrics = {**learner_metrics, **signs._asdict()}
      self._summaries.learner(frames, learner_metrics)
      values['policy_lag_max'] = max((most for _, most in lags), default=None)
      values['learner/dropped_batches'] = self._dropped_batches
      values['rss_mb'] = self._process.memory_info().rss / _MEGABYTE
      values |= level_scores
      values |= {f'busy/{stage}': rate for stage, rate in busy.items()}
      values |= {k: v for k, v in gauges.items() if k not in _OWN_GAUGES}
      self._summaries.scalars(frames, values)
      if actions is not None:
        self._summaries.actions(frames, *actions)
      if gauges.get('batcher') is not None:
        self._summaries.batcher(frames, gauges['batcher'])
      self._summaries.flush()

  @property
  def score(self) -> float | None:
    """See `Scores.score`: what to save by."""
    with self._lock:
      return self._scores.score

  @property
  def num_evaluations(self) -> int:
    """Episodes of `record_evaluation`, those of before a restart included."""
    return self._evaluations.count

  @property
  def score_measure(self) -> str:
    """See `Scores.measure`."""
    return self._scores.measure

  def get_state(self) -> dict[str, Any]:
    """Returns what must survive a restart, as JSON-able data."""
    with self._lock:
      return {
        'frames': int(self._frames),
        'episode_count': self._episode_count,
        'dropped_batches': self._dropped_batches,
        'elapsed_seconds': self._elapsed(),
        'scores': self._scores.get_state(),
        'evaluations': self._evaluations.get_state(),
      }

  def set_state(self, state: Mapping[str, Any], updates: int) -> None:
    """Continues a run; before entering only.

    Args:
      state: what `get_state` returned.
      updates: learner updates so far.
    """
    if self._open:
      raise RuntimeError('Metrics.set_state must be called before entering.')
    self._frames = state['frames']
    self._updates = updates
    self._episode_count = state['episode_count']
    # Not in the checkpoints of earlier versions.
    self._dropped_batches = state.get('dropped_batches', 0)
    self._elapsed_before = state['elapsed_seconds']
    self._scores.set_state(state['scores'])
    if 'evaluations' in state:
      self._evaluations.set_state(state['evaluations'], self._frames)
    self._signs = vital_signs.VitalSigns(resumed=True)

  def _elapsed(self) -> float:
    return self._elapsed_before + self._clock() - self._start
