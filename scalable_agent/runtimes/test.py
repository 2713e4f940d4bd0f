"""Plays whole games with a trained agent, rebuilt from its logdir alone."""

import contextlib
import os
from collections.abc import Collection, Sequence

from scalable_agent import environments, evaluation, networks, options
from scalable_agent.runtimes import assembly, training
from scalable_agent.storage import checkpointing, logdirs


def prepare(
  config: options.Config, given: Collection[str]
) -> tuple[options.Config, networks.Agent, tuple[environments.Level, ...]]:
  """Rebuilds the agent in --logdir, and finds what it is to play.

  Args:
    config: options as given.
    given: names of the options that the user set. What concerns the agent is
      read from the logdir and refused if it differs.

  Returns:
    The options of the test, the agent and the levels of its training.

  Raises:
    ValueError: the logdir has no run or no intact checkpoint, options that
      contradict it, or a level cannot be made or filmed.
    OSError: --video_dir cannot be made.
  """
  suites = config.catalog.suites
  if config.run.logdir is None:
    levels = environments.parse_levels(config.run.level_name, suites)
    config = options.resolve(config, levels[0].suite)
  trained = logdirs.load_config(config.run.logdir, config.catalog)
  config = options.for_test(config, trained, given)
  logdirs.check_writable(
    config.run.logdir
  )  # For test.json, after all the games.
  if config.test.video_dir:
    os.makedirs(config.test.video_dir, exist_ok=True)
  assembly.use_threads(assembly.resolve_threads(config))
  levels = environments.parse_levels(config.run.level_name, suites)
  options.check_suite(config, given, levels[0].suite, levels[0].name)
  for level in levels:
    # What cannot be made or filmed is to fail before the games.
    with _environment(config, level, num_envs=1) as environment:
      spec = environment.spec
      if config.test.video_dir:
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
  print(
    f'Testing the agent of {config.run.logdir} on {config.run.level_name} '
    f'after {int(learner.frames):,} frames.',
    flush=True,
  )
  return config, agent, levels


def test(
  config: options.Config,
  agent: networks.Agent,
  levels: Sequence[environments.Level],
) -> None:
  """Plays one level after the other; prints, saves and films the results.

  Args:
    config: options of the test.
    agent: with the trained weights.
    levels: to play.
  """
  results = []
  path = os.path.join(config.run.logdir, 'test.json')
  written = [path]
  num_envs = min(config.test.test_num_episodes, config.actors.envs_per_actor)
  for level in levels:
    video_path = None
    if config.test.video_dir:
      name = level.name.replace('/', '_').replace(':', '_')
      video_path = os.path.join(config.test.video_dir, f'{name}.mp4')
      written.append(video_path)
    with _environment(config, level, num_envs) as environment:
      results.append(
        evaluation.evaluate(
          agent,
          environment,
          config.test.test_num_episodes,
          greedy=config.test.test_policy == 'greedy',
          seed=config.run.seed,
          video_path=video_path,
        )
      )
  evaluation.report(results, path)
  print(f'Wrote {" and ".join(written)}.')


def _environment(
  config: options.Config, level: environments.Level, num_envs: int
) -> contextlib.closing[environments.BatchedEnvironment]:
  return contextlib.closing(
    assembly.make_environment(
      config,
      level,
      num_envs,
      seed=config.run.seed,
      render=bool(config.test.video_dir),
    )
  )
