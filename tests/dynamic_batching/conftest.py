"""What the tests of the batcher share: no test may hang or sleep."""

import concurrent.futures
import threading
import time

import pytest
import tensorflow as tf

TIMEOUT_S = 30


class Threads:
  """Runs functions in daemon threads; waits only up to a deadline."""

  def start(self, function, *args):
    future = concurrent.futures.Future()

    def run():
      try:
        future.set_result(function(*args))
      except BaseException as error:
        future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future

  def result(self, future):
    return future.result(timeout=TIMEOUT_S)

  def error(self, future):
    return future.exception(timeout=TIMEOUT_S)

  def until(self, condition):
    deadline = time.monotonic() + TIMEOUT_S
    pause = threading.Event()
    while not condition():
      assert time.monotonic() < deadline, 'timed out'
      pause.wait(0.001)


@pytest.fixture
def threads():
  return Threads()


@pytest.fixture(params=['op', 'fallback'])
def implementation(request):
  return request.param


@pytest.fixture
def make_batcher(implementation):
  """Makes batchers of int32 rows and closes them after the test."""
  import dynamic_batching

  made = []

  def make(inputs=None, outputs=None, **options):
    spec = tf.TensorSpec([None], tf.int32)
    batcher = dynamic_batching.Batcher(
      spec if inputs is None else inputs,
      spec if outputs is None else outputs,
      implementation=options.pop('implementation', implementation),
      **options,
    )
    made.append(batcher)
    return batcher

  yield make
  for batcher in made:
    batcher.close()
