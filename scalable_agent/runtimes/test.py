"""Plays whole games with a trained agent, rebuilt from its logdir alone."""

import os
from collections.abc import Collection

from scalable_agent import checkpointing, environments, evaluation, logdirs
from scalable_agent import config as config_lib
from scalable_agent.runtimes import assembly


def test(config: config_lib.Config, given: Collection[str]) -> None:
  """Tests the agent in --logdir and prints, saves and films what it scores.

  Args:
    config: options as given.
    given: names of the options that the user set. What concerns the agent is
      read from the logdir and refused if it differs.

  Raises:
    ValueError: the logdir has no run, or options that contradict it.
  """
  if config.logdir is None:
    level = environments.parse_level(config.level_name)
    config = config_lib.resolve(config, level.suite, level.options)
  trained = logdirs.load_config(config.logdir)
  config = config_lib.for_test(config, trained, given)
  print(
    f'Testing the agent of {config.logdir} on {config.level_name}.', flush=True
  )
  assembly.use_threads(config)
  level = environments.parse_level(config.level_name)
  environment = assembly.make_environment(
    config,
    level,
    min(config.test_num_episodes, config.envs_per_actor),
    seed=config.seed,
    render=bool(config.video_dir),
  )
  try:
    agent = assembly.make_agent(config, environment.spec)
    learner = assembly.make_learner(config, agent, environment.spec)
    checkpointing.Checkpointer(
      config.logdir, learner.checkpoint_items()
    ).restore()
    video_path = None
    if config.video_dir:
      os.makedirs(config.video_dir, exist_ok=True)
      video_path = os.path.join(config.video_dir, f'{level.name}.mp4')
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
  evaluation.report([result], os.path.join(config.logdir, 'test.json'))
