"""Trains and tests IMPALA agents, on one machine or many.

  python experiment.py                          # IMPALA on Pong
  python experiment.py --level_name=CartPole-v1
  python experiment.py --mode=test --logdir=logs/pong

`python experiment.py --help` lists every option. This is the only file that
reads flags.
"""

import contextlib
import os
import sys
import tempfile
import types
import typing

from absl import app, flags, logging

from scalable_agent import config as config_lib

# By the custom of shells, 128 and the number of SIGINT.
_INTERRUPTED = 130

_DEFINE = {
  bool: flags.DEFINE_boolean,
  int: flags.DEFINE_integer,
  float: flags.DEFINE_float,
  str: flags.DEFINE_string,
}


def _define_flags() -> None:
  """One flag per field of Config; unset flags are None."""
  types_ = typing.get_type_hints(config_lib.Config)
  for name, field in config_lib.FIELDS.items():
    kind = types_[name]
    if isinstance(kind, types.UnionType):
      kind = next(t for t in typing.get_args(kind) if t is not types.NoneType)
    help_text = field.metadata['help']
    if field.default is None and 'Default:' not in help_text:
      help_text += ' Default: of the preset.'
    if field.metadata['choices']:
      flags.DEFINE_enum(
        name, field.default, field.metadata['choices'], help_text
      )
    else:
      _DEFINE[kind](name, field.default, help_text)


_define_flags()
FLAGS = flags.FLAGS


def _config_from_flags() -> config_lib.Config:
  return config_lib.Config(**{n: FLAGS[n].value for n in config_lib.FIELDS})


def _given_flags() -> set[str]:
  """Names of the flags that stand on the command line."""
  return {name for name in config_lib.FIELDS if FLAGS[name].present}


def _load_tensorflow() -> None:
  """Imports TensorFlow and looks for devices, without their start-up notes.

  TensorFlow's libraries write them to file descriptor 2 when they are loaded,
  once for each of their copies of absl's log, before any log level is read.
  Set TF_CPP_MIN_LOG_LEVEL to see them.
  """
  if 'TF_CPP_MIN_LOG_LEVEL' in os.environ:
    return
  os.environ['TF_CPP_MIN_LOG_LEVEL'] = '2'
  sys.stderr.flush()
  stderr = os.dup(2)
  with tempfile.TemporaryFile() as notes:
    os.dup2(notes.fileno(), 2)
    try:
      import tensorflow as tf

      tf.config.list_physical_devices()
    except Exception:
      notes.seek(0)
      os.write(stderr, notes.read())
      raise
    finally:
      os.dup2(stderr, 2)
      os.close(stderr)


def train(config: config_lib.Config) -> None:
  """Trains with what the command line gave; resumes if the logdir has a run."""
  from scalable_agent import cluster as cluster_lib
  from scalable_agent import cores, environments, presets
  from scalable_agent.runtimes import assembly

  with _one_line_errors():
    levels = environments.parse_levels(config.level_name)
    implied = environments.implied_options(levels, config)
    config = presets.resolve(config, levels[0].suite, implied)
    config, cluster = cluster_lib.resolve(config, _given_flags()) or (
      config,
      None,
    )
    if cluster is None:
      config = presets.follow_cores(
        config, levels[0].suite, _given_flags(), cores.usable_cores()
      )
    config_lib.validate(config)
    config_lib.check_given(config, _given_flags())
    config = assembly.resolve_threads(config)
    assembly.use_threads(config)
    assembly.check_levels(config, levels)
    config = assembly.resolve_network(config, levels)
  if cluster is None:
    _train_here(config, levels)
  elif cluster.job_name == 'learner':
    _learn(config, levels, cluster)
  else:
    _act(config, levels, cluster)


def _train_here(config, levels) -> None:
  """The whole training in this process."""
  from scalable_agent import logdirs, strategies
  from scalable_agent.runtimes import impala_local

  with _one_line_errors():
    lock = logdirs.prepare_logdir(config.logdir, config)
    _describe(config, levels)
    strategy = strategies.make_strategy(None, config.learner_devices)
    run = impala_local.Run(config, levels, strategy)
    if run.frames() < config.total_environment_frames:
      logdirs.write_config(config.logdir, config)
  with lock:
    impala_local.train(run)


def _learn(config, levels, cluster) -> None:
  """One of the learner processes."""
  from scalable_agent import logdirs, strategies
  from scalable_agent.runtimes import impala_learner

  with (
    contextlib.ExitStack() as stack,
    _one_line_errors(ValueError, OSError, impala_learner.LostLearner),
  ):
    if cluster.task == 0:
      stack.enter_context(logdirs.prepare_logdir(config.logdir, config))
      _describe(config, levels)
    cluster.check()
    strategy = strategies.make_strategy(
      cluster,
      config.learner_devices,
      config.reconnect_timeout,
      config_lib.learning_options(config),
    )
    run = impala_learner.Run(config, levels, cluster, strategy)
    if cluster.task == 0 and run.frames() < config.total_environment_frames:
      logdirs.write_config(config.logdir, config)
    lock = stack.pop_all()
  with lock, _one_line_errors(impala_learner.LostLearner):
    impala_learner.train(run)


def _act(config, levels, cluster) -> None:
  """One of the actor processes."""
  from scalable_agent import learner_link
  from scalable_agent.runtimes import impala_actor

  with _one_line_errors():
    cluster.check()
  with _one_line_errors(learner_link.LinkError):
    impala_actor.act(config, levels, cluster)


def _describe(config, levels) -> None:
  from scalable_agent import cores, environments
  from scalable_agent.runtimes import assembly

  hidden = environments.options_without_effect(levels[0])
  print(config_lib.describe(config, _given_flags(), hidden))
  print(
    f'  cores:     usable={cores.usable_cores()} '
    f'intra_op_threads={config.intra_op_threads}',
    flush=True,
  )
  shares = assembly.describe_shares(config, levels)
  if shares:
    print(shares, flush=True)


def test(config: config_lib.Config) -> None:
  """Tests the agent in the logdir."""
  from scalable_agent.runtimes import test as test_runtime

  with _one_line_errors():
    parts = test_runtime.prepare(config, _given_flags())
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
  if len(argv) > 1:
    # absl's UsageError would bury the message under the whole help.
    sys.exit(
      f'experiment.py: unexpected arguments: {" ".join(argv[1:])}. Options are '
      'written --name=value; --help lists them.'
    )
  logging.set_verbosity(FLAGS['verbosity'].value)
  # TensorFlow tells how long a part of every save took, and what its strategies
  # are made of.
  logging.get_absl_handler().addFilter(
    lambda record: (
      record.levelno > logging.converter.STANDARD_INFO
      or f'{os.sep}tensorflow{os.sep}' not in record.pathname
    )
  )
  config = _config_from_flags()
  # TF_CONFIG may say what the flags of a training do not.
  if config.mode != 'train' or 'TF_CONFIG' not in os.environ:
    with _one_line_errors():
      config_lib.validate(config)
  try:
    _load_tensorflow()
    {'train': train, 'test': test}[config.mode](config)
  except KeyboardInterrupt:
    print('experiment.py: interrupted.', file=sys.stderr)
    sys.exit(_INTERRUPTED)


if __name__ == '__main__':
  app.run(main)
