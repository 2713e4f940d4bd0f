"""Small Gymnasium environments with one peculiarity each.

Importing this module registers them, also in the process of an environment.
"""

import collections
import os
import sys

import gymnasium
import numpy as np
from gymnasium import spaces

EPISODE_STEPS = 6
LETTERS = 'abcdefghijklmnopqrstuvwxyz '


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
  """All kinds of observations, also inside of each other."""

  observation_space = spaces.Dict(
    {
      'inner': spaces.Dict({'gray': Gray.observation_space}),
      'image': spaces.Box(0, 255, (8, 6, 4), np.uint8),
      'named': spaces.Discrete(9, start=3),
      'names': spaces.MultiDiscrete([[9, 8], [10, 9]], start=[[1, 1], [1, 1]]),
      'pair': spaces.Tuple(
        [
          spaces.Box(-1, 9, (2, 2), np.float64),
          spaces.Tuple([spaces.MultiBinary([2, 2])]),
        ]
      ),
      'bytes': spaces.Box(0, 255, (3,), np.uint8),
      'text': spaces.Text(40, min_length=0, charset=LETTERS),
    }
  )

  def observation(self):
    n = self._count
    return {
      'inner': collections.OrderedDict(gray=np.full([8, 6], n, np.uint8)),
      'image': np.full([8, 6, 4], n, np.uint8),
      'named': 3 + n,
      'names': np.full([2, 2], 1 + n),
      # A list, as some environments give it.
      'pair': [np.full([2, 2], n, np.float64), (np.full([2, 2], n % 2),)],
      'bytes': np.full([3], n, np.uint8),
      'text': ' '.join(['step'] * n),
    }


class Missions(spaces.Space):
  """A space of texts that is no Text."""

  def sample(self, mask=None, probability=None):
    return 'go to the door'

  def contains(self, x):
    return isinstance(x, str)


class Mission(Toy):
  """Text of another kind of space."""

  observation_space = Missions()

  def observation(self):
    return 'go to the door'


class Wordy(Toy):
  """More and more words."""

  observation_space = spaces.Dict(
    {'text': spaces.Text(40, min_length=0, charset=LETTERS)}
  )

  def observation(self):
    return {'text': 'word ' * self._count}


class NestedFirst(Toy):
  """Images with channels first, deep inside."""

  observation_space = spaces.Dict(
    {'a': spaces.Tuple([ChannelsFirst.observation_space])}
  )


class Unknown(spaces.Space):
  """A space of no known kind."""

  def sample(self, mask=None, probability=None):
    raise NotImplementedError


class OfUnknown(Toy):
  """Observations of no known kind."""

  observation_space = Unknown()


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
  """Several choices at once, in two rows, from 1; the reward tells which."""

  action_space = spaces.MultiDiscrete([[2, 3], [2, 2]], start=[[1, 1], [1, 1]])

  def reward(self, action):
    assert isinstance(action, np.ndarray)
    return float(action.ravel() @ [1000, 100, 10, 1])


class Buttons(Toy):
  """Any buttons at once; the reward tells which."""

  action_space = spaces.MultiBinary(3)

  def reward(self, action):
    return float(action @ [100, 10, 1])


class Levers(Toy):
  """Numbers with two bounds, in an array; the reward tells which."""

  action_space = spaces.Box(
    np.array([[-2.0], [0.0]]), np.array([[2.0], [1.0]]), dtype=np.float64
  )

  def reward(self, action):
    assert action.dtype == np.float64
    return float(action[0, 0] * 100 + action[1, 0])


class HalfBounded(Levers):
  """Numbers of which one has no bound."""

  action_space = spaces.Box(
    np.array([[-np.inf], [0.0]]), np.array([[np.inf], [1.0]]), dtype=np.float64
  )


class Empty(Toy):
  """Nothing to choose from."""

  action_space = spaces.Box(0.0, 0.0, (1,))


class Whole(Toy):
  """Whole numbers."""

  action_space = spaces.Box(0, 9, (1,), np.int32)


class Both(Toy):
  """Choices and numbers."""

  action_space = spaces.Dict(
    {'binary': spaces.Discrete(2), 'continuous': spaces.Box(-1, 1, (1,))}
  )


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
  Mission,
  Wordy,
  NestedFirst,
  OfUnknown,
  Endless,
  NestedEndless,
  FloatImage,
  Many,
  Buttons,
  Levers,
  HalfBounded,
  Empty,
  Whole,
  Both,
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
