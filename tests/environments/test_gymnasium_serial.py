"""Environments in one thread, beside those of Gymnasium's own."""

import gymnasium
import numpy as np
import pytest
import tree
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from scalable_agent.environments import (
  gymnasium_serial,
  gymnasium_suite,
  gymnasium_wrapper,
)

NUM_ENVS = 3
OPTIONS = gymnasium_suite.GymnasiumOptions()


class Walk(gymnasium.Env):
  """A random walk that ends, or is cut off, at times; parts of all kinds."""

  observation_space = spaces.Dict(
    image=spaces.Box(0, 255, (4, 5, 3), np.uint8),
    pair=spaces.Tuple([spaces.Discrete(9), spaces.Box(-1, 1, (2, 2))]),
    word=spaces.Text(10),
  )
  action_space = spaces.MultiDiscrete([2, 3])

  def _observation(self):
    random = self.np_random
    return {
      'word': random.choice(['go', 'stop']),
      'image': random.integers(256, size=(4, 5, 3), dtype=np.uint8),
      # As some do, a list, and doubles.
      'pair': [random.integers(9), random.uniform(-1, 1, (2, 2))],
    }

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    return self._observation(), {}

  def step(self, action):
    end, cut = self.np_random.random(2) < 0.2
    return self._observation(), float(action @ [1, 10]), end, cut, {}


def factories(make):
  return [
    lambda: gymnasium_wrapper.Plain(make(), 'walk', OPTIONS)
    for _ in range(NUM_ENVS)
  ]


def assert_same(one, two):
  assert one[-1] == {}
  tree.map_structure(np.testing.assert_array_equal, one[:-1], two[:-1])
  for x, y in zip(tree.flatten(one[:-1]), tree.flatten(two[:-1]), strict=True):
    assert x.dtype == y.dtype
    assert x.shape == y.shape


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(
  'make', [Walk, lambda: gymnasium.make('CartPole-v1', max_episode_steps=15)]
)
def test_it_steps_as_gymnasiums_own_to_the_bit(make):
  ours = gymnasium_serial.SerialVectorEnv('walk', factories(make))
  theirs = SyncVectorEnv(
    factories(make), autoreset_mode=AutoresetMode.NEXT_STEP
  )
  assert (
    ours.metadata[gymnasium_wrapper.SEEN]
    == (theirs.metadata[gymnasium_wrapper.SEEN])
  )
  everywhere = {'reset_mask': np.ones([NUM_ENVS], bool)}
  seeds = [5, 6, 7]
  assert_same(
    ours.reset(seed=seeds, options=dict(everywhere)),
    theirs.reset(seed=seeds, options=dict(everywhere)),
  )
  theirs.action_space.seed(1)
  ends = np.zeros([2], int)
  for _ in range(100):
    actions = theirs.action_space.sample()
    mine = ours.step(actions)
    assert_same(mine, theirs.step(actions))
    ends += mine[2].sum(), mine[3].sum()
  assert (ends > 0).all()
  # Some of them start from new seeds in the midst of episodes.
  some = np.array([True, False, True])
  mine, _ = ours.reset(seed=[8, 0, 9], options={'reset_mask': some})
  other, _ = theirs.reset(seed=[8, 0, 9], options={'reset_mask': some})
  tree.map_structure(
    lambda x, y: np.testing.assert_array_equal(x[some], y[some]), mine, other
  )
  for _ in range(20):
    actions = theirs.action_space.sample()
    assert_same(ours.step(actions), theirs.step(actions))
  ours.close()
  theirs.close()


class Shrinking(gymnasium.Env):
  """After some steps, observations have fewer numbers than they should."""

  observation_space = spaces.Box(-1, 1, (3,))
  action_space = spaces.Discrete(2)
  steps = 0

  def reset(self, *, seed=None, options=None):
    return np.zeros([3], np.float32), {}

  def step(self, action):
    self.steps += 1
    size = 3 if self.steps < 2 else 1
    return np.zeros([size], np.float32), 0.0, False, False, {}


def test_an_observation_of_fewer_numbers_is_an_error():
  ours = gymnasium_serial.SerialVectorEnv('walk', factories(Shrinking))
  everywhere = {'reset_mask': np.ones([NUM_ENVS], bool)}
  ours.reset(seed=[1, 2, 3], options=everywhere)
  ours.step(np.zeros([NUM_ENVS], int))
  with pytest.raises(
    ValueError, match=r'^walk has given .* shape \(1,\), .* has \(3,\)'
  ):
    ours.step(np.zeros([NUM_ENVS], int))


class Brief(gymnasium.Env):
  """Each episode is one step long; counts what it is asked for."""

  observation_space = spaces.Box(-1, 1, (1,))
  action_space = spaces.Discrete(2)

  def __init__(self):
    self.calls = []

  def reset(self, *, seed=None, options=None):
    self.calls.append('reset')
    return np.zeros([1], np.float32), {}

  def step(self, action):
    self.calls.append('step')
    return np.zeros([1], np.float32), 1.0, True, False, {}

  def close(self):
    self.calls.append('close')


def test_whoever_was_started_anew_after_an_end_is_not_started_again():
  walks = []

  def make():
    walks.append(Brief())
    return walks[-1]

  ours = gymnasium_serial.SerialVectorEnv('walk', factories(make))
  actions = np.zeros([NUM_ENVS], int)
  for mask in (np.ones([NUM_ENVS], bool), np.array([True, False, False])):
    ours.reset(seed=[1, 2, 3], options={'reset_mask': mask})
    ours.step(actions)
  ours.close()
  assert [walk.calls for walk in walks] == [
    ['reset', 'step', 'reset', 'step', 'close'],
    *[['reset', 'step', 'reset', 'close']] * 2,
  ]


class Sized(gymnasium.Env):
  """As many numbers as it is told."""

  def __init__(self, size, actions):
    self.observation_space = spaces.Box(-1, 1, (size,))
    self.action_space = spaces.Discrete(actions)


@pytest.mark.parametrize('other', [(3, 2), (2, 3)])
def test_environments_that_differ_are_refused(other):
  sizes = iter([(2, 2), (2, 2), other])
  with pytest.raises(ValueError, match=r'^Two environments of walk differ'):
    gymnasium_serial.SerialVectorEnv(
      'walk', factories(lambda: Sized(*next(sizes)))
    )
