"""What the agent sees of ViZDoom: smaller images, and numbers of one size.

The game of each environment runs in a process of its own, which ViZDoom starts
at the first reset.
"""

import contextlib
import dataclasses
import os
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import vizdoom
from gymnasium import spaces
from PIL import Image

from scalable_agent.environments import gymnasium_registry

if TYPE_CHECKING:
  from scalable_agent.environments.vizdoom_suite import VizDoomOptions

# Where it writes its settings at the end; else into the working directory, from
# where other games read them.
_SETTINGS = os.devnull
# What it makes in the working directory, and leaves there empty.
_FOLDER = '_vizdoom'
_MOST_OF_INT16 = 32768
_STARTING = threading.Lock()


class VizDoomFactory(gymnasium_registry.Factory):
  """Makes one wrapped game."""

  options: 'VizDoomOptions'

  @property
  def stepped(self) -> Any:
    # The engine repeats actions itself, and draws the last frame only.
    return dataclasses.replace(self.options, num_action_repeats=1)

  def make(self, **arguments: str) -> gymnasium.Env:
    environment = super().make(
      frame_skip=self.options.num_action_repeats,
      doom_config_path=_SETTINGS,
      screen_resolution=_resolution(self.options.height, self.options.width),
      **arguments,
    )
    _check_game(self.name, environment.unwrapped.game.get_doom_game_path())
    return Doom(environment, self.options.height, self.options.width)


def _check_game(name: str, path: str) -> None:
  """Raises ValueError if the game of a level is nowhere; '' is a free one."""
  folder, file = os.path.split(path)
  places = (folder, os.path.dirname(vizdoom.__file__))
  if file and not any(os.path.exists(os.path.join(p, file)) for p in places):
    raise ValueError(
      f'{name} needs {file}, of a game that is sold. Copy it to {folder}, or '
      'choose a --level_name of VizdoomFreedoom.'
    )


def _resolution(height: int, width: int) -> str:
  """Returns the smallest of the engine's, of 4:3, that is enough."""
  sizes = []
  for name in vizdoom.ScreenResolution.__members__:
    w, h = map(int, name.removeprefix('RES_').split('X'))
    if 3 * w == 4 * h:
      sizes.append((w, h, name))
  enough = [size for size in sizes if size[0] >= width and size[1] >= height]
  return min(enough or [max(sizes)])[2]


class Doom(gymnasium.Wrapper):
  """A game of ViZDoom in terms that a network can bear."""

  def __init__(self, env: gymnasium.Env, height: int, width: int):
    """Initialises.

    Args:
      env: of ViZDoom.
      height: of images, in pixels.
      width: likewise.
    """
    super().__init__(env)
    self._size = (width, height)
    self._game = env.unwrapped.game
    self.observation_space = spaces.Dict(
      {
        key: self._presented(space)
        for key, space in env.observation_space.spaces.items()
      }
    )
    self._latest: Any = None

  def _presented(self, space: spaces.Space) -> spaces.Space:
    if _is_image(space):
      width, height = self._size
      return spaces.Box(0, 255, (height, width, space.shape[2]), np.uint8)
    if isinstance(space, spaces.Box):
      return spaces.Box(-np.inf, np.inf, space.shape, np.float32)
    return space

  def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
    # Games that begin at one moment crash now and then.
    turn = _STARTING if self._latest is None else contextlib.nullcontext()
    with turn, _signals_kept_from_the_engine():
      observation, info = self.env.reset(seed=seed, options=options)
    self._latest = self._seen(observation)
    return self._latest, info

  def step(self, action: Any) -> Any:
    observation, reward, terminated, truncated, info = self.env.step(action)
    # Of a game that is over there is no picture, only zeros, which would be
    # nothing to tell the value of a truncated episode by.
    if not terminated:
      self._latest = self._seen(observation)
    elif self._game.is_episode_timeout_reached():
      # ViZDoom calls that both.
      terminated = self._game.is_player_dead()
    return self._latest, reward, terminated, truncated, info

  def close(self) -> None:
    super().close()
    # Not if another program has put something there.
    with contextlib.suppress(OSError):
      os.rmdir(_FOLDER)

  def _seen(self, observation: dict[str, Any]) -> dict[str, Any]:
    space = self.env.observation_space
    return {
      key: self._encode(key, space[key], part)
      for key, part in observation.items()
    }

  def _encode(self, key: str, space: spaces.Space, part: Any) -> Any:
    if _is_image(space):
      # Numbers of labels have no mean.
      how = (
        Image.Resampling.NEAREST if key == 'labels' else Image.Resampling.BOX
      )
      plain = part[..., 0] if part.shape[2] == 1 else part
      small = Image.fromarray(plain).resize(self._size, how)
      return np.asarray(small).reshape(*self._size[::-1], part.shape[2])
    if not isinstance(space, spaces.Box):
      return part
    numbers = np.asarray(part, np.float32)
    if space.dtype == np.int16:
      return numbers / _MOST_OF_INT16
    # Health reaches hundreds, positions thousands, kills are single.
    return np.sign(numbers) * np.log1p(np.abs(numbers))


def _is_image(space: spaces.Space) -> bool:
  return (
    isinstance(space, spaces.Box)
    and space.dtype == np.uint8
    and len(space.shape) == 3
  )


@contextlib.contextmanager
def _signals_kept_from_the_engine() -> Iterator[None]:
  """What starts here does not hear of Ctrl-C or a scheduler's SIGTERM.

  They reach every process of the group, and the program decides what to do; a
  game that ended first would be an error.
  """
  before = signal.pthread_sigmask(
    signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM}
  )
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
