"""IMPALA in one process.

Actor threads step their environments and have the agent evaluated by inference
threads behind the dynamic batcher, with the learner's live variables, or, with
--batcher=none, evaluate it themselves. A learner
thread takes their unrolls from a bounded queue. The main thread waits, reports
and listens to signals.
"""

import functools
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from scalable_agent import actor, environments, policies, unroll_queue
from scalable_agent.options import Config
from scalable_agent.runtimes import assembly, local_run, threads


class Run(local_run.LocalRun):
  """Actors, inference and learner, a thread each."""

  def __init__(
    self,
    config: Config,
    levels: Sequence[environments.Level],
    strategy: tf.distribute.Strategy | None = None,
  ):
    """Makes the parts; see the base class.

    Args:
      config: resolved and validated.
      levels: what to play.
      strategy: that the learner works under; None = the default one.

    Raises:
      ValueError: also where there is no native batcher though --batcher=op asks
        for it.
    """
    assembly.check_batcher(config)
    super().__init__(config, levels, config.actors.num_actors, strategy)
    self._queue = unroll_queue.UnrollQueue(
      config.batches.batch_size, config.batches.queue_capacity
    )
    self._actors: list[actor.Actor] = []
    self._policies: list[Any] = []

  def _prepare(self) -> None:
    agent = self._training.agent
    if self._config.batching.batcher == 'none':
      step = policies.make_step(agent, self._seeds)
      self._policies = [policies.Direct(step) for _ in self._environments]
    else:
      self._policies = [
        assembly.make_batched_policy(
          self._config, self.spec, agent, self._seeds
        )
      ]
    self._actors = [
      actor.Actor(
        environment,
        self._policies[index % len(self._policies)],
        agent.initial_state(self._num_envs),
        self._config.actors.unroll_length,
        level=self._level_of(index),
        policy_version=self._training.updates,
      )
      for index, environment in enumerate(self._environments)
    ]

  def _train(self) -> None:
    with self._threads(saves='learner') as group:
      group.on_stop(self._queue.close)
      if self._batched is not None:
        group.on_stop(self._batched.close)
        for index in range(self._config.batching.inference_threads):
          group.start(
            f'inference_{index}',
            functools.partial(self._batched.serve, group.fail),
          )
      for index in range(len(self._actors)):
        group.start(
          f'actor_{index}', functools.partial(self._act, index, group)
        )
      group.start('learner', lambda: self._learn_until_done(group))

  def _act(self, index: int, group: threads.ThreadGroup) -> None:
    while not group.stopping:
      unroll = self._actors[index].unroll()
      self._metrics.record_unroll(unroll)
      self._queue.put(unroll, index)

  def _learn_until_done(self, group: threads.ThreadGroup) -> None:
    while not group.stopping and not self._training.done():
      self._training.update(self._queue.get())
      self._training.save_if_due(self._state)
    group.stop()

  def _gauges(self) -> dict[str, Any]:
    # Seconds of each stage are per thread: that is what can reach one a second.
    return {
      'stage_seconds': {
        'environment': sum(one.environment_seconds for one in self._actors)
        / len(self._actors),
        'inference': sum(one.seconds for one in self._policies)
        / self._num_inference_threads(),
        'learner': self._training.learner_seconds,
      },
      'queue_fill': self._queue.fill(),
      'batcher': self._batched and self._batched.statistics(),
    }

  @property
  def _batched(self) -> policies.Batched | None:
    one = self._policies[0]
    return one if isinstance(one, policies.Batched) else None

  def _num_inference_threads(self) -> int:
    if self._batched is None:
      return len(self._policies)
    return self._config.batching.inference_threads
