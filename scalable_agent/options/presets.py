"""Options that suit a level, for where the user said nothing."""

import hashlib
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from scalable_agent.options.catalog import Suite
from scalable_agent.options.config import Config

# Characters, for lists of levels: file systems take 255 bytes.
_LONGEST_FOLDER = 80


def resolve(
  config: Config,
  suite: Suite,
  implied: Mapping[str, Any] = MappingProxyType({}),
) -> Config:
  """Returns `config` with every unset option filled in.

  The last of these that knows an option decides: its own default, the
  algorithm's preset, the suite's defaults, the suite's preset for the
  algorithm, and what the name of the level implies.

  Args:
    config: options as given; None where the user said nothing.
    suite: of the levels.
    implied: options that the name of the level implies.

  Raises:
    ValueError: there is no algorithm of the name in `config`.
  """
  run = config.run
  if run.algorithm not in config.catalog.algorithms:
    config.catalog.options['algorithm'].check(run.algorithm)
  algorithm = config.catalog.algorithms[run.algorithm]
  defaults = {
    **algorithm.presets.get(run.preset, {}),
    **suite.defaults,
    **suite.presets.get(run.algorithm, {}).get(run.preset, {}),
    **implied,
    'logdir': os.path.join('logs', _folder(run.level_name)),
  }
  return fill_in(config, defaults)


def fill_in(
  config: Config, defaults: Mapping[str, Any] = MappingProxyType({})
) -> Config:
  """Returns `config` with unset options as in `defaults`, or their own."""
  unset = [name for name, value in config.values.items() if value is None]
  options = config.catalog.options
  return config.replace(
    **{name: defaults.get(name, options[name].default) for name in unset}
  )


def _folder(level_name: str) -> str:
  """Returns the name of a folder for the runs of --level_name."""
  name = level_name.translate(str.maketrans('/:,', '__+'))
  if len(name) <= _LONGEST_FOLDER:
    return name
  # Lists that begin alike must not share a folder.
  digest = hashlib.sha256(level_name.encode()).hexdigest()[:8]
  return f'{name[:_LONGEST_FOLDER]}-{digest}'
