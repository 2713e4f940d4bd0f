"""Stands in for DeepMind Lab: its documented interface, and a game of numbers.

It is stricter than the engine, which crashes where this raises. What it plays
depends on the level, the seed, the mixer seed, the episode and the actions, and
on nothing else. An episode ends in the midst of repeated actions.
"""

import os
import tempfile
import zlib

import numpy as np

_FOLDER = 'contributed/dmlab30/'
_WITHOUT_INSTRUCTIONS = ('tests/empty_room_test', 'my_level')
# Beside those of DMLab-30.
_LEVELS = (
  'seekavoid_arena_01',
  'contributed/psychlab/harlow',
  *_WITHOUT_INSTRUCTIONS,
)
_PIXELS = ('RGB_INTERLEAVED', 'RGB_INTERLACED')
_BOUNDS = (
  ('LOOK_LEFT_RIGHT_PIXELS_PER_FRAME', -512, 512),
  ('LOOK_DOWN_UP_PIXELS_PER_FRAME', -512, 512),
  ('STRAFE_LEFT_RIGHT', -1, 1),
  ('MOVE_BACK_FORWARD', -1, 1),
  ('FIRE', 0, 1),
  ('JUMP', 0, 1),
  ('CROUCH', 0, 1),
)

# The engine has one in a process.
_instances = 0


class Lab:
  """One level; see docs/users/python_api.md of google-deepmind/lab."""

  def __init__(
    self, level, observations, config=None, renderer='', level_cache=None
  ):
    global _instances
    if not isinstance(level, str) or not isinstance(observations, list):
      raise TypeError(f'argument of a wrong type: {level!r}, {observations!r}')
    config = {} if config is None else config
    if not isinstance(config, dict):
      raise TypeError(f'config must be dict, not {type(config).__name__}')
    for pair in config.items():
      if not all(isinstance(x, str) for x in pair):
        raise TypeError(f'bad argument type for built-in operation: {pair}')
    if renderer not in ('', 'software', 'hardware'):
      raise RuntimeError(f'Failed to set renderer, actual "{renderer}"!')
    if _instances:
      raise RuntimeError('Failed to connect RL API')
    if not _is_level(level):
      raise RuntimeError(f'Invalid levelName flag \'{level}\' - "not found"')
    for name in 'width', 'height':
      value = config.get(name, '80')
      if int(value) < 4 or int(value) % 4:
        raise RuntimeError(f"'{name}' must be a multiple of 4, not {value}")
    self._level = level
    self._config = {'width': '320', 'height': '240', 'fps': '60'} | config
    self._cache = level_cache
    self._maps = tempfile.TemporaryDirectory()
    known = {spec['name'] for spec in self.observation_spec()}
    for name in observations:
      if name not in known:
        raise ValueError(f"Unknown observation '{name}'.")
    self._observations = list(observations)
    self._renderer = renderer
    self._running = False
    self._closed = False
    self._episode = 0
    self._frames = 0
    self._position = 0
    _instances += 1

  def observation_spec(self):
    shape = int(self._config['height']), int(self._config['width']), 3
    specs = [{'name': n, 'shape': shape, 'dtype': np.uint8} for n in _PIXELS]
    if self._level not in _WITHOUT_INSTRUCTIONS:
      specs.append({'name': 'INSTR', 'shape': (), 'dtype': str})
    return specs

  def action_spec(self):
    return [{'name': n, 'min': low, 'max': high} for n, low, high in _BOUNDS]

  def reset(self, episode=-1, seed=None):
    if type(episode) is not int:
      raise TypeError(f'an integer is required, not {episode!r}')
    if seed is not None and type(seed) is not int:
      raise ValueError(f"'seed' must be int or None, was '{type(seed)}'.")
    if seed is not None and not 0 <= seed < 2**31:
      raise OverflowError(f'{seed} does not fit')
    self._check_open()
    if episode >= 0:
      self._episode = episode
    # As the engine, which then plays what nobody can play again.
    seed = np.random.default_rng().integers(2**31) if seed is None else seed
    mixer = int(self._config.get('mixerSeed', '0'))
    words = [int(seed), mixer, self._episode, zlib.crc32(self._level.encode())]
    self._random = np.random.default_rng(words)
    self._length = int(self._random.integers(18, 40))
    self._make_map(str(int(self._random.integers(2**31))))
    self._episode += 1
    self._frames = self._position = 0
    self._running = True
    return True

  def _make_map(self, key):
    if self._cache is None:
      return
    path = os.path.join(self._maps.name, f'{key}.pk3')
    if not self._cache.fetch(key, path):
      with open(path, 'w', encoding='utf-8') as file:
        file.write(f'map {key}')
      self._cache.write(key, path)
    with open(path, encoding='utf-8') as file:
      assert file.read() == f'map {key}'

  def step(self, action, num_steps=1):
    if not isinstance(action, np.ndarray):
      raise TypeError(f'action must be numpy.ndarray, not {type(action)}')
    if type(num_steps) is not int:
      raise TypeError(f'an integer is required, not {num_steps!r}')
    if not self._running:
      raise RuntimeError('Environment in wrong status to advance.')
    if action.shape != (len(_BOUNDS),):
      raise ValueError(f'action must have shape ({len(_BOUNDS)})')
    if action.dtype != np.intc:
      raise ValueError('action must have dtype np.intc')
    if not action.flags.c_contiguous or num_steps < 1:
      raise ValueError('the engine reads memory that is not there')
    for value, (name, low, high) in zip(action.tolist(), _BOUNDS, strict=True):
      if not low <= value <= high:
        raise ValueError(f'{name}={value} is not in {low} to {high}')
    reward = 0.0
    for _ in range(num_steps):
      self._frames += 1
      self._position += int(action @ np.arange(1, 8))
      # Forward is worth something, the rest is luck.
      reward += float(action[3]) + float(self._random.integers(2))
      if self._frames == self._length:
        self._running = False
        break
    return reward

  def is_running(self):
    return self._running

  def observations(self):
    if not self._running:
      raise RuntimeError(
        'Environment in wrong status for call to observations()'
      )
    shape = int(self._config['height']), int(self._config['width']), 3
    pixels = np.zeros(shape, np.uint8)
    pixels[0, 0] = self._frames, self._position % 256, self._length
    # What was asked for, for tests.
    pixels[0, 1] = [
      self._config.get('allowHoldOutLevels') == 'true',
      self._renderer == 'hardware',
      self._cache is not None,
    ]
    pixels[0, 2] = self._episode - 1
    seen = dict.fromkeys(_PIXELS, pixels)
    text = '' if 'language' not in self._level else f'go to {self._length}'
    seen['INSTR'] = text
    return {name: seen[name] for name in self._observations}

  def num_steps(self):
    return self._frames

  def fps(self):
    return 60

  def events(self):
    return []

  def close(self):
    global _instances
    if self._closed:
      return False
    self._closed, self._running = True, False
    self._maps.cleanup()
    _instances -= 1
    return True

  def _check_open(self):
    if self._closed:
      raise RuntimeError('Failed to start environment - "closed"')


def _is_level(level):
  if level.startswith(_FOLDER):
    from scalable_agent.suites import dmlab30

    return level.removeprefix(_FOLDER) in dmlab30.ALL_LEVELS
  return level in _LEVELS


def version():
  return '1.0'


def runfiles_path():
  return ''


def set_runfiles_path(path):
  del path
  return True
