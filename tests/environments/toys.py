"""Small Gymnasium environments with one peculiarity each.

Importing this module registers them, also in the process of an environment.
"""

import os
import sys

import gymnasium
import numpy as np
from gymnasium import spaces

EPISODE_STEPS = 6


class UnpicklableError(Exception):
  """An exception that does not survive a pipe."""

  def __init__(self, one, two):
    super().__init__(f'{one} {two}')


class Toy(gymnasium.Env):
  """Counts its steps; the observation is the count."""

  observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float64)
  action_space = spaces.Discrete(3)

  def __init__(self, render_mode=None):
    self.render_mode = render_mode
    self._count = 0

  def observation(self):
    return np.array([self._count], np.float64)

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self._count = 0
    return self.observation(), {'random': object()}

  def step(self, action):
    assert self.action_space.contains(action), action
    self._count += 1
    over = self._count >= EPISODE_STEPS
    return self.observation(), self.reward(action), over, False, {'lambda': id}

  def reward(self, action):
    return float(action)


class Shifted(Toy):
  """Actions 5, 6 and 7; the reward is the action."""

  action_space = spaces.Discrete(3, start=5)


class Gray(Toy):
  """Images without a channel axis."""

  observation_space = spaces.Box(0, 255, (8, 6), np.uint8)

  def observation(self):
    return np.full([8, 6], self._count, np.uint8)


class GrayOfTwo(Gray):
  """The same with an action less."""

  action_space = spaces.Discrete(2)


class Named(Gray):
  """Says what its actions mean."""

  def get_action_meanings(self):
    return ['LEFT', 'STAY', 'RIGHT']


class NamedOtherwise(Gray):
  """The same in another order."""

  def get_action_meanings(self):
    return ['STAY', 'LEFT', 'RIGHT']


class Colour(Toy):
  """Images with channels last."""

  observation_space = spaces.Box(0, 255, (8, 6, 3), np.uint8)
  metadata = {'render_modes': ['rgb_array'], 'render_fps': 30}  # noqa: RUF012

  def observation(self):
    return np.full([8, 6, 3], self._count, np.uint8)

  def render(self):
    return self.observation()


class ChannelsFirst(Toy):
  """Images with channels first."""

  observation_space = spaces.Box(0, 255, (3, 8, 6), np.uint8)


class OneHot(Toy):
  """Discrete observations."""

  observation_space = spaces.Discrete(EPISODE_STEPS + 1)

  def observation(self):
    return self._count


class Nested(Toy):
  """A Dict of vectors."""

  observation_space = spaces.Dict(
    {
      'a': spaces.Discrete(2),
      'b': spaces.Tuple([spaces.Box(-1, 9, (2,), np.float32)]),
    }
  )

  def observation(self):
    return {
      'a': self._count % 2,
      'b': (np.full([2], self._count, np.float32),),
    }


class NestedImage(Toy):
  """A Dict with an image."""

  observation_space = spaces.Dict({'image': Gray.observation_space})


class Endless(Toy):
  """Observations of no fixed size."""

  observation_space = spaces.Sequence(spaces.Discrete(2))


class NestedEndless(Toy):
  """Likewise, deep inside."""

  observation_space = spaces.Dict(
    {'a': spaces.Tuple([Endless.observation_space])}
  )


class FloatImage(Toy):
  """The shape of an image, but numbers that are no bytes."""

  observation_space = spaces.Box(0, 1, (8, 6, 3), np.float32)

  def observation(self):
    return np.full([8, 6, 3], self._count / 8, np.float32)


class Many(Toy):
  """Several actions at once."""

  action_space = spaces.MultiDiscrete([2, 2])


class Unmakeable(Toy):
  """Needs what is not installed."""

  def __init__(self, render_mode=None):
    raise gymnasium.error.DependencyNotInstalled('Box3D is not installed')


class Unfilmable(Toy):
  """Needs what is not installed, for rendering only."""

  metadata = Colour.metadata

  def render(self):
    import no_such_module  # noqa: F401


class Modeless(Toy):
  """Takes no render_mode."""

  def __init__(self):
    super().__init__()


class Failing(Toy):
  """Raises in its second step."""

  def reward(self, action):
    if self._count == 2:
      raise UnpicklableError('the simulator', 'broke')
    return 0.0


class Unstartable(Toy):
  """Raises when it is reset."""

  def reset(self, *, seed=None, options=None):
    raise UnpicklableError('the simulator', 'does not start')


class Dying(Toy):
  """Takes its process with it in its second step."""

  def reward(self, action):
    if self._count == 2:
      os._exit(3)
    return 0.0


class Modules(Toy):
  """The reward tells whether TensorFlow is loaded in this process."""

  def reward(self, action):
    return float('tensorflow' in sys.modules)


for _class in (
  Shifted,
  Gray,
  GrayOfTwo,
  Named,
  NamedOtherwise,
  Colour,
  ChannelsFirst,
  OneHot,
  Nested,
  NestedImage,
  Endless,
  NestedEndless,
  FloatImage,
  Many,
  Unmakeable,
  Unfilmable,
  Modeless,
  Failing,
  Unstartable,
  Dying,
  Modules,
):
  gymnasium.register(
    id=f'Toys/{_class.__name__}-v0', entry_point=_class, order_enforce=True
  )
