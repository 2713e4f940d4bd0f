"""Pixels against their definition."""

import numpy as np
import pytest
import tensorflow as tf

from scalable_agent import structures
from scalable_agent.networks import normalisation

make = normalisation.make_normalisation

SPEC = structures.TensorSpec((5, 6, 2), np.dtype(np.uint8))
NUM_FRAMES = 3


def images(*rows, seed=0):
  """Noise, brighter to the right and below; its last column never changes."""
  rng = np.random.default_rng(seed)
  low = np.arange(30).reshape(5, 6, 1)
  x = rng.integers(low, 4 * low + 60, (*rows, *SPEC.shape))
  x[..., -1, :] = 77
  return x.astype(np.uint8)


def observe(normalised, *batches):
  for batch in batches:
    normalised.observe(normalised.moments(tf.constant(batch)))


def seen(batches):
  """Every fourth step of each batch, [N, height, width, channels]."""
  return np.concatenate(
    [batch[::4].reshape(-1, *SPEC.shape) for batch in batches]
  ).astype(np.float64)


def test_are_images_of_bytes_alone():
  assert normalisation.are_pixels(SPEC)
  for shape, dtype in (((5, 6, 2), np.float32), ((30,), np.uint8)):
    assert not normalisation.are_pixels(
      structures.TensorSpec(shape, np.dtype(dtype))
    )


@pytest.mark.parametrize('lengths', [[9], [9, 1, 6, 21]])
def test_pixels_are_deviations_from_the_mean_of_all_that_was_seen(lengths):
  normalised = normalisation.NormalisedPixels(SPEC, NUM_FRAMES)
  batches = [images(t, 3, seed=t) for t in lengths]
  observe(normalised, *batches)
  mean, deviation = seen(batches).mean(0), seen(batches).std(0)
  assert int(normalised.count) == len(seen(batches))
  np.testing.assert_allclose(normalised.mean, mean, rtol=1e-5)
  # A stack has the frames one after the other on its last axis.
  stacks = images(2, 4 * NUM_FRAMES, seed=99).reshape(2, 4, 3, *SPEC.shape)
  expected = np.clip((stacks - mean) / np.sqrt(deviation**2 + 8**2), -10, 10)
  numbers = normalised(
    tf.constant(np.concatenate(np.moveaxis(stacks, 2, 0), -1))
  )
  assert numbers.dtype == tf.float32
  np.testing.assert_allclose(
    numbers, np.concatenate(np.moveaxis(expected, 2, 0), -1), atol=1e-3
  )


def test_what_never_changes_is_zero_and_a_change_of_it_is_bounded():
  normalised = normalisation.NormalisedPixels(SPEC, 1)
  observe(normalised, np.full((40, 8, *SPEC.shape), 120, np.uint8))
  screen = np.full((3, *SPEC.shape), 120, np.uint8)
  screen[1, 0, 0], screen[2, 0, 0] = 0, 255
  numbers = normalised(tf.constant(screen)).numpy()
  np.testing.assert_allclose(numbers[1, 0, 0], -10)
  np.testing.assert_allclose(numbers[2, 0, 0], 10)
  numbers[1:, 0, 0] = 0
  np.testing.assert_allclose(numbers, 0, atol=1e-2)


def test_moments_of_several_batches_are_added_and_zeros_are_no_batch():
  one, other = (normalisation.NormalisedPixels(SPEC, 1) for _ in range(2))
  batches = [images(5, 2, seed=seed) for seed in range(2)]
  both = [one.moments(tf.constant(batch)) for batch in batches]
  nothing = [tf.zeros_like(x) for x in both[0]]
  # Also before there was any.
  one.observe(nothing)
  for variable in one.variables:
    assert np.isfinite(variable.numpy()).all()
  one.observe([a + b for a, b in zip(*both, strict=True)])
  one.observe(nothing)
  observe(other, np.concatenate(batches, axis=1))
  for a, b in zip(one.variables, other.variables, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5)


def test_before_anything_was_seen_pixels_are_small_numbers():
  numbers = normalisation.NormalisedPixels(SPEC, 1)(tf.constant(images(3)))
  assert 0 <= numbers.numpy().min() < numbers.numpy().max() <= 1


def test_after_a_long_run_means_are_still_right():
  """Sums of so many squares would have no digits left for one."""
  normalised = normalisation.NormalisedPixels(SPEC, 1)
  normalised.count.assign(2**31)
  normalised.mean.assign(tf.fill(SPEC.shape, 200.0))
  normalised.mean_square.assign(tf.fill(SPEC.shape, 200.0**2 + 30.0**2))
  for _ in range(20):
    observe(normalised, images(8, 4))
  np.testing.assert_allclose(normalised.mean, 200, atol=0.01)
  assert int(normalised.count) == 2**31 + 20 * 8


def test_scaled_pixels_are_from_0_to_1():
  scaled = normalisation.ScaledPixels(SPEC, 1)
  stacks = images(3)
  scaled.observe(scaled.moments(tf.constant(stacks[None])))
  np.testing.assert_allclose(
    scaled(tf.constant(stacks)), stacks / 255, rtol=1e-6
  )


NUMBERS = structures.TensorSpec((3,), np.dtype(np.float32))


def test_what_are_numbers_that_are_no_pixels():
  names = structures.CategorySpec((2,), np.dtype(np.int32), 4)
  text = structures.TextSpec((2,), np.dtype(np.int32), 9)
  assert normalisation.are_numbers(NUMBERS)
  assert not normalisation.are_numbers({'a': SPEC, 'b': names, 'c': text})
  assert normalisation.are_numbers({'a': SPEC, 'b': (names, NUMBERS)})
  assert normalisation.are_pixels({'a': SPEC, 'b': NUMBERS})
  # Bytes that name things are no pixels.
  assert not normalisation.are_pixels(
    structures.CategorySpec(SPEC.shape, SPEC.dtype, 4)
  )


def test_numbers_are_deviations_from_their_mean_as_well():
  rng = np.random.default_rng(1)
  x = rng.normal([1.0, -50.0, 3.0], [2.0, 10.0, 0.0], (41, 7, 3)).astype('f4')
  normalised = make(NUMBERS, 2, pixels=True, numbers=True)
  before = normalised(tf.constant(np.concatenate([x, x], -1)))
  # As they are, but for the bounds, until something was learned from.
  np.testing.assert_allclose(
    before[..., :3], np.clip(x, -10, 10), rtol=1e-3, atol=1e-3
  )
  observe(normalised, x)
  sample = x[::4].reshape(-1, 3).astype(np.float64)
  scale = np.sqrt(sample.var(0) + 0.01**2)
  expected = np.clip((x - sample.mean(0)) / scale, -10, 10)
  for half in np.split(normalised(np.concatenate([x, x], -1)), 2, -1):
    np.testing.assert_allclose(
      half[..., :2], expected[..., :2], rtol=1e-3, atol=1e-3
    )
    assert np.abs(half[..., 2]).max() < 0.5  # It never changes.


@pytest.mark.parametrize('both', [False, True])
def test_of_a_nest_what_was_asked_for_is_normalised(both):
  nest = {'screen': SPEC, 'speed': NUMBERS}
  made = make(nest, 1, pixels=True, numbers=both)
  observation = {
    'screen': tf.constant(images(4, 2)),
    'speed': tf.constant(np.full([4, 2, 3], 7.0, np.float32)),
  }
  moments = made.moments(observation)
  assert len(moments) == (7 if both else 3)
  made.observe(moments)
  seen_so = made(observation)
  assert np.any(seen_so['screen'] != images(4, 2) / 255.0)
  assert (seen_so['speed'] == 7.0).numpy().all() != both
  spec = made.spec_of(nest)
  assert spec['screen'].dtype == spec['speed'].dtype == np.float32


def test_numbers_far_from_zero_keep_their_deviations():
  rng = np.random.default_rng(2)
  spec = structures.TensorSpec((2,), np.dtype(np.float32))
  normalised = make(spec, 1, True, numbers=True)
  batches = [
    rng.normal([1e4, -3e5], [1.0, 20.0], (9, 8, 2)).astype('f4')
    for _ in range(50)
  ]
  observe(normalised, *batches)
  sample = np.concatenate([b[::4].reshape(-1, 2) for b in batches])
  sample = sample.astype(np.float64)
  np.testing.assert_allclose(normalised.mean, sample.mean(0), rtol=1e-6)
  np.testing.assert_allclose(normalised.variance, sample.var(0), rtol=0.02)


def test_moments_of_one_who_knew_another_mean_may_be_added():
  rng = np.random.default_rng(3)
  first, second, third = rng.normal(5.0, 2.0, (3, 8, 6, 3)).astype('f4')
  one = make(NUMBERS, 1, True, numbers=True)
  other = make(NUMBERS, 1, True, numbers=True)
  observe(other, first + 3)
  observe(one, first)
  late = other.moments(tf.constant(second))  # Around the mean of `other`.
  one.observe(late)
  one.observe([tf.zeros_like(x) for x in late])  # None, which change nothing.
  observe(one, third)
  sample = np.concatenate(
    [x[::4].reshape(-1, 3) for x in (first, second, third)]
  )
  np.testing.assert_allclose(one.mean, sample.mean(0), rtol=1e-5)
  np.testing.assert_allclose(one.variance, sample.var(0), rtol=1e-4)
  assert int(one.count) == len(sample)


def test_names_and_words_are_never_normalised():
  nest = {
    'name': structures.CategorySpec((2,), np.dtype(np.int32), 4),
    'text': structures.TextSpec((2,), np.dtype(np.int32), 9),
  }
  made = make(nest, 1, pixels=True, numbers=True)
  observation = {key: tf.constant([[[3, 1]]]) for key in nest}
  assert made.moments(observation) == []
  for one in made(observation).values():
    assert one.dtype == tf.int32
    np.testing.assert_array_equal(one, [[[3, 1]]])


def test_a_variance_that_rounding_left_below_zero_is_none():
  spec = structures.TensorSpec((1, 1, 3), np.dtype(np.uint8))
  normalised = normalisation.NormalisedPixels(spec, 1)
  normalised.mean.assign(tf.fill([1, 1, 3], 200.0))
  normalised.mean_square.assign(tf.fill([1, 1, 3], 200.0**2 - 100.0))
  np.testing.assert_allclose(
    normalised(tf.constant([[[[200, 208, 192]]]], tf.uint8)),
    [[[[0, 1, -1]]]],
    atol=0.01,
  )
