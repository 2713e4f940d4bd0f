"""What a run reports: TensorBoard, episodes.csv and the progress line.

Actors hand in their unrolls, the learner its updates. `reporter` writes, in the
thread that comes by when a report is due.
"""

import collections
import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

import numpy as np
from absl import logging

from scalable_agent import environments, structures
from scalable_agent.reports import (
  console,
  episode_log,
  evaluations,
  progress,
  reporter,
  scores,
  vital_signs,
)
from scalable_agent.storage import files


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
    self._new_episodes = self._no_episodes()
    self._lags: collections.deque = collections.deque(maxlen=1000)
    self._new_signs: collections.deque = collections.deque(
      maxlen=vital_signs.MOST_UPDATES
    )
    self._evaluations = evaluations.Evaluations(logdir)
    self._learner_metrics: Mapping[str, Any] = {}
    self._last_actions: tuple[np.ndarray, np.ndarray] | None = None
    self._gauges: Callable[[], Mapping[str, Any]] = dict
    self._console: console.Console = progress.ProgressLine(
      stream, progress_secs
    )
    self._lock = threading.Lock()  # Held for moments only.
    self._report_lock = threading.Lock()  # Taken before `_lock`, never after.
    self._open = False
    self._resumed = False
    self._start = clock()

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
    self._console.open(self._episode_count, self._updates)
    self._start = self._clock()
    self._reporter = reporter.Reporter(
      self._logdir,
      self._total_frames,
      self._summary_secs,
      self._console,
      self._frames,
      self._updates,
      self._resumed,
      self._clock,
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

  def show_instead(self, other: console.Console) -> None:
    """Has another console than the progress line; before entering only."""
    self._console.close()
    self._console = other

  def record_unroll(self, unroll: structures.ActorOutput) -> None:
    """Takes the episodes that ended in an unroll of numpy [T + 1, E]."""
    # Column 0 is the last one of the previous unroll: it has been counted.
    step_type = unroll.env_outputs.step_type[1:]
    self._last_actions = unroll.agent_outputs.action[1:], step_type
    ended = step_type == structures.LAST
    if not ended.any() and not self._console.counts_steps:
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
      real = unroll.env_outputs.step_type[:-1] != structures.LAST
      self._console.add(int(real.sum()), episodes, self._updates)
      self._episodes.append(episodes)
      self._episode_count += len(episodes)
      for e in episodes:
        self._scores.add(e.level, e.episode_return)
        self._new_episodes[e.level].append((e.episode_return, e.episode_frames))
    if logging.level_debug():
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
      signs = vital_signs.values_of(learner_metrics)
      if signs is not None:
        self._new_signs.append(signs)
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
    with self._report_lock:
      if not self._open:
        return
      episode = episode_log.Episode(
        frames=frames,
        seconds=self._elapsed(),
        level=self._levels[level],
        episode_return=episode_return,
        episode_length=length,
        episode_frames=length * self._frames_per_step,
      )
      self._evaluations.add(episode)
      self._console.evaluated(episode, now // self._frames_per_step)
      self._reporter.evaluation(episode)

  def record_dropped_batch(self) -> None:
    """Counts a batch that was not learned from."""
    with self._lock:
      self._dropped_batches += 1

  def maybe_report(self) -> None:
    """Writes summaries and progress line if they are due."""
    if not self._open:
      return
    due = self._reporter.due()
    if not any(due):
      return
    if not self._report_lock.acquire(blocking=False):
      return  # Another thread is at it.
    try:
      if self._open:
        self._report(due)
    finally:
      self._report_lock.release()

  def close(self) -> None:
    """Writes a last report and closes the files; may be called again."""
    with self._report_lock:
      if not self._open:
        return
      # All of them, whichever fails.
      with contextlib.ExitStack() as stack:
        stack.callback(self._console.close)
        stack.callback(self._reporter.close)
        stack.callback(self._close_episodes)
        stack.callback(self._evaluations.close)
        self._report(reporter.Due(summary=True, line=True))

  def _close_episodes(self) -> None:
    with self._lock:
      self._open = False
      self._episodes.close()

  def _report(self, due: reporter.Due) -> None:
    gauges = self._gauges()
    self._reporter.report(due, self._take(due), gauges)

  def _take(self, due: reporter.Due) -> reporter.Recorded:
    with self._lock:
      episodes, level_scores = {}, {}
      if due.summary:
        episodes, self._new_episodes = self._new_episodes, self._no_episodes()
        level_scores = self._scores.summaries()
      recorded = reporter.Recorded(
        frames=int(self._frames),
        updates=int(self._updates),
        learner_metrics=self._learner_metrics,
        lags=list(self._lags),
        signs=list(self._new_signs),
        actions=self._last_actions,
        returns=self._scores.describe(),
        evaluation=self._evaluations.latest,
        dropped_batches=self._dropped_batches,
        episodes=episodes,
        scores=level_scores,
      )
      self._lags.clear()
      self._new_signs.clear()
    return recorded

  def _no_episodes(self) -> dict[str, list[tuple[float, int]]]:
    return {level: [] for level in self._levels}

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
    self._resumed = True

  def _elapsed(self) -> float:
    return self._elapsed_before + self._clock() - self._start
