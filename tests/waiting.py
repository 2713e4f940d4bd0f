"""Work in the background, and waiting for it: never for longer than a deadline.

No test sleeps for a time in which something ought to have happened.
"""

import concurrent.futures
import threading
import time

DEADLINE_S = 30


def in_thread(function, *args):
  """Returns a future; the thread dies with the process at the latest."""
  future = concurrent.futures.Future()

  def run():
    try:
      future.set_result(function(*args))
    except BaseException as error:
      future.set_exception(error)

  threading.Thread(target=run, daemon=True).start()
  return future


def wait_until(condition):
  """Polls until `condition()` is true; fails at the deadline."""
  deadline = time.monotonic() + DEADLINE_S
  while not condition():
    assert time.monotonic() < deadline, 'nothing happened before the deadline'
    threading.Event().wait(0.001)
