"""The suite of Catch: declarations only; see `catch` for the game."""

from typing import Any

from scalable_agent.environments import gymnasium_suite
from scalable_agent.environments.suite import Level, Purpose, Suite

LEVEL_NAMES = ('catch', 'catch_hidden')

_PRESETS = gymnasium_suite.discrete_presets(
  # An LSTM forgets what it learned with CartPole's learning rate.
  {'total_environment_frames': 3e5, 'learning_rate': 2e-3},
  # They need 30,000 frames.
  advantage={'total_environment_frames': 1e5},
  # A step of 128 environments takes hardly longer than one of 32. With twice
  # the learning rate an LSTM forgets here, too.
  impala={
    'total_environment_frames': 6e5,
    'envs_per_actor': 64,
    'batch_size': 64,
    'unroll_length': 10,
    'learning_rate': 1e-3,
  },
)


class Catch(Suite):
  name = 'catch'
  help = 'catch, learnable in a minute; catch_hidden, which needs --lstm.'
  presets = _PRESETS
  fps = 5

  def parse(self, level_name: str) -> Level | None:
    return Level(self, level_name) if level_name in LEVEL_NAMES else None

  def level_names(self) -> tuple[str, ...]:
    return LEVEL_NAMES

  def make(
    self, level: Level, num_envs: int, options: Any, seed: int, purpose: Purpose
  ):
    from scalable_agent.environments import catch

    return catch.CatchEnvironment(level, num_envs, seed, purpose.render)


CATCH = Catch()
