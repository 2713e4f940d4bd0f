"""Options that suit a level, for where the user said nothing."""

import hashlib
import math
import os
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from scalable_agent.options import systems
from scalable_agent.options.catalog import Suite
from scalable_agent.options.config import Config

# That more actors pay is a calculation, see docs/performance.md: no more than
# were tried at all.
_MOST_ACTORS = 8

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
  algorithm, the published system that --preset names, and what the name of the
  level implies.

  Args:
    config: options as given; None where the user said nothing.
    suite: of the levels.
    implied: options that the name of the level implies.

  Raises:
    ValueError: there is no algorithm of the name in `config`, or the preset is
      that of a system of another one, or of other levels.
  """
  system = systems.SYSTEMS.get(config.run.preset)
  algorithm = algorithm_of(config)
  config = config.replace(algorithm=algorithm.name)
  run = config.run
  if system:
    _check_system(config, system, suite)
  elif run.preset == 'paper':
    system = systems.SYSTEMS.get(systems.PAPERS.get(run.algorithm, ''))
    if system and system.suite != suite.name:
      system = None
  defaults = {
    **algorithm.presets.get(run.preset, {}),
    **suite.defaults,
    **suite.presets.get(run.algorithm, {}).get(run.preset, {}),
    **(system.values if system else {}),
    **implied,
    'logdir': os.path.join('logs', _folder(run.level_name)),
  }
  return fill_in(config, defaults)


def _check_system(config: Config, system: systems.System, suite: Suite) -> None:
  run = config.run
  if run.algorithm != system.algorithm:
    raise ValueError(
      f'--preset={run.preset} is of --algorithm={system.algorithm}, not of '
      f'{run.algorithm}. Leave --algorithm out, or choose another preset.'
    )
  if suite.name != system.suite:
    raise ValueError(
      f'--preset={run.preset} is for levels of the {system.suite} suite, and '
      f'{run.level_name} is of {suite.name}. Choose auto or paper.'
    )


def algorithm_of(config: Config) -> Any:
  """Returns what --algorithm, or else --preset or the default, stands for.

  Raises:
    ValueError: there is none of this name.
  """
  one, name = config.catalog.options['algorithm'], config.run.algorithm
  if name is None:
    system = systems.SYSTEMS.get(config.run.preset)
    name = system.algorithm if system else one.default
  one.check(name)
  return config.catalog.algorithms[name]


def fill_in(
  config: Config, defaults: Mapping[str, Any] = MappingProxyType({})
) -> Config:
  """Returns `config` with unset options as in `defaults`, or their own."""
  unset = [name for name, value in config.values.items() if value is None]
  options = config.catalog.options
  return config.replace(
    **{name: defaults.get(name, options[name].default) for name in unset}
  )


def follow_cores(
  config: Config, suite: Suite, given: Collection[str], cores: int
) -> Config:
  """Returns `config` with as many threads of environments as suit the cores.

  How many actors that means, the algorithm says; a published system keeps its
  own number. Where a suite steps the environments of an actor in several
  threads, there is one for each core, and more than that are no faster.

  Args:
    config: resolved, of a run on a single machine.
    suite: of the levels; left as it is where more threads of it would wait for
      each other.
    given: names of the options that the user set; with one of the two of
      actors and environments set, the other is left to the preset, too.
    cores: that may be used.
  """
  if not suite.frees_the_interpreter:
    return config
  set_by_user = {'num_actors', 'envs_per_actor'} & set(given)
  if not set_by_user and config.run.preset not in systems.SYSTEMS:
    algorithm = algorithm_of(config)
    config = config.replace(
      **algorithm.follow_cores(
        config, min(cores, _MOST_ACTORS), bool(suite.threads_option)
      )
    )
  if suite.threads_option and suite.threads_option not in given:
    threads = math.ceil(cores / max(config.actors.num_actors, 1))
    threads = min(threads, config.actors.envs_per_actor)
    config = config.replace(**{suite.threads_option: threads})
  return config


def _folder(level_name: str) -> str:
  """Returns the name of a folder for the runs of --level_name."""
  name = level_name.translate(str.maketrans('/:,', '__+'))
  if len(name) <= _LONGEST_FOLDER:
    return name
  # Lists that begin alike must not share a folder.
  digest = hashlib.sha256(level_name.encode()).hexdigest()[:8]
  return f'{name[:_LONGEST_FOLDER]}-{digest}'
