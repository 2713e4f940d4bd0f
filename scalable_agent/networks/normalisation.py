"""Pixels, and other numbers, around zero."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import sonnet as snt
import tensorflow as tf
import tree

from scalable_agent import structures

# Grey levels. Of a pixel that hardly ever changes, each change is news, but not
# without bounds.
_LEAST_OF_PIXELS = 8.0
_MOST_DEVIATIONS = 10.0
_LEAST_OF_NUMBERS = 0.01
# Frames that follow each other are alike.
_EVERY = 4


def are_pixels(spec: Any) -> bool:
  """Whether there are images of bytes in a nest of observations."""
  return any(
    # No subclass: what names things is none.
    type(one) is structures.TensorSpec
    and len(one.shape) == 3
    and one.dtype == np.uint8
    for one in tree.flatten(spec)
  )


def are_numbers(spec: Any) -> bool:
  """Whether there are numbers that are no pixels in a nest of observations."""
  return any(
    type(one) is structures.TensorSpec and not are_pixels(one)
    for one in tree.flatten(spec)
  )


class Unchanged:
  """Observations that stay as they are.

  Attributes:
    num_moments: length of `moments`.
  """

  num_moments = 0

  def __init__(
    self,
    spec: structures.TensorSpec,
    num_frames: int,
    dtype: tf.DType = tf.float32,
  ):
    del spec, num_frames
    self._dtype = dtype

  def spec_of(self, spec: structures.TensorSpec) -> structures.TensorSpec:
    """Returns the spec of what it makes of such stacks."""
    return spec

  def __call__(self, stacks: tf.Tensor) -> tf.Tensor:
    """Returns them as they are."""
    return stacks

  def moments(self, observations: tf.Tensor) -> list[tf.Tensor]:
    """Returns nothing to `observe`."""
    del observations
    return []

  def observe(self, moments: list[tf.Tensor]) -> None:
    """Has nothing to learn."""
    del moments


class ScaledPixels(Unchanged):
  """Bytes as numbers from 0 to 1."""

  def spec_of(self, spec: structures.TensorSpec) -> structures.TensorSpec:
    """See `Unchanged`."""
    return _as_numbers(spec, self._dtype)

  def __call__(self, stacks: tf.Tensor) -> tf.Tensor:
    """Returns [..., height, width, num_frames * channels] of the dtype."""
    return tf.cast(tf.cast(stacks, tf.float32) / 255.0, self._dtype)


class NormalisedPixels(snt.Module):
  """Each pixel of the screen in deviations from its mean, both over the run.

  What never changes, the ground, walls, a score board, is zero, and what moves
  stands out. Left in, it is most of what the layers see: most units are on for
  each screen or for none, and Breakout is not learned for millions of frames
  (see docs/results).

  Mean and deviation are those of every fourth observation learned from, of all
  levels alike. They are variables, but no gradient reaches them: the learner
  has them `observe`.

  Attributes:
    num_moments: length of `moments`.
    count: [] int64 variable, observations taken account of so far.
    mean: [height, width, channels] float32 variable, 0 at first.
    mean_square: likewise, 255^2 at first.
  """

  num_moments = 3

  def __init__(
    self,
    spec: structures.TensorSpec,
    num_frames: int,
    dtype: tf.DType = tf.float32,
  ):
    """Initialises.

    Args:
      spec: of one observation, an image of bytes.
      num_frames: observations in a stack.
      dtype: of what it makes of them.
    """
    super().__init__(name='pixels')
    self._num_frames = num_frames
    self._dtype = dtype
    self.count = tf.Variable(0, trainable=False, dtype=tf.int64, name='count')
    self.mean = tf.Variable(tf.zeros(spec.shape), trainable=False, name='mean')
    self.mean_square = tf.Variable(
      tf.fill(spec.shape, 255.0**2), trainable=False, name='mean_square'
    )

  def spec_of(self, spec: structures.TensorSpec) -> structures.TensorSpec:
    """See `Unchanged`."""
    return _as_numbers(spec, self._dtype)

  def __call__(self, stacks: tf.Tensor) -> tf.Tensor:
    """Normalises: clip((x - mean) / sqrt(variance + 8^2), -10, 10).

    Args:
      stacks: [..., height, width, num_frames * channels] uint8.

    Returns:
      The same shape, of the dtype.
    """
    # Rounding may leave a variance below zero.
    variance = tf.maximum(self.mean_square - tf.square(self.mean), 0.0)
    deviations = _deviations(
      stacks, self.mean, variance, _LEAST_OF_PIXELS, self._num_frames
    )
    return tf.cast(deviations, self._dtype)

  def moments(self, observations: tf.Tensor) -> list[tf.Tensor]:
    """Returns what `observe` wants to know of some observations.

    Those of several batches may be added up.

    Args:
      observations: [T, B, height, width, channels] uint8.

    Returns:
      Of every fourth step: number, sum and sum of squares, float32.
    """
    x, count = _some(observations)
    return [count, tf.reduce_sum(x, [0, 1]), tf.reduce_sum(x * x, [0, 1])]

  def observe(self, moments: list[tf.Tensor]) -> None:
    """Takes account of observations; of none where their number is 0."""
    count, total, squares = moments
    seen = self.count.assign_add(tf.cast(count, tf.int64))
    weight = tf.math.divide_no_nan(1.0, tf.cast(seen, tf.float32))
    for variable, sums in ((self.mean, total), (self.mean_square, squares)):
      variable.assign_add((sums - count * variable) * weight)


class NormalisedNumbers(snt.Module):
  """Each number in deviations from its mean, both over the run.

  As `NormalisedPixels`, but for numbers that may lie far from zero: of 10,000
  and a deviation of 1, a float32 has no more of the mean square than it has of
  the square of the mean. So all sums are of distances from the mean so far, or
  from that of the first batch.

  Attributes:
    num_moments: length of `moments`.
    count: [] int64 variable, observations taken account of so far.
    mean: [D] float32 variable, 0 at first.
    variance: [D] float32 variable, 1 at first.
  """

  num_moments = 4

  def __init__(self, spec: structures.TensorSpec, num_frames: int):
    """Initialises.

    Args:
      spec: of one observation.
      num_frames: observations in a stack.
    """
    super().__init__(name='numbers')
    self._num_frames = num_frames
    self.count = tf.Variable(0, trainable=False, dtype=tf.int64, name='count')
    self.mean = tf.Variable(tf.zeros(spec.shape), trainable=False, name='mean')
    self.variance = tf.Variable(
      tf.ones(spec.shape), trainable=False, name='variance'
    )

  def spec_of(self, spec: structures.TensorSpec) -> structures.TensorSpec:
    """See `Unchanged`."""
    return _as_numbers(spec, tf.float32)

  def __call__(self, stacks: tf.Tensor) -> tf.Tensor:
    """Normalises: clip((x - mean) / sqrt(variance + 0.01^2), -10, 10).

    Args:
      stacks: [..., num_frames * D].

    Returns:
      The same shape, float32.
    """
    return _deviations(
      stacks, self.mean, self.variance, _LEAST_OF_NUMBERS, self._num_frames
    )

  def moments(self, observations: tf.Tensor) -> list[tf.Tensor]:
    """Returns what `observe` wants to know of some observations.

    Those of several batches may be added up.

    Args:
      observations: [T, B, D].

    Returns:
      Of every fourth step: number, sum and sum of squares of the distances from
      somewhere, and number times that somewhere, float32.
    """
    x, count = _some(observations)
    own = tf.reduce_mean(x, [0, 1])
    origin = tf.where(self.count > 0, self.mean, own)
    x -= origin
    sums = [tf.reduce_sum(x, [0, 1]), tf.reduce_sum(x * x, [0, 1])]
    return [count, *sums, count * origin]

  def observe(self, moments: list[tf.Tensor]) -> None:
    """Takes account of observations; of none where their number is 0."""
    count, total, squares, origins = moments
    seen = self.count.assign_add(tf.cast(count, tf.int64))
    seen = tf.cast(seen, tf.float32)
    weight = tf.math.divide_no_nan(1.0, seen)
    origin = tf.math.divide_no_nan(origins, count)
    begun = seen > count
    mean = tf.where(begun, self.mean, origin)
    # Whoever took the sums may have known another mean.
    shift = origin - mean
    squares += 2 * shift * total + count * shift * shift
    total += count * shift
    step = total * weight
    before = tf.where(begun, self.variance, 0.0) * (1 - count * weight)
    variance = before + squares * weight - step * step
    self.mean.assign(tf.where(count > 0, mean + step, self.mean))
    self.variance.assign(
      tf.where(count > 0, tf.maximum(variance, 0.0), self.variance)
    )


def _some(observations: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns every fourth step of [T, B, ...] as float32, and their number."""
  # A slice with a step copies byte by byte, which takes 3 ms a batch.
  steps = tf.range(0, tf.shape(observations)[0], _EVERY)
  x = tf.cast(tf.gather(observations, steps), tf.float32)
  return x, tf.cast(tf.reduce_prod(tf.shape(x)[:2]), tf.float32)


def _deviations(stacks, mean, variance, least, num_frames) -> tf.Tensor:
  scale = tf.math.rsqrt(variance + least**2)
  repeats = [*[1] * (len(mean.shape) - 1), num_frames]
  mean, scale = (tf.tile(x, repeats) for x in (mean, scale))
  deviations = (tf.cast(stacks, tf.float32) - mean) * scale
  return tf.clip_by_value(deviations, -_MOST_DEVIATIONS, _MOST_DEVIATIONS)


class Parts(snt.Module):
  """The same for each part of a nest."""

  def __init__(self, spec: Any, *arguments: Any):
    super().__init__(name='parts')
    self._nest = spec
    self._parts = [_make_one(one, *arguments) for one in tree.flatten(spec)]

  def spec_of(self, spec: Any) -> Any:
    """See `Unchanged`."""
    return self._map(lambda part, one: part.spec_of(one), spec)

  def __call__(self, stacks: Any) -> Any:
    """Makes numbers of a nest of stacks."""
    return self._map(lambda part, one: part(one), stacks)

  def moments(self, observations: Any) -> list[tf.Tensor]:
    """Returns those of all parts; see `NormalisedPixels`."""
    pairs = zip(self._parts, tree.flatten(observations), strict=True)
    return [moment for part, one in pairs for moment in part.moments(one)]

  def observe(self, moments: list[tf.Tensor]) -> None:
    """Takes account of observations; see `NormalisedPixels`."""
    rest = list(moments)
    for part in self._parts:
      own, rest = rest[: part.num_moments], rest[part.num_moments :]
      part.observe(own)

  def _map(self, function: Callable, nest: Any) -> Any:
    pairs = zip(self._parts, tree.flatten(nest), strict=True)
    return tree.unflatten_as(self._nest, [function(*pair) for pair in pairs])


def make_normalisation(
  spec: Any,
  num_frames: int,
  pixels: bool,
  numbers: bool,
  dtype: tf.DType = tf.float32,
):
  """Returns what makes numbers of a nest of stacks of such observations.

  Args:
    spec: nest of specs of observations.
    num_frames: in a stack.
    pixels: whether to normalise those of images of bytes.
    numbers: whether to normalise all others.
    dtype: of the numbers that pixels become; all else is float32.
  """
  make = Parts if tree.is_nested(spec) else _make_one
  return make(spec, num_frames, pixels, numbers, dtype)


def _as_numbers(
  spec: structures.TensorSpec, dtype: tf.DType
) -> structures.TensorSpec:
  return dataclasses.replace(spec, dtype=np.dtype(dtype.as_numpy_dtype))


def _make_one(
  spec: structures.TensorSpec,
  num_frames: int,
  pixels: bool,
  numbers: bool,
  dtype: tf.DType,
):
  if are_pixels(spec):
    kind = NormalisedPixels if pixels else ScaledPixels
    return kind(spec, num_frames, dtype)
  normalise = numbers and are_numbers(spec)
  return (NormalisedNumbers if normalise else Unchanged)(spec, num_frames)
