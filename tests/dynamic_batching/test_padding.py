"""Batches that are padded up to the sizes that are allowed."""

import numpy as np
import pytest
import tensorflow as tf

import dynamic_batching

TYPES = ('bool', 'string', 'bfloat16', 'float32', 'complex64', 'uint8', 'int64')


def rows(*values):
  return tf.constant(values, tf.int32)


@pytest.mark.parametrize(
  ('calls', 'expected'),
  [
    ([1], [1]),
    ([2], [2, 2]),
    ([3], [3, 3, 3, 3]),
    ([1, 2], [1, 2, 2, 2]),
    ([4], [4, 4, 4, 4]),
    ([2, 3], [2, 2, 3, 3, 3, 3, 3, 3]),
    ([3, 4], [3, 3, 3, 4, 4, 4, 4, 4]),
  ],
)
def test_the_last_row_fills_a_batch_up_to_the_next_size(
  make_batcher, threads, calls, expected
):
  batcher = make_batcher(
    minimum_batch_size=sum(calls),
    maximum_batch_size=7,
    timeout_ms=None,
    allowed_batch_sizes=[1, 2, 4, 8],
  )
  waiting, results = 0, []
  for size in calls:
    waiting += size
    results.append(threads.start(batcher.compute, tf.fill([size], size)))
    threads.until(lambda w=waiting: batcher.statistics().waiting_rows == w)
  inputs, computation_id = threads.result(threads.start(batcher.get_inputs))
  assert inputs.numpy().tolist() == expected
  # What comes of the padding is nobody's.
  outputs = tf.range(len(expected))
  batcher.set_outputs(outputs, computation_id)
  answered = np.concatenate([threads.result(result) for result in results])
  np.testing.assert_array_equal(answered, outputs[: sum(calls)])
  statistics = batcher.statistics()
  assert statistics.rows == sum(calls)
  assert statistics.batch_sizes == {sum(calls): 1}


@pytest.mark.parametrize('wrap', [lambda f: f, tf.function])
def test_padded_batches_are_served(make_batcher, threads, wrap):
  batcher = make_batcher(maximum_batch_size=3, allowed_batch_sizes=[3])
  sizes = []

  def function(inputs):
    if not tf.inside_function():
      sizes.append(int(inputs.shape[0]))
    tf.debugging.assert_equal(tf.shape(inputs), [3])
    return 10 * inputs

  threads.start(batcher.serve_forever, wrap(function))
  for size in range(1, 4):
    call = threads.start(batcher.compute, tf.range(size))
    np.testing.assert_array_equal(threads.result(call), 10 * np.arange(size))
  assert set(sizes) <= {3}


def test_a_graph_takes_padded_batches(make_batcher, threads):
  batcher = make_batcher(maximum_batch_size=2, allowed_batch_sizes=[4])
  call = threads.start(tf.function(batcher.compute), rows(5))
  inputs, computation_id = threads.result(
    threads.start(tf.function(batcher.get_inputs))
  )
  assert inputs.numpy().tolist() == [5, 5, 5, 5]
  threads.result(
    threads.start(tf.function(batcher.set_outputs), inputs, computation_id)
  )
  np.testing.assert_array_equal(threads.result(call), [5])


def test_xla_compiles_a_padded_function_once_for_each_size(
  make_batcher, threads
):
  batcher = make_batcher(maximum_batch_size=4, allowed_batch_sizes=[2, 4])
  function = tf.function(lambda inputs: inputs * 2, jit_compile=True)
  threads.start(batcher.serve_forever, function)
  for size in (1, 2, 3, 4, 1):
    call = threads.start(batcher.compute, tf.range(size))
    np.testing.assert_array_equal(threads.result(call), 2 * np.arange(size))


@pytest.mark.parametrize('name', TYPES)
def test_rows_of_every_type_are_padded(make_batcher, threads, name):
  dtype = tf.as_dtype(name)
  spec = tf.TensorSpec([None, 2], dtype)
  batcher = make_batcher((spec, spec), spec, allowed_batch_sizes=[4, 1024])
  values = tf.constant([[0, 1], [1, 0]])
  values = (
    tf.as_string(values) if dtype == tf.string else tf.cast(values, dtype)
  )
  threads.start(batcher.compute, (values, values))
  (first, second), _ = threads.result(threads.start(batcher.get_inputs))
  for inputs in (first, second):
    np.testing.assert_array_equal(inputs, tf.gather(values, [0, 1, 1, 1]))


def test_outputs_must_have_the_rows_of_the_padding_too(make_batcher, threads):
  batcher = make_batcher(maximum_batch_size=2, allowed_batch_sizes=[2])
  call = threads.start(batcher.compute, rows(1))
  _, computation_id = threads.result(threads.start(batcher.get_inputs))
  with pytest.raises(
    tf.errors.InvalidArgumentError, match='Expected: 2 Observed: 1'
  ):
    batcher.set_outputs(rows(1), computation_id)
  batcher.set_outputs(rows(5, 6), computation_id)
  np.testing.assert_array_equal(threads.result(call), [5])


def test_a_batched_function_is_padded(threads, implementation):
  shapes = []

  def double(x):
    shapes.append(x.shape.as_list())
    tf.debugging.assert_equal(tf.shape(x), [1024])
    return 2 * x

  f = dynamic_batching.batch_fn_with_options(
    allowed_batch_sizes=[1024], implementation=implementation
  )(double)
  call = threads.start(f, rows(1, 2))
  np.testing.assert_array_equal(threads.result(call), [2, 4])
  f.close()


@pytest.mark.parametrize(
  'sizes', [[8, 7], [4, 4, 8], [0, 8], [-1, 8], [7], [8.0], [True, 8], 8, '8']
)
def test_sizes_that_are_not_valid_are_named(sizes):
  spec = tf.TensorSpec([None], tf.int32)
  for make in (
    lambda: dynamic_batching.Batcher(
      spec, spec, maximum_batch_size=8, allowed_batch_sizes=sizes
    ),
    lambda: dynamic_batching.batch_fn_with_options(
      maximum_batch_size=8, allowed_batch_sizes=sizes
    ),
  ):
    with pytest.raises(ValueError, match=r'allowed_batch_sizes.* but was'):
      make()
