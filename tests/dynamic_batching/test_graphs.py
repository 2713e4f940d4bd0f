"""Batchers in graphs: what is ordered there, and what is not."""

import numpy as np
import pytest
import tensorflow as tf

import dynamic_batching


def rows(*values):
  return tf.constant(values, tf.int32)


@pytest.fixture
def pairs(make_batcher, threads):
  """A served batcher that waits for two rows, however long it takes."""
  batcher = make_batcher(minimum_batch_size=2, timeout_ms=None)
  threads.start(batcher.serve_forever, tf.function(lambda x: 10 * x))
  return batcher


def test_calls_in_one_graph_share_a_batch(pairs, threads):
  @tf.function
  def compute_both():
    return pairs.compute(rows(1)), pairs.compute(rows(2))

  np.testing.assert_array_equal(
    threads.result(threads.start(compute_both)), [[10], [20]]
  )
  assert pairs.statistics().batch_sizes == {2: 1}


def test_calls_in_functions_that_one_graph_calls_share_a_batch(pairs, threads):
  @tf.function
  def compute(x):
    return pairs.compute(x)

  @tf.function
  def compute_both():
    return compute(rows(1)), compute(rows(2))

  np.testing.assert_array_equal(
    threads.result(threads.start(compute_both)), [[10], [20]]
  )
  assert pairs.statistics().batch_sizes == {2: 1}


def test_a_call_waits_for_another_where_the_user_says_so(make_batcher, threads):
  batcher = make_batcher()
  order = []

  def serve(inputs):
    order.extend(inputs.numpy().tolist())
    return inputs

  threads.start(batcher.serve_forever, serve)

  @tf.function
  def compute_both():
    first = batcher.compute(rows(1))
    with tf.control_dependencies([first]):
      return first, batcher.compute(rows(2))

  threads.result(threads.start(compute_both))
  assert order == [1, 2]
  assert batcher.statistics().batch_sizes == {1: 2}


def test_one_graph_can_call_and_serve(make_batcher, threads):
  batcher = make_batcher()

  @tf.function
  def call_and_serve():
    result = batcher.compute(rows(1))
    inputs, computation_id = batcher.get_inputs()
    batcher.set_outputs(inputs + 1, computation_id)
    return result

  np.testing.assert_array_equal(
    threads.result(threads.start(call_and_serve)), [2]
  )


def test_a_graph_closes_after_what_it_did_before(make_batcher, threads):
  batcher = make_batcher()
  server = threads.start(batcher.serve_once, lambda inputs: inputs)

  @tf.function
  def compute_and_close():
    result = batcher.compute(rows(1))
    batcher.close()
    return result

  np.testing.assert_array_equal(
    threads.result(threads.start(compute_and_close)), [1]
  )
  assert threads.result(server)
  assert batcher.closed


def test_a_graph_hears_of_an_error_and_of_the_end(make_batcher, threads):
  batcher = make_batcher()
  compute = tf.function(batcher.compute)
  call = threads.start(compute, rows(1))
  _, computation_id = threads.result(threads.start(batcher.get_inputs))
  batcher.set_error(computation_id, ValueError('not today'))
  assert 'not today' in str(threads.error(call))
  call = threads.start(compute, rows(1))
  threads.result(threads.start(batcher.get_inputs))
  consumer = threads.start(tf.function(batcher.get_inputs))
  batcher.close()
  assert 'Batcher is closed' in str(threads.error(call))
  assert 'Batcher is closed' in str(threads.error(consumer))


def test_several_graphs_wait_for_batches(make_batcher, threads):
  batcher = make_batcher(minimum_batch_size=2, timeout_ms=1)
  get_inputs = tf.function(batcher.get_inputs)
  consumers = [threads.start(get_inputs) for _ in range(3)]
  calls = []
  for i in range(3):
    calls.append(threads.start(batcher.compute, rows(i)))
    threads.until(lambda i=i: batcher.statistics().calls == i + 1)
  for consumer in consumers:
    inputs, computation_id = threads.result(consumer)
    batcher.set_outputs(-inputs, computation_id)
  for i, call in enumerate(calls):
    np.testing.assert_array_equal(threads.result(call), [-i])


def test_a_graph_of_tensorflow_1_is_refused(make_batcher, implementation):
  batcher = make_batcher()
  spec = tf.TensorSpec([None], tf.int32)
  with tf.Graph().as_default():
    with pytest.raises(RuntimeError, match=r'inside a tf\.function, not in'):
      dynamic_batching.Batcher(spec, spec, implementation=implementation)
    one, number = rows(1), tf.constant(1, tf.int64)
    for use in (
      lambda: batcher.compute(one),
      batcher.get_inputs,
      lambda: batcher.set_outputs(one, number),
      lambda: batcher.set_error(number, ValueError()),
      batcher.close,
    ):
      with pytest.raises(RuntimeError, match=r'inside a tf\.function, not in'):
        use()
