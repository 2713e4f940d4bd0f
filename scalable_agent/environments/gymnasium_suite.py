"""The suite of Gymnasium: declarations only; see `gymnasium_vector`."""

import dataclasses
from typing import Any

from scalable_agent.environments.suite import (
  Level,
  Purpose,
  Suite,
  UnknownLevel,
)
from scalable_agent.options import (
  ActionOptions,
  LengthOptions,
  RepeatOptions,
  TextOptions,
  option,
)

# Of other suites: modules that the code of Gymnasium's ids is in, and ids.
MUJOCO = 'gymnasium.envs.mujoco'
_OTHERS = ('ale_py', 'minigrid', 'vizdoom', MUJOCO)
CONTINUOUS = (
  'BipedalWalker-v3',
  'BipedalWalkerHardcore-v3',
  'LunarLanderContinuous-v3',
  'MountainCarContinuous-v0',
  'Pendulum-v1',
)

# Found on CartPole-v1; GA3C's as they stand.
GA3C = {
  'total_environment_frames': 6e5,
  'num_actors': 2,
  'envs_per_actor': 16,
  'baseline_cost': 0.05,
  'optimizer': 'adam',
  'learning_rate': 3e-3,
  'epsilon': 1e-5,
}
AUTO = GA3C | {'batch_size': 16, 'lambda_': 0.95}


def advantage_presets(
  **changes: float,
) -> dict[str, dict[str, dict[str, Any]]]:
  """Returns those of A3C and A2C, with some values changed."""
  auto = {
    **GA3C,
    # Twice as many updates as with 20: CartPole is learned in half the frames.
    'unroll_length': 10,
    'learning_rate_schedule': 'late_linear',
    'discounting': 0.99,
    # With 0.01 the policy of CartPole stays at 0.5 nats, and falls at times.
    'entropy_cost': 0.001,
    'gae_lambda': 0.95,
    'clip_gradient_norm': 40.0,
    **changes,
  }
  return {'a3c': {'auto': auto}, 'a2c': {'auto': auto | {'num_actors': 0}}}


PRESETS = {
  'impala': {'auto': AUTO},
  'ga3c': {'auto': GA3C},
  **advantage_presets(total_environment_frames=4e5),
}


@dataclasses.dataclass(frozen=True)
class GymnasiumOptions(
  LengthOptions, RepeatOptions, ActionOptions, TextOptions
):
  """Gymnasium."""

  env_processes: int = option(
    0,
    "1 = each environment in a process of its own; 0 = in the actor's thread.",
    minimum=0,
    free_in_test=True,
  )

  def check(self) -> None:
    """Refuses a number of processes."""
    if self.env_processes > 1:
      raise ValueError(
        f'--env_processes={self.env_processes} must be 0 (environments in the '
        "actor's thread) or 1 (one process for each environment)."
      )


class Gymnasium(Suite):
  """Also what suites of other ids of Gymnasium derive from."""

  name = 'gymnasium'
  help = (
    'Gymnasium ids (CartPole-v1), those that a module of yours registers as '
    'module:id.'
  )
  options = GymnasiumOptions
  presets = PRESETS

  def parse(self, level_name: str) -> Level | None:
    from scalable_agent.environments import gymnasium_registry

    try:
      spec = gymnasium_registry.find_spec(level_name)
    except ValueError as error:
      raise UnknownLevel(str(error)) from error
    module = level_name.rpartition(':')[0]
    return Level(self, f'{module}:{spec.id}' if module else spec.id)

  def level_names(self) -> tuple[str, ...]:
    from scalable_agent.environments import gymnasium_registry

    names = gymnasium_registry.ids(other_than=_OTHERS)
    return tuple(name for name in names if name not in CONTINUOUS)

  def make(
    self, level: Level, num_envs: int, options: Any, seed: int, purpose: Purpose
  ):
    from scalable_agent.environments import gymnasium_vector

    return gymnasium_vector.GymnasiumEnvironment(
      level, num_envs, options, seed, purpose
    )


GYMNASIUM = Gymnasium()
