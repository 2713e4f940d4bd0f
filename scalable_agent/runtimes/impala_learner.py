"""IMPALA's learner process: it makes batches of unrolls, and learns from them.

Several of them share every update.
"""

import socket
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from scalable_agent import (
  environments,
  networks,
  options,
  queues,
  structures,
  unroll_queue,
)
from scalable_agent.distribution import agreement
from scalable_agent.distribution import cluster as cluster_lib
from scalable_agent.runtimes import (
  algorithm,
  assembly,
  learner_process,
  threads,
  training,
)
from scalable_agent.transport import unroll_link, unroll_service

# Seconds between two looks at the other learners.
_TICK = 0.2
# What TensorFlow raises where another learner is gone.
_LOSSES = (
  tf.errors.UnavailableError,
  tf.errors.AbortedError,
  tf.errors.CancelledError,
  tf.errors.DeadlineExceededError,
)


def _ending(group: threads.ThreadGroup) -> agreement.Step:
  """Returns what to tell the other learners once the queue is closed."""
  return agreement.Step.FAIL if group.failing else agreement.Step.STOP


class LostLearner(algorithm.Ended):
  """Another learner of the run is gone; this one has saved."""


class Run(learner_process.LearnerProcess):
  """Learns from batches, together with the other learners."""

  def __init__(
    self,
    config: options.Config,
    levels: Sequence[environments.Level],
    cluster: cluster_lib.Cluster,
    strategy: tf.distribute.Strategy,
  ):
    """Makes the parts; see the base class.

    Args:
      config: resolved and validated.
      levels: that the actors play, alike to the agent.
      cluster: with this process's task.
      strategy: of `strategies.make_strategy`.

    Raises:
      ValueError: also where unrolls do not fit into messages.
      LostLearner: see there.
    """
    super().__init__(config, levels, cluster, strategy)
    # Only learner 0 needs the folder.
    try:
      self._learner.broadcast()
    except _LOSSES as error:
      raise self._lost('Nothing was learned yet.', error) from error

  def _make_queue(self) -> unroll_queue.UnrollQueue:
    return unroll_queue.UnrollQueue(
      self._config.batches.batch_size // self._config.cluster.num_learners,
      self._config.batches.queue_capacity,
    )

  def _make_service(
    self, agent: networks.Agent, **arguments: Any
  ) -> unroll_service.UnrollService:
    layout = assembly.make_layout(self._config, self.spec, agent)
    unroll_link.check_size(layout)
    return unroll_service.UnrollService(
      options=self._config.acting(),
      layout=layout,
      skip_frames=agent.skip_frames,
      queue=self._queue,
      record_unroll=self._record_unroll,
      **arguments,
    )

  def _record_unroll(self, unroll: structures.ActorOutput) -> None:
    """Reports an unroll; a failure ends the run, not the actor that sent it."""
    try:
      self._training.metrics.record_unroll(unroll)
    except Exception as error:
      self._group.fail(error)

  def _run_threads(self) -> None:
    try:
      super()._run_threads()
    except _LOSSES as error:
      if len(self._cluster.learners) == 1:
        raise
      raise self._lost(self._save_without_peers(), error) from error

  def _learn_until_done(self, group: threads.ThreadGroup) -> None:
    batch, step = None, agreement.Step.LEARN
    while not self._training.done():
      step = agreement.Step.LEARN
      try:
        # Not for long: other learners may stop, or be lost, meanwhile.
        if batch is None:
          batch = self._queue.get(_TICK)
      except queues.Closed:
        step = _ending(group)
      else:
        if batch is None:
          step = agreement.Step.WAIT
        elif self._queue.closed:
          # With others that have no batch, this one could not be learned from.
          step = _ending(group)
      step = self._learner.agree(step)
      if step >= agreement.Step.STOP:
        break
      if step == agreement.Step.LEARN:
        self._training.update(batch)
        batch = None
        self._publish()
        self._training.save_if_due()
    if step == agreement.Step.FAIL and not group.failing:
      raise training.RunError(
        'another learner cannot go on: see what it printed. Mend that, and run '
        'the same commands to go on.'
      )
    group.stop()

  def _lost(self, saved: str, error: tf.errors.OpError) -> LostLearner:
    reason = (error.message.splitlines() or [type(error).__name__])[0]
    return LostLearner(
      f'learner {self._cluster.task} has lost another learner. {saved} End all '
      f'learners, then start them again to go on. ({reason})'
    )

  def _save_without_peers(self) -> str:
    """Saves what was learned before another learner was lost; says where."""
    folder = f'{self._config.run.logdir} on {socket.gethostname()}'
    try:
      if self._chief:
        self._training.save()
      elif not self._training.save_for_chief():
        return f'Another one saves in {folder}.'
    except OSError as error:
      return f'Nothing could be saved in {folder}: {error}.'
    return f'Saved {self.frames():,} frames in {folder}.'
