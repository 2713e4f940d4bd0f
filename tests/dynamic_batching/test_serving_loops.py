"""Serve loops in several threads: one trace, one end, errors that are told."""

import threading

import numpy as np
import pytest
import tensorflow as tf

from tests.waiting import DEADLINE_S


def rows(*values):
  return tf.constant(values, tf.int32)


def call(batcher, threads, value):
  return threads.result(threads.start(batcher.compute, rows(value)))


@pytest.mark.parametrize('stop', [None, lambda: False])
def test_threads_share_a_tf_function_that_counts_and_reads_the_time(
  make_batcher, threads, stop
):
  batcher = make_batcher(maximum_batch_size=8)
  counter = tf.Variable(0, dtype=tf.int64)
  latest = tf.Variable(0.0, dtype=tf.float64)
  traces = []
  barrier = threading.Barrier(4)

  @tf.function
  def function(inputs):
    traces.append(threading.get_ident())
    counter.assign_add(tf.size(inputs, tf.int64))
    latest.assign(tf.timestamp())
    return inputs + 1

  def serve():
    barrier.wait(DEADLINE_S)
    batcher.serve_forever(function, stop=stop)

  before = float(tf.timestamp())
  servers = [threads.start(serve) for _ in range(4)]

  def call_often(caller):
    for i in range(25):
      inputs = rows(1000 * caller + i)
      np.testing.assert_array_equal(batcher.compute(inputs), inputs + 1)

  for caller in [threads.start(call_often, i) for i in range(8)]:
    threads.result(caller)
  batcher.close()
  for server in servers:
    assert threads.result(server) is None
  assert len(traces) == 1
  assert int(counter) == 200 == batcher.statistics().rows
  assert before < float(latest) <= float(tf.timestamp())


def test_a_thread_that_is_told_before_it_starts_serves_nothing(
  make_batcher, threads
):
  batcher = make_batcher()
  for function in (lambda x: x, tf.function(lambda x: x)):
    server = threads.start(
      lambda function=function: batcher.serve_forever(
        function, stop=lambda: True
      )
    )
    assert threads.result(server) is None
  assert not batcher.closed


# The fallback has no loop in a graph.
@pytest.mark.parametrize('implementation', ['op'])
def test_a_graph_that_can_be_stopped_serves_many_batches_of_one_run(
  make_batcher, threads
):
  batcher = make_batcher()
  asked = []
  server = threads.start(
    lambda: batcher.serve_forever(
      tf.function(lambda x: x), stop=lambda: asked.append(None)
    )
  )

  def call_often():
    for i in range(200):
      batcher.compute(rows(i))

  threads.result(threads.start(call_often))
  batcher.close()
  assert threads.result(server) is None
  assert 1 <= len(asked) < 200


@pytest.mark.parametrize('wrap', [lambda f: f, tf.function])
@pytest.mark.parametrize('stop', [None, lambda: False])
def test_an_error_is_told_before_its_callers_are(
  make_batcher, threads, wrap, stop
):
  batcher = make_batcher()
  told = []

  def function(inputs):
    tf.debugging.assert_non_negative(inputs, message='no negative rows')
    return inputs

  def on_error(error):
    told.append((error, caller.done(), batcher.closed))

  caller = threads.start(batcher.compute, rows(-1))
  server = threads.start(
    lambda: batcher.serve_forever(wrap(function), stop=stop, on_error=on_error)
  )
  error = threads.error(server)
  assert told == [(error, False, False)]
  assert 'no negative rows' in str(error)
  assert 'no negative rows' in str(threads.error(caller))


def test_a_loop_that_goes_on_tells_of_every_error(make_batcher, threads):
  batcher = make_batcher()
  told = []

  @tf.function
  def function(inputs):
    tf.debugging.assert_non_negative(inputs)
    return inputs

  server = threads.start(
    lambda: batcher.serve_forever(
      function, close_on_error=False, on_error=told.append
    )
  )
  for value in (-1, 1, -1):
    threads.start(batcher.compute, rows(value)).exception(DEADLINE_S)
  batcher.close()
  assert threads.result(server) is None
  assert len(told) == 2


def test_what_never_fits_is_told_before_the_batcher_is_closed(
  make_batcher, threads
):
  batcher = make_batcher()
  told = []
  server = threads.start(
    lambda: batcher.serve_forever(
      tf.function(lambda x: (x, x)),
      on_error=lambda error: told.append((error, batcher.closed)),
    )
  )
  assert told == [(threads.error(server), False)]
  assert batcher.closed


@pytest.mark.parametrize('wrap', [lambda f: f, tf.function])
def test_outputs_that_are_not_accepted_are_told(make_batcher, threads, wrap):
  batcher = make_batcher()
  told = []
  caller = threads.start(batcher.compute, rows(1))
  server = threads.start(
    lambda: batcher.serve_forever(
      wrap(lambda inputs: tf.zeros([3], tf.int32)), on_error=told.append
    )
  )
  assert told == [threads.error(server)]
  assert 'same batch dimension' in str(threads.error(caller))


@pytest.mark.parametrize('wrap', [lambda f: f, tf.function])
def test_an_error_of_who_is_told_answers_the_batch_and_ends_the_loop(
  make_batcher, threads, wrap
):
  batcher = make_batcher()

  def function(inputs):
    tf.debugging.assert_non_negative(inputs, message='no negative rows')
    return inputs

  def on_error(error):
    raise KeyError('nobody is there')

  caller = threads.start(batcher.compute, rows(-1))
  server = threads.start(
    lambda: batcher.serve_forever(wrap(function), on_error=on_error)
  )
  assert isinstance(threads.error(server), KeyError)
  assert 'no negative rows' in str(threads.error(caller))
  assert batcher.closed


def test_the_end_is_no_error(make_batcher, threads):
  batcher = make_batcher()
  told = []
  servers = [
    threads.start(
      lambda function=function: batcher.serve_forever(
        function, on_error=told.append
      )
    )
    for function in (lambda x: x, tf.function(lambda x: x))
  ]
  for value in range(4):
    call(batcher, threads, value)
  batcher.close()
  for server in servers:
    assert threads.result(server) is None
  assert told == []


def test_no_batch_is_taken_before_the_last_one_is_answered(
  make_batcher, threads
):
  batcher = make_batcher()
  began, goes_on = threading.Event(), threading.Event()

  def wait(x):
    began.set()
    goes_on.wait(DEADLINE_S)
    return x

  @tf.function
  def function(inputs):
    outputs = tf.numpy_function(wait, [inputs], tf.int32)
    return tf.ensure_shape(outputs, [None])

  server = threads.start(batcher.serve_forever, function)
  calls = [threads.start(batcher.compute, rows(0))]
  assert began.wait(DEADLINE_S)
  for i in (1, 2):
    calls.append(threads.start(batcher.compute, rows(i)))
    threads.until(lambda i=i: batcher.statistics().waiting_rows == i)
  goes_on.set()
  assert [int(threads.result(one)[0]) for one in calls] == [0, 1, 2]
  assert batcher.statistics().batches == 2
  batcher.close()
  threads.result(server)


def test_nobody_is_told_of_an_error_when_a_batch_is_too_late(
  make_batcher, threads
):
  batcher = make_batcher()
  told = []

  def close(inputs):
    batcher.close()
    return inputs

  server = threads.start(
    lambda: batcher.serve_forever(close, on_error=told.append)
  )
  one = threads.start(batcher.compute, rows(1))
  assert isinstance(threads.error(one), tf.errors.CancelledError)
  assert threads.result(server) is None
  assert not told
