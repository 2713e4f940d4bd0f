"""Every option of every mode, declared once; presets.

Nothing here imports TensorFlow, NumPy or a simulator, so that `--help` and a
wrong flag are answered at once.
"""

from scalable_agent.options import legacy_ga3c, systems
from scalable_agent.options.actors import (
  ActorOptions,
  BatchOptions,
  QueueOptions,
  ThreadOptions,
  UnrollOptions,
)
from scalable_agent.options.agent import AgentOptions
from scalable_agent.options.batching import BatchingOptions
from scalable_agent.options.catalog import Catalog
from scalable_agent.options.checks import check_given, check_suite, validate
from scalable_agent.options.cluster import ClusterOptions
from scalable_agent.options.config import Config
from scalable_agent.options.declaration import (
  Line,
  Option,
  Part,
  check_group,
  choices_of,
  declared_by,
  option,
)
from scalable_agent.options.environment import (
  ActionOptions,
  FrameOptions,
  LengthOptions,
  NoOptions,
  RepeatOptions,
  TextOptions,
)
from scalable_agent.options.evaluation import EvaluationOptions
from scalable_agent.options.ga3c import (
  AdjustmentOptions,
  EpisodeOptions,
  GA3CLossOptions,
  GA3COptimizerOptions,
  GA3CReportOptions,
  TrainerOptions,
)
from scalable_agent.options.help import format_help, help_of
from scalable_agent.options.loss import (
  AdvantageOptions,
  LossOptions,
  VTraceOptions,
)
from scalable_agent.options.optimizer import OptimizerOptions
from scalable_agent.options.presets import (
  algorithm_of,
  fill_in,
  follow_cores,
  resolve,
)
from scalable_agent.options.reports import ReportOptions
from scalable_agent.options.run import RunOptions
from scalable_agent.options.saved import for_test, from_dict
from scalable_agent.options.summary import describe
from scalable_agent.options.test import TestOptions
from scalable_agent.options.workers import WorkerOptions

__all__ = (
  'ActionOptions',
  'ActorOptions',
  'AdjustmentOptions',
  'AdvantageOptions',
  'AgentOptions',
  'BatchOptions',
  'BatchingOptions',
  'Catalog',
  'ClusterOptions',
  'Config',
  'EpisodeOptions',
  'EvaluationOptions',
  'FrameOptions',
  'GA3CLossOptions',
  'GA3COptimizerOptions',
  'GA3CReportOptions',
  'LengthOptions',
  'Line',
  'LossOptions',
  'NoOptions',
  'OptimizerOptions',
  'Option',
  'Part',
  'QueueOptions',
  'RepeatOptions',
  'ReportOptions',
  'RunOptions',
  'TestOptions',
  'TextOptions',
  'ThreadOptions',
  'TrainerOptions',
  'UnrollOptions',
  'VTraceOptions',
  'WorkerOptions',
  'algorithm_of',
  'check_given',
  'check_group',
  'check_suite',
  'choices_of',
  'declared_by',
  'describe',
  'fill_in',
  'follow_cores',
  'for_test',
  'format_help',
  'from_dict',
  'help_of',
  'legacy_ga3c',
  'option',
  'resolve',
  'systems',
  'validate',
)
