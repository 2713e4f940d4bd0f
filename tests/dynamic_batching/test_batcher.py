"""The batcher's queue: calls in, batches out."""

import collections

import numpy as np
import pytest
import tensorflow as tf

TYPES = (
  *('bool', 'string', 'float16', 'bfloat16', 'float32', 'float64'),
  *('complex64', 'complex128', 'int8', 'int16', 'int32', 'int64'),
  *('uint8', 'uint16', 'uint32', 'uint64'),
)
Point = collections.namedtuple('Point', 'x y')


def spec(*shape, dtype=tf.int32):
  return tf.TensorSpec([None, *shape], dtype)


def rows(*values):
  return tf.constant(values, tf.int32)


def test_a_call_is_answered_with_its_own_rows(make_batcher, threads):
  batcher = make_batcher()
  call = threads.start(batcher.compute, rows(1, 2))
  inputs, computation_id = threads.result(threads.start(batcher.get_inputs))
  np.testing.assert_array_equal(inputs, [1, 2])
  assert computation_id.dtype == tf.int64
  assert computation_id.shape == []
  batcher.set_outputs(inputs * 10, computation_id)
  np.testing.assert_array_equal(threads.result(call), [10, 20])


def test_calls_of_several_sizes_are_joined_and_split_again(
  make_batcher, threads
):
  batcher = make_batcher(minimum_batch_size=6, timeout_ms=None)
  calls = {}
  for size in (1, 2, 3):
    calls[size] = threads.start(batcher.compute, tf.fill([size], size))
  inputs, computation_id = threads.result(threads.start(batcher.get_inputs))
  assert sorted(inputs.numpy()) == [1, 2, 2, 3, 3, 3]
  batcher.set_outputs(inputs * 10, computation_id)
  for size, call in calls.items():
    np.testing.assert_array_equal(threads.result(call), [10 * size] * size)


def test_calls_are_never_split_nor_batches_over_the_maximum(
  make_batcher, threads
):
  batcher = make_batcher(maximum_batch_size=4, timeout_ms=0)
  waiting = 0
  for size in (3, 2, 2, 4):
    threads.start(batcher.compute, tf.fill([size], size))
    waiting += size
    threads.until(lambda w=waiting: batcher.statistics().waiting_rows == w)
  batches = []
  for _ in range(3):
    inputs, _ = threads.result(threads.start(batcher.get_inputs))
    batches.append(inputs.numpy().tolist())
  assert batches == [[3, 3, 3], [2, 2, 2, 2], [4, 4, 4, 4]]


def test_no_timeout_waits_for_the_minimum(make_batcher, threads):
  batcher = make_batcher(minimum_batch_size=2, timeout_ms=None)
  consumer = threads.start(batcher.get_inputs)
  threads.start(batcher.compute, rows(1))
  threads.until(lambda: batcher.statistics().waiting_rows == 1)
  assert not consumer.done()
  threads.start(batcher.compute, rows(2))
  inputs, _ = threads.result(consumer)
  np.testing.assert_array_equal(inputs, [1, 2])


def test_timeout_zero_serves_at_once_whatever_is_there(make_batcher, threads):
  batcher = make_batcher(minimum_batch_size=100, timeout_ms=0)
  threads.start(batcher.compute, rows(7))
  inputs, _ = threads.result(threads.start(batcher.get_inputs))
  np.testing.assert_array_equal(inputs, [7])


def test_timeout_zero_waits_for_a_first_call(make_batcher, threads):
  batcher = make_batcher(minimum_batch_size=100, timeout_ms=0)
  consumer = threads.start(batcher.get_inputs)
  threads.start(batcher.compute, rows(7))
  inputs, _ = threads.result(consumer)
  np.testing.assert_array_equal(inputs, [7])


@pytest.mark.parametrize('consumer_first', [False, True])
def test_a_small_batch_is_served_after_the_timeout(
  make_batcher, threads, consumer_first
):
  batcher = make_batcher(minimum_batch_size=100, timeout_ms=20)
  if consumer_first:
    consumer = threads.start(batcher.get_inputs)
    threads.start(batcher.compute, rows(7))
  else:
    threads.start(batcher.compute, rows(7))
    threads.until(lambda: batcher.statistics().waiting_rows == 1)
    consumer = threads.start(batcher.get_inputs)
  inputs, _ = threads.result(consumer)
  np.testing.assert_array_equal(inputs, [7])
  assert batcher.statistics().mean_wait_ms >= 20


def test_each_of_several_timeouts_is_kept(make_batcher, threads):
  batcher = make_batcher(minimum_batch_size=100, timeout_ms=2)
  for value in range(5):
    call = threads.start(batcher.compute, rows(value))
    inputs, computation_id = threads.result(threads.start(batcher.get_inputs))
    batcher.set_outputs(inputs, computation_id)
    np.testing.assert_array_equal(threads.result(call), [value])


def test_batches_can_be_answered_in_order(make_batcher, threads):
  check_answers(make_batcher(), threads, order=(0, 1))


def test_batches_can_be_answered_out_of_order(make_batcher, threads):
  check_answers(make_batcher(), threads, order=(1, 0))


def check_answers(batcher, threads, order):
  calls, batches = [], []
  for value in (1, 2):
    calls.append(threads.start(batcher.compute, rows(value)))
    batches.append(threads.result(threads.start(batcher.get_inputs)))
  for i in order:
    inputs, computation_id = batches[i]
    batcher.set_outputs(inputs * 10, computation_id)
    np.testing.assert_array_equal(threads.result(calls[i]), inputs * 10)


def test_several_consumers_wait_at_the_same_time(make_batcher, threads):
  batcher = make_batcher()
  consumers = [threads.start(batcher.get_inputs) for _ in range(3)]
  calls = [threads.start(batcher.compute, rows(i)) for i in range(3)]
  batches = [threads.result(consumer) for consumer in consumers]
  assert len({int(computation_id) for _, computation_id in batches}) == 3
  for inputs, computation_id in batches:
    batcher.set_outputs(-inputs, computation_id)
  for i, call in enumerate(calls):
    np.testing.assert_array_equal(threads.result(call), [-i])


def test_nests_go_in_and_out(make_batcher, threads):
  batcher = make_batcher(
    inputs=Point(spec(2), {'a': spec(), 'b': spec(dtype=tf.string)}),
    outputs={'point': Point(spec(), spec(dtype=tf.string))},
    minimum_batch_size=2,
    timeout_ms=None,
  )

  def serve(inputs):
    total = tf.reduce_sum(inputs.x, axis=1) + inputs.y['a']
    return {'point': Point(total, inputs.y['b'] + '!')}

  server = threads.start(batcher.serve_once, serve)
  calls = [
    threads.start(
      batcher.compute, Point(np.int32([[i, i]]), {'a': [i], 'b': [f'{i}']})
    )
    for i in range(2)
  ]
  assert threads.result(server)
  for i, call in enumerate(calls):
    point = threads.result(call)['point']
    np.testing.assert_array_equal(point.x, [3 * i])
    np.testing.assert_array_equal(point.y, [f'{i}!'.encode()])


@pytest.mark.parametrize('name', TYPES)
def test_rows_of_every_type_are_joined_and_split(make_batcher, threads, name):
  dtype = tf.as_dtype(name)

  def make(i):
    ones = tf.fill([2, 3], i)
    return tf.as_string(ones) if dtype == tf.string else tf.cast(ones, dtype)

  batcher = make_batcher(
    spec(3, dtype=dtype),
    spec(3, dtype=dtype),
    minimum_batch_size=4,
    timeout_ms=None,
  )
  server = threads.start(batcher.serve_once, lambda inputs: inputs)
  calls = [threads.start(batcher.compute, make(i)) for i in range(2)]
  assert threads.result(server)
  for i, call in enumerate(calls):
    np.testing.assert_array_equal(threads.result(call), make(i))


def test_inputs_are_checked_against_the_specs(make_batcher):
  batcher = make_batcher((spec(3), spec()))
  ones = tf.ones
  with pytest.raises(tf.errors.InvalidArgumentError, match='Input 0 must be'):
    batcher.compute((ones([1, 4], tf.int32), rows(1)))
  with pytest.raises(tf.errors.InvalidArgumentError, match='Input 1 must be'):
    batcher.compute((ones([1, 3], tf.int32), ones([1], tf.float32)))
  with pytest.raises(ValueError, match='Inputs must have the structure'):
    batcher.compute(rows(1))


@pytest.mark.parametrize('make', [dict, collections.OrderedDict])
def test_a_dict_of_other_keys_is_refused(make_batcher, make):
  batcher = make_batcher(([{'a': spec(), 'b': spec()}], spec()))
  for inputs in ({'a': rows(1), 'c': rows(2)}, {'b': rows(1), 'c': rows(2)}):
    with pytest.raises(ValueError, match='Inputs must have the structure'):
      batcher.compute(([make(inputs)], rows(3)))


def test_a_call_has_at_least_one_row_and_at_most_the_maximum(make_batcher):
  batcher = make_batcher((spec(), spec()), maximum_batch_size=2)

  def rejected(*inputs):
    with pytest.raises(tf.errors.InvalidArgumentError) as info:
      batcher.compute(inputs)
    return str(info.value)

  requires = 'Batcher requires a batch size of '
  none = tf.zeros([0], tf.int32)
  assert requires + 'at least 1 row but was 0' in rejected(none, none)
  assert requires + 'at most maximum_batch_size=2 rows but was 3' in rejected(
    rows(1, 2, 3), rows(1, 2, 3)
  )
  assert 'inputs of the same batch size but input 0 has 1 rows' in rejected(
    rows(1), rows(1, 2)
  )
  assert 'Input shape must have a batch dimension' in rejected(
    tf.constant(1), tf.constant(1)
  )
  assert batcher.statistics().waiting_calls == 0


@pytest.mark.parametrize(
  'specs', [spec(None), tf.TensorSpec(None, tf.int32)], ids=['size', 'rank']
)
def test_only_the_call_whose_shape_differs_is_rejected(
  make_batcher, threads, specs
):
  batcher = make_batcher(specs, specs)
  first = threads.start(batcher.compute, tf.zeros([1, 2], tf.int32))
  threads.until(lambda: batcher.statistics().waiting_rows == 1)
  with pytest.raises(
    tf.errors.InvalidArgumentError,
    match=r'Shapes of inputs much be equal\. Shapes observed: ',
  ):
    batcher.compute(tf.zeros([1, 3], tf.int32))
  assert batcher.serve_once(lambda inputs: inputs + 1)
  np.testing.assert_array_equal(threads.result(first), [[1, 1]])


def test_outputs_must_have_the_rows_of_the_batch(make_batcher, threads):
  batcher = make_batcher()
  call = threads.start(batcher.compute, rows(1, 2))
  _, computation_id = threads.result(threads.start(batcher.get_inputs))
  with pytest.raises(
    tf.errors.InvalidArgumentError,
    match=r'Output shape must have a batch dimension\. Shape observed: ',
  ):
    batcher.set_outputs(tf.constant(1), computation_id)
  with pytest.raises(
    tf.errors.InvalidArgumentError,
    match=r'Output shape must have the same batch dimension as the input '
    r'batch size\. Expected: 2 Observed: 3',
  ):
    batcher.set_outputs(rows(1, 2, 3), computation_id)
  # The batch is still open.
  batcher.set_outputs(rows(5, 6), computation_id)
  np.testing.assert_array_equal(threads.result(call), [5, 6])


def test_outputs_must_fit_the_specs(make_batcher, threads):
  batcher = make_batcher(outputs=(spec(3), spec()))
  call = threads.start(batcher.compute, rows(1, 2))
  _, computation_id = threads.result(threads.start(batcher.get_inputs))

  def rejected(*outputs):
    with pytest.raises(tf.errors.InvalidArgumentError) as info:
      batcher.set_outputs(outputs, computation_id)
    return info.value.message

  good = tf.ones([2, 3], tf.int32), rows(1, 2)
  assert 'Output 0 must be int32' in rejected(
    tf.ones([2, 5], tf.int32), good[1]
  )
  assert 'Output 0 must be int32' in rejected(tf.ones([2], tf.int32), good[1])
  assert 'Output 1 must be int32' in rejected(good[0], tf.ones([2]))
  assert 'outputs of the same batch size but output 0 has 2 rows' in rejected(
    good[0], rows(1, 2, 3)
  )
  # The batch is still open.
  batcher.set_outputs(good, computation_id)
  for actual, expected in zip(threads.result(call), good, strict=True):
    np.testing.assert_array_equal(actual, expected)


def test_a_computation_id_is_a_scalar(make_batcher, threads):
  batcher = make_batcher()
  call = threads.start(batcher.compute, rows(1))
  _, computation_id = threads.result(threads.start(batcher.get_inputs))
  for ids in (computation_id[tf.newaxis], tf.zeros([0], tf.int64)):
    for answer in (
      lambda ids=ids: batcher.set_outputs(rows(1), ids),
      lambda ids=ids: batcher.set_error(ids, ValueError()),
    ):
      with pytest.raises(
        tf.errors.InvalidArgumentError, match='computation_id must be a scalar'
      ):
        answer()
  batcher.set_outputs(rows(2), computation_id)
  np.testing.assert_array_equal(threads.result(call), [2])


@pytest.mark.parametrize('values', [(rows(1), rows(2)), [np.int32([1])], None])
def test_a_single_input_is_no_structure(make_batcher, values):
  with pytest.raises(ValueError, match='Inputs must have the structure'):
    make_batcher().compute(values)


def test_a_list_of_numbers_is_a_tensor(make_batcher, threads):
  batcher = make_batcher(spec(2), spec(2))
  server = threads.start(
    batcher.serve_once, lambda inputs: inputs.numpy().tolist()
  )
  call = threads.start(batcher.compute, [[1, 2], (3, np.int32(4))])
  np.testing.assert_array_equal(threads.result(call), [[1, 2], [3, 4]])
  assert threads.result(server)


def test_lists_may_stand_for_a_tuple_and_for_its_tensors(make_batcher, threads):
  batcher = make_batcher((spec(2), spec(dtype=tf.float64)))
  call = threads.start(batcher.compute, [[[1, 2]], [3]])
  (first, second), computation_id = threads.result(
    threads.start(batcher.get_inputs)
  )
  np.testing.assert_array_equal(first, [[1, 2]])
  # Numbers take the type of their spec.
  assert second.dtype == tf.float64
  np.testing.assert_array_equal(second, [3])
  batcher.set_outputs([4], computation_id)
  np.testing.assert_array_equal(threads.result(call), [4])


def test_an_unknown_computation_id_is_rejected(make_batcher, threads):
  batcher = make_batcher()
  with pytest.raises(
    tf.errors.InvalidArgumentError, match=r'Invalid computation id\. Id: 42'
  ):
    batcher.set_outputs(rows(1), tf.constant(42, tf.int64))
  call = threads.start(batcher.compute, rows(1))
  inputs, computation_id = threads.result(threads.start(batcher.get_inputs))
  batcher.set_outputs(inputs, computation_id)
  threads.result(call)
  with pytest.raises(
    tf.errors.InvalidArgumentError, match=r'Invalid computation id\. Id: '
  ):
    batcher.set_outputs(inputs, computation_id)


def test_closing_wakes_everybody(make_batcher, threads):
  batcher = make_batcher(minimum_batch_size=2, timeout_ms=None)
  served = threads.start(batcher.compute, rows(1, 2))
  inputs, computation_id = threads.result(threads.start(batcher.get_inputs))
  consumer = threads.start(batcher.get_inputs)
  waiting = threads.start(batcher.compute, rows(1))
  threads.until(lambda: batcher.statistics().waiting_rows == 1)
  assert not batcher.closed
  batcher.close()
  batcher.close()
  assert batcher.closed
  late = [
    threads.start(batcher.compute, rows(1)),
    threads.start(batcher.get_inputs),
    threads.start(batcher.set_outputs, inputs, computation_id),
    threads.start(batcher.set_error, computation_id, ValueError()),
  ]
  for future in (served, consumer, waiting, *late):
    error = threads.error(future)
    assert isinstance(error, tf.errors.CancelledError)
    assert 'Batcher is closed' in str(error)
  assert batcher.statistics().waiting_rows == 0


def test_statistics_count_calls_batches_and_rows(make_batcher, threads):
  batcher = make_batcher(timeout_ms=0)
  assert batcher.statistics() == (0, 0, 0, 0, 0, {}, 0.0)
  for expected, sizes in ((1, [3]), (2, [1, 2])):
    waiting = 0
    calls = []
    for size in sizes:
      waiting += size
      calls.append(threads.start(batcher.compute, tf.fill([size], 0)))
      threads.until(lambda w=waiting: batcher.statistics().waiting_rows == w)
    assert batcher.statistics().waiting_calls == len(sizes)
    assert batcher.serve_once(lambda inputs: inputs)
    assert batcher.statistics().batches == expected
  statistics = batcher.statistics()
  assert statistics[:5] == (0, 0, 2, 3, 6)
  assert statistics.batch_sizes == {3: 2}
  assert statistics.mean_wait_ms > 0
