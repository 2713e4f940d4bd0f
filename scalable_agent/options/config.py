"""The options of one run, by name and by group."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from scalable_agent.options.actors import (
  ActorOptions,
  BatchOptions,
  ThreadOptions,
)
from scalable_agent.options.agent import AgentOptions
from scalable_agent.options.batching import BatchingOptions
from scalable_agent.options.cluster import ClusterOptions
from scalable_agent.options.declaration import Part, declared_by
from scalable_agent.options.optimizer import OptimizerOptions
from scalable_agent.options.reports import ReportOptions
from scalable_agent.options.run import RunOptions
from scalable_agent.options.test import TestOptions

if TYPE_CHECKING:
  from scalable_agent.options.catalog import Catalog

Group = TypeVar('Group')


class Config:
  """What a run was given, never changed.

  Everything is kept by its flat name, as in flags, presets and config.json;
  parts of a run are handed the group of options that is theirs:

  ```python
  config.optimizer.learning_rate    # the groups that every run has
  config.of(level.suite.options)    # those of a suite or an algorithm
  ```

  A value of None is one that `options.resolve` has yet to fill in.

  Attributes:
    catalog: all options there are.
    values: of all options, by name.
  """

  def __init__(self, catalog: 'Catalog', values: Mapping[str, Any]):
    """Initialises; `Catalog.make` and `replace` are the ways to one.

    Args:
      catalog: all options there are.
      values: of all of them.
    """
    self.catalog = catalog
    self.values = MappingProxyType(dict(values))
    self._groups: dict[type, Any] = {}

  def of(self, group: type[Group]) -> Group:
    """Returns the values of a group of options."""
    if group not in self._groups:
      values = {one.name: self.values[one.name] for one in declared_by(group)}
      self._groups[group] = group(**values)
    return self._groups[group]

  @property
  def run(self) -> RunOptions:
    return self.of(RunOptions)

  @property
  def agent(self) -> AgentOptions:
    return self.of(AgentOptions)

  @property
  def actors(self) -> ActorOptions:
    return self.of(ActorOptions)

  @property
  def batches(self) -> BatchOptions:
    return self.of(BatchOptions)

  @property
  def threads(self) -> ThreadOptions:
    return self.of(ThreadOptions)

  @property
  def batching(self) -> BatchingOptions:
    return self.of(BatchingOptions)

  @property
  def optimizer(self) -> OptimizerOptions:
    return self.of(OptimizerOptions)

  @property
  def cluster(self) -> ClusterOptions:
    return self.of(ClusterOptions)

  @property
  def reports(self) -> ReportOptions:
    return self.of(ReportOptions)

  @property
  def test(self) -> TestOptions:
    return self.of(TestOptions)

  def replace(self, **values: Any) -> 'Config':
    """Returns a copy with other values."""
    return self.catalog.make(**{**self.values, **values})

  def acting(self) -> dict[str, Any]:
    """Returns what actors and learners must agree on, by name."""
    return self._where(lambda one: one.part is Part.ACTING)

  def differentiating(self) -> dict[str, Any]:
    """Returns the same where actors compute gradients, too."""
    agreed = (Part.ACTING, Part.GRADIENTS)
    return self._where(lambda one: one.part in agreed)

  def learning(self) -> dict[str, Any]:
    """Returns what all learners must agree on, by name."""
    may_differ = (Part.PROCESS, Part.PLACE)
    return self._where(lambda one: one.part not in may_differ)

  def _where(self, condition) -> dict[str, Any]:
    return self.pick(
      one.name for one in self.catalog.options.values() if condition(one)
    )

  def pick(self, names: Iterable[str]) -> dict[str, Any]:
    """Returns the values of some options, by name."""
    return {name: self.values[name] for name in names}

  def __eq__(self, other: object) -> bool:
    if not isinstance(other, Config):
      return NotImplemented
    return self.values == other.values

  __hash__ = None  # type: ignore[assignment]

  def __repr__(self) -> str:
    items = ', '.join(f'{k}={v!r}' for k, v in self.values.items())
    return f'Config({items})'
