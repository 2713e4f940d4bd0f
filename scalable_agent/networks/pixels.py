"""Pixels, and other numbers, as numbers around zero."""

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
_LEAST_DEVIATION = 8.0
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


class Numbers:
  """Observations that are numbers already.

  Attributes:
    num_moments: length of `moments`.
  """

  num_moments = 0

  def __init__(self, spec: structures.TensorSpec, num_frames: int):
    del spec, num_frames

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


class ScaledPixels(Numbers):
  """Bytes as numbers from 0 to 1."""

  def spec_of(self, spec: structures.TensorSpec) -> structures.TensorSpec:
    """See `Numbers`."""
    return _as_float32(spec)

  def __call__(self, stacks: tf.Tensor) -> tf.Tensor:
    """Returns [..., height, width, num_frames * channels] float32."""
    return tf.cast(stacks, tf.float32) / 255.0


class Normalised(snt.Module):
  """Each number in deviations from its mean, both over the run.

  Of pixels, what never changes, the ground, walls, a score board, is zero, and
  what moves stands out. Left in, it is most of what the layers see: most units
  are on for each screen or for none, and Breakout is not learned for millions
  of frames (see docs/results).

  Mean and deviation are those of every fourth observation learned from, of all
  levels alike. They are variables, but no gradient reaches them: the learner
  has them `observe`.

  Attributes:
    num_moments: length of `moments`.
    count: [] int64 variable, observations taken account of so far.
    mean: float32 variable of the shape of an observation, 0 at first.
    mean_square: likewise, 255^2 of pixels at first, 1 of other numbers.
  """

  num_moments = 3

  def __init__(self, spec: structures.TensorSpec, num_frames: int):
    """Initialises.

    Args:
      spec: of one observation.
      num_frames: observations in a stack.
    """
    pixels = are_pixels(spec)
    super().__init__(name='pixels' if pixels else 'numbers')
    self._least_deviation = _LEAST_DEVIATION if pixels else _LEAST_OF_NUMBERS
    self._num_frames = num_frames
    self.count = tf.Variable(0, trainable=False, dtype=tf.int64, name='count')
    self.mean = tf.Variable(tf.zeros(spec.shape), trainable=False, name='mean')
    first = 255.0**2 if pixels else 1.0
    self.mean_square = tf.Variable(
      tf.fill(spec.shape, first), trainable=False, name='mean_square'
    )

  def spec_of(self, spec: structures.TensorSpec) -> structures.TensorSpec:
    """See `Numbers`."""
    return _as_float32(spec)

  def __call__(self, stacks: tf.Tensor) -> tf.Tensor:
    """Normalises: clip((x - mean) / sqrt(variance + least^2), -10, 10).

    The least deviation is 8 of pixels, 0.01 of other numbers.

    Args:
      stacks: [..., *rest, num_frames * channels].

    Returns:
      The same shape, float32.
    """
    variance = self.mean_square - tf.square(self.mean)
    # Rounding may leave a variance below zero.
    scale = tf.math.rsqrt(tf.maximum(variance, 0.0) + self._least_deviation**2)
    mean, scale = (
      tf.tile(x, [*[1] * (len(x.shape) - 1), self._num_frames])
      for x in (self.mean, scale)
    )
    deviations = (tf.cast(stacks, tf.float32) - mean) * scale
    return tf.clip_by_value(deviations, -_MOST_DEVIATIONS, _MOST_DEVIATIONS)

  def moments(self, observations: tf.Tensor) -> list[tf.Tensor]:
    """Returns what `observe` wants to know of some observations.

    Those of several batches may be added up.

    Args:
      observations: [T, B, ...].

    Returns:
      Of every fourth step: number, sum and sum of squares, float32.
    """
    x = tf.cast(observations[::_EVERY], tf.float32)
    count = tf.cast(tf.reduce_prod(tf.shape(x)[:2]), tf.float32)
    sums = (tf.reduce_sum(y, [0, 1]) for y in (x, tf.square(x)))
    return [count, *sums]

  def observe(self, moments: list[tf.Tensor]) -> None:
    """Takes account of observations; of none where their number is 0."""
    count, total, squares = moments
    seen = self.count.assign_add(tf.cast(count, tf.int64))
    weight = tf.math.divide_no_nan(1.0, tf.cast(seen, tf.float32))
    for variable, sums in ((self.mean, total), (self.mean_square, squares)):
      variable.assign_add((sums - count * variable) * weight)


class Parts(snt.Module):
  """The same for each part of a nest."""

  def __init__(self, spec: Any, *arguments: Any):
    super().__init__(name='parts')
    self._nest = spec
    self._parts = [_make_one(one, *arguments) for one in tree.flatten(spec)]

  def spec_of(self, spec: Any) -> Any:
    """See `Numbers`."""
    return self._map(lambda part, one: part.spec_of(one), spec)

  def __call__(self, stacks: Any) -> Any:
    """Makes numbers of a nest of stacks."""
    return self._map(lambda part, one: part(one), stacks)

  def moments(self, observations: Any) -> list[tf.Tensor]:
    """Returns those of all parts; see `Normalised`."""
    pairs = zip(self._parts, tree.flatten(observations), strict=True)
    return [moment for part, one in pairs for moment in part.moments(one)]

  def observe(self, moments: list[tf.Tensor]) -> None:
    """Takes account of observations; see `Normalised`."""
    rest = list(moments)
    for part in self._parts:
      own, rest = rest[: part.num_moments], rest[part.num_moments :]
      part.observe(own)

  def _map(self, function: Callable, nest: Any) -> Any:
    pairs = zip(self._parts, tree.flatten(nest), strict=True)
    return tree.unflatten_as(self._nest, [function(*pair) for pair in pairs])


def make_pixels(spec: Any, num_frames: int, pixels: bool, numbers: bool):
  """Returns what makes numbers of a nest of stacks of such observations.

  Args:
    spec: nest of specs of observations.
    num_frames: in a stack.
    pixels: whether to normalise those of images of bytes.
    numbers: whether to normalise all others.
  """
  make = Parts if tree.is_nested(spec) else _make_one
  return make(spec, num_frames, pixels, numbers)


def _as_float32(spec: structures.TensorSpec) -> structures.TensorSpec:
  return dataclasses.replace(spec, dtype=np.dtype(np.float32))


def _make_one(
  spec: structures.TensorSpec, num_frames: int, pixels: bool, numbers: bool
):
  if are_pixels(spec):
    return (Normalised if pixels else ScaledPixels)(spec, num_frames)
  normalise = numbers and are_numbers(spec)
  return (Normalised if normalise else Numbers)(spec, num_frames)
