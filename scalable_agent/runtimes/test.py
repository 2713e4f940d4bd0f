"""Plays whole games with a trained agent, rebuilt from its logdir alone."""

import os
from collections.abc import Collection

from scalable_agent import (
  checkpointing,
  environments,
  evaluation,
  logdirs,
  networks,
  presets,
)
from scalable_agent import config as config_lib
from scalable_agent.runtimes import assembly, training


def prepare(
  config: config_lib.Config, given: Collection[str]
) -> tuple[config_lib.Config, networks.Agent, environments.BatchedEnvironment]:
  """Rebuilds the agent in --logdir, and what it is to play.

  Args:
    config: options as given.
    given: names of the options that the user set. What concerns the agent is
      read from the logdir and refused if it differs.

  Returns:
    The options of the test, the agent and the environment.

  Raises:
    ValueError: the logdir has no run or no intact checkpoint, options that
      contradict it, or the level cannot be made or filmed.
    OSError: --video_dir cannot be made.
  """
  if config.logdir is None:
    level = environments.parse_level(config.level_name)
    config = presets.resolve(config, level.suite, level.options)
  trained = logdirs.load_config(config.logdir)
  config = config_lib.for_test(config, trained, given)
  logdirs.check_writable(config.logdir)  # For test.json, after all the games.
  if config.video_dir:
    os.makedirs(config.video_dir, exist_ok=True)
  assembly.use_threads(assembly.resolve_threads(config))
  environment = assembly.make_environment(
    config,
    environments.parse_level(config.level_name),
    min(config.test_num_episodes, config.envs_per_actor),
    seed=config.seed,
    render=bool(config.video_dir),
  )
  if config.video_dir:
    # What cannot be filmed is to fail before the games.
    environment.reset()
    environment.render()
  agent = assembly.make_agent(config, environment.spec)
  learner = training.make_learner(config, agent, environment.spec)
  checkpointer = checkpointing.Checkpointer(
    config.logdir, learner.checkpoint_items()
  )
  try:
    if config.checkpoint == 'best':
      state = checkpointer.restore_best()
    else:
      state = checkpointer.restore()
  except checkpointing.DamagedError as error:
    raise ValueError(str(error)) from error
  if state is None:
    raise ValueError(
      f'--logdir={config.logdir} has no checkpoint yet. Train there first: '
      f'python experiment.py --logdir={config.logdir} '
      f'--level_name={config.level_name}'
    )
  print(
    f'Testing the agent of {config.logdir} on {config.level_name} after '
    f'{int(learner.frames):,} frames.',
    flush=True,
  )
  return config, agent, environment


def test(
  config: config_lib.Config,
  agent: networks.Agent,
  environment: environments.BatchedEnvironment,
) -> None:
  """Plays, and prints, saves and films the result.

  Args:
    config: options of the test.
    agent: with the trained weights.
    environment: to play in; closed at the end.
  """
  video_path = None
  if config.video_dir:
    name = environment.level.name.replace('/', '_').replace(':', '_')
    video_path = os.path.join(config.video_dir, f'{name}.mp4')
  try:
    result = evaluation.evaluate(
      agent,
      environment,
      config.test_num_episodes,
      greedy=config.test_policy == 'greedy',
      seed=config.seed,
      video_path=video_path,
    )
  finally:
    environment.close()
  path = os.path.join(config.logdir, 'test.json')
  evaluation.report([result], path)
  print(f'Wrote {path}{f" and {video_path}" if video_path else ""}.')
