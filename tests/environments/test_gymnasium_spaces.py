"""Spaces of Gymnasium, without environments."""

import numpy as np
import pytest
from gymnasium import spaces

from scalable_agent.environments import gymnasium_spaces


def part_of(space):
  return gymnasium_spaces.parts_of(space, 'Toy-v0', 5)


def actions_of(space, bounds='clip'):
  return gymnasium_spaces.actions_of(space, 'Toy-v0', bounds)


NOTHING = (
  spaces.Box(0, 1, (0,), np.float32),
  spaces.Box(0, 255, (0, 5, 3), np.uint8),
  spaces.MultiDiscrete([]),
)


@pytest.mark.parametrize('space', NOTHING, ids=str)
def test_observations_of_nothing_are_refused(space):
  with pytest.raises(ValueError, match=r'observations of .* holds nothing'):
    part_of(space)
  nest = spaces.Dict({'a': spaces.Tuple([spaces.Discrete(2), space])})
  with pytest.raises(ValueError, match=r"the part \['a'\]\[1\] .* nothing"):
    part_of(nest)


@pytest.mark.parametrize(
  'space', [NOTHING[0], spaces.MultiDiscrete([])], ids=str
)
def test_nothing_to_choose_is_refused(space):
  with pytest.raises(ValueError, match=r'Toy-v0 has .* nothing to choose'):
    actions_of(space)


@pytest.mark.parametrize(
  'space',
  [
    spaces.Box(-1, 1, (3, 4), np.float32),
    spaces.Box(0, 255, (3, 4), np.uint8),
    spaces.MultiBinary([3, 4]),
  ],
  ids=str,
)
def test_as_many_numbers_in_another_shape_are_an_error(space):
  part = part_of(space)
  assert part.encode(np.ones([2, 3, 4])).shape == (2, *part.spec.shape)
  for shape in ([4, 3], [12]):
    with pytest.raises(ValueError, match=r'came in the shape .* \(3, 4\)'):
      part.encode(np.ones(shape))


def test_four_channels_may_come_first_as_well_as_one():
  for channels in 1, 4:
    with pytest.raises(ValueError, match='channels first'):
      part_of(spaces.Box(0, 255, (channels, 8, 6), np.uint8))
  assert part_of(spaces.Box(0, 255, (8, 6, 4), np.uint8)).spec.shape == (
    8,
    6,
    4,
  )


@pytest.mark.parametrize(
  'space',
  [
    spaces.MultiBinary([2, 2]),
    # Neither bound is a float32, nor within the nearest one.
    spaces.Box(np.array([0.7]), np.array([0.9 - 1e-12]), dtype=np.float64),
    spaces.Box(-1, 1, (2, 3), np.float16),
  ],
  ids=str,
)
def test_what_an_environment_is_given_is_in_its_space(space):
  actions = actions_of(space)
  ours = actions.space
  for number in -9, 0, 9:
    chosen = np.full(ours.shape, number, ours.dtype)
    if ours.dtype == np.int32:
      chosen = np.clip(chosen, 0, 1)
    given = actions.decode(ours.to_environment(chosen))
    assert given.dtype == space.dtype
    assert space.contains(given)


@pytest.mark.parametrize(
  'space', [spaces.Discrete(10**7), spaces.MultiDiscrete([500] * 201)], ids=str
)
def test_more_names_than_weights_can_bear_are_refused(space):
  with pytest.raises(ValueError, match=r'more than 100,000 things .* numbers'):
    part_of(space)


def test_many_names_pass():
  assert part_of(spaces.Discrete(100_000)).spec.num_values == 100_000
