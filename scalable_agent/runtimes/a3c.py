"""A3C: workers that act and learn, each with a copy of the weights."""

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any

from scalable_agent import environments
from scalable_agent.options import (
  ActorOptions,
  AdvantageOptions,
  Config,
  EvaluationOptions,
  WorkerOptions,
  systems,
)
from scalable_agent.runtimes.algorithm import Algorithm

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
_ALONE = (
  '--algorithm=a3c trains on a single machine only. Leave --job_name, --task, '
  '--learner_address and TF_CONFIG out, or choose --algorithm=impala.'
)


class AsynchronousAdvantageActorCritic(Algorithm):
  name = 'a3c'
  help = (
    'workers that act and learn with copies of the weights, without a lock '
    '(Mnih et al., 2016).'
  )
  options = (
    ActorOptions,
    AdvantageOptions,
    WorkerOptions,
    EvaluationOptions,
  )
  log_formats = ('auto', 'pytorch_a3c')
  presets = {'auto': _AUTO, 'paper': _PAPER}  # noqa: RUF012

  def make_loss(self, config: Config) -> Callable[..., Any]:
    """See base class."""
    from scalable_agent import objectives

    return functools.partial(
      objectives.advantage_loss, config.of(AdvantageOptions)
    )

  def check(self, config: Config) -> None:
    """See base class."""
    if config.actors.num_actors == 0:
      raise ValueError(
        '--num_actors=0 leaves --algorithm=a3c without a worker. Set '
        '--num_actors=1 or more, or choose --algorithm=a2c: one thread, and '
        'reproducible bit for bit.'
      )
    if config.cluster.is_distributed:
      raise ValueError(_ALONE)
    log_format = config.reports.log_format
    secs = config.of(EvaluationOptions).evaluation_secs
    if log_format == 'pytorch_a3c' and secs == 0:
      raise ValueError(
        '--log_format=pytorch_a3c prints evaluations, and with '
        '--evaluation_secs=0 there are none. Change one of them.'
      )

  def prepare(
    self,
    config: Config,
    levels: Sequence[environments.Level],
    cluster,
    given: Collection[str],
  ) -> Callable[[], None]:
    """See base class."""
    if cluster is not None:
      raise ValueError(_ALONE)
    from scalable_agent.runtimes import a3c_local, local_run

    return local_run.prepare(
      config, levels, given, lambda: a3c_local.Run(config, levels)
    )


A3C = AsynchronousAdvantageActorCritic()
