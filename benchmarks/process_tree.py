"""A process with all that it started: what it costs, and its end."""

import contextlib
import time

import psutil


class ProcessTree:
  """Knows every process of a tree that it has ever seen.

  Who started a process may end before it, which then is nobody's child; and the
  CPU time of a process is gone once it has ended. So both are remembered. What
  starts and ends between two looks is missed: look often.
  """

  def __init__(self, pid: int):
    self._root = psutil.Process(pid)
    self._cpu_seconds = {self._root: 0.0}

  def cpu_seconds(self) -> float:
    """Looks, and returns user and system seconds of all until now."""
    for process in self._look():
      try:
        times = process.cpu_times()
      except psutil.NoSuchProcess:
        continue
      self._cpu_seconds[process] = times.user + times.system
    return sum(self._cpu_seconds.values())

  def end(self, patience: float) -> None:
    """Asks the root to end, and kills what is left after a while.

    Args:
      patience: seconds that it may take to end by itself.
    """
    self._look()
    with contextlib.suppress(psutil.NoSuchProcess):
      self._root.terminate()
    self._wait(patience)
    for process in self._look():
      with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()
    self._wait(patience)

  def _wait(self, patience: float) -> None:
    deadline = time.monotonic() + patience
    while any(map(_is_alive, self._look())) and time.monotonic() < deadline:
      time.sleep(0.05)

  def _look(self) -> list[psutil.Process]:
    """Returns all that are still there."""
    found = set()
    for process in list(self._cpu_seconds):
      # Not one that has got the number of another.
      if process in found or not process.is_running():
        continue
      found.add(process)
      try:
        found.update(process.children(recursive=True))
      except psutil.NoSuchProcess:
        continue
    for process in found:
      self._cpu_seconds.setdefault(process, 0.0)
    return list(found)


def _is_alive(process: psutil.Process) -> bool:
  """Whether it still does something: who was killed may wait for its parent."""
  try:
    return process.status() != psutil.STATUS_ZOMBIE
  except psutil.NoSuchProcess:
    return False
