"""What a training prints of its options when it starts."""

from collections.abc import Collection
from typing import Any

from scalable_agent.options.catalog import Suite
from scalable_agent.options.config import Config
from scalable_agent.options.declaration import Line


def describe(config: Config, given: Collection[str], suite: Suite) -> str:
  """Returns the options that decide what is learned, one line per group.

  Args:
    config: resolved.
    given: names of the options that the user set; they are marked with a *.
    suite: of the levels; what means nothing to it is left out.
  """
  catalog = config.catalog
  shown = [
    one
    for one in catalog.options.values()
    if suite.name in (catalog.suites_of(one.name) or [suite.name])
    and catalog.has_effect(one.name, config.run.algorithm)
  ]
  lines = ['Options (* = set by you, the others by preset or default):']
  for line in Line:
    items = [
      f'{one.name}={_shown(config.values[one.name])}'
      f'{"*" if one.name in given else ""}'
      for one in shown
      if one.line is line
    ]
    if items:
      lines.append(f'  {line.value + ":":10} {" ".join(items)}')
  return '\n'.join(lines)


def _shown(value: Any) -> str:
  """15000000, not 15000000.0."""
  return f'{value:.15g}' if isinstance(value, float) else str(value)
