"""IMPALA: where its three wirings are used, and the paper's options."""

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any

from scalable_agent import environments
from scalable_agent.options import (
  ActorOptions,
  BatchingOptions,
  BatchOptions,
  ClusterOptions,
  Config,
  VTraceOptions,
  systems,
)
from scalable_agent.runtimes import processes
from scalable_agent.runtimes.algorithm import Algorithm

# The learning rate decays to zero. The torso is the suite's.
_TABLE_G1 = systems.general_values('impala_atari') | {
  'updates_per_batch': 1,
  'width': 84,
  'height': 84,
  # On two cores, a third actor works while the others wait for inference.
  'num_actors': 3,
  'envs_per_actor': 32,
}
# What suites say differently comes on top.
_PRESETS = {'auto': _TABLE_G1, 'paper': _TABLE_G1}


class Impala(Algorithm):
  name = 'impala'
  help = (
    'actors and learners apart, V-trace (Espeholt et al., 2018); on one '
    'machine, or one process each.'
  )
  options = (
    ActorOptions,
    BatchOptions,
    BatchingOptions,
    VTraceOptions,
    ClusterOptions,
  )
  presets = _PRESETS

  def make_loss(self, config: Config) -> Callable[..., Any]:
    """See base class."""
    from scalable_agent import objectives

    return functools.partial(objectives.vtrace_loss, config.of(VTraceOptions))

  def follow_cores(
    self, config: Config, cores: int, threaded: bool
  ) -> dict[str, int]:
    """More actors, of fewer environments each, if those step in one thread.

    All of them together stay as many, and with that the policy lag what it is.
    If they step in several threads, few actors of many environments cost less:
    Python handles more rows in a call.
    """
    num_actors = config.actors.num_actors
    total = num_actors * config.actors.envs_per_actor
    if total == 0 or threaded:  # 0 in serial mode.
      return {}
    most = max(cores, num_actors)
    num_actors = max(n for n in range(1, most + 1) if total % n == 0)
    return {'num_actors': num_actors, 'envs_per_actor': total // num_actors}

  def check(self, config: Config) -> None:
    """See base class."""
    cluster, actors = config.cluster, config.actors
    batch_size = config.batches.batch_size
    devices = cluster.num_learners * cluster.learner_devices
    if batch_size is not None and batch_size % devices:
      raise ValueError(
        f'--batch_size={batch_size} cannot be shared equally by '
        f'--num_learners={cluster.num_learners} times --learner_devices='
        f'{cluster.learner_devices}. Make it a multiple of {devices}.'
      )
    if config.agent.jit_compile == 'all' and devices > 1:
      raise ValueError(
        f'--jit_compile=all, --num_learners={cluster.num_learners} and '
        f'--learner_devices={cluster.learner_devices}: XLA compiles no update '
        'of several devices. Choose --jit_compile=pixels.'
      )
    if None in (actors.envs_per_actor, batch_size) or cluster.is_distributed:
      return
    # Threads fill a batch with several unrolls of each.
    if actors.num_actors == 0 and batch_size > actors.envs_per_actor:
      raise ValueError(
        f'--batch_size={batch_size} cannot be filled: --num_actors=0 with '
        f'--envs_per_actor={actors.envs_per_actor} gives '
        f'{actors.envs_per_actor} trajectories at a time. Lower the batch '
        'size, raise --envs_per_actor, or use actor threads: --num_actors=1.'
      )

  def begins_without_tensorflow(self, cluster: Any) -> bool:
    """Actors do; see base class."""
    return cluster is not None and cluster.job_name == 'actor'

  def prepare(
    self,
    config: Config,
    levels: Sequence[environments.Level],
    cluster,
    given: Collection[str],
  ) -> Callable[[], None]:
    """See base class."""
    if cluster is None:
      return _prepare_local(config, levels, given)
    return processes.prepare(
      config, levels, cluster, given, _make_learner, _act
    )


def _prepare_local(config, levels, given) -> Callable[[], None]:
  """The whole training in this process."""
  from scalable_agent.distribution import strategies
  from scalable_agent.runtimes import impala_local, local_run, serial

  def make_run() -> local_run.LocalRun:
    strategy = strategies.make_strategy(None, config.cluster.learner_devices)
    if config.actors.num_actors == 0:
      return serial.Run(config, levels, config.batches.batch_size, strategy)
    return impala_local.Run(config, levels, strategy)

  return local_run.prepare(config, levels, given, make_run)


def _make_learner(config, levels, cluster, own) -> Any:
  """One of the learner processes."""
  from scalable_agent.distribution import strategies
  from scalable_agent.runtimes import impala_learner
  from scalable_agent.transport import rendezvous

  meet = functools.partial(
    rendezvous.meet,
    cluster,
    config.cluster.reconnect_timeout,
    config.learning(),
    own,
  )
  strategy = strategies.make_strategy(
    cluster, config.cluster.learner_devices, meet
  )
  return impala_learner.Run(config, levels, cluster, own, strategy)


def _act(config, levels, cluster, own) -> None:
  """One of the actor processes."""
  from scalable_agent.runtimes import actor_process, impala_actor

  actor_process.act(
    config, levels, cluster, own, config.acting(), impala_actor.work
  )


IMPALA = Impala()
