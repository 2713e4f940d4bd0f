"""The decorators, with the cases of the original batcher's tests."""

import gc

import numpy as np
import pytest
import tensorflow as tf

import dynamic_batching


@pytest.fixture
def batched(implementation):
  """The decorator for the implementation under test; closes afterwards."""
  made = []

  def decorate(function, **options):
    made.append(
      dynamic_batching.batch_fn_with_options(
        implementation=implementation, **options
      )(function)
    )
    return made[-1]

  yield decorate
  for function in made:
    function.close()


@pytest.fixture(params=['eager', 'tf.function'])
def caller(request):
  """Turns a function into what calls it."""
  return tf.function if request.param == 'tf.function' else lambda f: f


def add(a, b):
  return a + b


def test_one_call(batched, threads, caller):
  f = caller(batched(add))
  result = threads.start(f, tf.constant([1]), tf.constant([2]))
  np.testing.assert_array_equal(threads.result(result), [3])


def test_two_calls_in_one_batch(batched, threads, caller):
  function = batched(add, minimum_batch_size=2, timeout_ms=None)
  f = caller(function)
  results = [
    threads.start(f, tf.constant([i]), tf.constant([10])) for i in range(2)
  ]
  for i, result in enumerate(results):
    np.testing.assert_array_equal(threads.result(result), [10 + i])
  assert function.batcher.statistics().batch_sizes == {2: 1}


def test_many_small_calls(batched, threads, caller):
  f = caller(batched(add))

  def call_often(n):
    for i in range(n, n + 20):
      result = f(tf.constant([i]), tf.constant([1]))
      np.testing.assert_array_equal(result, [i + 1])

  for result in [threads.start(call_often, 100 * i) for i in range(10)]:
    threads.result(result)


def test_the_default_decorator_batches(threads):
  f = dynamic_batching.batch_fn(add)
  result = threads.start(f, [1, 2], [3, 4])
  np.testing.assert_array_equal(threads.result(result), [4, 6])
  f.close()


def test_batches_respect_the_maximum(batched, threads):
  f = batched(add, maximum_batch_size=2)
  results = [
    threads.start(f, tf.constant([i]), tf.constant([1])) for i in range(12)
  ]
  for i, result in enumerate(results):
    np.testing.assert_array_equal(threads.result(result), [i + 1])
  assert max(f.batcher.statistics().batch_sizes) <= 2


def test_inputs_need_rows(batched):
  f = batched(add)
  with pytest.raises(ValueError, match='Input shape must have a batch dimensi'):
    f(tf.constant(1), tf.constant(2))


def test_inputs_of_one_call_must_have_the_same_rows(batched):
  f = batched(add)
  with pytest.raises(
    tf.errors.InvalidArgumentError, match='inputs of the same batch size'
  ):
    f(tf.constant([1]), tf.constant([2, 3]))


def test_calls_after_an_error_are_cancelled(batched, threads):
  def fail_on_one(a):
    tf.debugging.assert_none_equal(a, 1, message='one is not allowed')
    return a

  f = batched(fail_on_one)
  error = threads.error(threads.start(f, tf.constant([1])))
  assert isinstance(error, tf.errors.InvalidArgumentError)
  assert 'one is not allowed' in str(error)
  error = threads.error(threads.start(f, tf.constant([2])))
  assert isinstance(error, tf.errors.CancelledError)
  assert 'Batcher is closed' in str(error)


def test_closing_cancels_calls(batched, threads):
  f = batched(add, minimum_batch_size=2, timeout_ms=None)
  f.close()
  result = threads.start(f, tf.constant([1]), tf.constant([1]))
  threads.until(
    lambda: f.batcher is not None and f.batcher.statistics().waiting_rows
  )
  f.close()
  assert isinstance(threads.error(result), tf.errors.CancelledError)


def test_static_shapes_are_known_in_graphs(batched, threads):
  f = batched(lambda a: {'sum': tf.reduce_sum(a, axis=1), 'all': a})
  shapes = []

  def record(a):
    result = f(a)
    shapes.append(
      (result['sum'].shape.as_list(), result['all'].shape.as_list())
    )
    return result

  spec = tf.TensorSpec([None, 3], tf.int32)
  threads.result(threads.start(tf.function(record), tf.zeros([2, 3], tf.int32)))
  threads.result(
    threads.start(
      tf.function(record, input_signature=[spec]), tf.zeros([2, 3], tf.int32)
    )
  )
  assert shapes == [([2], [2, 3]), ([None], [None, 3])]


def test_nests_are_batched(batched, threads):
  def swap(pair, scale):
    return {'first': pair['b'] * scale, 'second': pair['a'] * scale}

  f = batched(swap)
  result = threads.result(
    threads.start(
      f, {'a': tf.constant([1.0]), 'b': tf.constant([2.0])}, np.float32([3])
    )
  )
  np.testing.assert_array_equal(result['first'], [6])
  np.testing.assert_array_equal(result['second'], [3])


def test_a_batched_function_that_is_dropped_is_closed(implementation, threads):
  f = dynamic_batching.batch_fn_with_options(implementation=implementation)(add)
  threads.result(threads.start(f, tf.constant([1]), tf.constant([1])))
  batcher = f.batcher
  del f

  def closed():
    gc.collect()
    return batcher.closed

  threads.until(closed)


def test_a_batched_function_that_is_dropped_in_a_trace_adds_nothing_to_it(
  implementation, threads
):
  f = dynamic_batching.batch_fn_with_options(implementation=implementation)(add)
  threads.result(threads.start(f, tf.constant([1]), tf.constant([1])))
  batcher, dropped = f.batcher, [f]
  del f

  @tf.function(autograph=False)
  def trace(x):
    dropped.clear()
    gc.collect()
    return x + 1

  graph = trace.get_concrete_function(tf.constant(1)).graph
  assert batcher.closed
  assert {op.type for op in graph.get_operations()} <= {
    *('Placeholder', 'Const', 'AddV2', 'Identity', 'NoOp')
  }


@pytest.mark.parametrize(
  'outputs', [lambda a: None, lambda a: (a, None), tf.sparse.from_dense]
)
def test_outputs_must_be_dense_tensors(batched, threads, outputs):
  f = batched(outputs)
  error = threads.error(threads.start(f, tf.constant([1])))
  assert isinstance(error, ValueError)
  assert 'must return dense tensors' in str(error)
