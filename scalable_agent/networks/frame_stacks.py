"""Frame stacks: the latest observations of an episode as one.

They are made in the agent, so that an unroll carries each frame once. While an
episode is younger than a stack is long, its first observation stands for those
that are missing, as in Gymnasium's wrapper. ale-py's zeros are no observation:
on a ground that is not black they are further from it than anything in a game.
"""

import sys
from typing import Any

import numpy as np
import sonnet as snt
import tensorflow as tf
import tree

from scalable_agent import structures


class PackedFrameStack(snt.Module):
  """Stacks the four latest grey frames as the four bytes of a uint32.

  Shifts and ORs make the stacks, the bytes in memory are the channels, oldest
  first, and no pixel is moved one by one.

  Attributes:
    spec: of a stack.
  """

  NUM_FRAMES = 4

  def __init__(self, spec: structures.TensorSpec):
    super().__init__(name='frame_stack')
    self._height, self._width, _ = spec.shape
    self.spec = structures.TensorSpec(
      (self._height, self._width, self.NUM_FRAMES), spec.dtype
    )

  @classmethod
  def fits(cls, spec: structures.TensorSpec, num_frames: int) -> bool:
    """Whether this class can stack such observations."""
    return (
      num_frames == cls.NUM_FRAMES
      and spec.dtype == np.uint8
      and len(spec.shape) == 3
      and spec.shape[-1] == 1
      # The bytes of an integer are in channel order on such machines only.
      and sys.byteorder == 'little'
    )

  def initial_state(self, batch_size: int) -> tf.Tensor:
    """Returns the empty stack, [B, height, width] uint32."""
    return tf.zeros((batch_size, self._height, self._width), tf.uint32)

  def __call__(
    self, frames: tf.Tensor, first: tf.Tensor, state: tf.Tensor
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Stacks.

    Args:
      frames: [T, B, height, width, 1] uint8, T known when the graph is built.
      first: [T, B] bool, whether the observation starts an episode.
      state: [B, height, width] uint32, the stack before column 0.

    Returns:
      [T, B, height, width, 4] uint8, the newest frame last; and the state after
      the last column.
    """
    # A factor puts the byte into the last place, or into all four.
    last, everywhere = (tf.constant(x, tf.uint32) for x in (1 << 24, 0x1010101))
    newest = (
      tf.cast(tf.squeeze(frames, -1), tf.uint32)
      * tf.where(first, everywhere, last)[:, :, None, None]
    )
    # All columns at once, as a loop over time would copy each twice. Column t
    # has of each column before it, up to three of them, what is left after as
    # many shifts, unless an episode began since; the state is column -1.
    keep = tf.cast(~first, tf.uint32)[:, :, None, None]
    columns = tf.concat([state[None], newest], 0)
    stacks, kept = newest, keep
    for age in range(1, min(frames.shape[0], self.NUM_FRAMES - 1) + 1):
      byte = tf.constant(8 * age, tf.uint32)
      older = tf.bitwise.right_shift(columns[:-age], byte) * kept
      none = tf.zeros_like(stacks[: age - 1])
      stacks = tf.bitwise.bitwise_or(stacks, tf.concat([none, older], 0))
      kept = keep[age:] * kept[:-1]
    return tf.bitcast(stacks, tf.uint8), stacks[-1]

  def skip(
    self, frames: np.ndarray, first: np.ndarray, state: np.ndarray
  ) -> np.ndarray:
    """Returns only the state after the last column, by numpy alone."""
    state = state.copy()
    channels = state.view(np.uint8).reshape(*state.shape, self.NUM_FRAMES)
    # What is older than the stack is long is forgotten.
    for t in range(len(frames))[-self.NUM_FRAMES :]:
      state >>= 8
      channels[..., -1] = frames[t, ..., 0]
      channels[first[t]] = frames[t][first[t]]
    return state


class FrameStack(snt.Module):
  """Concatenates the latest observations of any kind on their last axis.

  Attributes:
    spec: of a stack.
  """

  def __init__(self, spec: structures.TensorSpec, num_frames: int):
    super().__init__(name='frame_stack')
    self._spec = spec
    self._num_frames = num_frames
    self.spec = spec
    if num_frames > 1:
      *rest, channels = spec.shape
      self.spec = structures.TensorSpec(
        (*rest, num_frames * channels), spec.dtype
      )

  def initial_state(self, batch_size: int) -> tuple[tf.Tensor, ...]:
    """Returns num_frames - 1 observations of zeros."""
    return tuple(
      tf.zeros((batch_size, *self._spec.shape), self._spec.dtype)
      for _ in range(self._num_frames - 1)
    )

  def __call__(
    self, frames: tf.Tensor, first: tf.Tensor, state: tuple[tf.Tensor, ...]
  ) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
    """Stacks [T, B, ...]; see `PackedFrameStack`, with any dtype and shape."""
    if self._num_frames == 1:
      # A tensor also where numpy came in: BatchApply leaves arrays alone.
      return tf.convert_to_tensor(frames), ()
    # Of all columns at once: an observation of `age` steps ago is that of this
    # column or, where an episode began since, that of its first one. The rows
    # of the state come before those of column 0.
    time, batch = tf.unstack(tf.shape(first))
    rows = tf.reshape(
      tf.concat([*(frame[None] for frame in state), frames], 0),
      [-1, *self._spec.shape],
    )
    begin = _last_begin(first)
    now = tf.range(time)[:, None]
    older = [
      tf.gather(
        rows,
        (tf.maximum(now - age, begin) + len(state)) * batch + tf.range(batch),
      )
      for age in range(self._num_frames - 1, 0, -1)
    ]
    window = [*older, tf.convert_to_tensor(frames)]
    return tf.concat(window, -1), tuple(part[-1] for part in window[1:])

  def skip(
    self,
    frames: np.ndarray,
    first: np.ndarray,
    state: tuple[np.ndarray, ...],
  ) -> tuple[np.ndarray, ...]:
    """Returns only the state; see `PackedFrameStack`."""
    first = first.reshape(*first.shape, *[1] * len(self._spec.shape))
    for t in range(len(frames))[-self._num_frames :]:
      older = (np.where(first[t], frames[t], frame) for frame in state)
      state = (*older, frames[t])[1:]
    return state


def _last_begin(first: tf.Tensor) -> tf.Tensor:
  """Returns the column in which the latest episode began, [T, B] int32.

  Where none did, it is before all that there is.

  Args:
    first: [T, B] bool.
  """
  columns = tf.range(tf.shape(first)[0])
  begins = tf.where(first, columns[:, None], tf.int32.min)
  until = columns[:, None] >= columns  # [T, T], of column and earlier one.
  return tf.reduce_max(tf.where(until[..., None], begins, tf.int32.min), 1)


class FrameStacks(snt.Module):
  """A frame stack for each part of a nest of observations.

  Attributes:
    spec: nest of specs of stacks.
  """

  def __init__(self, spec: Any, num_frames: int):
    super().__init__(name='frame_stacks')
    self._nest = spec
    self._stacks = [_make_one(one, num_frames) for one in tree.flatten(spec)]
    self.spec = tree.unflatten_as(spec, [stack.spec for stack in self._stacks])

  def initial_state(self, batch_size: int) -> tuple[Any, ...]:
    """Returns those of all parts, in the order of tree.flatten."""
    return tuple(stack.initial_state(batch_size) for stack in self._stacks)

  def __call__(
    self, frames: Any, first: tf.Tensor, state: tuple[Any, ...]
  ) -> tuple[Any, tuple[Any, ...]]:
    """Stacks a nest of [T, B, ...]; see `PackedFrameStack`."""
    pairs = [
      stack(part, first, part_state)
      for stack, part, part_state in zip(
        self._stacks, tree.flatten(frames), state, strict=True
      )
    ]
    stacks, states = zip(*pairs, strict=True)
    return tree.unflatten_as(self._nest, stacks), states

  def skip(
    self, frames: Any, first: np.ndarray, state: tuple[Any, ...]
  ) -> tuple[Any, ...]:
    """Returns only the state; see `PackedFrameStack`."""
    return tuple(
      stack.skip(part, first, part_state)
      for stack, part, part_state in zip(
        self._stacks, tree.flatten(frames), state, strict=True
      )
    )


def make_frame_stack(spec: Any, num_frames: int):
  """Returns the fastest frame stack for a nest of such observations.

  Names and words are not stacked: they are what is so now.
  """
  if tree.is_nested(spec):
    return FrameStacks(spec, num_frames)
  return _make_one(spec, num_frames)


def _make_one(spec: structures.TensorSpec, num_frames: int):
  if isinstance(spec, structures.CategorySpec | structures.TextSpec):
    return FrameStack(spec, 1)
  if PackedFrameStack.fits(spec, num_frames):
    return PackedFrameStack(spec)
  return FrameStack(spec, num_frames)
