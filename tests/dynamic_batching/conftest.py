"""What the tests of the batcher share: no test may hang or sleep."""

import os
import signal

import psutil
import pytest
import tensorflow as tf

from tests import waiting


class Threads:
  """Runs functions in daemon threads; waits only up to a deadline."""

  def start(self, function, *args):
    return waiting.in_thread(function, *args)

  def result(self, future):
    return future.result(timeout=waiting.DEADLINE_S)

  def error(self, future):
    return future.exception(timeout=waiting.DEADLINE_S)

  def until(self, condition):
    waiting.wait_until(condition)

  def interrupt(self, process):
    """Sends Ctrl-C to a program once it has written that it waits, and does.

    Returns:
      The line that it writes then.
    """
    line = self.result(self.start(process.stdout.readline))
    assert line == 'waits\n'
    answer = self.start(process.stdout.readline)
    # Python does not hear of a signal in the moment before it waits.
    main_thread = psutil.Process(process.pid)
    self.until(lambda: main_thread.status() == psutil.STATUS_SLEEPING)
    os.kill(process.pid, signal.SIGINT)
    return self.result(answer)


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
      implementation=implementation,
      **options,
    )
    made.append(batcher)
    return batcher

  yield make
  for batcher in made:
    batcher.close()
