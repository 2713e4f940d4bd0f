"""Frame stacks: what the definition says, whatever way they are made."""

import sys

import numpy as np
import pytest
import tensorflow as tf
import tree

from scalable_agent import structures
from scalable_agent.networks import frame_stacks
from scalable_agent.structures import FIRST, LAST, MID
from tests.step_types import assert_every_case_occurs


def random_inputs(spec, time, batch):
  """Returns frames [T, B, ...] and step types [T, B], FIRST at any place."""
  rng = np.random.default_rng(0)
  shape = (time, batch, *spec.shape)
  if spec.dtype == np.uint8:
    frames = rng.integers(0, 256, shape).astype(np.uint8)
  else:
    frames = rng.normal(size=shape).astype(spec.dtype)
  return frames, rng.choice(
    [FIRST, MID, LAST], (time, batch), p=[0.3, 0.5, 0.2]
  )


def stacks_by_definition(frames, step_types, num_frames):
  """The latest `num_frames` frames; the first stands for those before it.

  Zeros stand for what was before the first column, unless it is a start.
  """
  time, batch, *_, channels = frames.shape
  stacks = np.zeros((*frames.shape[:-1], num_frames * channels), frames.dtype)
  for b in range(batch):
    start = None
    for t in range(time):
      if step_types[t, b] == FIRST:
        start = t
      for age in range(num_frames):
        source = t - age if start is None else max(t - age, start)
        if source >= 0:
          place = num_frames - 1 - age
          stacks[t, b, ..., place * channels : (place + 1) * channels] = frames[
            source, b
          ]
  return stacks


FRAME_STACKS = (
  pytest.param(
    (7, 9, 1), np.uint8, 4, frame_stacks.PackedFrameStack, id='packed'
  ),
  pytest.param((7, 9, 3), np.uint8, 4, frame_stacks.FrameStack, id='colour'),
  pytest.param((7, 9, 1), np.float32, 4, frame_stacks.FrameStack, id='floats'),
  pytest.param((7, 9, 1), np.uint8, 2, frame_stacks.FrameStack, id='two'),
  pytest.param((5,), np.float32, 3, frame_stacks.FrameStack, id='vectors'),
  pytest.param((5,), np.float32, 1, frame_stacks.FrameStack, id='one'),
)


class TestFrameStack:
  TIME, BATCH = 12, 6

  def _run(self, shape, dtype, num_frames, lengths):
    """Runs over TIME columns in pieces; returns stacks and ground truth."""
    spec = structures.TensorSpec(shape, np.dtype(dtype))
    frames, step_types = random_inputs(spec, self.TIME, self.BATCH)
    assert_every_case_occurs(step_types)
    stack = frame_stacks.make_frame_stack(spec, num_frames)
    state, pieces, t = stack.initial_state(self.BATCH), [], 0
    for length in lengths:
      piece, state = stack(
        tf.constant(frames[t : t + length]),
        tf.constant(step_types[t : t + length] == FIRST),
        state,
      )
      pieces.append(piece.numpy())
      t += length
    assert t == self.TIME
    return (
      np.concatenate(pieces),
      stacks_by_definition(frames, step_types, num_frames),
    )

  @pytest.mark.parametrize(
    'lengths',
    [[12], [1] * 12, [5, 7]],
    ids=['one_unroll', 'step_by_step', 'two_unrolls'],
  )
  @pytest.mark.parametrize(
    ('shape', 'dtype', 'num_frames', 'kind'), FRAME_STACKS
  )
  def test_is_what_the_definition_says(
    self, shape, dtype, num_frames, kind, lengths
  ):
    actual, expected = self._run(shape, dtype, num_frames, lengths)
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual, expected)

  @pytest.mark.parametrize('lengths', [[12], [1] * 12, [2, 10]])
  @pytest.mark.parametrize(
    ('shape', 'dtype', 'num_frames', 'kind'), FRAME_STACKS
  )
  def test_skipping_leads_to_the_same_state(
    self, shape, dtype, num_frames, kind, lengths
  ):
    spec = structures.TensorSpec(shape, np.dtype(dtype))
    frames, step_types = random_inputs(spec, self.TIME, self.BATCH)
    assert_every_case_occurs(step_types)
    first = step_types == FIRST
    stack = frame_stacks.make_frame_stack(spec, num_frames)
    initial_state = stack.initial_state(self.BATCH)
    _, expected = stack(tf.constant(frames), tf.constant(first), initial_state)
    state, t = tree.map_structure(np.asarray, initial_state), 0
    for length in lengths:
      pieces = frames[t : t + length], first[t : t + length]
      before = tree.map_structure(np.copy, state)
      after = stack.skip(*pieces, state)
      tree.map_structure(np.testing.assert_array_equal, before, state)
      state, t = after, t + length
    assert t == self.TIME
    tree.map_structure(np.testing.assert_array_equal, state, expected)
    for array, tensor in zip(
      tree.flatten(state), tree.flatten(expected), strict=True
    ):
      assert array.dtype == tensor.dtype.as_numpy_dtype

  @pytest.mark.parametrize(
    ('shape', 'dtype', 'num_frames', 'kind'), FRAME_STACKS
  )
  def test_the_fastest_kind_is_chosen(self, shape, dtype, num_frames, kind):
    spec = structures.TensorSpec(shape, np.dtype(dtype))
    stack = frame_stacks.make_frame_stack(spec, num_frames)
    assert isinstance(stack, kind)
    *rest, channels = shape
    assert stack.spec.shape == (*rest, num_frames * channels)
    assert stack.spec.dtype == spec.dtype

  def test_bytes_are_not_packed_where_the_last_comes_first(self, monkeypatch):
    monkeypatch.setattr(sys, 'byteorder', 'big')
    spec = structures.TensorSpec((7, 9, 1), np.dtype(np.uint8))
    stack = frame_stacks.make_frame_stack(spec, 4)
    assert isinstance(stack, frame_stacks.FrameStack)

  def test_both_kinds_agree(self):
    spec = structures.TensorSpec((7, 9, 1), np.dtype(np.uint8))
    frames, step_types = random_inputs(spec, 9, 8)
    results = []
    for stack in (
      frame_stacks.PackedFrameStack(spec),
      frame_stacks.FrameStack(spec, 4),
    ):
      stacks, _ = stack(
        tf.constant(frames),
        tf.constant(step_types == FIRST),
        stack.initial_state(8),
      )
      results.append(stacks.numpy())
    np.testing.assert_array_equal(*results)
