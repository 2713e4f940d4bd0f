"""DeepMind Lab as an environment of Gymnasium, in a process of its own."""

import dataclasses
import os
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces

from scalable_agent.environments import (
  dmlab_actions,
  gymnasium_spaces,
  level_cache,
)
from scalable_agent.suites import dmlab30

if TYPE_CHECKING:
  from scalable_agent.environments.dmlab_suite import DmLabOptions

# Names of observations in the engine, and here.
RGB = 'RGB_INTERLEAVED'
INSTRUCTION = 'INSTR'

# Those of the code of 2018, with which nobody has trained.
_TEST = {'allowHoldOutLevels': 'true', 'mixerSeed': str(0x600D5EED)}
_SEEDS = 2**31 - 1


def parts_of(options: 'DmLabOptions') -> dict[str, gymnasium_spaces.Part]:
  """Returns what an observation consists of."""
  shape = (options.height, options.width, 3)
  return gymnasium_spaces.parts_of(
    spaces.Dict(
      {
        RGB: spaces.Box(0, 255, shape, np.uint8),
        INSTRUCTION: spaces.Text(1),
      }
    ),
    'DeepMind Lab',
    options.instruction_length,
  )


@dataclasses.dataclass(frozen=True)
class Factory:
  """Makes an Engine, in whichever process it is called.

  Attributes:
    level: name of it.
    options: of the suite.
    test: whether it is for a test.
  """

  level: str
  options: 'DmLabOptions'
  test: bool

  def __call__(self) -> 'Engine':
    return Engine(self)

  def config(self) -> dict[str, str]:
    """Returns what the engine is told; it takes strings only."""
    config = {
      'width': str(self.options.width),
      'height': str(self.options.height),
      'datasetPath': self.options.dataset_path,
      'logLevel': 'WARN',
    }
    if self.level.startswith('/'):
      config['levelDirectory'] = os.path.dirname(self.level)
    return config | (_TEST if self.test else {})

  def path(self) -> str:
    """Returns what the engine calls the level."""
    if self.level in dmlab30.ALL_LEVELS:
      return f'{dmlab30.FOLDER}/{self.level}'
    if self.level.startswith('/'):
      return os.path.basename(self.level)
    return self.level


class Engine(gymnasium.Env):
  """One level, which is loaded at the first reset.

  Before that it is no more than its spaces: whoever only asks for them needs no
  engine, of which a process can have one.
  """

  def __init__(self, factory: Factory):
    """Initialises.

    Args:
      factory: that makes it.
    """
    options = factory.options
    self._factory = factory
    self._parts = parts_of(options)
    self._actions = np.array(
      list(dmlab_actions.ACTION_SETS[options.action_set].values()), np.intc
    )
    self.action_space = spaces.Discrete(len(self._actions))
    self.observation_space = spaces.Dict(
      {name: part.space for name, part in self._parts.items()}
    )
    self._lab: Any = None
    self._observation: dict[str, np.ndarray] = {}
    self._step = 0

  def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
    """Starts an episode from a fresh seed, the first one of those of `seed`."""
    super().reset(seed=seed, options=options)
    if self._lab is None:
      self._lab = self._load()
    self._lab.reset(
      # What the engine has played before must make no difference.
      episode=-1 if seed is None else 0,
      # NumPy's own integers are refused.
      seed=int(self.np_random.integers(_SEEDS)),
    )
    self._step = 0
    self._observation = self._look()
    return self._observation, {}

  def step(self, action: Any) -> Any:
    """Repeats an action; the engine adds up the rewards."""
    options = self._factory.options
    reward = self._lab.step(
      self._actions[action], num_steps=options.num_action_repeats
    )
    self._step += 1
    over = not self._lab.is_running()
    # At the end the engine shows nothing more: what was seen last stays.
    if not over:
      self._observation = self._look()
    cut_off = not over and self._step == options.max_episode_length
    return self._observation, float(reward), over, cut_off, {}

  def close(self) -> None:
    if self._lab is not None:
      self._lab.close()

  def _load(self) -> Any:
    import deepmind_lab

    options = self._factory.options
    cache = None
    if options.level_cache:
      cache = level_cache.LevelCache(options.level_cache)
    arguments = {
      'config': self._factory.config(),
      'renderer': options.dmlab_renderer,
      'level_cache': cache,
    }
    path = self._factory.path()
    try:
      return deepmind_lab.Lab(path, [RGB, INSTRUCTION], **arguments)
    except ValueError as error:
      # Some levels outside DMLab-30 have no instructions.
      if INSTRUCTION not in str(error):
        raise
      return deepmind_lab.Lab(path, [RGB], **arguments)

  def _look(self) -> dict[str, np.ndarray]:
    seen = {INSTRUCTION: ''} | self._lab.observations()
    text = seen[INSTRUCTION]
    if isinstance(text, bytes):  # Of builds for Python 2 it was.
      seen[INSTRUCTION] = text.decode()
    return {name: part.encode(seen[name]) for name, part in self._parts.items()}
