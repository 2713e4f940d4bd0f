"""The suite of Gymnasium: declarations only; see `gymnasium_vector`."""

import dataclasses
import types
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scalable_agent.environments.presets import make_presets
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

if TYPE_CHECKING:
  from scalable_agent.environments import gymnasium_registry

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


# Of IMPALA, where environments cost next to nothing and a step costs the calls
# it takes. Twice as many updates as with 20 steps; with the learning rate of
# 3e-3 and the entropy cost of 0.01, the policy of CartPole falls at times.
OF_MANY = {
  'envs_per_actor': 128,
  'batch_size': 128,
  'unroll_length': 10,
  'learning_rate': 2e-3,
  'entropy_cost': 0.001,
}


def discrete_presets(
  changes: Mapping[str, Any],
  advantage: Mapping[str, Any],
  impala: Mapping[str, Any] = types.MappingProxyType({}),
) -> dict[str, Any]:
  """Returns those that were found on CartPole-v1, with some values changed.

  Args:
    changes: of all algorithms.
    advantage: of A3C and A2C.
    impala: of IMPALA.
  """
  return make_presets(
    {
      'total_environment_frames': 6e5,
      'num_actors': 2,
      'envs_per_actor': 16,
      'baseline_cost': 0.05,
      'optimizer': 'adam',
      'learning_rate': 3e-3,
      'epsilon': 1e-5,
      **changes,
    },
    impala={'batch_size': 16, 'lambda_': 0.95, **impala},
    advantage={
      # Twice as many updates as with 20: CartPole is learned in half the
      # frames.
      'unroll_length': 10,
      'learning_rate_schedule': 'late_linear',
      'discounting': 0.99,
      # With 0.01 the policy of CartPole stays at 0.5 nats, and falls at times.
      'entropy_cost': 0.001,
      'gae_lambda': 0.95,
      'clip_gradient_norm': 40.0,
      **advantage,
    },
    # As they stand.
    ga3c={},
  )


PRESETS = discrete_presets({}, advantage={'total_environment_frames': 4e5})


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
      level, num_envs, options, seed, purpose, self.factory()
    )

  def factory(self) -> 'type[gymnasium_registry.Factory]':
    """Returns the class of what makes one environment."""
    from scalable_agent.environments import gymnasium_registry

    return gymnasium_registry.Factory


GYMNASIUM = Gymnasium()
