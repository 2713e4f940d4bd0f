"""Weights as bytes: what is assigned is what was taken, or nothing is."""

import numpy as np
import pytest
import tensorflow as tf

from scalable_agent.transport import weights
from tests import learning
from tests.waiting import DEADLINE_S, in_thread


def make_variables(seed):
  """Variables of several shapes and dtypes, a scalar and an empty one."""
  rng = np.random.default_rng(seed)
  # A module whose graphs are made in two threads at once may leave its scope in
  # one of them: tf.Module has one stack of scopes for all.
  with tf.name_scope(''):
    return [
      tf.Variable(rng.normal(size=(3, 4)).astype(np.float32), name='w'),
      tf.Variable(rng.normal(size=()), dtype=tf.float64, name='scalar'),
      tf.Variable(np.zeros((0, 2), np.float32), name='empty'),
      tf.Variable(rng.integers(-9, 9, 5), dtype=tf.int64, name='steps'),
      tf.Variable(tf.cast(rng.normal(size=[7]), tf.bfloat16), name='half'),
    ]


NUM_BYTES = 3 * 4 * 4 + 8 + 0 + 5 * 8 + 7 * 2


def bits(variables):
  return [v.numpy().tobytes() for v in variables]


def to_bytes(values, version=0):
  return weights.Packed().of(weights.Snapshot(version, values))[1]


@pytest.mark.parametrize('header', [b'', b'header'])
def test_come_out_bit_for_bit(header):
  source, target = make_variables(0), make_variables(1)
  source[0].assign(source[0] * np.float32('nan'))
  data = to_bytes(source)
  assert len(data) == NUM_BYTES
  assert bits(target) != bits(source)
  weights.assign(target, header + data, len(header))
  assert bits(target) == bits(source)


def test_are_taken_from_arrays_and_tensors_as_well():
  variables = make_variables(0)
  values = [variables[0].numpy(), *map(tf.identity, variables[1:])]
  assert to_bytes(values) == to_bytes(variables)


def test_are_taken_in_memory_order_whatever_the_layout():
  array = np.arange(6, dtype=np.float32).reshape(2, 3)
  assert to_bytes([array.T]) == array.T.copy().tobytes()


def test_no_weights_are_no_bytes():
  assert to_bytes([]) == b''
  weights.assign([], b'')


class TestPacked:
  def test_the_newest_version_stays(self):
    packed = weights.Packed()
    one, two = np.float32([1]), np.float32([2])
    newer = (4, two.tobytes())
    assert packed.of(weights.Snapshot(3, [one])) == (3, one.tobytes())
    assert packed.of(weights.Snapshot(4, [two])) == newer
    # A thread that has read the snapshot of before comes late.
    assert packed.of(weights.Snapshot(3, [one])) == newer

  def test_version_0_is_packed(self):
    one = np.float32([1])
    snapshot = weights.Snapshot(0, [one])
    assert weights.Packed().of(snapshot) == (0, one.tobytes())

  def test_of_many_threads_one_packs(self):
    packed = weights.Packed()
    for version in range(3):
      value = learning.Counted()
      snapshot = weights.Snapshot(version, [value])
      futures = [in_thread(packed.of, snapshot) for _ in range(8)]
      for future in futures:
        assert future.result(DEADLINE_S) == (version, bytes(16))
      assert value.count == 1


@pytest.mark.parametrize('change', [lambda d: d[:-1], lambda d: d + b'\0'])
def test_of_a_wrong_length_set_nothing(change):
  variables = make_variables(0)
  before = bits(variables)
  data = change(to_bytes(make_variables(1)))
  with pytest.raises(ValueError, match=f'{len(data)} bytes .* {NUM_BYTES}'):
    weights.assign(variables, data)
  assert bits(variables) == before


def test_are_described_by_name_shape_and_dtype():
  assert weights.describe(make_variables(0)) == [
    ['w:0', [3, 4], 'float32'],
    ['scalar:0', [], 'float64'],
    ['empty:0', [0, 2], 'float32'],
    ['steps:0', [5], 'int64'],
    ['half:0', [7], 'bfloat16'],
  ]
