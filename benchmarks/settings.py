"""Options of the training that a benchmark measures."""

from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from scalable_agent import environments, options, runtimes
from scalable_agent.runtimes import assembly, cores

_DEFINE = {
  bool: flags.DEFINE_boolean,
  int: flags.DEFINE_integer,
  float: flags.DEFINE_float,
  str: flags.DEFINE_string,
}
# Nothing ends, decays or is saved while it is measured.
_ENDLESS = {
  'logdir': 'unused',
  'total_environment_frames': 1e12,
  'learning_rate_schedule': 'constant',
  'summary_secs': 5.0,
  'progress_secs': 1e9,
}
# That benchmarks decide.
_TAKEN = (*_ENDLESS, 'algorithm', 'level_name', 'mode', 'preset')


def parse(arguments: Sequence[str]) -> dict[str, Any]:
  """Returns the options of experiment.py that are set, by name.

  Args:
    arguments: such as `--inference_threads=2`.

  Raises:
    ValueError: there is none of a name, its value is of another type, or it is
      not the user's to set.
  """
  catalog = runtimes.make_catalog()
  values = flags.FlagValues()
  for name, one in catalog.options.items():
    _DEFINE[one.kind](name, None, one.help, flag_values=values)
    for alias in one.aliases:
      flags.DEFINE_alias(alias, name, flag_values=values)
  try:
    rest = values(['', *arguments])[1:]
  except flags.Error as error:
    raise ValueError(str(error)) from error
  if rest:
    raise ValueError(
      f'unexpected arguments: {" ".join(rest)}. What follows `--` is options '
      'of experiment.py, written --name=value.'
    )
  given = {name: values[name].value for name in catalog.options}
  given = {name: value for name, value in given.items() if value is not None}
  for name in _TAKEN:
    if name in given:
      raise ValueError(
        f'--{name}={given[name]} behind `--`: the benchmark itself decides '
        'that. Leave it out.'
      )
  if given.get('num_actors') == 0:
    raise ValueError(
      '--num_actors=0 behind `--`: what is measured has actor threads. Set '
      '--num_actors=1 or more.'
    )
  return given


def make_config(
  level_name: str, preset: str, given: Mapping[str, Any]
) -> tuple[options.Config, environments.Level]:
  """Returns what `experiment.py` would train with on these cores.

  Args:
    level_name: what to play.
    preset: of --preset.
    given: other options that are set, of `parse`.

  Returns:
    The options, resolved and validated, and the level.

  Raises:
    ValueError: one has a bad value, or no effect.
  """
  level = environments.parse_level(level_name)
  catalog = runtimes.make_catalog()
  given = {'level_name': level_name, 'preset': preset, **given}
  config = catalog.make(**_ENDLESS, **given)
  options.check_suite(config, given, level.suite, level.name)
  config = options.resolve(config, level.suite, level.options)
  config = options.follow_cores(
    config, level.suite, given, cores.usable_cores()
  )
  options.validate(config)
  options.check_given(config, given)
  config = assembly.resolve_machine(config)
  return assembly.resolve_network(config, [level], given), level


def choices_of(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
  """Returns all values of some options but what `auto` stands for, by name."""
  catalog = runtimes.make_catalog()
  return {
    name: tuple(one for one in catalog.options[name].choices if one != 'auto')
    for name in names
  }
