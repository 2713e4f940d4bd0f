"""All options there are: the package's own, those of suites and algorithms."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from scalable_agent.options import (
  actors,
  agent,
  batching,
  cluster,
  environment,
  ga3c,
  loss,
  optimizer,
  reports,
  run,
  test,
)
from scalable_agent.options.config import Config
from scalable_agent.options.declaration import (
  ALGORITHMS,
  Option,
  declared_by,
)

# In the order of --help and of the summary at the start.
GROUPS = (
  run.RunOptions,
  ga3c.EpisodeOptions,
  environment.RepeatOptions,
  environment.FrameOptions,
  agent.AgentOptions,
  actors.ActorOptions,
  actors.BatchOptions,
  ga3c.TrainerOptions,
  actors.ThreadOptions,
  batching.BatchingOptions,
  loss.VTraceOptions,
  loss.AdvantageOptions,
  ga3c.GA3CLossOptions,
  optimizer.OptimizerOptions,
  ga3c.GA3COptimizerOptions,
  ga3c.AdjustmentOptions,
  cluster.ClusterOptions,
  reports.ReportOptions,
  ga3c.GA3CReportOptions,
  test.TestOptions,
)


class Suite(Protocol):
  """What options need to know of a suite."""

  @property
  def name(self) -> str: ...
  @property
  def help(self) -> str: ...
  @property
  def options(self) -> type: ...
  @property
  def defaults(self) -> Mapping[str, Any]: ...
  @property
  def presets(self) -> Mapping[str, Mapping[str, Mapping[str, Any]]]: ...
  @property
  def frees_the_interpreter(self) -> bool: ...
  @property
  def threads_option(self) -> str: ...


class Algorithm(Protocol):
  """What options need to know of an algorithm."""

  @property
  def name(self) -> str: ...
  @property
  def help(self) -> str: ...
  @property
  def options(self) -> tuple[type, ...]: ...
  @property
  def presets(self) -> Mapping[str, Mapping[str, Any]]: ...
  @property
  def log_formats(self) -> tuple[str, ...]: ...
  def check(self, config: Config) -> None: ...


class Catalog:
  """Every option, and where it means something.

  An option of a suite's group means something with the suites only that have
  it, likewise one of an algorithm's. All others always do.

  Attributes:
    options: by name, in the order of --help.
    groups: that the options stand in; an option may stand in several.
    suites: there are.
    algorithms: there are, by name.
  """

  def __init__(self, suites: Sequence[Suite], algorithms: Sequence[Algorithm]):
    """Initialises.

    Args:
      suites: all there are.
      algorithms: all there are.

    Raises:
      ValueError: two groups declare an option of the same name, one refers to
        an option that there is not or has a default that it does not allow, or
        a preset has something that is none.
    """
    # Whoever gave them knows more of them than options need to.
    self.suites: tuple[Any, ...] = tuple(suites)
    self.groups = (
      *GROUPS,
      *(suite.options for suite in suites),
      *(group for algorithm in algorithms for group in algorithm.options),
    )
    self.algorithms: dict[str, Any] = {one.name: one for one in algorithms}
    self._of_suite = {
      suite.name: frozenset(one.name for one in declared_by(suite.options))
      for suite in suites
    }
    self._of_algorithm = {
      algorithm.name: frozenset(
        one.name for group in algorithm.options for one in declared_by(group)
      )
      for algorithm in algorithms
    }
    self.options: dict[str, Option] = {}
    for one in (one for group in self.groups for one in declared_by(group)):
      if one.choices == ALGORITHMS:
        one = dataclasses.replace(one, choices=tuple(self.algorithms))
      else:
        one.check_default()
      known = self.options.setdefault(one.name, one)
      if known.group is not one.group:
        raise ValueError(
          f'the option {one.name} is declared by {known.group.__name__} and by '
          f'{one.group.__name__}. Rename one, or inherit it.'
        )

    for one in self.options.values():
      for alias in one.aliases:
        if alias in self.options:
          raise ValueError(
            f'{alias} is an option and another name of {one.name}.'
          )
    for one in self.options.values():
      unknown = set(one.idle_with) - set(self.options)
      if unknown:
        raise ValueError(
          f'the option {one.name} is idle with {", ".join(sorted(unknown))}, '
          'which is no option.'
        )
    self._check_presets()

  def _check_presets(self) -> None:
    """Refuses a preset of what none decides: nobody would hear of it."""
    tables = [(suite, suite.defaults) for suite in self.suites]
    for suite in self.suites:
      for presets in suite.presets.values():
        tables += [(suite, table) for table in presets.values()]
    for algorithm in self.algorithms.values():
      tables += [(algorithm, table) for table in algorithm.presets.values()]
    for owner, table in tables:
      for name in table:
        if name not in self.options or not self.options[name].by_preset:
          raise ValueError(
            f'the presets of {owner.name} have {name}, which is no option that '
            'presets decide. Correct it, or declare it with by_preset.'
          )

  def suites_of(self, name: str) -> tuple[str, ...]:
    """Returns the suites with which alone an option has effect, () for all."""
    return _owners(name, self._of_suite)

  def algorithms_of(self, name: str) -> tuple[str, ...]:
    """Returns the algorithms with which alone it has effect, () for all."""
    return _owners(name, self._of_algorithm)

  def has_effect(self, name: str, algorithm: str | None) -> bool:
    """Returns whether an option means something to an algorithm."""
    owners = self.algorithms_of(name)
    return not owners or algorithm in owners

  def make(self, **values: Any) -> Config:
    """Returns a Config of these values, all others being unset or defaults.

    Raises:
      ValueError: there is no option of some name.
    """
    unknown = sorted(set(values) - set(self.options))
    if unknown:
      raise ValueError(f'unknown options: {", ".join(unknown)}')
    defaults = {name: one.flag_default for name, one in self.options.items()}
    return Config(self, {**defaults, **values})


def _owners(name: str, names_of: Mapping[str, frozenset]) -> tuple[str, ...]:
  owners = tuple(owner for owner, names in names_of.items() if name in names)
  return owners if len(owners) < len(names_of) else ()
