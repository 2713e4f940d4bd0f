"""Atari 2600 games on ale-py's vector environment.

The emulators run in C++ threads without the GIL. Frames come one at a time:
stacking them is the agent's business, so that an unroll carries each frame
once.
"""

from typing import TYPE_CHECKING

import ale_py
import numpy as np
from ale_py import vector_env
from gymnasium.vector import AutoresetMode

from scalable_agent import action_spaces, structures
from scalable_agent.environments import batched, replay
from scalable_agent.environments.suite import Level, Purpose

if TYPE_CHECKING:
  from scalable_agent.environments.atari_suite import ArcadeOptions

_SCREEN_HEIGHT, _SCREEN_WIDTH = 210, 160
_FULL_ACTION_SPACE = 18


class AtariEnvironment(replay.ReplayedEnvironment):
  """E games of one kind; observations are uint8 [height, width, 1 or 3]."""

  def __init__(
    self,
    level: Level,
    num_envs: int,
    options: 'ArcadeOptions',
    seed: int,
    purpose: Purpose,
  ):
    """Makes the emulators.

    Args:
      level: an Atari level.
      num_envs: E.
      options: of the suite.
      seed: environment i is seeded with seed + i.
      purpose: what they are for.
    """
    self._envs = _make_vector_env(
      level.name,
      num_envs,
      options,
      height=options.height,
      width=options.width,
      grayscale=options.grayscale,
    )
    self._game_actions = _game_actions(self._envs, options.full_action_space)
    shape = (options.height, options.width, 1 if options.grayscale else 3)
    spec = structures.EnvironmentSpec(
      observation=structures.TensorSpec(shape, np.dtype(np.uint8)),
      action_space=action_spaces.Discrete(len(self._game_actions)),
      frames_per_step=options.num_action_repeats,
      action_meanings=_action_meanings(self._envs, options.full_action_space),
    )
    super().__init__(
      level,
      num_envs,
      spec,
      seed,
      render=purpose.render,
      replayable=purpose.replayable,
    )
    self._observation_shape = (num_envs, *shape)
    self._life_loss_is_terminal = options.life_loss_is_terminal
    self._lives = np.zeros([num_envs], np.int32)
    self._over = np.zeros([num_envs], bool)
    self._fire = _fire(self._envs) if options.fire_reset else None
    # Where FIRE is to be pressed.
    self._waiting = np.zeros([num_envs], bool)
    # The vector environment cannot render. A second emulator with the seed and
    # the actions of environment 0 plays the same game in full colour.
    self._mirror = None
    self._screen = np.zeros([_SCREEN_HEIGHT, _SCREEN_WIDTH, 3], np.uint8)
    if purpose.render:
      self._mirror = _make_vector_env(
        level.name,
        1,
        options,
        height=_SCREEN_HEIGHT,
        width=_SCREEN_WIDTH,
        grayscale=False,
      )

  def _start(self, seeds: np.ndarray, where: np.ndarray) -> np.ndarray:
    # A partial reset is refused before there was a full one.
    partial = {} if where.all() else {'options': {'reset_mask': where}}
    frames, info = self._envs.reset(seed=seeds[where], **partial)
    self._lives = info['lives']
    self._over = self._over & ~where
    self._waiting = self._waiting | where
    if self._mirror is not None and where[0]:
      self._screen = self._mirror.reset(seed=seeds[:1])[0][0, 0]
    return frames.reshape(self._observation_shape)

  def _advance(self, actions: np.ndarray) -> batched.Arrival:
    actions = self._game_actions[actions]
    if self._fire is not None:
      # Not by ale-py: it presses for one frame, which a sticky action drops.
      actions = np.where(self._waiting, self._fire, actions)
    self._envs.send(actions)
    if self._mirror is not None:
      self._screen = self._mirror.step(actions[:1])[0][0, 0]
    # recv hands over arrays that the emulators do not touch again.
    frames, reward, terminated, truncated, info = self._envs.recv()
    # Where a game was over another one has begun, with lives of its own.
    life_lost = (info['lives'] < self._lives) & ~self._over
    self._waiting = life_lost | self._over
    self._lives = info['lives']
    self._over = terminated | truncated
    return batched.Arrival(
      observation=frames.reshape(self._observation_shape),
      reward=reward,
      terminated=terminated,
      truncated=truncated,
      life_lost=life_lost if self._life_loss_is_terminal else None,
    )

  def _render(self) -> np.ndarray:
    return self._screen

  def _close(self, healthy: bool) -> None:
    del healthy
    self._envs.close()
    if self._mirror is not None:
      self._mirror.close()


def _game_actions(
  envs: vector_env.AtariVectorEnv, full_action_space: bool
) -> np.ndarray:
  """Returns [A] int32, what each of our actions is called by ale-py.

  With the full action space, ale-py leaves out what a game forbids: FIRE in
  Skiing and Lost Luggage. An emulator would take it for NOOP, number 0, and so
  do we, because all games are to have the same actions.
  """
  if not full_action_space:
    return np.arange(envs.single_action_space.n, dtype=np.int32)
  legal = [action.value for action in envs.ale.get_action_set()]
  actions = range(_FULL_ACTION_SPACE)
  return np.array([legal.index(a) if a in legal else 0 for a in actions], 'i4')


def _fire(envs: vector_env.AtariVectorEnv) -> int | None:
  """Returns what FIRE is called by ale-py, None where a game has none."""
  legal = envs.ale.get_action_set()
  return (
    legal.index(ale_py.Action.FIRE) if ale_py.Action.FIRE in legal else None
  )


def _action_meanings(
  envs: vector_env.AtariVectorEnv, full_action_space: bool
) -> tuple[str, ...]:
  """Returns A names; all 18 also where a game forbids some."""
  if full_action_space:
    return tuple(
      ale_py.Action(number).name for number in range(_FULL_ACTION_SPACE)
    )
  return tuple(action.name for action in envs.ale.get_action_set())


def _make_vector_env(
  game: str,
  num_envs: int,
  options: 'ArcadeOptions',
  *,
  height: int,
  width: int,
  grayscale: bool,
) -> vector_env.AtariVectorEnv:
  return vector_env.AtariVectorEnv(
    game,
    num_envs,
    num_threads=min(options.emulator_threads, num_envs),
    max_num_frames_per_episode=options.frame_limit,
    repeat_action_probability=options.sticky_actions,
    full_action_space=options.full_action_space,
    autoreset_mode=AutoresetMode.NEXT_STEP,
    img_height=height,
    img_width=width,
    grayscale=grayscale,
    stack_num=1,
    frameskip=options.num_action_repeats,
    maxpool=True,
    # ale-py draws from 0 to one less than this.
    noop_max=options.noop_max + 1,
    # ale-py's own episodic_life restarts the whole game at a lost life.
    episodic_life=False,
    life_loss_info=False,
    reward_clipping=False,
    use_fire_reset=False,
  )
