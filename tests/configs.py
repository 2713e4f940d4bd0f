"""Options of a run, as the command line would give them."""

import dataclasses
from types import MappingProxyType

from scalable_agent import environments, options, runtimes

CATALOG = runtimes.make_catalog()
SUITES = {suite.name: suite for suite in CATALOG.suites}


def make_config(**values):
  """Returns a Config of these values, all others being unset or defaults."""
  return CATALOG.make(**values)


def resolve(config, suite, implied=MappingProxyType({})):
  """Returns a Config with nothing unset, for levels of a suite (by name)."""
  return options.resolve(config, SUITES.get(suite, suite), implied)


def make_environment(name, num_envs, seed, **values):
  """Returns environments of a level by name.

  Args:
    name: of the level.
    num_envs: E.
    seed: of the first.
    **values: options of the suite, None for unset ones, and of Purpose.
  """
  level = environments.parse_level(name)
  purposes = {field.name for field in dataclasses.fields(environments.Purpose)}
  purpose = {k: v for k, v in values.items() if k in purposes}
  chosen = environments.options_of(
    level,
    **{
      name: value
      for name, value in values.items()
      if name not in purposes and value is not None
    },
  )
  return environments.make(level, num_envs, chosen, seed, **purpose)
