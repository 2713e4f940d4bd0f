"""Cancelled steps, references, and buffers that are not copied."""

import ctypes
import gc

import numpy as np
import pytest
import tensorflow as tf

import dynamic_batching
from dynamic_batching import build, fallback, ops


def rows(*values):
  return tf.constant(values, tf.int32)


def failing_once(condition, threads):
  """A node that fails as soon as the condition holds."""

  def fail():
    threads.until(condition)
    raise ValueError('another op fails')

  tf.py_function(fail, [], [])


@pytest.fixture
def batcher(make_batcher):
  return make_batcher(
    implementation='op', minimum_batch_size=2, timeout_ms=None
  )


def test_a_cancelled_call_leaves_the_queue(batcher, threads):
  @tf.function(autograph=False)
  def compute_and_fail():
    failing_once(lambda: batcher.statistics().waiting_rows == 1, threads)
    return batcher.compute(rows(1))

  error = threads.error(threads.start(compute_and_fail))
  assert 'another op fails' in str(error)
  assert batcher.statistics().waiting_rows == 0
  # Its row is in no later batch.
  calls = [threads.start(batcher.compute, rows(i)) for i in (2, 3)]
  assert batcher.serve_once(lambda inputs: inputs)
  assert sum(int(threads.result(call)[0]) for call in calls) == 5


def test_a_call_cancelled_while_it_is_computed_does_not_disturb_the_others(
  batcher, threads
):
  @tf.function(autograph=False)
  def compute_and_fail():
    failing_once(lambda: batcher.statistics().batches == 1, threads)
    return batcher.compute(rows(1))

  cancelled = threads.start(compute_and_fail)
  threads.until(lambda: batcher.statistics().waiting_rows == 1)
  other = threads.start(batcher.compute, rows(2))
  inputs, computation_id = threads.result(threads.start(batcher.get_inputs))
  np.testing.assert_array_equal(inputs, [1, 2])
  assert 'another op fails' in str(threads.error(cancelled))
  batcher.set_outputs(inputs * 10, computation_id)
  np.testing.assert_array_equal(threads.result(other), [20])


def test_a_cancelled_consumer_takes_no_batch(batcher, threads):
  go = []

  @tf.function(autograph=False)
  def get_and_fail():
    failing_once(lambda: go, threads)
    return batcher.get_inputs()[0]

  consumer = threads.start(get_and_fail)
  go.append(True)
  assert 'another op fails' in str(threads.error(consumer))
  calls = [threads.start(batcher.compute, rows(i)) for i in (2, 3)]
  assert batcher.serve_once(lambda inputs: inputs)
  for call in calls:
    threads.result(call)


def live(kind):
  gc.collect()
  return sum(type(thing) is kind for thing in gc.get_objects())


@pytest.fixture
def live_batchers(implementation):
  """Counts the batchers of an implementation."""
  if implementation == 'fallback':
    return lambda: live(fallback.PythonBatcher)
  ops.load()
  library = ctypes.CDLL(str(build.find(tf.__version__)))
  function = library.dynamic_batching_live_batchers
  function.restype = ctypes.c_int64

  def count():
    gc.collect()
    return function()

  return count


def test_a_batcher_is_deleted_with_its_last_python_reference(
  threads, implementation, live_batchers
):
  spec = tf.TensorSpec([None], tf.int32)
  before = live_batchers()

  def use():
    batcher = dynamic_batching.Batcher(
      spec, spec, implementation=implementation
    )
    server = threads.start(batcher.serve_forever, tf.function(lambda x: x))
    for i in range(10):
      threads.result(threads.start(batcher.compute, rows(i)))
    batcher.statistics()
    assert live_batchers() == before + 1
    batcher.close()
    threads.result(server)

  use()
  threads.until(lambda: live_batchers() == before)


def test_a_batcher_with_a_deadline_thread_is_deleted_though_never_closed(
  threads, implementation, live_batchers
):
  spec = tf.TensorSpec([None], tf.int32)
  before = live_batchers()

  def use():
    batcher = dynamic_batching.Batcher(
      spec,
      spec,
      minimum_batch_size=2,
      timeout_ms=1,
      implementation=implementation,
    )
    server = threads.start(batcher.serve_once, lambda inputs: inputs)
    threads.result(threads.start(batcher.compute, rows(1)))
    threads.result(server)

  use()
  threads.until(lambda: live_batchers() == before)


def test_what_a_cancelled_graph_waited_for_is_deleted_with_the_batcher(threads):
  spec = tf.TensorSpec([None], tf.int32)
  before = live(tf.queue.FIFOQueue)

  def use():
    batcher = dynamic_batching.Batcher(
      spec,
      spec,
      minimum_batch_size=2,
      timeout_ms=None,
      implementation='fallback',
    )

    failing = tf.queue.FIFOQueue(1, [tf.bool], [[]])

    @tf.function(autograph=False)
    def compute_and_fail():
      failing.dequeue()
      return batcher.compute(rows(1))

    call = threads.start(compute_and_fail)
    threads.until(lambda: batcher.statistics().waiting_rows == 1)
    failing.close()
    assert isinstance(threads.error(call), tf.errors.OutOfRangeError)
    assert live(tf.queue.FIFOQueue) == before + 2

  use()
  threads.until(lambda: live(tf.queue.FIFOQueue) == before)


def test_the_tensors_of_a_single_call_are_not_copied(threads):
  spec = tf.TensorSpec([None], tf.int32)
  batcher = dynamic_batching.Batcher(spec, spec, implementation='op')
  outputs = tf.range(1000)
  call = threads.start(batcher.compute, tf.range(1000))
  _, computation_id = threads.result(threads.start(batcher.get_inputs))
  batcher.set_outputs(outputs, computation_id)
  result = threads.result(call)
  assert np.shares_memory(np.asarray(memoryview(result)), memoryview(outputs))
  batcher.close()
