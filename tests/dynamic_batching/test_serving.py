"""Serve loops: what they compute and what an exception does."""

import numpy as np
import pytest
import tensorflow as tf


def rows(*values):
  return tf.constant(values, tf.int32)


def fail_on_negative(inputs):
  tf.debugging.assert_non_negative(inputs, message='no negative rows')
  return inputs + 1


@pytest.fixture(params=['python function', 'tf.function'])
def served(request):
  """`fail_on_negative` as what can be served."""
  if request.param == 'tf.function':
    return tf.function(fail_on_negative)
  return fail_on_negative


def test_a_loop_serves_until_the_batcher_is_closed(
  make_batcher, threads, served
):
  batcher = make_batcher()
  server = threads.start(batcher.serve_forever, served)
  for i in range(1, 4):
    call = threads.start(batcher.compute, tf.fill([i], i))
    np.testing.assert_array_equal(threads.result(call), [i + 1] * i)
  batcher.close()
  assert threads.result(server) is None


def test_a_tf_function_is_traced_once_for_any_number_of_rows(
  make_batcher, threads
):
  batcher = make_batcher()
  traced_shapes = []

  @tf.function
  def function(inputs):
    traced_shapes.append(inputs.shape.as_list())
    return inputs

  threads.start(batcher.serve_forever, function)
  for size in range(1, 5):
    threads.result(threads.start(batcher.compute, tf.zeros([size], tf.int32)))
  assert traced_shapes == [[None]]


def test_a_served_tf_function_sees_new_values_of_variables(
  make_batcher, threads
):
  batcher = make_batcher()
  variable = tf.Variable(0)
  threads.start(
    batcher.serve_forever, tf.function(lambda inputs: inputs + variable)
  )
  for value in range(4):
    variable.assign(value)
    call = threads.start(batcher.compute, rows(10))
    np.testing.assert_array_equal(threads.result(call), [10 + value])


def test_several_loops_serve_many_callers(make_batcher, threads, served):
  batcher = make_batcher(maximum_batch_size=8)
  servers = [threads.start(batcher.serve_forever, served) for _ in range(3)]

  def call_often(caller):
    for i in range(25):
      value = 1000 * caller + i
      inputs = tf.range(value, value + 1 + i % 4)
      np.testing.assert_array_equal(batcher.compute(inputs), inputs + 1)

  for call in [threads.start(call_often, i) for i in range(8)]:
    threads.result(call)
  batcher.close()
  for server in servers:
    threads.result(server)
  assert max(batcher.statistics().batch_sizes) <= 8
  assert batcher.statistics().calls == 200


def test_one_of_several_loops_ends_after_a_batch_when_it_is_told(
  make_batcher, threads, served
):
  batcher = make_batcher()
  leaving = [False, False]
  servers = [
    threads.start(
      lambda i=i: batcher.serve_forever(served, stop=lambda: leaving[i])
    )
    for i in range(2)
  ]

  def call():
    result = threads.result(threads.start(batcher.compute, rows(1)))
    np.testing.assert_array_equal(result, [2])

  call()
  leaving[0] = True

  def call_until_it_has_left():
    call()
    return servers[0].done()

  threads.until(call_until_it_has_left)
  assert threads.result(servers[0]) is None
  assert not batcher.closed
  assert not servers[1].done()
  call()
  batcher.close()
  assert threads.result(servers[1]) is None


def test_an_exception_reaches_every_caller_of_its_batch_and_the_server(
  make_batcher, threads, served
):
  batcher = make_batcher(minimum_batch_size=2, timeout_ms=None)
  server = threads.start(batcher.serve_forever, served)
  calls = [threads.start(batcher.compute, rows(i)) for i in (1, -1)]
  for future in (*calls, server):
    error = threads.error(future)
    assert isinstance(error, tf.errors.InvalidArgumentError)
    assert 'no negative rows' in str(error)
  # Each has one of its own, as to raise it adds to its traceback.
  assert threads.error(calls[0]) is not threads.error(calls[1])
  # As documented, the loop has ended and closed the batcher.
  threads.until(lambda: batcher.closed)
  with pytest.raises(tf.errors.CancelledError, match='Batcher is closed'):
    batcher.compute(rows(1))


def test_a_loop_that_does_not_close_on_errors_goes_on(
  make_batcher, threads, served
):
  batcher = make_batcher()
  server = threads.start(
    lambda: batcher.serve_forever(served, close_on_error=False)
  )
  for _ in range(2):
    error = threads.error(threads.start(batcher.compute, rows(-1)))
    assert 'no negative rows' in str(error)
    good = threads.start(batcher.compute, rows(1))
    np.testing.assert_array_equal(threads.result(good), [2])
  batcher.close()
  threads.result(server)


def test_an_exception_that_is_not_tensorflows_keeps_type_and_text(
  make_batcher, threads
):
  batcher = make_batcher()
  call = threads.start(batcher.compute, rows(1))

  def fail(inputs):
    raise KeyError('left socket')

  with pytest.raises(KeyError):
    batcher.serve_once(fail)
  error = threads.error(call)
  assert isinstance(error, tf.errors.UnknownError)
  assert "KeyError: 'left socket'" in str(error)
  assert not batcher.closed


@pytest.mark.parametrize(
  ('outputs', 'message'),
  [
    (tf.zeros([3], tf.int32), 'same batch dimension as the input batch size'),
    (tf.zeros([], tf.int32), 'must have a batch dimension'),
  ],
)
@pytest.mark.parametrize('wrap', [lambda f: f, tf.function])
def test_outputs_that_are_not_accepted_reach_the_callers(
  make_batcher, threads, wrap, outputs, message
):
  batcher = make_batcher()
  call = threads.start(batcher.compute, rows(1))
  server = threads.start(
    batcher.serve_forever, wrap(lambda inputs: tf.identity(outputs))
  )
  for future in (call, server):
    assert message in str(threads.error(future))


@pytest.mark.parametrize('wrap', [lambda f: f, tf.function])
def test_outputs_of_another_type_reach_the_callers_as_an_error(
  make_batcher, threads, wrap
):
  batcher = make_batcher()
  threads.start(
    lambda: batcher.serve_forever(
      wrap(lambda inputs: tf.zeros([1])), close_on_error=False
    )
  )
  for _ in range(2):
    error = threads.error(threads.start(batcher.compute, rows(1)))
    assert isinstance(error, tf.errors.InvalidArgumentError)
    assert 'Output 0 must be int32 of shape' in str(error)
    assert 'but was float' in str(error)


@pytest.mark.parametrize(
  'outputs',
  [
    lambda x: (x, x),
    lambda x: None,
    lambda x: {'x': x},
    lambda x: tf.RaggedTensor.from_row_lengths(x, tf.ones_like(x)),
  ],
)
def test_a_tf_function_whose_outputs_can_never_fit_is_refused_at_once(
  make_batcher, threads, outputs
):
  batcher = make_batcher()
  call = threads.start(batcher.compute, rows(1))
  server = threads.start(
    lambda: batcher.serve_forever(tf.function(outputs), close_on_error=False)
  )
  error = threads.error(server)
  assert isinstance(error, ValueError)
  assert 'Outputs must have the structure' in str(error)
  assert 'Batcher is closed' in str(threads.error(call))


@pytest.mark.parametrize(
  ('outputs', 'message'),
  [
    (lambda x: (x, x), 'leaf 0 is a tuple'),
    (lambda x: [x.numpy(), x.numpy()], 'leaf 0 is a list'),
    (lambda x: None, 'leaf 0 is None'),
    (lambda x: tf.ragged.constant([[1], []]), 'leaf 0 is a RaggedTensor'),
    (lambda x: tf.sparse.from_dense([1, 2]), 'leaf 0 is a SparseTensor'),
    (lambda x: tf.IndexedSlices(x, [0, 1]), 'leaf 0 is a IndexedSlices'),
  ],
)
def test_outputs_that_are_no_dense_tensor_reach_the_callers_as_an_error(
  make_batcher, threads, outputs, message
):
  batcher = make_batcher(minimum_batch_size=2, timeout_ms=None)
  calls = [threads.start(batcher.compute, rows(i)) for i in range(2)]
  with pytest.raises(ValueError, match=f'Outputs must .* {message}'):
    batcher.serve_once(outputs)
  for call in calls:
    assert message in str(threads.error(call))


class Unprintable(Exception):
  def __str__(self):
    raise RuntimeError('not even this')


@pytest.mark.parametrize(
  ('error', 'message'),
  [
    (ValueError('file \udcff'), r'ValueError: file \udcff'),
    (
      tf.errors.NotFoundError(None, None, 'file \udcff'),
      r'file \udcff',
    ),
    (Unprintable(), 'Unprintable: (its text raises RuntimeError)'),
    (tf.errors.OpError(None, None, 'odd', 99), 'OpError: odd'),
    (tf.errors.OpError(None, None, 'odd', 0), 'OpError: odd'),
  ],
)
def test_every_exception_answers_its_batch(
  make_batcher, threads, error, message
):
  batcher = make_batcher()
  call = threads.start(batcher.compute, rows(1))

  def fail(inputs):
    raise error

  with pytest.raises(type(error)):
    batcher.serve_once(fail)
  answer = threads.error(call)
  assert message in answer.message
  kept = isinstance(error, tf.errors.NotFoundError)
  assert isinstance(answer, type(error) if kept else tf.errors.UnknownError)


@pytest.mark.parametrize('kind', [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_answers_its_batch_and_closes_the_batcher(
  make_batcher, threads, kind
):
  batcher = make_batcher()
  call = threads.start(batcher.compute, rows(1))

  def end(inputs):
    raise kind

  server = threads.start(
    lambda: batcher.serve_forever(end, close_on_error=False)
  )
  assert kind.__name__ in str(threads.error(call))
  assert isinstance(threads.error(server), kind)
  assert batcher.closed


def test_a_cancelled_wait_is_no_end_of_the_batcher(make_batcher, monkeypatch):
  batcher = make_batcher()

  def cancelled():
    raise tf.errors.CancelledError(None, None, 'the step was cancelled')

  monkeypatch.setattr(batcher, 'get_inputs', cancelled)
  with pytest.raises(tf.errors.CancelledError, match='the step was'):
    batcher.serve_once(lambda inputs: inputs)
  assert not batcher.closed


def test_a_function_that_is_cancelled_fails_as_any_other(make_batcher, threads):
  batcher = make_batcher()
  queue = tf.queue.FIFOQueue(1, [tf.int32], [[]])
  queue.close()

  @tf.function
  def function(inputs):
    queue.enqueue(0)
    return inputs

  server = threads.start(batcher.serve_forever, function)
  call = threads.start(batcher.compute, rows(1))
  for future in (call, server):
    error = threads.error(future)
    assert isinstance(error, tf.errors.CancelledError)
    assert 'Queue' in str(error)
  assert batcher.closed


def test_closing_while_a_batch_is_computed_ends_the_loop_quietly(
  make_batcher, threads
):
  batcher = make_batcher()

  def close_and_return(inputs):
    batcher.close()
    return inputs

  server = threads.start(batcher.serve_forever, close_and_return)
  call = threads.start(batcher.compute, rows(1))
  assert 'Batcher is closed' in str(threads.error(call))
  assert threads.result(server) is None


def test_a_whole_loop_can_run_in_a_function_of_the_user(make_batcher, threads):
  batcher = make_batcher()

  @tf.function
  def serve_one():
    inputs, computation_id = batcher.get_inputs()
    assert inputs.shape.as_list() == [None]
    batcher.set_outputs(inputs * 2, computation_id)

  server = threads.start(serve_one)
  call = threads.start(batcher.compute, rows(4))
  np.testing.assert_array_equal(threads.result(call), [8])
  threads.result(server)
