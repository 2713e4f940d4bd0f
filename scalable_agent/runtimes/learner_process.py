"""A learner process: what actor processes send in, weights out.

The learner thread takes from the queue, learns and publishes the new weights.
The server's threads answer the actors. The main thread waits, reports and
listens to signals.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from scalable_agent import environments, networks, options
from scalable_agent.distribution import cluster as cluster_lib
from scalable_agent.runtimes import (
  algorithm,
  assembly,
  local_run,
  patience,
  threads,
  training,
  worlds,
)
from scalable_agent.storage import files, logdirs
from scalable_agent.transport import credentials, rpc, weights

# Seconds between two looks at signals and reports.
_TICK = 0.2
# Seconds that threads have to end.
_JOIN_TIMEOUT = 60.0
# Seconds that the actors have to hear that training is over: those at work,
# and, if there was nothing left to do, those that may still be starting.
_FAREWELL, _FAREWELL_TO_ALL = 30.0, 20.0
# Calls at a time besides those of actors.
_SPARE_CALLS = 16
# To whoever has stopped it.
_ADVICE = (
  'Run the same command to go on; the actors wait for --reconnect_timeout '
  'seconds.'
)


def prepare(
  config: options.Config,
  levels: Sequence[environments.Level],
  cluster: cluster_lib.Cluster,
  given: Collection[str],
  make_run: Callable[[credentials.Credentials], 'LearnerProcess'],
) -> Callable[[], None]:
  """Makes a run, with its logdir if it is learner 0's; see `Algorithm.prepare`.

  Args:
    config: resolved and validated.
    levels: of the run.
    cluster: with this process's task.
    given: names of the options that the user set.
    make_run: makes the run, once logdir and address are found to be fit.

  Returns:
    The training.
  """
  with contextlib.ExitStack() as stack:
    logdir = config.run.logdir
    chief = cluster.is_chief
    if chief:
      stack.enter_context(logdirs.prepare_logdir(logdir, config))
      assembly.describe(config, levels, given)
    own = credentials.load(config, makes_token=chief)
    cluster.check_place(encrypted=bool(own.certificate))
    run = make_run(own)
    if chief and run.frames() < config.run.total_environment_frames:
      logdirs.write_config(logdir, config)
    return local_run.within(
      stack.pop_all(), functools.partial(local_run.train, run, _ADVICE)
    )


class LearnerProcess:
  """One learner process; an algorithm's says what is taken, and learned from.

  Attributes:
    spec: EnvironmentSpec of what is played.
  """

  def __init__(
    self,
    config: options.Config,
    levels: Sequence[environments.Level],
    cluster: cluster_lib.Cluster,
    own: credentials.Credentials,
    strategy: tf.distribute.Strategy | None = None,
  ):
    """Makes the parts; goes on with what is in the logdir.

    Args:
      config: resolved and validated.
      levels: that the actors play, alike to the agent.
      cluster: with this process's task.
      own: credentials of this process.
      strategy: that the learner works under; None = the default one.

    Raises:
      ValueError: a level cannot be made with these options, or the checkpoints
        in the logdir are damaged or of another agent.
    """
    self._config = config
    self._cluster = cluster
    self._chief = cluster.is_chief
    self._own = own
    self._group = threads.ThreadGroup(_JOIN_TIMEOUT)
    self.spec = worlds.find_spec(config, levels[0])
    self._training = training.Training(
      config, levels, self.spec, strategy, chief=self._chief
    )
    self._learner = self._training.learner
    self._queue = self._make_queue()
    self._service = self._make_service(
      self._training.agent,
      num_actors=config.actors.num_actors,
      index=cluster.task,
      num_learners=len(cluster.learners),
      deal=worlds.deal(config, levels),
      weights_description=weights.describe(self._training.agent.variables),
    )
    self._stopped = False
    if self._chief:
      self._training.restore()

  # What an algorithm says.

  def _make_queue(self) -> Any:
    """Returns where what actors send waits; a `queues.ClosableQueue`."""
    raise NotImplementedError

  def _make_service(self, agent: networks.Agent, **arguments: Any) -> Any:
    """Returns the LearnerService, made with these arguments and more."""
    raise NotImplementedError

  def _start_others(self, group: threads.ThreadGroup) -> None:
    """Starts threads besides the learner's."""

  def _learn_until_done(self, group: threads.ThreadGroup) -> None:
    """Learns until `Training.done`, or the queue is closed; stops the group."""
    raise NotImplementedError

  # What is the same for all.

  def frames(self) -> int:
    """Returns the environment frames learned from so far."""
    return self._training.frames()

  def stop(self) -> None:
    """Has `train` save and return soon; takes no lock, for signal handlers."""
    self._stopped = True

  def train(self) -> None:
    """Runs until the frames are learned from, `stop` or a failure.

    Raises:
      algorithm.Ended: it cannot listen.
    """
    idle = self._training.done()
    self._publish()
    try:
      server = rpc.Server(
        self._cluster.listens_at,
        self._service.handlers(),
        self._own,
        self._cluster.listen_source,
        # An actor that comes back may have a call that waits still.
        most_calls=2 * self._service.num_expected + _SPARE_CALLS,
      )
    except ValueError as error:  # Another one has come since `prepare`.
      raise algorithm.Ended(str(error)) from error
    try:
      if not idle:
        with self._training.metrics:
          self._training.metrics.set_gauges(self._gauges)
          self._train()
      if self._training.done():
        self._dismiss(everybody=idle)
    finally:
      # Calls that wait would keep this process from ending.
      self._close()
      server.stop()

  def _train(self) -> None:
    acts = self._service.inference == 'learner'
    print(
      f'Learner {self._cluster.task} listens at {self._cluster.listens_at} for '
      f'{self._service.num_expected} actors'
      f'{" that are environments only" if acts else ""}.',
      flush=True,
    )
    try:
      self._run_threads()
    except (threads.StuckError, files.WriteError, training.RunError):
      # None of them must cost what was learned.
      if self._chief and 'learner' not in self._group.running:
        self._training.rescue()
      raise
    if self._chief:
      self._training.save()

  def _run_threads(self) -> None:
    with self._group as group:
      group.on_stop(self._close)
      self._start_others(group)
      group.start('learner', lambda: self._learn_until_done(group))
      actors = patience.Patience(
        self._config.cluster.actor_timeout, self._service.silence
      )
      while not group.wait_for_stop(_TICK):
        self._training.metrics.maybe_report()
        actors.check()
        if self._stopped:
          self._queue.close()

  def _close(self) -> None:
    """Wakes calls that wait: training is over, or this learner stops."""
    if self._training.done():
      self._service.finish()
    self._queue.close()

  def _publish(self) -> None:
    snapshot = weights.Snapshot(
      self._training.updates(), self._learner.snapshot()
    )
    self._service.publish(snapshot, self.frames())

  def _dismiss(self, everybody: bool) -> None:
    """Tells the actors that training is over, and waits for them to hear it."""
    self._close()
    deadline = time.monotonic() + (_FAREWELL_TO_ALL if everybody else _FAREWELL)
    while not self._service.all_told(everybody) and not self._stopped:
      if time.monotonic() > deadline:
        logging.warning('Some actors were not told that training is over.')
        return
      time.sleep(_TICK)
    # The last answer is on its way.
    time.sleep(_TICK)

  def _gauges(self) -> dict[str, Any]:
    return {
      'stage_seconds': {'learner': self._training.learner_seconds},
      'queue_fill': self._queue.fill(),
      **self._service.gauges(),
    }
