"""GA3C: its options, and where its parts are put together."""

import functools
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from scalable_agent import environments
from scalable_agent.options import (
  ActorOptions,
  AdjustmentOptions,
  BatchingOptions,
  Config,
  EpisodeOptions,
  GA3CLossOptions,
  GA3COptimizerOptions,
  GA3CReportOptions,
  QueueOptions,
  TrainerOptions,
  legacy_ga3c,
  systems,
)
from scalable_agent.runtimes.local_algorithm import LocalAlgorithm

if TYPE_CHECKING:
  from scalable_agent.runtimes import local_run

# What suites say differently comes on top.
_AUTO = {
  'baseline_cost': 0.5,
  # More trainers wait for each other's cores.
  'num_trainers': 1,
  'num_actors': 2,
  'width': 84,
  'height': 84,
}


class HybridA3C(LocalAlgorithm):
  name = 'ga3c'
  help = (
    'A3C with one network that predictors evaluate for all agents and trainers '
    'update, several of each (Babaeizadeh et al., 2017); on one machine. Takes '
    'the NAME=VALUE of its own program behind --, too.'
  )
  options = (
    ActorOptions,
    QueueOptions,
    TrainerOptions,
    BatchingOptions,
    GA3CLossOptions,
    GA3COptimizerOptions,
    EpisodeOptions,
    AdjustmentOptions,
    GA3CReportOptions,
  )
  presets = {'auto': _AUTO, 'paper': systems.general_values('ga3c')}  # noqa: RUF012
  counts_episodes = True
  log_formats = ('auto', 'ga3c')

  def make_loss(self, config: Config) -> Callable[..., Any]:
    """See base class."""
    from scalable_agent import objectives

    return functools.partial(objectives.ga3c_loss, config.of(GA3CLossOptions))

  def num_optimizers(self, config: Config) -> int:
    """See base class."""
    dual = config.of(GA3COptimizerOptions).dual_rmsprop
    return 2 if dual and config.optimizer.optimizer == 'rmsprop' else 1

  def anneal(
    self,
    config: Config,
    episodes: Any,
    loss: Callable[..., Any],
    schedule: Callable[[Any], Any],
  ) -> tuple[Callable[..., Any], Callable[[Any], Any]]:
    """See base class."""
    from scalable_agent import optimizers

    total = config.of(EpisodeOptions).annealing_episode_count

    def between(start: float, end: float) -> Any:
      return optimizers.annealed(start, end, total, episodes)

    rate = config.optimizer.learning_rate
    rate_end = config.of(GA3COptimizerOptions).learning_rate_end
    cost = config.of(GA3CLossOptions).entropy_cost
    cost_end = config.of(GA3CLossOptions).entropy_cost_end
    if rate_end >= 0:

      def schedule(frames):
        del frames
        return between(rate, rate_end)

    if cost_end < 0:
      return loss, schedule
    return (
      lambda *batch: loss(*batch, entropy_cost=between(cost, cost_end)),
      schedule,
    )

  def translate(
    self, arguments: Sequence[str]
  ) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns options for those of its own program; see base class."""
    return legacy_ga3c.translate(arguments)

  def check(self, config: Config) -> None:
    """See base class."""
    if config.actors.num_actors == 0:
      raise ValueError(
        '--num_actors=0 leaves GA3C without an agent: it has no serial mode. '
        'Set --num_actors=1 or more, or choose --algorithm=a2c.'
      )
    if config.of(BatchingOptions).batcher == 'none':
      raise ValueError(
        "--batcher=none leaves GA3C's predictors without work: they are who "
        'evaluates the policy, for all agents. Choose auto, op or python, or '
        '--algorithm=a3c.'
      )
    super().check(config)
    rate_end = config.of(GA3COptimizerOptions).learning_rate_end
    by_frames = config.optimizer.learning_rate_schedule
    if rate_end is None or rate_end < 0:
      return
    if by_frames not in (None, 'constant'):
      raise ValueError(
        f'--learning_rate_end={rate_end} is approached over episodes, and '
        f'--learning_rate_schedule={by_frames} goes by frames. Set '
        '--learning_rate_schedule=constant, or --learning_rate_end=-1.'
      )

  def prepare(
    self,
    config: Config,
    levels: Sequence[environments.Level],
    cluster: Any,
    given: Collection[str],
  ) -> Callable[[], None]:
    """See base class."""
    ends = (
      config.of(GA3COptimizerOptions).learning_rate_end,
      config.of(GA3CLossOptions).entropy_cost_end,
    )
    if 'annealing_episode_count' in given and max(ends) < 0:
      raise ValueError(
        '--annealing_episode_count='
        f'{config.of(EpisodeOptions).annealing_episode_count} has no effect '
        'without --learning_rate_end or --entropy_cost_end. Leave it out, or '
        'set one of them.'
      )
    return super().prepare(config, levels, cluster, given)

  def make_run(
    self, config: Config, levels: Sequence[environments.Level]
  ) -> 'local_run.LocalRun':
    """See base class."""
    from scalable_agent.runtimes import ga3c_local

    return ga3c_local.Run(config, levels)


GA3C = HybridA3C()
