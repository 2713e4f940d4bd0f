"""IMPALA's learner process: it makes batches of unrolls, and learns from them.

Several of them share every update. With --inference=learner it also acts, for
actors that are environments only: their calls meet in the dynamic batcher.
"""

import functools
import socket
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from scalable_agent import (
  actor,
  environments,
  networks,
  options,
  policies,
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
from scalable_agent.transport import (
  credentials,
  learner_service,
  step_codec,
  step_service,
  unroll_service,
  weights,
)

# Seconds between two looks at the other learners.
_TICK = 0.2
# What TensorFlow raises where another learner is gone.
_LOSSES = (
  tf.errors.UnavailableError,
  tf.errors.AbortedError,
  tf.errors.CancelledError,
  tf.errors.DeadlineExceededError,
)
# In the line that says why.
_WHY = 'aborted by: '


def _ending(group: threads.ThreadGroup) -> agreement.Step:
  """Returns what to tell the other learners once the queue is closed."""
  return agreement.Step.FAIL if group.failing else agreement.Step.STOP


def _reason_of(error: tf.errors.OpError) -> str:
  """Returns a line of TensorFlow's message, which tells where before why."""
  lines = error.message.splitlines()
  why = [line for line in lines if _WHY in line]
  return (why or lines or [type(error).__name__])[0]


class LostLearner(algorithm.Ended):
  """Another learner of the run is gone; this one has saved."""


class Run(learner_process.LearnerProcess):
  """Learns from batches, together with the other learners."""

  def __init__(
    self,
    config: options.Config,
    levels: Sequence[environments.Level],
    cluster: cluster_lib.Cluster,
    own: credentials.Credentials,
    strategy: tf.distribute.Strategy,
  ):
    """Makes the parts; see the base class.

    Args:
      config: resolved and validated.
      levels: that the actors play, alike to the agent.
      cluster: with this process's task.
      own: credentials of this process.
      strategy: of `strategies.make_strategy`.

    Raises:
      ValueError: also where there is no native batcher though --batcher=op asks
        for it, or unrolls do not fit into messages.
      LostLearner: see there.
    """
    self._seeds = policies.Seeds(config.run.seed)
    self._policy: policies.Batched | policies.Direct | None = None
    super().__init__(config, levels, cluster, own, strategy)
    # Only learner 0 needs the folder.
    try:
      self._learner.broadcast()
    except _LOSSES as error:
      raise self._lost('Nothing was learned yet.', error) from error
    # Other draws after each start; those of learners differ.
    words = [config.run.seed, cluster.task, self.frames()]
    seed = int(np.random.SeedSequence(words).generate_state(1)[0])
    self._seeds.set_state(policies.Seeds(seed).get_state())

  def _make_queue(self) -> unroll_queue.UnrollQueue:
    return unroll_queue.UnrollQueue(
      self._config.batches.batch_size // self._config.cluster.num_learners,
      self._config.batches.queue_capacity,
    )

  def _make_service(
    self, agent: networks.Agent, **arguments: Any
  ) -> learner_service.LearnerService:
    arguments |= {
      'options': self._config.acting(),
      'queue': self._queue,
      'record_unroll': self._record_unroll,
    }
    if self._config.batching.inference == 'actor':
      layout = assembly.make_layout(self._config, self.spec, agent)
      layout.check_size(self._config.actors.envs_per_actor)
      return unroll_service.UnrollService(layout=layout, **arguments)
    self._policy = self._make_policy(agent)
    return step_service.StepService(
      layout=step_codec.Layout(self.spec),
      make_unroller=functools.partial(self._make_unroller, agent),
      most_columns=self._most_rows(),
      **arguments,
    )

  def _most_rows(self) -> int:
    """Returns how many rows of one actor the policy takes."""
    if isinstance(self._policy, policies.Direct):
      return sys.maxsize
    return self._config.batching.inference_maximum_batch_size

  def _make_policy(self, agent: networks.Agent) -> Any:
    if self._config.batching.batcher == 'none':
      return policies.Direct(policies.make_step(agent, self._seeds))
    assembly.check_batcher(self._config)
    return assembly.make_batched_policy(
      self._config, self.spec, agent, self._seeds
    )

  def _make_unroller(
    self, agent: networks.Agent, columns: int, level: int
  ) -> actor.Unroller:
    """Returns what acts for so many environments of a level, elsewhere."""
    return actor.Unroller(
      self._act,
      agent.initial_state(columns),
      self.spec,
      columns,
      self._config.actors.unroll_length,
      level,
      self._training.updates,
    )

  def _act(self, *arguments: Any) -> Any:
    """Evaluates the agent for an actor; see `actor.Unroller`."""
    assert self._policy is not None
    try:
      return self._policy(*arguments)
    except Exception as error:
      # The batcher is closed; or the agent has failed, which ends the run, and
      # is no fault of the actor.
      if not isinstance(error, tf.errors.CancelledError):
        self._group.fail(error)
      raise queues.Closed from error

  def _start_others(self, group: threads.ThreadGroup) -> None:
    policy = self._policy
    if not isinstance(policy, policies.Batched):
      return
    for index in range(self._config.batching.inference_threads):
      group.start(
        f'inference_{index}', functools.partial(policy.serve, group.fail)
      )

  def _close(self) -> None:
    super()._close()
    if isinstance(self._policy, policies.Batched):
      self._policy.close()

  def _publish(self) -> None:
    if self._policy is None:
      super()._publish()
    else:  # No weights travel.
      updates = self._training.updates()
      self._service.publish(weights.Snapshot(updates, ()), self.frames())

  def _gauges(self) -> dict[str, Any]:
    gauges = super()._gauges()
    if self._policy is not None:
      gauges['stage_seconds']['inference'] = (
        self._policy.seconds / self._num_inference_threads()
      )
    if isinstance(self._policy, policies.Batched):
      gauges['batcher'] = self._policy.statistics()
    return gauges

  def _num_inference_threads(self) -> int:
    if isinstance(self._policy, policies.Batched):
      return self._config.batching.inference_threads
    return self._service.num_expected

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
    return LostLearner(
      f'learner {self._cluster.task} has lost another learner. {saved} End all '
      f'learners, then start them again to go on. ({_reason_of(error)})'
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
