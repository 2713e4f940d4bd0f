"""Trains and tests agents: IMPALA, GA3C, A3C, A2C; on one machine or many.

  python experiment.py                          # IMPALA on Pong
  python experiment.py --level_name=CartPole-v1
  python experiment.py --mode=test --logdir=logs/pong

`python experiment.py --help` lists every option. This is the only file that
reads flags.
"""

import contextlib
import os
import sys

from absl import app, flags, logging

from scalable_agent import environments, options, runtimes

# By the custom of shells, 128 and the number of SIGINT.
_INTERRUPTED = 130

_DEFINE = {
  bool: flags.DEFINE_boolean,
  int: flags.DEFINE_integer,
  float: flags.DEFINE_float,
  str: flags.DEFINE_string,
}


def _define_flags(catalog: options.Catalog) -> None:
  """One flag per option; unset flags of presets are None.

  Raises:
    ValueError: one is a flag of absl's.
  """
  app.define_help_flags()
  for name, one in catalog.options.items():
    module = flags.FLAGS.find_module_defining_flag(name, '')
    if module.startswith('absl.'):
      raise ValueError(
        f'the option {name} of a plugin is a flag of {module} already. Give '
        'it another name.'
      )
    text = options.help_of(one, catalog)
    # Those of plugins join, or replace, the package's own.
    if one.choices:
      flags.DEFINE_enum(
        name, one.flag_default, one.choices, text, allow_override=True
      )
    else:
      _DEFINE[one.kind](name, one.flag_default, text, allow_override=True)
    for alias in one.aliases:
      if alias in flags.FLAGS:
        delattr(flags.FLAGS, alias)
      flags.DEFINE_alias(alias, name)


_define_flags(runtimes.make_catalog())
FLAGS = flags.FLAGS


class _Help(flags.BooleanFlag):
  """--help: options by group, in place of absl's list by name."""

  def __init__(self, catalog: options.Catalog):
    super().__init__(
      'help', False, 'Show this.', short_name='?', allow_override=True
    )
    self._catalog = catalog

  def parse(self, arg) -> None:
    if self._parse(arg):
      print(f'{__doc__.strip()}\n\n{options.format_help(self._catalog)}')
      print('--helpfull lists the flags of libraries as well.')
      sys.exit()


def parse_flags(argv: list[str]) -> list[str]:
  """Returns the arguments that are no flags; defines those of plugins."""
  first = flags.FlagValues()
  flags.DEFINE_string('plugin', '', '', flag_values=first)
  with contextlib.suppress(flags.Error), _one_line_errors():
    first(argv, known_only=True)
    catalog = runtimes.make_catalog(first['plugin'].value)
    _define_flags(catalog)
    flags.DEFINE_flag(_Help(catalog))
  # Some of absl's errors are ValueErrors.
  with _one_line_errors():
    return app.parse_flags_with_usage(argv)


def _translate(
  config: options.Config, arguments: list[str], given: set[str]
) -> tuple[dict, dict]:
  """Returns options that arguments which are no flags set, and imply.

  Raises:
    ValueError: there are none of this algorithm, or a flag sets one as well.
  """
  if not arguments:
    return {}, {}
  more, implied = options.algorithm_of(config).translate(arguments)
  twice = sorted(given & more.keys())
  if twice:
    raise ValueError(
      f'--{twice[0]}={FLAGS[twice[0]].value} is also set by '
      f'{" ".join(arguments)}. Leave one of them out.'
    )
  return more, {k: v for k, v in implied.items() if k not in given}


def train(config: options.Config, given: set[str]) -> None:
  """Trains with what the command line gave; resumes if the logdir has a run.

  Args:
    config: options as given.
    given: names of the options that stand on the command line.
  """
  # Mistakes are told before anything heavy is imported.
  from scalable_agent.distribution import cluster as cluster_lib
  from scalable_agent.runtimes import cores

  with _one_line_errors():
    levels = environments.parse_levels(
      config.run.level_name, config.catalog.suites
    )
    suite = levels[0].suite
    options.check_suite(config, given, suite, levels[0].name)
    implied = environments.implied_options(levels, config)
    config = options.resolve(config, suite, implied)
    config, cluster = cluster_lib.resolve(config, given) or (config, None)
    if cluster is None:
      usable = cores.usable_cores()
      config = options.follow_cores(config, suite, given, usable)
    options.validate(config)
    options.check_given(config, given)
  from scalable_agent.runtimes import startup, worlds
  from scalable_agent.storage import files

  with _one_line_errors(ValueError, OSError, runtimes.Ended):
    worlds.check_levels(config, levels)
    algorithm = options.algorithm_of(config)
    if not algorithm.begins_without_tensorflow(cluster):
      config = startup.resolve(config, levels, given)
    run = algorithm.prepare(config, levels, cluster, given)
  failures = runtimes.Ended, files.WriteError, files.UnreadableError
  with _one_line_errors(*failures):
    run()


def test(config: options.Config, given: set[str]) -> None:
  """Tests the agent in the logdir, or shows how it plays."""
  from scalable_agent.runtimes import startup

  startup.load_tensorflow()
  from scalable_agent.runtimes import test as test_runtime
  from scalable_agent.storage import files

  with _one_line_errors():
    parts = test_runtime.prepare(config, given)
  with _one_line_errors(files.WriteError):
    test_runtime.test(*parts)


@contextlib.contextmanager
def _one_line_errors(*kinds: type[Exception]):
  """Ends the process with the message alone: no code here is at fault.

  Args:
    *kinds: exceptions that tell the user what to do; default: ValueError and
      OSError, which is only for what comes before the work. A failure at work
      keeps its traceback.
  """
  try:
    yield
  except kinds or (ValueError, OSError) as error:  # noqa: B030
    if logging.level_debug():
      raise
    sys.exit(f'experiment.py: {error}')


def main(argv: list[str]) -> None:
  logging.set_verbosity(FLAGS['verbosity'].value)
  # TensorFlow tells how long a part of every save took, and what its strategies
  # are made of.
  logging.get_absl_handler().addFilter(
    lambda record: (
      record.levelno > logging.converter.STANDARD_INFO
      or f'{os.sep}tensorflow{os.sep}' not in record.pathname
    )
  )
  with _one_line_errors():
    catalog = runtimes.make_catalog(FLAGS['plugin'].value)
  given = {name for name in catalog.options if FLAGS[name].present}
  config = catalog.make(**{name: FLAGS[name].value for name in catalog.options})
  # absl's UsageError would bury the message under the whole help.
  with _one_line_errors():
    more, implied = _translate(config, argv[1:], given)
  config = config.replace(**{**implied, **more})
  given |= more.keys()
  # TF_CONFIG may say what the flags of a training do not.
  if config.run.mode != 'train' or 'TF_CONFIG' not in os.environ:
    with _one_line_errors():
      options.validate(config)
  try:
    (train if config.run.mode == 'train' else test)(config, given)
  except KeyboardInterrupt:
    print('experiment.py: interrupted.', file=sys.stderr)
    sys.exit(_INTERRUPTED)


if __name__ == '__main__':
  app.run(main, flags_parser=parse_flags)
