"""SIGINT and SIGTERM as a request, so that a run can save before it ends."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable


class Interruption:
  """True once SIGINT or SIGTERM has come; a second one ends the process.

  A context manager for the main thread.
  """

  def __init__(self, stop: Callable[[], None]):
    """Initialises.

    Args:
      stop: called by the first signal, between any two instructions of the
        main thread: it must not take a lock.
    """
    self._stop = stop
    self._signal: signal.Signals | None = None
    self._previous: dict = {}

  def __bool__(self) -> bool:
    return self._signal is not None

  @property
  def name(self) -> str:
    """Name of the signal, such as 'SIGINT'; empty if none has come."""
    return self._signal.name if self._signal else ''

  def __enter__(self) -> 'Interruption':
    for number in (signal.SIGINT, signal.SIGTERM):
      self._previous[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, kind, failure, traceback) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  def _handle(self, number: int, frame) -> None:
    self._signal = signal.Signals(number)
    # The user insists: the next signal does what it would have done.
    signal.signal(number, self._previous[number])
    self._stop()
    # Neither a lock nor a buffer, which the main thread may be in.
    with contextlib.suppress(OSError, ValueError, AttributeError):
      os.write(
        sys.stderr.fileno(),
        f'\n{self.name}: stops as soon as what is under way has ended; a '
        f'second {self.name} does not wait for it.\n'.encode(),
      )
