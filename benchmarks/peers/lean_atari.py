"""One Atari game as a Gymnasium environment without a chain of wrappers.

What DeepMind's preprocessing asks for, and no more, so that a peer whose
environments are in Python is not measured by the wrappers around them.
"""

import ale_py
import cv2
import gymnasium
import numpy as np
from ale_py import roms

_REPEATS, _STACK, _SIZE = 4, 4, 84
_MAX_STEPS = 27_000
_MAX_NOOPS = 30


class LeanAtari(gymnasium.Env):
  """Observations are uint8 [4, 84, 84]; rewards are signs."""

  def __init__(self, game: str, seed: int):
    """Starts an emulator.

    Args:
      game: as in the names of ale-py's ROMs: pong.
      seed: of the emulator and the no-ops at the start of a game.
    """
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    self._ale = ale_py.ALEInterface()
    self._ale.setInt('random_seed', seed)
    self._ale.setFloat('repeat_action_probability', 0.0)
    self._ale.loadROM(roms.get_rom_path(game))
    self._actions = self._ale.getMinimalActionSet()
    self._random = np.random.default_rng(seed)
    screen = self._ale.getScreenDims()
    # The last two screens of an action, whose brighter pixels are shown.
    self._screens = np.zeros([2, *screen], np.uint8)
    self._frames = np.zeros([_STACK, _SIZE, _SIZE], np.uint8)
    self._steps = 0
    self.observation_space = gymnasium.spaces.Box(
      0, 255, self._frames.shape, np.uint8
    )
    self.action_space = gymnasium.spaces.Discrete(len(self._actions))

  def reset(self, *, seed=None, options=None):
    """Begins a game with up to 30 no-ops."""
    del seed, options  # The seed is the constructor's, once.
    self._ale.reset_game()
    for _ in range(self._random.integers(1, _MAX_NOOPS + 1)):
      self._ale.act(self._actions[0])
    self._ale.getScreenGrayscale(self._screens[0])
    self._screens[1] = self._screens[0]
    self._frames[:] = self._shrink()
    self._steps = 0
    return self._frames.copy(), {}

  def step(self, action):
    """Repeats an action four times."""
    action = self._actions[int(action)]
    reward = 0
    for repeat in range(_REPEATS):
      reward += self._ale.act(action)
      if repeat >= _REPEATS - 2:
        self._ale.getScreenGrayscale(self._screens[repeat - _REPEATS + 2])
    self._frames[:-1] = self._frames[1:]
    self._frames[-1] = self._shrink()
    self._steps += 1
    return (
      self._frames.copy(),
      float(np.sign(reward)),
      self._ale.game_over(with_truncation=False),
      self._steps >= _MAX_STEPS,
      {},
    )

  def _shrink(self) -> np.ndarray:
    screen = np.maximum(self._screens[0], self._screens[1])
    return cv2.resize(screen, (_SIZE, _SIZE), interpolation=cv2.INTER_AREA)
