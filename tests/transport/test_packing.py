"""Arrays as bytes: what is unpacked is what was packed, or an error."""

import struct

import numpy as np
import pytest
import tensorflow as tf

from scalable_agent.structures import TensorSpec
from scalable_agent.transport import packing
from scalable_agent.transport.malformed import Malformed

DTYPES = [
  np.bool_,
  np.int8,
  np.uint8,
  np.int16,
  np.int32,
  np.int64,
  np.uint64,
  np.float16,
  np.float32,
  np.float64,
  tf.bfloat16.as_numpy_dtype,
]
HEADER = struct.Struct('<Qq')


def spec(shape, dtype=np.float32):
  return TensorSpec(shape, np.dtype(dtype))


def some(one, seed=0):
  """Returns an array of a spec, of any bits."""
  size = int(np.prod(one.shape))
  if one.dtype == np.bool_:
    bits = np.random.default_rng(seed).integers(2, size=size, dtype=np.uint8)
  else:
    bits = np.frombuffer(
      np.random.default_rng(seed).bytes(size * one.dtype.itemsize), np.uint8
    )
  return bits.view(one.dtype).reshape(one.shape)


SPECS = [
  spec(shape, dtype)
  for dtype in DTYPES
  for shape in ((), (3,), (2, 5), (0, 4), (1, 2, 3))
]


@pytest.mark.parametrize('header', [b'', b'x', HEADER.pack(7, -1), bytes(13)])
def test_every_bit_of_every_dtype_comes_out(header):
  arrays = [some(one, seed) for seed, one in enumerate(SPECS)]
  message = packing.pack(SPECS, arrays, header)
  assert message[: len(header)] == header
  assert len(message) == len(header) + packing.num_bytes(SPECS)
  for one, before, after in zip(
    SPECS, arrays, packing.unpack(SPECS, message, len(header)), strict=True
  ):
    assert (after.shape, after.dtype) == (one.shape, one.dtype)
    assert after.tobytes() == before.tobytes()


def test_arrays_lie_one_behind_the_other():
  specs = [spec((2,), np.int16), spec((), np.uint8), spec((2, 1), np.float32)]
  arrays = [np.int16([1, 2]), np.uint8(3), np.float32([[4], [5]])]
  assert packing.pack(specs, arrays, b'h') == struct.pack(
    '<chhBff', b'h', 1, 2, 3, 4, 5
  )


def test_what_is_unpacked_is_a_view_that_nobody_can_write_to():
  message = packing.pack([spec((4,))], [np.arange(4)])
  (array,) = packing.unpack([spec((4,))], message)
  assert not array.flags.owndata
  assert not array.flags.writeable


def test_arrays_are_packed_in_the_order_of_their_indices():
  array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
  for view in (
    array.T,
    array[:, ::-1],
    array[..., 1:3],
    np.asfortranarray(array),
  ):
    message = packing.pack([spec(view.shape)], [view])
    assert message == view.copy('C').tobytes()


def test_numbers_of_another_dtype_become_those_of_the_spec():
  assert packing.pack([spec((2,), np.int32)], [[1, 2]]) == struct.pack(
    '<ii', 1, 2
  )


def test_nothing_is_nothing():
  assert packing.pack([], []) == b''
  assert packing.unpack([], b'') == []


@pytest.mark.parametrize('change', [-1, 1, 7, -8, 10**6])
def test_another_length_is_malformed(change):
  specs = [spec((2,)), spec((), np.int64)]
  message = bytes(5 + 16 + change)
  with pytest.raises(Malformed, match=f'^{16 + change} bytes instead of 16$'):
    packing.unpack(specs, message, 5)


def test_as_many_arrays_as_specs():
  with pytest.raises(ValueError, match=r'shorter|longer'):
    packing.pack([spec(())], [])


class TestHeader:
  def test_its_fields_come_out(self):
    message = HEADER.pack(2**64 - 1, -(2**63)) + b'more'
    assert packing.header_of(HEADER, message) == (2**64 - 1, -(2**63))

  @pytest.mark.parametrize('length', [0, 1, 15])
  def test_less_is_malformed(self, length):
    with pytest.raises(Malformed, match=f'^{length} bytes have no header$'):
      packing.header_of(HEADER, bytes(length))


class TestSpecs:
  @pytest.mark.parametrize(
    'like',
    [
      np.zeros([2, 3], np.float32),
      tf.zeros([2, 3]),
      tf.Variable(tf.zeros([2, 3])),
      tf.TensorSpec([2, 3], tf.float32),
      TensorSpec((2, 3), np.dtype(np.float32)),
    ],
  )
  def test_are_those_of_whatever_has_a_shape(self, like):
    assert packing.spec_of(like) == spec((2, 3))

  def test_of_half_precision(self):
    one = packing.spec_of(tf.zeros([2], tf.bfloat16))
    assert (one.shape, one.dtype.itemsize) == ((2,), 2)

  def test_axes_come_in_front(self):
    assert packing.with_axes(spec((3,)), 5, 2) == spec((5, 2, 3))
    assert packing.with_axes(spec(())) == spec(())

  @pytest.mark.parametrize(
    ('shape', 'dtype', 'size'),
    [((), np.int64, 8), ((2, 3), np.uint8, 6), ((4, 0), np.float64, 0)],
  )
  def test_sizes_are_elements_times_their_bytes(self, shape, dtype, size):
    assert packing.size_of(spec(shape, dtype)) == size
    assert packing.num_bytes([spec(shape, dtype)] * 3) == 3 * size

  def test_are_described_by_path_shape_and_dtype(self):
    nest = {'a': (spec((2,)), spec((), np.int32)), 'b': spec((0, 1), np.uint8)}
    assert packing.describe(nest) == [
      ['a/0', [2], 'float32'],
      ['a/1', [], 'int32'],
      ['b', [0, 1], 'uint8'],
    ]
