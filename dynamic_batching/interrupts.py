"""Ctrl-C while an op waits."""

import concurrent.futures
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar('T')


def interruptible(function: Callable[[], T]) -> T:
  """Calls a function that may wait for long in an op.

  Python hears of Ctrl-C in the main thread only, and not before an op returns.
  So there, another thread runs the op, which goes on waiting after an
  interrupt, in vain: nothing public of TensorFlow cancels an eager op.
  """
  if threading.current_thread() is not threading.main_thread():
    return function()
  result: concurrent.futures.Future[T] = concurrent.futures.Future()

  def run() -> None:
    try:
      result.set_result(function())
    except BaseException as error:
      result.set_exception(error)

  threading.Thread(
    target=run, name='dynamic_batching_interruptible', daemon=True
  ).start()
  return result.result()
