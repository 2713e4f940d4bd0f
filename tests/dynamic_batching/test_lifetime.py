"""Cancelled steps, references, and buffers that are not copied."""

import contextlib
import gc
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import dynamic_batching
from dynamic_batching import build, fallback, fallback_ledger, ops
from tests import programs
from tests.waiting import DEADLINE_S

SPEC = tf.TensorSpec([None], tf.int32)


def rows(*values):
  return tf.constant(values, tf.int32)


class Step:
  """A graph that waits and is cancelled, as another op of it fails."""

  def __init__(self, threads, function):
    self._threads = threads
    self._failing = tf.queue.FIFOQueue(1, [tf.bool], [[]])
    self._started = tf.queue.FIFOQueue(1, [tf.bool], [[]])

    @tf.function(autograph=False)
    def run():
      self._failing.dequeue()
      self._started.enqueue(True)
      return function()

    self._result = threads.start(run)
    threads.result(threads.start(self._started.dequeue))

  def cancel(self):
    self._failing.close()
    error = self._threads.error(self._result)
    assert isinstance(error, tf.errors.OutOfRangeError)


@pytest.fixture
def batcher(make_batcher):
  return make_batcher(minimum_batch_size=2, timeout_ms=None)


# The fallback does not hear of it; see its documentation.
@pytest.mark.parametrize('implementation', ['op'])
def test_a_cancelled_call_leaves_the_queue(batcher, threads):
  step = Step(threads, lambda: batcher.compute(rows(1)))
  threads.until(lambda: batcher.statistics().waiting_rows == 1)
  step.cancel()
  assert batcher.statistics().waiting_rows == 0
  # Its row is in no later batch.
  calls = [threads.start(batcher.compute, rows(i)) for i in (2, 3)]
  assert batcher.serve_once(lambda inputs: inputs)
  assert sum(int(threads.result(call)[0]) for call in calls) == 5


@pytest.mark.parametrize('when', ['it waits', 'it is computed'])
def test_a_cancelled_call_does_not_disturb_the_others(
  batcher, threads, implementation, when
):
  step = Step(threads, lambda: batcher.compute(rows(1)))
  threads.until(lambda: batcher.statistics().waiting_rows == 1)
  if when == 'it waits':
    step.cancel()
  others = [threads.start(batcher.compute, rows(2))]
  if when == 'it waits' and implementation == 'op':
    others.append(threads.start(batcher.compute, rows(2)))
  inputs, computation_id = threads.result(threads.start(batcher.get_inputs))
  assert inputs.shape == [2]
  if when == 'it is computed':
    step.cancel()
  batcher.set_outputs(inputs * 10, computation_id)
  for other in others:
    np.testing.assert_array_equal(threads.result(other), [20])


CANCELLED = """
import threading
import tensorflow as tf
import dynamic_batching

spec = tf.TensorSpec([None], tf.int32)
batcher = dynamic_batching.Batcher(
  spec, spec, minimum_batch_size=2, timeout_ms=None, implementation='op'
)

def cancel(function):
  failing = tf.queue.FIFOQueue(1, [tf.bool], [[]])
  started = tf.queue.FIFOQueue(1, [tf.bool], [[]])

  @tf.function(autograph=False)
  def run():
    failing.dequeue()
    started.enqueue(True)
    return function()

  concrete = run.get_concrete_function()
  closer = threading.Thread(target=lambda: (started.dequeue(), failing.close()))
  closer.start()
  try:
    concrete()
  except tf.errors.OutOfRangeError:
    print('failed')

for _ in range(10):
  cancel(lambda: batcher.compute(tf.constant([1])))
  cancel(lambda: batcher.get_inputs()[0])
"""


def test_the_texts_of_cancelled_ops_are_whole():
  ops.load()  # Builds them, which takes time.
  # The error of a graph is that of the op that failed first, but TensorFlow's
  # log has them all.
  result = subprocess.run(
    [sys.executable, '-c', CANCELLED],
    env=os.environ
    | {'TF_CPP_MIN_LOG_LEVEL': '0', 'TF_CPP_VMODULE': 'executor=1'},
    cwd=build.PACKAGE_DIRECTORY.parent,
    capture_output=True,
    timeout=120,
    check=True,
  )
  assert result.stdout.count(b'failed') == 20
  texts = re.findall(rb'Compute status: CANCELLED: (.*)', result.stderr)
  assert set(texts) == {
    b'Compute was cancelled',
    b'GetInputs operation was cancelled',
  }


def test_a_cancelled_consumer_takes_no_batch(batcher, threads):
  step = Step(threads, lambda: batcher.get_inputs()[0])
  step.cancel()
  check_a_batch_is_served(batcher, threads, batcher.get_inputs)
  check_a_batch_is_served(batcher, threads, tf.function(batcher.get_inputs))


@pytest.mark.parametrize('timeout_ms', [None, 1])
def test_of_several_graphs_only_the_cancelled_takes_no_batch(
  make_batcher, threads, timeout_ms
):
  batcher = make_batcher(minimum_batch_size=2, timeout_ms=timeout_ms)
  get_inputs = tf.function(batcher.get_inputs)
  steps = [Step(threads, lambda: batcher.get_inputs()[0]) for _ in range(2)]
  consumer = threads.start(get_inputs)
  for step in steps:
    step.cancel()
  check_a_batch_is_served(batcher, threads, lambda: threads.result(consumer))
  check_a_batch_is_served(batcher, threads, get_inputs)


def check_a_batch_is_served(batcher, threads, get_inputs):
  calls = [threads.start(batcher.compute, rows(i)) for i in (2, 3)]
  served = 0
  while served < 2:  # One by one, where there is a time-out.
    inputs, computation_id = threads.result(threads.start(get_inputs))
    batcher.set_outputs(inputs * 10, computation_id)
    served += len(inputs)
    get_inputs = batcher.get_inputs
  assert [int(threads.result(call)[0]) for call in calls] == [20, 30]


@pytest.mark.parametrize('implementation', ['fallback'])
def test_a_batch_that_cannot_be_joined_answers_its_callers(
  batcher, threads, monkeypatch
):

  def fail(*args, **options):
    raise MemoryError('no room')

  with monkeypatch.context() as patch:
    patch.setattr(tf, 'concat', fail)
    calls = [threads.start(batcher.compute, rows(i)) for i in range(2)]
    consumer = threads.error(threads.start(batcher.get_inputs))
  assert isinstance(consumer, MemoryError)
  for call in calls:
    assert 'no room' in str(threads.error(call))
  with monkeypatch.context() as patch:
    patch.setattr(tf, 'split', fail)
    calls = [threads.start(batcher.compute, rows(i)) for i in range(2)]
    with pytest.raises(MemoryError):
      batcher.serve_once(lambda inputs: inputs)
  for call in calls:
    assert 'no room' in str(threads.error(call))


def live(kind):
  gc.collect()
  return sum(type(thing) is kind for thing in gc.get_objects())


def live_deadline_threads():
  """Counts the threads of batchers whose resource was not deleted yet."""
  gc.collect()
  count = 0
  for name in pathlib.Path('/proc/self/task').glob('*/comm'):
    # Threads of others end at any time, also between list and look: the file is
    # gone then, or reading it says that there is no such process.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
      count += name.read_text() == 'batch_deadline\n'
  return count


@pytest.fixture
def live_batchers(implementation):
  """Counts the batchers of an implementation that have a deadline."""
  if implementation == 'fallback':
    return lambda: live(fallback.PythonBatcher)
  return live_deadline_threads


@pytest.mark.parametrize('closed', [True, False])
def test_a_batcher_is_deleted_with_its_last_python_reference(
  threads, implementation, live_batchers, closed
):
  before = live_batchers()

  def use():
    batcher = dynamic_batching.Batcher(
      SPEC,
      SPEC,
      minimum_batch_size=2,
      timeout_ms=1,
      implementation=implementation,
    )
    for call in (batcher.compute, tf.function(batcher.compute)):
      server = threads.start(batcher.serve_once, lambda inputs: inputs)
      threads.result(threads.start(call, rows(1)))
      threads.result(server)
    batcher.statistics()
    assert live_batchers() == before + 1
    if closed:
      server = threads.start(batcher.serve_forever, tf.function(lambda x: x))
      threads.result(threads.start(batcher.compute, rows(1)))
      batcher.close()
      threads.result(server)

  use()
  threads.until(lambda: live_batchers() == before)


@pytest.mark.parametrize('kind', ['call', 'consumer'])
def test_what_a_cancelled_graph_waited_for_is_deleted_with_the_batcher(
  threads, implementation, live_batchers, kind
):
  before = live(tf.queue.FIFOQueue)
  before_batchers = live_batchers()

  def use():
    batcher = dynamic_batching.Batcher(
      SPEC, SPEC, minimum_batch_size=2, implementation=implementation
    )
    if kind == 'call':
      step = Step(threads, lambda: batcher.compute(rows(1)))
    else:
      step = Step(threads, lambda: batcher.get_inputs()[0])
    step.cancel()

  use()
  threads.until(lambda: live(tf.queue.FIFOQueue) == before)
  threads.until(lambda: live_batchers() == before_batchers)


def test_the_tensors_of_a_single_call_are_not_copied(batcher, threads):
  outputs = tf.range(1000)
  call = threads.start(batcher.compute, tf.range(1000))
  _, computation_id = threads.result(threads.start(batcher.get_inputs))
  batcher.set_outputs(outputs, computation_id)
  result = threads.result(call)
  assert np.shares_memory(np.asarray(memoryview(result)), memoryview(outputs))


INTERRUPTED = """
import sys, threading
import tensorflow as tf
import dynamic_batching

implementation, method = sys.argv[1:]
spec = tf.TensorSpec([None], tf.int32)
batcher = dynamic_batching.Batcher(
  spec,
  spec,
  minimum_batch_size=2,
  timeout_ms=None,
  implementation=implementation,
)

def tell():
  if method == 'compute':
    while not batcher.statistics().waiting_rows:
      pass
  else:
    batcher.compute(tf.constant([1, 2]))
  print('waits', flush=True)

threading.Thread(target=tell, daemon=True).start()
try:
  if method == 'compute':
    batcher.compute(tf.constant([1]))
  else:
    batcher.serve_forever(tf.function(lambda x: x))
except KeyboardInterrupt:
  print('interrupted', batcher.closed, flush=True)
"""


# The fallback serves in Python, where an interrupt may come in the middle of
# anything.
@pytest.mark.parametrize(
  ('implementation', 'method'),
  [('op', 'compute'), ('op', 'serve_forever'), ('fallback', 'compute')],
)
def test_ctrl_c_reaches_who_waits_in_the_main_thread(
  implementation, threads, method
):
  process = programs.start(
    ['-c', INTERRUPTED, implementation, method], stderr=subprocess.PIPE
  )
  with process:
    try:
      assert threads.interrupt(process) == (
        f'interrupted {method == "serve_forever"}\n'
      )
      assert process.wait(DEADLINE_S) == 0
    finally:
      process.kill()


def test_the_batch_of_an_interrupted_consumer_goes_to_a_graph_that_listens():
  ledger = fallback_ledger.Ledger(
    dynamic_batching.structures.Options(timeout_ms=None)
  )
  call = fallback_ledger.Call([rows(1)], reply=lambda answer, error: None)
  taken = []

  def ring():
    taken.append(ledger.take(ring))

  def interrupt(seconds):
    ledger.listen(ring)
    ledger.enqueue(call)  # It is for who waits, and was here first.
    assert not taken
    raise KeyboardInterrupt

  ledger._changed.wait = interrupt
  with pytest.raises(KeyboardInterrupt):
    ledger.wait()
  ((_, calls),) = taken
  assert calls == [call]
