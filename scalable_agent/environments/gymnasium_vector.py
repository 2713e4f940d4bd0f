"""Gymnasium environments with discrete actions, in this process or in others.

Each environment is wrapped so that it has one of two observations, a uint8
image [height, width, channels] or a float32 vector, and actions from 0. That
happens where the environment runs, hence also in its own process.
"""

import contextlib
import copy
import dataclasses
import importlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import traceback
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import ale_py
import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from scalable_agent import structures
from scalable_agent.environments import batched, replay
from scalable_agent.environments.suite import Level, Purpose

if TYPE_CHECKING:
  from scalable_agent.environments.gymnasium_suite import GymnasiumOptions

gymnasium.register_envs(ale_py)

_MAIN_MODULE_LOCK = threading.Lock()
_MOST_CHANNELS = 4
_EXIT_TIMEOUT_SECS = 5.0


def ids() -> tuple[str, ...]:
  """Returns the ids registered so far, without those of Atari games."""
  return tuple(
    sorted(
      spec.id
      for spec in gymnasium.registry.values()
      if not str(spec.entry_point).startswith('ale_py')
    )
  )


def find_spec(level_name: str) -> EnvSpec:
  """Returns the registered specification of an id.

  Args:
    level_name: an id, or `module:id` with a module that registers it.

  Raises:
    ValueError: if there is no such module or id; says what Gymnasium said.
  """
  module, _, env_id = level_name.rpartition(':')
  if module:
    try:
      importlib.import_module(module)
    except (ImportError, ValueError, TypeError) as error:
      raise ValueError(
        f'The module {module} cannot be imported ({error}). It must be on '
        'PYTHONPATH and register its environments when imported.'
      ) from error
  try:
    return gymnasium.spec(env_id)
  except gymnasium.error.Error as error:
    said = str(error)
    raise ValueError(said if said[-1:] in '.?' else f'{said}.') from error


def _cut_off(spec: EnvSpec, options: 'GymnasiumOptions') -> EnvSpec:
  """Returns a specification whose episodes are no longer than asked for."""
  steps = options.max_episode_length * options.num_action_repeats
  known = spec.max_episode_steps
  if not steps or (known is not None and known <= steps):
    return spec
  spec = copy.deepcopy(spec)
  spec.max_episode_steps = steps
  return spec


class GymnasiumEnvironment(replay.ReplayedEnvironment):
  """E environments of one Gymnasium id."""

  def __init__(
    self,
    level: Level,
    num_envs: int,
    options: 'GymnasiumOptions',
    seed: int,
    purpose: Purpose,
  ):
    """Makes the environments and, where asked, a process for each.

    Args:
      level: a Gymnasium level.
      num_envs: E.
      options: of the suite.
      seed: environment i is seeded with seed + i.
      purpose: what they are for.

    Raises:
      ValueError: if the actions or observations are of an unsupported kind, or
        something that the environment needs is not installed.
    """
    if purpose.render and options.env_processes:
      raise ValueError(
        f'--env_processes={options.env_processes} and a video (render='
        f'{purpose.render}) of {level.name} exclude each other. Set '
        '--env_processes=0.'
      )
    self._has_processes = options.env_processes > 0 and not purpose.probe
    factories = [
      _Factory(
        name=level.name,
        spec=_cut_off(find_spec(level.name), options),
        num_action_repeats=options.num_action_repeats,
        render=purpose.render and i == 0,
        parent=os.getpid(),
      )
      for i in range(num_envs)
    ]
    if self._has_processes:
      self._envs = _start_processes(level.name, factories)
    else:
      self._envs = SyncVectorEnv(
        factories, autoreset_mode=AutoresetMode.NEXT_STEP
      )
    observation = self._envs.single_observation_space
    spec = structures.EnvironmentSpec(
      observation=structures.TensorSpec(observation.shape, observation.dtype),
      num_actions=int(self._envs.single_action_space.n),
      frames_per_step=options.num_action_repeats,
      action_meanings=self._action_meanings(),
    )
    super().__init__(
      level,
      num_envs,
      spec,
      seed,
      render=purpose.render,
      replayable=purpose.replayable,
    )

  def _action_meanings(self) -> tuple[str, ...] | None:
    """What Atari's environments, and some others, have a method for."""
    if self._has_processes:
      return None
    environment = self._envs.envs[0].unwrapped
    if not hasattr(environment, 'get_action_meanings'):
      return None
    meanings = tuple(map(str, environment.get_action_meanings()))
    wrapped = len(meanings) != self._envs.single_action_space.n
    return None if wrapped else meanings

  def _start(self, seeds: np.ndarray, where: np.ndarray) -> np.ndarray:
    with self._failures_end_processes():
      return self._envs.reset(
        seed=seeds.tolist(), options={'reset_mask': where}
      )[0]

  def _advance(self, actions: np.ndarray) -> batched.Arrival:
    with self._failures_end_processes():
      observation, reward, terminated, truncated, _ = self._envs.step(actions)
    return batched.Arrival(
      observation=observation,
      reward=reward,
      terminated=terminated,
      truncated=truncated,
    )

  def _render(self) -> np.ndarray:
    with _impossible(f'{self.level.name} cannot be filmed', '--video_dir'):
      return np.array(self._envs.envs[0].render(), np.uint8)

  def _close(self, healthy: bool) -> None:
    if healthy or not self._has_processes:
      self._envs.close()

  @contextlib.contextmanager
  def _failures_end_processes(self) -> Iterator[None]:
    """Leaves no process behind, and tells an exception from a death."""
    try:
      yield
    except BaseException as error:
      if not self._has_processes:
        raise
      processes = self._envs.processes
      died = isinstance(error, (EOFError, ConnectionError))
      if died:
        # The pipe may break a moment before the exit code is there.
        multiprocessing.connection.wait(
          [process.sentinel for process in processes], _EXIT_TIMEOUT_SECS
        )
      codes = [process.exitcode for process in processes]
      for process in processes:
        process.terminate()
      for process in processes:
        process.join()
      # Else the destructor would wait for the answers of the dead.
      self._envs.closed = True
      if not died:
        raise
      raise RuntimeError(
        f'A process of {self.level.name} died; exit codes of all (None = '
        f'none yet): {codes}. A negative code is the signal that killed it.'
      ) from error


@dataclasses.dataclass(frozen=True)
class _Factory:
  """Makes one wrapped environment, in whichever process it is called."""

  name: str
  spec: EnvSpec
  num_action_repeats: int
  render: bool
  parent: int

  def __call__(self) -> gymnasium.Env:
    in_own_process = os.getpid() != self.parent
    if in_own_process:
      # Ctrl-C reaches every process of the group; the parent decides.
      signal.signal(signal.SIGINT, signal.SIG_IGN)
      module = self.name.rpartition(':')[0]
      if module:
        importlib.import_module(module)
    with _impossible(f'{self.name} cannot be made', '--level_name'):
      environment = gymnasium.make(self.spec)
    if self.render:
      modes = environment.metadata.get('render_modes', [])
      environment.close()
      if 'rgb_array' not in modes:
        raise ValueError(
          f'{self.name} cannot be filmed: its render_modes are '
          f'{modes}, without rgb_array. Leave --video_dir out, or render off.'
        )
      with _impossible(f'{self.name} cannot be filmed', '--video_dir'):
        environment = gymnasium.make(self.spec, render_mode='rgb_array')
    environment = _Plain(environment, self.name, self.num_action_repeats)
    return _Explained(environment) if in_own_process else environment


@contextlib.contextmanager
def _impossible(what: str, flag: str) -> Iterator[None]:
  """Turns what Gymnasium refuses, or misses, into a message for the user."""
  try:
    yield
  except (gymnasium.error.Error, ImportError) as error:
    raise ValueError(
      f'{what}: {str(error).rstrip(".")}. Install what is missing, or change '
      f'{flag}.'
    ) from error


class _Plain(gymnasium.Wrapper):
  """Plain observations, actions from 0, repeated actions and no infos."""

  def __init__(self, env: gymnasium.Env, name: str, num_action_repeats: int):
    super().__init__(env)
    actions = env.action_space
    if not isinstance(actions, spaces.Discrete):
      raise ValueError(
        f'{name} has the action space {actions}, but only Discrete actions are '
        'supported. Wrap the environment so that it offers a list of actions, '
        'and register the wrapped one.'
      )
    self._first_action = int(actions.start)
    self._num_action_repeats = num_action_repeats
    self._raw_space = env.observation_space
    self._shape = _image_shape(name, self._raw_space)
    self.action_space = spaces.Discrete(int(actions.n))
    if self._shape is not None:
      self.observation_space = spaces.Box(0, 255, self._shape, np.uint8)
    else:
      self._check_flattens(name, self._raw_space)
      size = spaces.flatdim(self._raw_space)
      self.observation_space = spaces.Box(-np.inf, np.inf, (size,), np.float32)

  def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
    # What is left of the vector environment's own options is nothing.
    observation, _ = self.env.reset(seed=seed, options=options or None)
    return self._plain(observation), {}

  def step(self, action: Any) -> Any:
    total = 0.0
    for _ in range(self._num_action_repeats):
      observation, reward, terminated, truncated, _ = self.env.step(
        int(action) + self._first_action
      )
      total += float(reward)
      if terminated or truncated:
        break
    return (
      self._plain(observation),
      total,
      bool(terminated),
      bool(truncated),
      {},
    )

  def _plain(self, observation: Any) -> np.ndarray:
    if self._shape is not None:
      return np.asarray(observation, np.uint8).reshape(self._shape)
    return spaces.flatten(self._raw_space, observation).astype(np.float32)

  def _check_flattens(self, name: str, space: spaces.Space) -> None:
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
      parts = space.values() if isinstance(space, spaces.Dict) else space
      for part in parts:
        self._check_flattens(name, part)
        if _is_image(part):
          raise ValueError(
            f'{name} has images inside the observation space '
            f'{self._raw_space}. Wrap the environment so that it gives the '
            'image alone, or vectors only.'
          )
      return
    known = (
      spaces.Box,
      spaces.Discrete,
      spaces.MultiBinary,
      spaces.MultiDiscrete,
    )
    if not isinstance(space, known):
      raise ValueError(
        f'{name} has the observation space {space}, which has no fixed size. '
        'Wrap the environment so that it gives a Box.'
      )


class _Explained(gymnasium.Wrapper):
  """Exceptions that survive the way to the parent, with their traceback.

  AsyncVectorEnv pickles the exception, which fails for many a class, and then
  its parent waits for ever.
  """

  def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
    with _explained('reset'):
      return self.env.reset(seed=seed, options=options)

  def step(self, action: Any) -> Any:
    with _explained('step'):
      return self.env.step(action)


@contextlib.contextmanager
def _explained(method: str) -> Iterator[None]:
  try:
    yield
  except Exception:
    text = traceback.format_exc()
    raise RuntimeError(
      f'{method} failed in the process of an environment:\n{text}'
    ) from None


def _is_image(space: spaces.Space) -> bool:
  return (
    isinstance(space, spaces.Box)
    and space.dtype == np.uint8
    and len(space.shape) in (2, 3)
  )


def _image_shape(name: str, space: spaces.Space) -> tuple[int, ...] | None:
  """Returns [height, width, channels] of an image, None of anything else."""
  if not _is_image(space):
    return None
  if len(space.shape) == 2:
    return (*space.shape, 1)
  if space.shape[0] <= _MOST_CHANNELS < space.shape[2]:
    raise ValueError(
      f'{name} has images of shape {space.shape}, which looks like channels '
      'first. Wrap the environment so that channels come last.'
    )
  return space.shape


def _start_processes(name: str, factories: list[_Factory]) -> AsyncVectorEnv:
  """Starts one process for each factory, none of them with TensorFlow.

  A plain fork would copy TensorFlow's locks without its threads.
  """
  context = 'spawn'
  if 'forkserver' in multiprocessing.get_all_start_methods():
    context = 'forkserver'
    multiprocessing.set_forkserver_preload([__name__])
  try:
    with _main_module_hidden():
      return AsyncVectorEnv(
        factories, context=context, autoreset_mode=AutoresetMode.NEXT_STEP
      )
  except (EOFError, ConnectionError) as error:
    raise RuntimeError(
      f'A process of {name} could not make its environment; its traceback is '
      'in the output above.'
    ) from error


@contextlib.contextmanager
def _main_module_hidden() -> Iterator[None]:
  """Keeps new processes from importing the program that was started.

  multiprocessing makes every child import the parent's __main__, and with it
  TensorFlow: seconds and hundreds of megabytes for each environment.
  """
  with _MAIN_MODULE_LOCK:
    main = sys.modules['__main__']
    sys.modules['__main__'] = types.ModuleType('__main__')
    try:
      yield
    finally:
      sys.modules['__main__'] = main
