"""GA3C in one process.

Agent threads step their environments and have the agent evaluated by predictor
threads behind the dynamic batcher, with the learner's live variables. Trainer
threads take their unrolls from a bounded queue and update those variables, all
at once and without a lock. The main thread waits, reports and listens to
signals.
"""

import functools
import itertools
import os
import threading
from collections.abc import Sequence
from typing import Any

from scalable_agent import actor, environments, unroll_queue
from scalable_agent.options import (
  AdjustmentOptions,
  Config,
  EpisodeOptions,
  GA3CReportOptions,
  QueueOptions,
  TrainerOptions,
)
from scalable_agent.reports import ga3c_log
from scalable_agent.runtimes import (
  adjustment,
  assembly,
  local_run,
  pools,
  threads,
)

# Seconds after which a trainer that has nothing to learn looks around.
_PATIENCE = 0.5


def batch_columns(config: Config) -> int:
  """Returns the trajectories of one update: no unroll is divided for it."""
  least = config.of(TrainerOptions).training_min_batch_size
  actors = config.actors
  return max(actors.envs_per_actor, -(-least // actors.unroll_length))


class Run(local_run.LocalRun):
  """Agents, predictors and trainers, several threads of each."""

  def __init__(self, config: Config, levels: Sequence[environments.Level]):
    """Makes the parts; see the base class.

    Args:
      config: resolved and validated.
      levels: what to play.

    Raises:
      ValueError: also where there is no native batcher though --batcher=op asks
        for it.
    """
    assembly.check_batcher(config)
    super().__init__(config, levels, config.actors.num_actors)
    self._queue = unroll_queue.UnrollQueue(
      batch_columns(config), config.of(QueueOptions).queue_capacity
    )
    self._log_like_ga3c()
    self._policy: Any = None
    self._pools: dict[str, pools.Pool] = {}
    self._unplayed = dict(enumerate(self._environments))
    self._numbers = itertools.count(len(self._environments))
    self._agents = _Agents()
    self._stages = {
      stage: _SecondsOfOne()
      for stage in ('environment', 'inference', 'learner')
    }

  def _log_like_ga3c(self) -> None:
    chosen = self._config.of(GA3CReportOptions)
    if self._config.reports.log_format != 'ga3c':
      return

    def counts() -> tuple[int, int, int]:
      of = self._pools
      return (
        len(of['num_trainers']),
        len(of['num_predictors']),
        len(of['num_agents']),
      )

    logdir = os.path.abspath(self._config.run.logdir)
    path = os.path.abspath(os.path.join(logdir, chosen.results_filename))
    self._metrics.show_instead(
      ga3c_log.GA3CLog(
        path,
        os.path.commonpath([logdir, path]) == logdir,
        counts,
        chosen.print_stats_frequency,
        chosen.stat_rolling_mean_window,
      )
    )

  def _prepare(self) -> None:
    self._policy = assembly.make_batched_policy(
      self._config, self.spec, self._training.agent, self._seeds
    )

  def _train(self) -> None:
    with self._threads(saves='trainer') as group:
      group.on_stop(self._queue.close)
      group.on_stop(self._policy.close)
      self._pools = self._make_pools(group)
      counts = {
        'num_predictors': self._config.batching.inference_threads,
        'num_agents': self._config.actors.num_actors,
        'num_trainers': self._config.of(TrainerOptions).num_trainers,
      }
      for name, count in counts.items():
        for _ in range(count):
          self._pools[name].add()
      if self._config.of(AdjustmentOptions).dynamic_settings:
        group.start('adjuster', lambda: self._adjust(group))

  def _make_pools(self, group: threads.ThreadGroup) -> dict[str, pools.Pool]:
    work = {
      'predictor': self._predict,
      'agent': self._act,
      'trainer': self._learn,
    }
    # Each level is to be played, and a batch of the predictors filled.
    rows = self._config.batching.inference_minimum_batch_size
    least = {'agent': max(len(self._levels), -(-rows // self._num_envs))}
    return {
      f'num_{name}s': pools.Pool(
        group, name, functools.partial(do, group), least.get(name, 1)
      )
      for name, do in work.items()
    }

  def _predict(self, group: threads.ThreadGroup, member: pools.Member) -> None:
    self._policy.serve(group.fail, lambda: member.leaving)

  def _act(self, group: threads.ThreadGroup, member: pools.Member) -> None:
    environment = self._unplayed.pop(member.index, None)
    if environment is None:
      environment = self._make_environment(member.index, next(self._numbers))
      self._environments.append(environment)
    agent = self._training.agent
    one = actor.Actor(
      environment,
      self._policy,
      agent.initial_state(self._num_envs),
      self._config.actors.unroll_length,
      level=self._level_of(member.index),
      policy_version=self._training.updates,
    )
    self._agents.add(one)
    while not (member.leaving or group.stopping):
      unroll = one.unroll()
      self._metrics.record_unroll(unroll)
      self._queue.put(unroll, member.index)
    if not group.stopping:
      # The environments of those that stay are closed when all have ended.
      self._agents.remove(one)
      self._environments.remove(environment)
      environment.close()

  def _learn(self, group: threads.ThreadGroup, member: pools.Member) -> None:
    while not (member.leaving or group.stopping):
      batch = self._queue.get(timeout=_PATIENCE)
      if batch is not None:
        self._training.update(batch)
        self._training.save_if_due(self._state)
        if self._training.done():
          group.stop()

  def _adjust(self, group: threads.ThreadGroup) -> None:
    adjustment.Adjuster(
      self._pools,
      lambda: self.frames() / self.spec.frames_per_step,
      group.wait_for_stop,
      self._config.of(AdjustmentOptions),
      self._config.run.seed,
    ).run()

  def _gauges(self) -> dict[str, Any]:
    counts = {name: len(pool) for name, pool in self._pools.items()}
    seconds = {
      'environment': (self._agents.environment_seconds(), 'num_agents'),
      'inference': (self._policy.seconds, 'num_predictors'),
      'learner': (self._training.learner_seconds, 'num_trainers'),
    }
    most = self._config.of(EpisodeOptions).total_episodes
    return {
      'episodes': (self._training.episodes(), most) if most else None,
      'stage_seconds': {
        stage: self._stages[stage](total, counts.get(name, 1))
        for stage, (total, name) in seconds.items()
      },
      'queue_fill': self._queue.fill(),
      'batcher': self._policy.statistics(),
      **counts,
    }


class _Agents:
  """Those at work, and what those that left have done."""

  def __init__(self) -> None:
    self._lock = threading.Lock()
    self._agents: list[actor.Actor] = []
    self._seconds_before = 0.0

  def add(self, one: actor.Actor) -> None:
    with self._lock:
      self._agents.append(one)

  def remove(self, one: actor.Actor) -> None:
    with self._lock:
      self._agents.remove(one)
      self._seconds_before += one.environment_seconds

  def __len__(self) -> int:
    with self._lock:
      return len(self._agents)

  def environment_seconds(self) -> float:
    """Returns those of all agents there were."""
    with self._lock:
      now = sum(one.environment_seconds for one in self._agents)
      return self._seconds_before + now


class _SecondsOfOne:
  """The seconds that one of several threads has worked, as their number was."""

  def __init__(self) -> None:
    self._total = 0.0
    self._of_one = 0.0

  def __call__(self, total: float, count: int) -> float:
    """Returns them, given those of all and how many there are now."""
    self._of_one += (total - self._total) / max(count, 1)
    self._total = total
    return self._of_one
