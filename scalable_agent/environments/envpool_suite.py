"""The suites of EnvPool: declarations only; see `envpool_vector`.

Four: Atari games have options and presets of their own, MuJoCo and CartPole and
its like have presets.
"""

import dataclasses
import difflib
import re
import types
from collections.abc import Mapping
from typing import Any

from scalable_agent.environments import (
  atari_suite,
  extras,
  gymnasium_suite,
  minigrid_suite,
  mujoco_suite,
)
from scalable_agent.environments.suite import (
  Level,
  Purpose,
  Suite,
)
from scalable_agent.options import (
  ActionOptions,
  LengthOptions,
  Part,
  TextOptions,
  option,
)
from scalable_agent.suites import atari57

_PREFIX = 'envpool:'
# All of its families.
_MUJOCO = 'mujoco'
# Of the family whose actions are choices; the others' are numbers.
_CLASSIC = re.compile(r'(phys2d/)?(CartPole|Acrobot|MountainCar)-v\d+')


@dataclasses.dataclass(frozen=True)
class PoolOptions:
  """EnvPool."""

  envpool_threads: int = option(
    1,
    'C++ threads that step the environments of one actor. Actors are threads '
    'themselves: more pay where cores are idle. Default: of Atari on one '
    'machine, the cores divided by the actors; else 1, as steps of other '
    'environments are cheap.',
    minimum=1,
    part=Part.PROCESS,
    free_in_test=True,
  )


@dataclasses.dataclass(frozen=True)
class EnvPoolOptions(LengthOptions, ActionOptions, TextOptions, PoolOptions):
  """EnvPool."""


@dataclasses.dataclass(frozen=True)
class EnvPoolAtariOptions(atari_suite.AtariOptions, PoolOptions):
  """EnvPool's Atari."""


class EnvPool(Suite):
  name = 'envpool'
  help = 'EnvPool ids (envpool:Taxi-v3); needs the extra envpool.'
  options: type = EnvPoolOptions
  defaults: Mapping[str, Any] = minigrid_suite.MINIGRID.defaults
  presets = gymnasium_suite.PRESETS
  frees_the_interpreter = True

  def parse(self, level_name: str) -> Level | None:
    """Returns the level of `envpool:` and an id, None if it is not of here.

    Args:
      level_name: what the user wrote.

    Raises:
      ValueError: EnvPool has no such id or is not installed.
    """
    if not level_name.startswith(_PREFIX):
      return None
    env_id = level_name.removeprefix(_PREFIX)
    registry = _registry(level_name)
    if not registry.has(env_id):
      # No other suite is to take the name for `module:id`.
      close = difflib.get_close_matches(env_id, registry.ids())
      similar = f' Similar: {", ".join(close)}.' if close else ''
      raise ValueError(
        f'There is no level {level_name}: EnvPool has no id {env_id}.{similar} '
        'envpool.list_all_envs() lists all.'
      )
    if not self._has(env_id, registry.family(env_id)):
      return None
    return Level(self, level_name, self._implied(env_id))

  def level_names(self) -> tuple[str, ...]:
    """Returns all ids, none where EnvPool is not installed."""
    if not extras.is_installed('envpool'):
      return ()
    registry = _registry(_PREFIX)
    return tuple(
      _PREFIX + env_id
      for env_id in registry.ids()
      if self._has(env_id, registry.family(env_id))
    )

  def make(
    self, level: Level, num_envs: int, options: Any, seed: int, purpose: Purpose
  ):
    from scalable_agent.environments import envpool_vector

    return envpool_vector.EnvPoolEnvironment(
      level, env_id_of(level), num_envs, options, seed, purpose
    )

  def _has(self, env_id: str, family: str) -> bool:
    return (
      family != 'atari'
      and not family.startswith(_MUJOCO)
      and not _CLASSIC.fullmatch(env_id)
    )

  def _implied(self, env_id: str) -> dict[str, Any]:
    if minigrid_suite.LONG_MISSIONS.match(env_id):
      return {'instruction_length': minigrid_suite.LONGEST_MISSION}
    return {}


class EnvPoolClassic(EnvPool):
  name = 'envpool_classic'
  help = 'CartPole, Acrobot and MountainCar of EnvPool (envpool:CartPole-v1).'
  presets = gymnasium_suite.discrete_presets(
    {},
    advantage={'total_environment_frames': 4e5},
    impala={**gymnasium_suite.OF_MANY, 'total_environment_frames': 3e6},
  )
  # A call takes longer than its steps: more actors of fewer environments each
  # would wait for Python's lock in the calls around them.
  frees_the_interpreter = False

  def _has(self, env_id: str, family: str) -> bool:
    del family
    return bool(_CLASSIC.fullmatch(env_id))


class EnvPoolMujoco(EnvPool):
  name = 'envpool_mujoco'
  help = 'Tasks of MuJoCo in EnvPool (envpool:HalfCheetah-v4).'
  presets = mujoco_suite.MUJOCO.presets

  def _has(self, env_id: str, family: str) -> bool:
    del env_id
    return family.startswith(_MUJOCO)

  def _implied(self, env_id: str) -> dict[str, Any]:
    del env_id
    return {}


class EnvPoolAtari(EnvPool):
  name = 'envpool_atari'
  help = (
    'Atari games of EnvPool (envpool:Pong-v5), the same games as of ale-py.'
  )
  options = EnvPoolAtariOptions
  defaults = atari_suite.DEFAULTS
  presets = atari_suite.PRESETS
  threads_option = 'envpool_threads'
  fps = 60
  remedy_for_actions = 'Set --full_action_space'

  def make(
    self, level: Level, num_envs: int, options: Any, seed: int, purpose: Purpose
  ):
    from scalable_agent.environments import envpool_atari

    # Not in the options' own check, which is of runs of all suites.
    if options.noop_max < 1:
      game = _registry(level.name).rom(env_id_of(level))
      raise ValueError(
        f'--noop_max={options.noop_max} of {level.name} must be at least 1: '
        "EnvPool's episodes start with a no-op or more. Or play ale-py's game: "
        f'--level_name={game}.'
      )
    return envpool_atari.EnvPoolAtariEnvironment(
      level, env_id_of(level), num_envs, options, seed, purpose
    )

  def are_alike(self, options: EnvPoolAtariOptions) -> bool:
    return options.full_action_space

  def human_normalized_score(
    self, level_name: str, mean_return: float
  ) -> float | None:
    env_id = level_name.removeprefix(_PREFIX)
    games = {f'{atari_suite.game_id(g)}-v5': g for g in atari57.HUMAN_SCORES}
    if env_id not in games:
      return None
    return atari57.human_normalized_score(games[env_id], mean_return)

  def _has(self, env_id: str, family: str) -> bool:
    del env_id
    return family == 'atari'

  def _implied(self, env_id: str) -> dict[str, Any]:
    return {}


def env_id_of(level: Level) -> str:
  """Returns what EnvPool calls a level."""
  return level.name.removeprefix(_PREFIX)


def _registry(level_name: str) -> types.ModuleType:
  """Returns `envpool_registry`; raises ValueError where EnvPool is missing."""
  extras.check('envpool', level_name)
  from scalable_agent.environments import envpool_registry

  return envpool_registry


ENVPOOL = EnvPool()
ENVPOOL_CLASSIC = EnvPoolClassic()
ENVPOOL_MUJOCO = EnvPoolMujoco()
ENVPOOL_ATARI = EnvPoolAtari()
