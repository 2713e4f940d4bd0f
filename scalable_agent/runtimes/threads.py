"""A group of threads in which the first failure stops all; a gate for them."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator


class StuckError(TimeoutError):
  """Threads did not end in time."""

  def __init__(self, names: list[str], seconds: float):
    super().__init__(
      f'threads did not end within {seconds} s: {", ".join(names)}'
    )


class ThreadGroup:
  """Runs functions in threads; the first one to fail ends them all.

  Use it as a context manager: leaving it calls the `on_stop` callbacks (which
  must wake every thread that waits), joins, and raises the first failure with
  its own traceback. Once stopping has begun, what the other threads raise is a
  consequence and is dropped.
  """

  def __init__(self, join_timeout: float = 60.0):
    """Initialises an empty group.

    Args:
      join_timeout: seconds that all threads together have to end when the
        group is left, or else leaving it raises a StuckError.
    """
    self._join_timeout = join_timeout
    self._threads: list[threading.Thread] = []
    self._on_stop: list[Callable[[], None]] = []
    self._lock = threading.Lock()
    self._stopping = threading.Event()
    self._failure: BaseException | None = None

  @property
  def stopping(self) -> bool:
    """Whether the group has been told to stop or has failed."""
    return self._stopping.is_set()

  @property
  def failing(self) -> bool:
    """Whether leaving the group will raise."""
    return self._failure is not None

  @property
  def running(self) -> list[str]:
    """Names of the threads that have not ended."""
    return [thread.name for thread in self._threads if thread.is_alive()]

  def on_stop(self, callback: Callable[[], None]) -> None:
    """Has `callback` called once, by whoever stops the group."""
    self._on_stop.append(callback)

  def start(self, name: str, function: Callable[[], None]) -> None:
    """Runs `function` in a thread; its return does not stop the group.

    Threads of the group may start others. Once it stops, none is started.
    """
    thread = threading.Thread(
      target=self._run, args=(function,), name=name, daemon=True
    )
    with self._lock:
      if self._stopping.is_set():
        return
      thread.start()
      # Without those that have ended: there may be many in a long run.
      alive = [one for one in self._threads if one.is_alive()]
      self._threads = [*alive, thread]

  def fail(self, failure: BaseException) -> None:
    """Stops the group; leaving it will raise `failure` if it is the first."""
    with self._lock:
      if not self._stopping.is_set() and self._failure is None:
        self._failure = failure
    self.stop()

  def stop(self) -> None:
    """Tells every thread to end; does not wait."""
    with self._lock:
      if self._stopping.is_set():
        return
      self._stopping.set()
    for callback in self._on_stop:
      try:
        callback()
      except BaseException as failure:  # The others still have to be woken.
        with self._lock:
          self._failure = self._failure or failure

  def wait_for_stop(self, timeout: float | None = None) -> bool:
    """Waits up to `timeout` seconds; returns whether the group stops."""
    if timeout is not None:
      timeout = min(timeout, threading.TIMEOUT_MAX)
    return self._stopping.wait(timeout)

  def _run(self, function: Callable[[], None]) -> None:
    try:
      function()
    except Exception as failure:  # Re-raised when the group is left.
      self.fail(failure)
    except BaseException as failure:
      # It would end the process as if all were well: sys.exit in a simulator.
      name = threading.current_thread().name
      error = RuntimeError(f'{failure!r} in thread {name}')
      error.__cause__ = failure
      self.fail(error)

  def __enter__(self) -> 'ThreadGroup':
    return self

  def __exit__(self, kind, failure, traceback) -> None:
    # What the owner raises while the group is stopping is a consequence of the
    # thread that failed.
    if failure is not None:
      self.fail(failure)
    self.stop()
    deadline = time.monotonic() + self._join_timeout
    for thread in self._threads:
      thread.join(max(0.0, deadline - time.monotonic()))
    stuck = self.running
    if self._failure is not None and self._failure is not failure:
      raise self._failure
    if stuck and failure is None:
      raise StuckError(stuck, self._join_timeout)


class Gate:
  """Lets any number of threads work, or one alone.

  Who wants to be alone waits for those at work, and nobody new begins.
  """

  def __init__(self) -> None:
    self._condition = threading.Condition()
    self._working = 0
    self._waiting = 0
    self._closed = False

  @contextlib.contextmanager
  def working(self) -> Iterator[None]:
    """Waits until nobody is alone, or wants to be."""
    with self._condition:
      self._condition.wait_for(lambda: not (self._closed or self._waiting))
      self._working += 1
    try:
      yield
    finally:
      with self._condition:
        self._working -= 1
        self._condition.notify_all()

  @contextlib.contextmanager
  def alone(self) -> Iterator[None]:
    """Waits until nobody is at work; not for threads that are."""
    with self._condition:
      self._waiting += 1
      try:
        self._condition.wait_for(lambda: not (self._closed or self._working))
      finally:
        self._waiting -= 1
      self._closed = True
    try:
      yield
    finally:
      with self._condition:
        self._closed = False
        self._condition.notify_all()
