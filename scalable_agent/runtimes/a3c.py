"""A3C: workers that act and learn, each with a copy of the weights."""

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from scalable_agent import environments
from scalable_agent.options import (
  ActorOptions,
  AdvantageOptions,
  ClusterOptions,
  Config,
  EvaluationOptions,
  WorkerOptions,
  systems,
)
from scalable_agent.runtimes import processes
from scalable_agent.runtimes.advantage_algorithm import AdvantageAlgorithm

if TYPE_CHECKING:
  from scalable_agent.runtimes import local_run

_PAPER = systems.general_values('a3c_ff')
# One environment per worker leaves most of a core's time to the calls of the
# network; the updates are those of IMPALA's batches.
_AUTO = _PAPER | {
  'total_environment_frames': 200e6,
  'num_actors': 2,
  'envs_per_actor': 16,
  'unroll_length': 20,
  'gae_lambda': 0.95,
}


class AsynchronousAdvantageActorCritic(AdvantageAlgorithm):
  name = 'a3c'
  help = (
    'workers that act and learn with copies of the weights, without a lock '
    '(Mnih et al., 2016); on one machine, or a process each.'
  )
  options = (
    ActorOptions,
    AdvantageOptions,
    WorkerOptions,
    EvaluationOptions,
    ClusterOptions,
  )
  log_formats = ('auto', 'pytorch_a3c')
  presets = {'auto': _AUTO, 'paper': _PAPER}  # noqa: RUF012

  def follow_cores(
    self, config: Config, cores: int, threaded: bool
  ) -> dict[str, int]:
    """A worker for each: an update stays one of as many transitions."""
    del threaded  # They act and learn on the cores, too.
    return {'num_actors': max(config.actors.num_actors, cores)}

  def check(self, config: Config) -> None:
    """See base class."""
    if config.actors.num_actors == 0:
      raise ValueError(
        '--num_actors=0 leaves --algorithm=a3c without a worker. Set '
        '--num_actors=1 or more, or choose --algorithm=a2c: one thread, and '
        'reproducible bit for bit.'
      )
    _check_cluster(config)
    log_format = config.reports.log_format
    secs = config.of(EvaluationOptions).evaluation_secs
    if log_format == 'pytorch_a3c' and secs == 0:
      raise ValueError(
        '--log_format=pytorch_a3c prints evaluations, and with '
        '--evaluation_secs=0 there are none. Set --evaluation_secs=60, or '
        'leave --log_format out.'
      )

  def make_run(
    self, config: Config, levels: Sequence[environments.Level]
  ) -> 'local_run.LocalRun':
    """See base class."""
    from scalable_agent.runtimes import a3c_local

    return a3c_local.Run(config, levels)

  def prepare(
    self,
    config: Config,
    levels: Sequence[environments.Level],
    cluster: Any,
    given: Collection[str],
  ) -> Callable[[], None]:
    """See base class."""
    if cluster is None:
      return super().prepare(config, levels, cluster, given)
    return processes.prepare(
      config, levels, cluster, given, _make_learner, _act
    )


def _check_cluster(config: Config) -> None:
  """Refuses what needs several learners, or statistics of an actor's own."""
  cluster = config.cluster
  for name in ('num_learners', 'learner_devices'):
    if config.values[name] > 1:
      raise ValueError(
        f'--{name}={config.values[name]} shares updates, and --algorithm=a3c '
        'has one learner on one device, whose variables all actors update. '
        f'Set --{name}=1, or choose --algorithm=impala.'
      )
  if (
    cluster.is_distributed
    and config.of(WorkerOptions).shared_statistics is False
  ):
    raise ValueError(
      '--shared_statistics=False is for a single machine: actor processes '
      "send gradients, and the optimizer's statistics are the learner's. Set "
      '--shared_statistics, or leave --job_name, --task, --learner_address '
      'and TF_CONFIG out.'
    )


def _make_learner(config, levels, cluster, own) -> Any:
  """The learner process."""
  from scalable_agent.runtimes import a3c_learner

  return a3c_learner.Run(config, levels, cluster, own)


def _act(config, levels, cluster, own) -> None:
  """One of the actor processes."""
  from scalable_agent.runtimes import a3c_actor, actor_process

  actor_process.act(
    config, levels, cluster, own, config.differentiating(), a3c_actor.work
  )


A3C = AsynchronousAdvantageActorCritic()
