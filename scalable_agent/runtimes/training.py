"""The learner's side of a run: batches in, checkpoints and reports out."""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from scalable_agent import (
  environments,
  gradient_queue,
  learner,
  optimizers,
  options,
  structures,
)
from scalable_agent import worker as worker_lib
from scalable_agent.reports import metrics, pytorch_a3c_log
from scalable_agent.runtimes import (
  algorithm,
  assembly,
  differentiation,
  threads,
)
from scalable_agent.storage import checkpointing, logdirs

# Batches in a row whose gradients are not finite, after which a run ends: one
# unroll may spoil a few, but these are not the fault of one.
_MOST_DROPPED = 10


class RunError(algorithm.Ended):
  """The run cannot go on; the message says why, and what to look at."""


def make_learner(
  config: options.Config, agent: Any, spec: structures.EnvironmentSpec
) -> learner.Learner:
  """Returns the learner of `agent`."""
  algorithm_ = options.algorithm_of(config)
  loss = algorithm_.make_loss(config)
  schedule = optimizers.learning_rate_schedule(
    config.optimizer.learning_rate,
    config.run.total_environment_frames,
    config.optimizer.learning_rate_schedule,
  )
  episodes = None
  if algorithm_.counts_episodes:
    episodes = tf.Variable(0, dtype=tf.int64, name='episodes')
    loss, schedule = algorithm_.anneal(config, episodes, loss, schedule)
  return learner.Learner(
    agent,
    [
      optimizers.make_optimizer(config.optimizer)
      for _ in range(algorithm_.num_optimizers(config))
    ],
    schedule,
    loss,
    differentiation.make_clip(config),
    frames_per_step=spec.frames_per_step,
    updates_per_batch=config.batches.updates_per_batch,
    episodes=episodes,
    jit_compile=config.agent.jit_compile == 'all',
  )


class Training:
  """Agent, learner, checkpoints and metrics of one learner process.

  Attributes:
    agent: networks.Agent.
    learner: of the agent.
    metrics: of the run.
    learner_seconds: spent in updates so far.
  """

  def __init__(
    self,
    config: options.Config,
    levels: Sequence[environments.Level],
    spec: structures.EnvironmentSpec,
    strategy: tf.distribute.Strategy | None = None,
    chief: bool = True,
  ):
    """Makes the parts; `restore` goes on with what is in the logdir.

    Args:
      config: resolved and validated.
      levels: of the run.
      spec: of the levels' environments.
      strategy: that the learner works under; None = the default one.
      chief: whether this process is the one that saves and reports.
    """
    self._config = config
    self._chief = chief
    with (strategy or tf.distribute.get_strategy()).scope():
      self.agent = assembly.make_agent(config, spec)
      self.learner = make_learner(config, self.agent, spec)
    self._checkpointer = checkpointing.Checkpointer(
      config.run.logdir,
      self.learner.checkpoint_items(),
      config.reports.keep_checkpoints,
    )
    self.metrics = metrics.Metrics(
      config.run.logdir,
      [level.name for level in levels],
      config.run.total_environment_frames,
      spec.frames_per_step,
      config.reports.summary_secs,
      config.reports.progress_secs,
      silent=not chief,
      suite=levels[0].suite,
    )
    if config.reports.log_format == 'pytorch_a3c':
      self.metrics.show_instead(pytorch_a3c_log.PytorchA3CLog())
    self.learner_seconds = 0.0
    self._dropped_in_a_row = 0
    self._lock = threading.Lock()  # Of the two above.
    # A checkpoint holds no half of an update.
    self._gate = threads.Gate()
    self._last_save = time.monotonic()

  def frames(self) -> int:
    """Returns the environment frames learned from so far."""
    return int(self.learner.frames.numpy())

  def updates(self) -> int:
    """Returns the learner updates so far."""
    return int(self.learner.updates.numpy())

  def done(self) -> bool:
    """Whether enough frames, or episodes, have been learned from."""
    most = self._config.of(options.EpisodeOptions).total_episodes
    return (
      self.frames() >= self._config.run.total_environment_frames
      or 0 < most <= self.episodes()
    )

  def episodes(self) -> int:
    """Returns the episodes learned from so far; 0 where none are counted."""
    episodes = self.learner.episodes
    return 0 if episodes is None else int(episodes.numpy())

  def restore(self) -> dict[str, Any]:
    """Goes on with the newest checkpoint; returns its state, {} without one.

    Raises:
      ValueError: the checkpoints are damaged or of another agent.
    """
    try:
      state = self._checkpointer.restore()
    except checkpointing.DamagedError as error:
      raise ValueError(str(error)) from error
    if state is None:
      return {}
    self.metrics.set_state(state['metrics'], self.updates())
    if not self._chief:
      return state
    if self.done():
      run = self._config.run
      held, name = self.frames(), 'total_environment_frames'
      if held < run.total_environment_frames:
        held, name = self.episodes(), 'total_episodes'
      print(
        f'{run.logdir} already holds {held:,} {name.rpartition("_")[2]}, and '
        f'--{name} asks for {self._config.values[name]:,.0f}. Raise it to '
        'train on.',
        flush=True,
      )
    else:
      print(f'Resuming at {self.frames():,} frames.', flush=True)
    return state

  def update(
    self,
    batch: structures.ActorOutput,
    worker: worker_lib.Worker | None = None,
  ) -> None:
    """Learns from a batch, or drops it if its gradients are not finite.

    Several threads may call it where the learner's `update` allows that.

    Args:
      batch: ActorOutput of [T + 1, B, ...].
      worker: of the learner, that learns from it; None: the learner itself.

    Raises:
      RunError: too many were dropped in a row. All learners raise it together.
      files.WriteError: a report that was due could not be written.
    """
    self._learn(lambda: (worker or self.learner).update(batch))

  def apply(self, computed: gradient_queue.Computed) -> None:
    """Learns from gradients of an actor, or drops them; see `update`."""
    self._learn(
      lambda: self.learner.apply(computed.gradients, computed.policy_version)
    )

  def _learn(self, update: Callable[[], dict[str, tf.Tensor]]) -> None:
    start = time.perf_counter()
    with self._gate.working():
      values = update()
      # Reading what the device computed waits for all that it was given, so the
      # time is the update's own; counters may not be the device's.
      float(values['gradient_norm'])
    frames, updates = int(values['frames']), int(values['updates'])
    skipped_steps = int(values['skipped_steps'])
    dropped = skipped_steps == self._config.batches.updates_per_batch
    with self._lock:
      self.learner_seconds += time.perf_counter() - start
      self._dropped_in_a_row = self._dropped_in_a_row + 1 if dropped else 0
      dropped_in_a_row = self._dropped_in_a_row
    if dropped:
      self.metrics.record_dropped_batch()
      self._complain(frames, dropped_in_a_row)
      values = {}  # They are no numbers either.
    elif skipped_steps:
      # Of a step that was not taken: some are no numbers.
      values = {k: v for k, v in values.items() if np.isfinite(v)}
    self.metrics.record_update(frames, updates, values)

  def _complain(self, frames: int, dropped_in_a_row: int) -> None:
    look = (
      'Look at the rewards, the observations, --learning_rate and '
      '--clip_gradient_norm.'
    )
    if dropped_in_a_row == 1:
      logging.warning(
        'Dropped a batch at %d frames: its gradients are not finite. %s',
        frames,
        look,
      )
    if dropped_in_a_row == _MOST_DROPPED:
      raise RunError(
        f'the gradients of {_MOST_DROPPED} batches in a row are not finite, so '
        f'training stops at {frames:,} frames. {look}'
      )

  def save_if_due(self, extra: Callable[[], Mapping[str, Any]] = dict) -> None:
    """Saves if --save_checkpoint_secs have passed since it did."""
    if not self._is_save_due():
      return
    with self._gate.alone():
      if self._is_save_due():  # Another thread may have been faster.
        self.save(extra())
        self._last_save = time.monotonic()

  def _is_save_due(self) -> bool:
    due = self._last_save + self._config.reports.save_checkpoint_secs
    return self._chief and time.monotonic() >= due

  def save(self, extra: Mapping[str, Any] | None = None) -> None:
    """Saves everything that must survive, and `extra` with it."""
    state = {'metrics': self.metrics.get_state(), **(extra or {})}
    self._checkpointer.save(
      self.frames(), state, self.metrics.score, self.metrics.score_measure
    )

  def rescue(self, extra: Mapping[str, Any] | None = None) -> None:
    """Saves, if there is room, before a run ends that cannot go on.

    Args:
      extra: see `save`.
    """
    try:
      self.save(extra)
    except OSError as error:
      logging.error('What was learned could not be saved: %s', error)
    else:
      logging.warning(
        'Saved %s frames in %s.', f'{self.frames():,}', self._config.run.logdir
      )

  def save_for_chief(self) -> bool:
    """Saves where the chief would; False if it is alive and can itself.

    For a process that is not the chief, when the chief is lost. The statistics
    of episodes are those of the chief's last checkpoint.
    """
    try:
      os.makedirs(self._config.run.logdir, exist_ok=True)
      lock = logdirs.LogdirLock(self._config.run.logdir)
    except ValueError:
      return False
    with lock:
      state = self._checkpointer.newest_state()
      if state is not None:
        self.metrics.set_state(state['metrics'], self.updates())
      self.metrics.record_update(self.frames(), self.updates(), {})
      self.save()
      if state is None:
        logdirs.write_config(self._config.run.logdir, self._config)
    return True
