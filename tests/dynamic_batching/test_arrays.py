"""NumPy arrays as inputs: what is taken, and whose memory is whose."""

import collections
import subprocess

import numpy as np
import pytest
import tensorflow as tf

from tests import programs
from tests.waiting import DEADLINE_S

SPEC = tf.TensorSpec([None, 64], tf.int32)


def aligned(rows, value, dtype=np.int32):
  """Returns an array that TensorFlow takes without a copy."""
  size = rows * 64 * np.dtype(dtype).itemsize
  buffer = np.empty(size + 64, np.uint8)
  start = -buffer.ctypes.data % 64
  array = buffer[start : start + size].view(dtype).reshape(rows, 64)
  array[:] = value
  return array


def test_tensorflow_takes_such_an_array_without_a_copy():
  tf.raw_ops.Identity(input=aligned(1, 1))  # The first operation of all copies.
  array = aligned(1, 1)
  shared = tf.raw_ops.Identity(input=array)
  assert np.shares_memory(array, memoryview(shared))


@pytest.fixture
def batcher(make_batcher):
  return make_batcher(SPEC, SPEC, maximum_batch_size=2)


def test_a_batch_of_one_call_does_not_follow_its_array(batcher, threads):
  array = aligned(1, 1)
  call = threads.start(batcher.compute, array)
  inputs, computation_id = threads.result(threads.start(batcher.get_inputs))
  array[:] = 2
  np.testing.assert_array_equal(inputs, np.full([1, 64], 1))
  batcher.set_outputs(inputs, computation_id)
  result = threads.result(call)
  array[:] = 3
  np.testing.assert_array_equal(result, np.full([1, 64], 1))


def test_closing_leaves_the_consumer_what_it_took(batcher, threads):
  array = aligned(1, 1)
  call = threads.start(batcher.compute, array)
  inputs, _ = threads.result(threads.start(batcher.get_inputs))
  batcher.close()
  assert isinstance(threads.error(call), tf.errors.CancelledError)
  array[:] = 2
  np.testing.assert_array_equal(inputs, np.full([1, 64], 1))


def test_a_joined_batch_does_not_follow_its_arrays(batcher, threads):
  arrays = [aligned(1, i) for i in range(2)]
  for i, array in enumerate(arrays):
    threads.start(batcher.compute, array)
    threads.until(lambda i=i: batcher.statistics().waiting_rows == i + 1)
  inputs, _ = threads.result(threads.start(batcher.get_inputs))
  for array in arrays:
    array[:] = 7
  np.testing.assert_array_equal(inputs[:, 0], [0, 1])


def test_an_answer_does_not_follow_the_array_it_was_made_of(batcher, threads):
  array = aligned(1, 1)
  call = threads.start(batcher.compute, aligned(1, 0))
  _, computation_id = threads.result(threads.start(batcher.get_inputs))
  batcher.set_outputs(array, computation_id)
  array[:] = 2
  np.testing.assert_array_equal(threads.result(call), np.full([1, 64], 1))


# The fallback hands on the tensor of the function as it is.
@pytest.mark.parametrize('implementation', ['op'])
def test_an_answer_does_not_follow_a_tensor_that_borrows_an_array(
  batcher, threads
):
  array = aligned(1, 1)
  call = threads.start(batcher.compute, aligned(1, 0))
  _, computation_id = threads.result(threads.start(batcher.get_inputs))
  batcher.set_outputs(tf.raw_ops.Identity(input=array), computation_id)
  array[:] = 2
  np.testing.assert_array_equal(threads.result(call), np.full([1, 64], 1))


@pytest.mark.parametrize(
  'array',
  [
    aligned(2, 5)[::2],
    np.full([64, 1], 5, np.int32).T,
    np.full([1, 64], 5, '>i4'),
    np.full([1, 64], 5, np.int64),
    np.ma.masked_array(np.full([1, 64], 5, np.int32)),
    np.full([1, 64], 5, np.int32).tolist(),
  ],
  ids=['strided', 'transposed', 'big-endian', 'int64', 'masked', 'list'],
)
def test_arrays_of_every_layout_are_taken(batcher, threads, array):
  server = threads.start(batcher.serve_once, lambda inputs: inputs + 1)
  call = threads.start(batcher.compute, array)
  np.testing.assert_array_equal(threads.result(call), np.full([1, 64], 6))
  assert threads.result(server)


@pytest.mark.parametrize(
  'dtype',
  [
    *(np.bool_, np.float16, np.float32, np.float64, np.complex64),
    *(np.complex128, np.int8, np.int16, np.int32, np.int64, np.uint8),
    *(np.uint16, np.uint32, np.uint64, tf.bfloat16.as_numpy_dtype, np.str_),
  ],
)
def test_arrays_of_every_type_are_taken(make_batcher, threads, dtype):
  spec = tf.TensorSpec([None, 2], tf.as_dtype(dtype))
  batcher = make_batcher(spec, spec)
  array = np.ones([1, 2], dtype)
  threads.start(batcher.serve_once, lambda inputs: inputs)
  result = threads.result(threads.start(batcher.compute, array)).numpy()
  np.testing.assert_array_equal(result.astype(array.dtype), array)


def test_the_rows_of_arrays_are_checked(make_batcher):
  batcher = make_batcher((SPEC, SPEC), maximum_batch_size=2)
  for array, message in (
    (aligned(3, 0), 'at most maximum_batch_size=2 rows but was 3'),
    (aligned(1, 0)[:, 1:], 'Input 0 must be int32'),
    (np.int32(1).reshape([]), 'must have a batch dimension'),
  ):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
      batcher.compute((array, array))


def test_a_nest_that_only_tensorflow_knows_is_batched(make_batcher, threads):
  spec = tf.TensorSpec([None], tf.int32)
  specs = collections.OrderedDict(b=spec, a=(spec,))
  batcher = make_batcher(specs, specs)
  threads.start(batcher.serve_once, lambda inputs: inputs)
  one, two = np.int32([1]), np.int32([2])
  result = threads.result(
    threads.start(batcher.compute, {'a': (one,), 'b': two})
  )
  assert type(result) is collections.OrderedDict
  assert (result['a'][0], result['b']) == (1, 2)


INTERRUPTED = """
import threading
import numpy as np
import tensorflow as tf
import dynamic_batching
from tests.dynamic_batching import test_arrays

array = test_arrays.aligned(1, 1)
batcher = dynamic_batching.Batcher(
  test_arrays.SPEC,
  test_arrays.SPEC,
  minimum_batch_size=2,
  timeout_ms=None,
  implementation='op',
)

def tell():
  while not batcher.statistics().waiting_rows:
    pass
  print('waits', flush=True)

threading.Thread(target=tell, daemon=True).start()
try:
  batcher.compute(array)
except KeyboardInterrupt:
  array[:] = 2
threading.Thread(
  target=batcher.compute, args=[test_arrays.aligned(1, 1)], daemon=True
).start()
inputs, _ = batcher.get_inputs()
print('has', np.unique(inputs).tolist(), flush=True)
batcher.close()
"""


def test_a_call_that_was_interrupted_does_not_follow_its_array(threads):
  process = programs.start(['-c', INTERRUPTED], stderr=subprocess.PIPE)
  with process:
    try:
      assert threads.interrupt(process) == 'has [1]\n'
      process.wait(DEADLINE_S)
    finally:
      process.kill()
