"""What GA3C has beyond the others; other names of these are its Config's."""

import dataclasses
import os
from typing import Any

from scalable_agent.options.declaration import Line, Part, option
from scalable_agent.options.loss import LossOptions

_OF_ABS_ONE: dict[str, Any] = {
  'idle_with': {
    'reward_clipping': ('soft_asymmetric', 'optimistic_asymmetric', 'none')
  }
}


_MOST_TRANSITIONS = 1_000_000


@dataclasses.dataclass(frozen=True)
class TrainerOptions:
  """Actors and batches."""

  num_trainers: int = option(
    2,
    'Threads that learn, each from batches of its own, from the same weights '
    'and without a lock.',
    unit='threads',
    by_preset=True,
    minimum=1,
    line=Line.BATCH,
  )
  training_min_batch_size: int = option(
    0,
    'Transitions of one update at least; of fewer than an actor hands in, as '
    'many as that. Counted in whole trajectories of --unroll_length.',
    unit='agent steps',
    by_preset=True,
    minimum=0,
    line=Line.BATCH,
  )

  def check(self) -> None:
    """Refuses updates that no memory has room for."""
    least = self.training_min_batch_size
    if least is not None and least > _MOST_TRANSITIONS:
      raise ValueError(
        f'--training_min_batch_size={least} must be at most '
        f'{_MOST_TRANSITIONS}.'
      )


@dataclasses.dataclass(frozen=True)
class EpisodeOptions:
  """The run."""

  total_episodes: int = option(
    0,
    'Episodes learned from after which training stops, if it does not by '
    '--total_environment_frames; 0 = by these alone.',
    unit='episodes',
    by_preset=True,
    minimum=0,
    line=Line.RUN,
  )
  annealing_episode_count: int = option(
    400_000,
    'Episodes learned from over which --learning_rate_end and '
    '--entropy_cost_end are approached, in a straight line.',
    unit='episodes',
    by_preset=True,
    minimum=1,
  )


@dataclasses.dataclass(frozen=True)
class GA3CLossOptions(LossOptions):
  """Loss."""

  entropy_cost_end: float = option(
    -1.0,
    '--entropy_cost after --annealing_episode_count episodes; -1 = it stays.',
    by_preset=True,
    minimum=-1,
  )
  log_epsilon: float = option(
    1e-6,
    'Least probability in a logarithm: log(max(p, epsilon)). What is less '
    'probable is not learned from.',
    by_preset=True,
    above=0,
    idle_with={'use_log_softmax': (True,)},
  )
  use_log_softmax: bool = option(
    False,
    'Logarithms of any probability, without --log_epsilon.',
    by_preset=True,
  )
  reward_min: float = option(
    -1.0,
    'Least reward in the loss, where --reward_clipping=abs_one.',
    **_OF_ABS_ONE,
  )
  reward_max: float = option(
    1.0,
    'Greatest reward in the loss, where --reward_clipping=abs_one.',
    **_OF_ABS_ONE,
  )

  def check(self) -> None:
    """Refuses a cost below 0, but for -1, and values that leave nothing."""
    if self.log_epsilon is not None and self.log_epsilon > 1:
      raise ValueError(
        f'--log_epsilon={self.log_epsilon} must be at most 1: no action is '
        'more probable, and of less probable ones nothing is learned.'
      )
    end = self.entropy_cost_end
    if end is not None and -1 < end < 0:
      raise ValueError(
        f'--entropy_cost_end={end} must be at least 0, or -1 for a cost that '
        'stays as it is.'
      )
    if self.reward_min > self.reward_max:
      raise ValueError(
        f'--reward_min={self.reward_min} exceeds --reward_max='
        f'{self.reward_max}.'
      )


@dataclasses.dataclass(frozen=True)
class GA3COptimizerOptions:
  """Optimizer."""

  learning_rate_end: float = option(
    -1.0,
    '--learning_rate after --annealing_episode_count episodes; -1 = it follows '
    '--learning_rate_schedule instead.',
    by_preset=True,
    minimum=-1,
  )
  dual_rmsprop: bool = option(
    False,
    "An RMSProp of the policy's loss and one of the baseline's, each with "
    'statistics of its own, instead of one of their sum.',
    by_preset=True,
    fixed=True,
    idle_with={'optimizer': ('adam',)},
    line=Line.OPTIMIZER,
  )

  def check(self) -> None:
    """Refuses a rate below 0, but for -1."""
    end = self.learning_rate_end
    if end is not None and -1 < end < 0:
      raise ValueError(
        f'--learning_rate_end={end} must be at least 0, or -1 for none.'
      )


_OF_SETTINGS: dict[str, Any] = {
  'part': Part.PROCESS,
  'idle_with': {'dynamic_settings': (False,)},
}


@dataclasses.dataclass(frozen=True)
class AdjustmentOptions:
  """Dynamic adjustment."""

  dynamic_settings: bool = option(
    False,
    'While training, try one actor, predictor or trainer more or less at a '
    'time, and keep what makes training faster.',
    by_preset=True,
    part=Part.PROCESS,
    line=Line.BATCH,
  )
  dynamic_settings_initial_wait: float = option(
    10.0,
    'Time before the first try.',
    by_preset=True,
    unit='seconds',
    minimum=0,
    **_OF_SETTINGS,
  )
  dynamic_settings_step_wait: float = option(
    20.0,
    'Time for which the speed is measured before each try, and again after it.',
    by_preset=True,
    unit='seconds',
    above=0,
    **_OF_SETTINGS,
  )
  dynamic_settings_confidence: float = option(
    2.0,
    'Standard errors by which the speed must have risen for a try to be kept.',
    minimum=0,
    **_OF_SETTINGS,
  )


_OF_LOG: dict[str, Any] = {
  'part': Part.PROCESS,
  'idle_with': {'log_format': ('auto',)},
}


@dataclasses.dataclass(frozen=True)
class GA3CReportOptions:
  """Reports."""

  print_stats_frequency: int = option(
    1, 'Episodes between two lines.', unit='episodes', minimum=1, **_OF_LOG
  )
  stat_rolling_mean_window: int = option(
    1000,
    'Latest episodes that RScore and RPPS are of.',
    unit='episodes',
    minimum=1,
    **_OF_LOG,
  )
  results_filename: str = option(
    'results.txt',
    'File of a row for each episode, in the logdir if it is no whole path. One '
    'elsewhere is only added to. Ends in .txt, if it is no whole path.',
    **_OF_LOG,
  )

  def check(self) -> None:
    """Refuses names that other files of a run have."""
    name = self.results_filename
    if not (name.endswith('.txt') or os.path.isabs(name)):
      raise ValueError(
        f'--results_filename={name} must end in .txt, so that it is none of '
        'the files that a run has anyway, or be a whole path.'
      )
