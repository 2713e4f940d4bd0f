"""Plays whole games with a trained agent, rebuilt from its logdir alone."""

import contextlib
import datetime
import itertools
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

import scalable_agent
from scalable_agent import environments, evaluation, networks, options
from scalable_agent.reports import windows
from scalable_agent.runtimes import assembly, interruption, training, worlds
from scalable_agent.storage import checkpointing, files, logdirs


class Test(NamedTuple):
  """The arguments of `test`, see there."""

  config: options.Config
  agent: networks.Agent
  levels: tuple[environments.Level, ...]
  checkpoint: str
  frames: int


def prepare(config: options.Config, given: Collection[str]) -> Test:
  """Rebuilds the agent in --logdir, and finds what it is to play.

  Args:
    config: options as given.
    given: names of the options that the user set. What concerns the agent is
      read from the logdir and refused if it differs.

  Returns:
    What `test` needs.

  Raises:
    ValueError: the logdir has no run or no intact checkpoint, options that
      contradict it, --video_dir cannot be made, or a level cannot be made or
      filmed.
  """
  suites = config.catalog.suites
  if config.run.logdir is None:
    levels = environments.parse_levels(config.run.level_name, suites)
    config = options.resolve(config, levels[0].suite)
  trained = logdirs.load_config(config.run.logdir, config.catalog)
  config = options.for_test(config, trained, given)
  # For the results, after all the games.
  logdirs.check_writable(config.run.logdir)
  if config.run.mode == 'play':
    config = _with_a_screen(config)
  if config.test.video_dir:
    try:
      os.makedirs(config.test.video_dir, exist_ok=True)
    except OSError as error:
      raise ValueError(
        f'--video_dir={config.test.video_dir} cannot be made: '
        f'{error.strerror}. Choose a folder that you may write to.'
      ) from error
  # Of an older version, a run has `auto` in its config.json.
  config = assembly.resolve_machine(config)
  assembly.use_threads(config)
  levels = environments.parse_levels(config.run.level_name, suites, test=True)
  options.check_suite(config, given, levels[0].suite, levels[0].name)
  for level in levels:
    # What cannot be made or filmed is to fail before the games.
    with _environment(config, level, num_envs=1) as environment:
      spec = environment.spec
      if _is_seen(config):
        environment.reset()
        environment.render()
  agent = assembly.make_agent(config, spec)
  learner = training.make_learner(config, agent, spec)
  checkpointer = checkpointing.Checkpointer(
    config.run.logdir, learner.checkpoint_items()
  )
  try:
    if config.test.checkpoint == 'best':
      state = checkpointer.restore_best()
    else:
      state = checkpointer.restore()
  except checkpointing.DamagedError as error:
    raise ValueError(str(error)) from error
  if state is None:
    raise ValueError(
      f'--logdir={config.run.logdir} has no checkpoint yet. Train there first: '
      f'python experiment.py --logdir={config.run.logdir} '
      f'--level_name={config.run.level_name}'
    )
  assert checkpointer.restored is not None
  print(
    f'Testing the agent of {config.run.logdir} on {config.run.level_name} '
    f'after {int(learner.frames):,} frames.',
    flush=True,
  )
  return Test(
    config=config,
    agent=agent,
    levels=levels,
    checkpoint=os.path.relpath(checkpointer.restored, config.run.logdir),
    frames=int(learner.frames),
  )


def test(
  config: options.Config,
  agent: networks.Agent,
  levels: Sequence[environments.Level],
  checkpoint: str,
  frames: int,
) -> None:
  """Plays one level after the other; prints, saves and films the results.

  Args:
    config: options of the test.
    agent: with the trained weights.
    levels: to play.
    checkpoint: that the weights are of, below the logdir.
    frames: environment frames that the agent has learned from.

  Raises:
    files.WriteError: the results could not be saved; where it could not be
      known beforehand, they have been printed.
    SystemExit: SIGINT or SIGTERM has come.
  """
  date = datetime.datetime.now(datetime.timezone.utc)
  with (
    _interruptible(),
    _new_file(config.run.logdir, date) as path,
    interruption.Interruption(_end),
  ):
    results, videos = _play(config, agent, levels)
    circumstances = {
      'date': date.isoformat(timespec='seconds'),
      'version': scalable_agent.__version__,
      'checkpoint': checkpoint,
      'frames': frames,
      'seed': config.run.seed,
      'protocol': _protocol(config, levels[0]),
    }
    scores = levels[0].suite.test_scores({r.level: r.returns for r in results})
    evaluation.report(results, path, circumstances=circumstances, scores=scores)
  print(f'Wrote {" and ".join([path, *videos])}.')


class _Interrupted(BaseException):
  """Ends a test wherever it is; no part of it takes this for its own."""


def _end() -> None:
  raise _Interrupted


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
  try:
    yield
  except _Interrupted:
    sys.exit('The test was interrupted: it leaves no results.')


def _play(
  config: options.Config,
  agent: networks.Agent,
  levels: Sequence[environments.Level],
) -> tuple[list[evaluation.LevelResult], list[str]]:
  """Plays one level after the other; returns results and paths of videos."""
  results, videos = [], []
  num_envs = min(config.test.test_num_episodes, config.actors.envs_per_actor)
  if _has_window(config):
    num_envs = 1
  for level in levels:
    video_path = None
    if config.test.video_dir:
      name = level.name.replace('/', '_').replace(':', '_')
      video_path = os.path.join(config.test.video_dir, f'{name}.mp4')
      videos.append(video_path)
    with (
      _environment(config, level, num_envs) as environment,
      _window(config, environment) as window,
    ):
      results.append(
        evaluation.evaluate(
          agent,
          environment,
          config.test.test_num_episodes,
          greedy=config.test.test_policy == 'greedy',
          seed=sampling_seed(config.run.seed),
          video_path=video_path,
          window=window,
        )
      )
  return results, videos


def _with_a_screen(config: options.Config) -> options.Config:
  """Returns options with a folder for videos if there is no display."""
  reason = windows.why_not()
  if reason is None or config.test.video_dir:
    return config
  folder = os.path.join(config.run.logdir, 'videos')
  print(f'{reason} Videos go to {folder} instead.', flush=True)
  return config.replace(video_dir=folder)


def _has_window(config: options.Config) -> bool:
  return config.run.mode == 'play' and not config.test.video_dir


def _is_seen(config: options.Config) -> bool:
  return config.run.mode == 'play' or bool(config.test.video_dir)


@contextlib.contextmanager
def _window(
  config: options.Config, environment: environments.BatchedEnvironment
) -> Iterator[windows.Window | None]:
  """A window for the first environment, None where none is wanted."""
  if not _has_window(config):
    yield None
    return
  level = environment.level
  fps = level.suite.fps / environment.spec.frames_per_step
  with contextlib.closing(windows.Window(level.name, fps)) as window:
    yield window


@contextlib.contextmanager
def _new_file(logdir: str, date: datetime.datetime) -> Iterator[str]:
  """Reserves where the results of a test go, beside those of all others.

  Of a test that fails, nothing is left.
  """
  folder = os.path.join(logdir, 'tests')
  name = f'{date:%Y-%m-%d_%H-%M-%S}'
  try:
    os.makedirs(folder, exist_ok=True)
    for number in itertools.count(1):
      suffix = f'_{number}' if number > 1 else ''
      path = os.path.join(folder, f'{name}{suffix}.json')
      # Another test may begin within the same second.
      with contextlib.suppress(FileExistsError), open(path, 'x'):
        break
  except OSError as error:
    raise files.write_error(folder, error) from error
  try:
    yield path
  except BaseException:
    os.remove(path)
    raise


def _protocol(
  config: options.Config, level: environments.Level
) -> dict[str, Any]:
  """Returns what decides how many points an agent makes."""
  names = {
    one.name
    for one in options.declared_by(level.suite.options)
    if one.part is not options.Part.PROCESS
  }
  return {
    'policy': config.test.test_policy,
    'episodes': config.test.test_num_episodes,
    **{name: config.values[name] for name in sorted(names)},
  }


def environment_seed(seed: int) -> int:
  """Returns the seed of a test's first environment: none of a training."""
  # Hashed: with sums, neighbouring seeds would play each other's episodes.
  word = np.random.SeedSequence([seed]).generate_state(1)[0]
  # Half of what there is, so that the index of an environment can be added.
  return environments.TEST_SEEDS + (int(word) >> 9)


def sampling_seed(seed: int) -> int:
  """Returns the seed of a test's actions: none of a training, of 32 bits."""
  return 2**32 + seed


def _environment(
  config: options.Config, level: environments.Level, num_envs: int
) -> contextlib.closing[environments.BatchedEnvironment]:
  return contextlib.closing(
    worlds.make_environment(
      config,
      level,
      num_envs,
      seed=environment_seed(config.run.seed),
      render=_is_seen(config),
      test=True,
    )
  )
