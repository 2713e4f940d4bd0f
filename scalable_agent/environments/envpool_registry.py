"""What EnvPool knows by its id, and how a pool of it is made."""

import contextlib
import functools
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import envpool
from envpool import registration

# What makes an observation one frame, with channels last, and an action one of
# some. ViZDoom's own actions are numbers, of which it hears whether they are 0.
_SETTINGS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
  {
    'vizdoom': {'stack_num': 1, 'use_combined_action': True},
    'procgen': {'channel_first': False},
  }
)

# Families that repeat an action for some frames of a screen.
_OF_SCREENS = ('atari', 'vizdoom')

_CRASHES = (
  'EnvPool ends the process with a segmentation fault. Choose another level of '
  'ViZDoom: --level_name=envpool:D3Battle-v1'
)
# Of EnvPool 1.2.5: nothing can be done about them once they were made.
_BROKEN: Mapping[str, str] = MappingProxyType(
  {
    'BabyAI-SynthS5R2-v0': 'at some seeds, EnvPool looks for ever for a place '
    'for one of its objects. Play the original, which needs the extra '
    'minigrid: --level_name=BabyAI-SynthS5R2-v0',
    'Cig-v1': _CRASHES,
    'MultiDuel-v1': _CRASHES,
  }
)

_RENDER_TIMEOUT_SECS = 60
# In a process of its own, as MuJoCo ends its process where it finds no OpenGL.
_RENDER = """
import sys
from scalable_agent.environments import envpool_registry
pool = envpool_registry.make_pool(sys.argv[1], sys.argv[1], [0], render=True)
pool.reset()
pool.render(env_ids=[0])
"""


def ids() -> tuple[str, ...]:
  """Returns all ids of the installed version."""
  return tuple(envpool.list_all_envs())


def has(env_id: str) -> bool:
  """Whether there is such an id."""
  return env_id in registration.registry.specs


def family(env_id: str) -> str:
  """Returns what an id is of, e.g. 'mujoco.gym'."""
  return registration.registry.specs[env_id][0].removeprefix('envpool.')


def rom(env_id: str) -> str:
  """Returns what ale-py calls the game of an id of the family atari."""
  return registration.registry.specs[env_id][2]['task']


class Spec(NamedTuple):
  """What EnvPool says of an id.

  Attributes:
    family: see `family`.
    observation_space: of Gymnasium, of one environment.
    action_space: likewise.
    action_array: ArraySpec of actions.
    frames_per_step: that one step takes.
  """

  family: str
  observation_space: Any
  action_space: Any
  action_array: Any
  frames_per_step: int


def make_spec(env_id: str, name: str, **settings: Any) -> Spec:
  """Returns what there is to see and do, without making any environment.

  Args:
    env_id: known to EnvPool.
    name: of the level, for messages.
    **settings: of EnvPool.

  Raises:
    ValueError: it cannot be made, or is for several players.
  """
  if env_id in _BROKEN:
    raise ValueError(f'{name} cannot be played: {_BROKEN[env_id]}.')
  spec = _made(name, envpool.make_spec, env_id, **settings)
  players = spec.config.max_num_players
  if players > 1:
    raise ValueError(
      f'{name} is for {players} players, and an agent here plays alone. Choose '
      'an id for one player.'
    )
  with _quiet():
    return Spec(
      family(env_id),
      spec.observation_space,
      spec.action_space,
      spec.action_array_spec[spec._action_keys[-1]],
      # MuJoCo has such a number, too, of its own steps in one of the task's.
      spec.config.frame_skip if family(env_id) in _OF_SCREENS else 1,
    )


def make_pool(
  env_id: str,
  name: str,
  seeds: Sequence[int],
  threads: int = 1,
  render: bool = False,
  **settings: Any,
) -> Any:
  """Returns environments of an id that step together, one for each seed.

  Args:
    env_id: known to EnvPool.
    name: of the level, for messages.
    seeds: of the environments.
    threads: that step them.
    render: whether `render` will be called.
    **settings: of EnvPool.

  Raises:
    ValueError: they cannot be made.
  """
  if render:
    settings['render_mode'] = 'rgb_array'
  return _made(
    name,
    envpool.make_gymnasium,
    env_id,
    num_envs=len(seeds),
    seed=[int(seed) for seed in seeds],
    num_threads=threads,
    **settings,
  )


def _made(name: str, make: Any, env_id: str, **settings: Any) -> Any:
  settings = {**_SETTINGS.get(family(env_id), {}), **settings}
  try:
    with _quiet():
      made = make(env_id, **settings)
      # A pool keeps it from then on.
      _ = made.observation_space
      return made
  except Exception as error:
    # Simulators have classes of their own, which depend on what is imported.
    reason = ' '.join(str(error).split()).rstrip('.')
    raise ValueError(
      f'{name} cannot be made: {reason}. Install or set up what is missing, or '
      'change --level_name.'
    ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Without warnings of bounds in double precision, which all spaces give."""
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    yield


@functools.cache
def check_render(env_id: str, name: str) -> None:
  """Raises ValueError unless an id can be filmed on this machine."""
  try:
    subprocess.run(
      [sys.executable, '-c', _RENDER, env_id],
      check=True,
      capture_output=True,
      text=True,
      timeout=_RENDER_TIMEOUT_SECS,
    )
  except subprocess.TimeoutExpired as error:
    said = f'no picture within {error.timeout} seconds'
  except subprocess.CalledProcessError as error:
    lines = (error.stderr + error.stdout).strip().splitlines()
    said = lines[-1] if lines else f'exit code {error.returncode}'
  else:
    return
  raise ValueError(
    f'{name} cannot be filmed: {said.rstrip(".")}. Leave --video_dir out. '
    '(MuJoCo needs OpenGL: EGL or OSMesa.)'
  )
