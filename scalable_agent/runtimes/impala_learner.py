"""IMPALA's learner process: unrolls of actor processes in, weights out.

The learner thread takes batches from the queue, learns and publishes the new
weights. The server's own threads answer the actors. The main thread waits,
reports and listens to signals.
"""

import socket
import time
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from scalable_agent import (
  environments,
  learner,
  options,
  structures,
  unroll_queue,
)
from scalable_agent.distribution import cluster as cluster_lib
from scalable_agent.runtimes import (
  algorithm,
  assembly,
  interruption,
  patience,
  threads,
  training,
)
from scalable_agent.storage import files
from scalable_agent.transport import learner_link, learner_service, rpc, weights

# Seconds between two looks at signals and reports.
_TICK = 0.2
# Seconds that the learner thread has to end.
_JOIN_TIMEOUT = 60.0
# Seconds that the actors have to hear that training is over: those at work,
# and, if there was nothing left to do, those that may still be starting.
_FAREWELL, _FAREWELL_TO_ALL = 30.0, 20.0
# What TensorFlow raises where another learner is gone.
_LOSSES = (
  tf.errors.UnavailableError,
  tf.errors.AbortedError,
  tf.errors.CancelledError,
  tf.errors.DeadlineExceededError,
)


def _ending(group: threads.ThreadGroup) -> learner.Step:
  """Returns what to tell the other learners once the queue is closed."""
  return learner.Step.FAIL if group.failing else learner.Step.STOP


class LostLearner(algorithm.Ended):
  """Another learner of the run is gone; this one has saved."""


def train(run: 'Run') -> None:
  """Trains until the frames are learned from, SIGINT or SIGTERM.

  Raises:
    LostLearner: see there.
    training.RunError: it cannot go on; what was learned is saved.
    files.WriteError: a report or a checkpoint could not be written.
    Exception: the first failure of any thread, after everything has stopped.
  """
  with interruption.Interruption(run.stop) as interrupted:
    run.train()
  if interrupted:
    logging.info(
      'Stopped at %d frames by %s. Run the same command to go on; the actors '
      'wait for --reconnect_timeout seconds.',
      run.frames(),
      interrupted.name,
    )


class Run:
  """One learner process: the parts, and how they are connected."""

  def __init__(
    self,
    config: options.Config,
    levels: Sequence[environments.Level],
    cluster: cluster_lib.Cluster,
    strategy: tf.distribute.Strategy,
  ):
    """Makes the parts; goes on with what is in the logdir.

    Args:
      config: resolved and validated.
      levels: that the actors play, alike to the agent.
      cluster: with this process's task.
      strategy: of `strategies.make_strategy`.

    Raises:
      ValueError: a level cannot be made with these options, its unrolls do not
        fit into messages, or the checkpoints in the logdir are damaged or of
        another agent.
    """
    self._config = config
    self._cluster = cluster
    self._chief = cluster.task == 0
    self._group = threads.ThreadGroup(_JOIN_TIMEOUT)
    spec = assembly.find_spec(config, levels[0])
    self._training = training.Training(
      config, levels, spec, strategy, chief=self._chief
    )
    self._learner = self._training.learner
    self._queue = unroll_queue.UnrollQueue(
      config.batches.batch_size // config.cluster.num_learners,
      config.batches.queue_capacity,
    )
    agent = self._training.agent
    layout = assembly.make_layout(config, spec, agent)
    learner_link.check_size(layout)
    self._service = learner_service.LearnerService(
      options=config.acting(),
      num_actors=config.actors.num_actors,
      index=cluster.task,
      num_learners=len(cluster.learners),
      num_levels=len(levels),
      layout=layout,
      skip_frames=agent.skip_frames,
      weights_description=weights.describe(agent.variables),
      queue=self._queue,
      record_unroll=self._record_unroll,
    )
    self._server: rpc.Server | None = None
    self._stopped = False
    if self._chief:
      self._training.restore()
    # Only learner 0 needs the folder.
    try:
      self._learner.broadcast()
    except _LOSSES as error:
      raise self._lost('Nothing was learned yet.', error) from error

  def frames(self) -> int:
    """Returns the environment frames learned from so far."""
    return self._training.frames()

  def stop(self) -> None:
    """Has `train` save and return soon; takes no lock, for signal handlers."""
    self._stopped = True

  def train(self) -> None:
    """Runs until the frames are learned from, `stop` or a failure."""
    idle = self._training.done()
    self._publish()
    self._server = rpc.Server(
      self._cluster.learners[self._cluster.task], self._service.handlers()
    )
    if not idle:
      with self._training.metrics:
        self._training.metrics.set_gauges(self._gauges)
        self._train()
    if self._training.done():
      self._dismiss(everybody=idle)

  def _train(self) -> None:
    print(
      f'Learner {self._cluster.task} listens at '
      f'{self._cluster.learners[self._cluster.task]} for '
      f'{self._service.num_expected} actors.',
      flush=True,
    )
    try:
      with self._group as group:
        group.on_stop(self._queue.close)
        group.start('learner', lambda: self._learn_until_done(group))
        actors = patience.Patience(
          self._config.cluster.actor_timeout, self._service.silence
        )
        while not group.wait_for_stop(_TICK):
          self._training.metrics.maybe_report()
          actors.check()
          if self._stopped:
            self._queue.close()
    except _LOSSES as error:
      if len(self._cluster.learners) == 1:
        raise
      raise self._lost(self._save_without_peers(), error) from error
    except (files.WriteError, training.RunError):
      if self._chief and 'learner' not in self._group.running:
        self._training.rescue()
      raise
    if self._chief:
      self._training.save()

  def _record_unroll(self, unroll: structures.ActorOutput) -> None:
    """Reports an unroll; a failure ends the run, not the actor that sent it."""
    try:
      self._training.metrics.record_unroll(unroll)
    except Exception as error:
      self._group.fail(error)

  def _learn_until_done(self, group: threads.ThreadGroup) -> None:
    batch, step = None, learner.Step.LEARN
    while not self._training.done():
      step = learner.Step.LEARN
      try:
        # Not for long: other learners may stop, or be lost, meanwhile.
        if batch is None:
          batch = self._queue.get(_TICK)
      except unroll_queue.Closed:
        step = _ending(group)
      else:
        if batch is None:
          step = learner.Step.WAIT
        elif self._queue.closed:
          # With others that have no batch, this one could not be learned from.
          step = _ending(group)
      step = self._learner.agree(step)
      if step >= learner.Step.STOP:
        break
      if step == learner.Step.LEARN:
        self._training.update(batch)
        batch = None
        self._publish()
        self._training.save_if_due()
    if step == learner.Step.FAIL and not group.failing:
      raise training.RunError(
        'another learner cannot go on: see what it printed. Mend that, and run '
        'the same commands to go on.'
      )
    group.stop()

  def _publish(self) -> None:
    snapshot = weights.Snapshot(
      self._training.updates(), self._learner.snapshot()
    )
    self._service.publish(snapshot, self.frames())

  def _dismiss(self, everybody: bool) -> None:
    """Tells the actors that training is over, and waits for them to hear it."""
    self._service.finish()
    self._queue.close()
    deadline = time.monotonic() + (_FAREWELL_TO_ALL if everybody else _FAREWELL)
    while not self._service.all_told(everybody) and not self._stopped:
      if time.monotonic() > deadline:
        logging.warning('Some actors were not told that training is over.')
        return
      time.sleep(_TICK)
    # The last answer is on its way.
    time.sleep(_TICK)

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

  def _gauges(self) -> dict[str, Any]:
    return {
      'stage_seconds': {'learner': self._training.learner_seconds},
      'queue_fill': self._queue.fill(),
      **self._service.gauges(),
    }
