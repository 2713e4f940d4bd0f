"""Kinds of actions: what is one, and what a simulator is given for it."""

import numpy as np
import pytest

from scalable_agent.action_spaces import Box, Discrete, MultiDiscrete

INF = float('inf')
MULTI = MultiDiscrete((3, 2))
BOX = Box((-1.0, 0.0), (1.0, 5.0))
SPACES = [
  (Discrete(4), (), np.int32, 4),
  (MULTI, (2,), np.int32, 5),
  (BOX, (2,), np.float32, 4),
]


@pytest.mark.parametrize(('space', 'shape', 'dtype', 'num'), SPACES)
def test_a_space_says_what_actions_look_like(space, shape, dtype, num):
  assert space.shape == shape
  assert space.dtype == dtype
  assert space.num_parameters == num


@pytest.mark.parametrize('space', [row[0] for row in SPACES], ids=str)
def test_random_actions_are_actions(space):
  drawn = space.sample(np.random.default_rng(1), 1000)
  assert drawn.shape == (1000, *space.shape)
  assert drawn.dtype == space.dtype
  space.check(drawn)
  again = space.sample(np.random.default_rng(1), 1000)
  np.testing.assert_array_equal(drawn, again)
  assert len(np.unique(drawn, axis=0)) > 3


def test_all_choices_are_drawn():
  drawn = MULTI.sample(np.random.default_rng(1), 1000)
  assert set(map(tuple, drawn)) == {(i, j) for i in range(3) for j in range(2)}
  drawn = Discrete(4).sample(np.random.default_rng(1), 1000)
  assert set(drawn) == set(range(4))


@pytest.mark.parametrize(
  ('space', 'actions', 'said'),
  [
    (Discrete(4), [4], 'in 0 to 3, not 4'),
    (Discrete(4), [[0], [-1]], 'in 0 to 3, not -1'),
    (Discrete(4), [1.0], 'be integers, not float64'),
    (Discrete(4), [True], 'be integers, not bool'),
    (MULTI, [[0, 1], [0, 2]], r'in 0 to \[2, 1\], not 2'),
    (MULTI, [[-1, 1]], r'in 0 to \[2, 1\], not -1'),
    (MULTI, [0, 1, 1], r'shape \[\.\.\., 2\], not \[3\]'),
    (MULTI, [[0.0, 1.0]], 'be integers'),
    (BOX, [[0, 1]], 'be finite floats'),
    (BOX, [[0.0, np.nan]], 'be finite floats'),
    (BOX, [[0.0, INF]], 'be finite floats'),
    (BOX, [0.0], r'shape \[\.\.\., 2\], not \[1\]'),
  ],
)
def test_what_is_no_action_is_refused(space, actions, said):
  with pytest.raises(ValueError, match=f'^actions must .*{said}'):
    space.check(np.array(actions))


@pytest.mark.parametrize('space', [Discrete(4), MULTI], ids=str)
def test_choices_reach_the_simulator_as_they_are(space):
  drawn = space.sample(np.random.default_rng(1), 5)
  assert space.to_environment(drawn) is drawn


def test_numbers_are_scaled_to_their_bounds_and_cut_off_there():
  actions = np.array([[-1, -1], [1, 1], [0, 0], [0.5, -0.5], [-9, 9]], 'f4')
  expected = [[-1, 0], [1, 5], [0, 2.5], [0.5, 1.25], [-1, 5]]
  actual = BOX.to_environment(actions)
  assert actual.dtype == np.float32
  np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_numbers_are_squashed_between_their_bounds():
  squashed = Box(BOX.low, BOX.high, squash=True)
  actions = np.array([[0, 0], [0.3, -2.0], [-50, 50]], np.float32)
  units = np.tanh(actions.astype(np.float64))
  expected = np.array([0, 2.5]) + np.array([1, 2.5]) * units
  np.testing.assert_allclose(
    squashed.to_environment(actions), expected, rtol=1e-6
  )


def test_what_has_no_two_bounds_is_given_as_it_is():
  space = Box((-INF, 0.0, -INF), (INF, INF, 2.0))
  actions = np.array([[100, -3, 7], [-100, 3, -7]], np.float32)
  # Cut off at a bound that is there.
  expected = [[100, 0, 2], [-100, 3, -7]]
  assert space.to_environment(actions).tolist() == expected
  assert space.has_bounds.tolist() == [False, False, False]


def test_no_rounding_leads_beyond_a_bound():
  random = np.random.default_rng(1)
  low = random.normal(size=200).astype(np.float32)
  high = low + random.exponential(size=200).astype(np.float32)
  space = Box(tuple(low.tolist()), tuple(high.tolist()))
  for sign in (-1, 1):
    given = space.to_environment(np.full([1, 200], sign, np.float32))
    assert (given >= low).all()
    assert (given <= high).all()


def test_bounds_as_wide_as_floats_are_no_overflow():
  most = float(np.finfo(np.float32).max)
  given = Box((-most,), (most,)).to_environment(np.array([[0.0], [1.0]], 'f4'))
  assert given.tolist() == [[0.0], [most]]


@pytest.mark.parametrize(
  ('low', 'high', 'squash', 'said'),
  [
    ([0, 1], [1, 1], False, 'number 1 has the bounds 1 and 1, .* Wrap'),
    ([2], [1], True, 'number 0 has the bounds 2 and 1'),
    ([np.nan], [1], False, 'bounds nan and 1, which leave nothing'),
    ([0, 0], [1, INF], True, 'are not finite, and --action_bounds=squash'),
  ],
)
def test_bounds_of_which_no_box_can_be_made(low, high, squash, said):
  low, high = (tuple(map(float, x)) for x in (low, high))
  with pytest.raises(ValueError, match=said):
    Box(low, high, squash)


def test_other_bounds_pass():
  low, high = (0.0, -INF), (1.0, INF)
  Box(low, high, squash=False)
  Box(low[:1], high[:1], squash=True)


def test_spaces_are_equal_if_an_agent_can_play_both():
  assert Discrete(3) == Discrete(3) != Discrete(4)
  assert MultiDiscrete((3,)) != Discrete(3)
  assert Box((0.0,), (1.0,)) != Box((0.0,), (1.0,), squash=True)


@pytest.mark.parametrize(
  ('space', 'words'),
  [
    (Discrete(3), '3 actions'),
    (MULTI, 'choices of 3, 2 actions'),
    (BOX, 'numbers from -1 to 1, 0 to 5, clipped'),
    (Box((0.0,), (2.0,), squash=True), 'numbers from 0 to 2, squashed'),
  ],
)
def test_a_space_can_be_read(space, words):
  assert str(space) == words
