"""A3C in one process.

Worker threads, each with environments and a copy of the weights of its own:
they copy the learner's weights, act for an unroll, and apply the gradients of
their copy to the learner's variables without a lock. Another thread saves, one
more evaluates. The main thread waits, reports and listens to signals.
"""

import functools
from collections.abc import Sequence
from typing import Any

from absl import logging

from scalable_agent import actor, environments, optimizers, policies
from scalable_agent import worker as worker_lib
from scalable_agent.options import Config, EvaluationOptions, WorkerOptions
from scalable_agent.runtimes import assembly, evaluator, local_run, threads

# Seconds between two looks at whether it is time to save.
_TICK = 0.2
# Seconds that each additional worker may take to end.
_JOIN_TIMEOUT = 5.0


class Run(local_run.LocalRun):
  """Workers, a thread each."""

  def __init__(self, config: Config, levels: Sequence[environments.Level]):
    """Makes the parts; see the base class.

    Args:
      config: resolved and validated.
      levels: what to play.
    """
    super().__init__(config, levels, config.actors.num_actors)
    # TensorFlow makes graphs for each worker, one after the other.
    self.join_timeout += _JOIN_TIMEOUT * config.actors.num_actors
    self._workers: list[worker_lib.Worker] = []
    self._policies: list[policies.Direct] = []
    self._actors: list[actor.Actor] = []
    self._evaluator: evaluator.Evaluator | None = None

  def _prepare(self) -> None:
    for index, environment in enumerate(self._environments):
      worker = self._make_worker()
      policy = policies.Direct(policies.make_step(worker.agent, self._seeds))
      self._workers.append(worker)
      self._policies.append(policy)
      self._actors.append(
        actor.Actor(
          environment,
          policy,
          worker.agent.initial_state(self._num_envs),
          self._config.actors.unroll_length,
          level=self._level_of(index),
          policy_version=self._training.updates,
        )
      )
    self._restore_statistics()
    if self._config.of(EvaluationOptions).evaluation_secs:
      self._evaluator = evaluator.Evaluator(
        self._config, self._levels, self._training, self.spec
      )

  def _make_worker(self) -> worker_lib.Worker:
    agent = assembly.make_agent(self._config, self.spec)
    own = None
    if not self._config.of(WorkerOptions).shared_statistics:
      own = [optimizers.make_optimizer(self._config.optimizer)]
    return self._training.learner.make_worker(agent, own)

  def _train(self) -> None:
    with self._threads(saves='saver') as group:
      for index in range(len(self._workers)):
        group.start(
          f'worker_{index}', functools.partial(self._work, index, group)
        )
      group.start('saver', functools.partial(self._save, group))
      if self._evaluator is not None:
        group.start('evaluator', functools.partial(self._evaluator.run, group))

  def _work(self, index: int, group: threads.ThreadGroup) -> None:
    worker, one = self._workers[index], self._actors[index]
    while not group.stopping and not self._training.done():
      worker.synchronise()
      unroll = one.unroll()
      self._metrics.record_unroll(unroll)
      self._training.update(unroll, worker)
    group.stop()

  def _save(self, group: threads.ThreadGroup) -> None:
    while not group.wait_for_stop(_TICK):
      self._training.save_if_due(self._state)

  def _state(self) -> dict[str, Any]:
    state = super()._state()
    if not self._config.of(WorkerOptions).shared_statistics:
      state['statistics'] = [
        [variable.numpy() for variable in self._statistics(worker)]
        for worker in self._workers
      ]
    return state

  def _restore_statistics(self) -> None:
    """Goes on with the workers' own statistics, if there are any."""
    if self._config.of(WorkerOptions).shared_statistics:
      return
    saved = self._restored.get('statistics', [])
    if self._restored and len(saved) < len(self._workers):
      logging.warning(
        'The checkpoint has the statistics of %d workers of %d: those of the '
        'others begin anew.',
        len(saved),
        len(self._workers),
      )
    for worker, values in zip(self._workers, saved, strict=False):
      for variable, value in zip(self._statistics(worker), values, strict=True):
        variable.assign(value)

  def _statistics(self, worker: worker_lib.Worker) -> list[Any]:
    return [v for one in worker.optimizers for v in one.variables]

  def _gauges(self) -> dict[str, Any]:
    # Per thread, as everywhere: that is what can reach one a second.
    seconds = {
      'environment': sum(one.environment_seconds for one in self._actors),
      'inference': sum(one.seconds for one in self._policies),
      'learner': self._training.learner_seconds,
    }
    return {
      'stage_seconds': {
        stage: total / len(self._workers) for stage, total in seconds.items()
      }
    }
