"""What runs in threads, measured: rates, and CPU time by kind of thread."""

import functools
import pathlib
import re
import resource
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import psutil

from scalable_agent.runtimes import threads

# Cumulative numbers by kind, such as seconds by stage.
Counts = Mapping[str, Mapping[str, float]]


def measure_threads(
  step: Callable[[int], int],
  num_threads: int,
  warm_up: float,
  seconds: float,
) -> dict[str, Any]:
  """Calls `step(thread)`, which returns agent steps, in several threads.

  Args:
    step: what to measure.
    num_threads: that call it.
    warm_up: seconds before the measured ones.
    seconds: measured.

  Returns:
    See `measure`.
  """
  counts = np.zeros(num_threads)

  def run(index: int) -> None:
    while not group.stopping:
      counts[index] += step(index)

  with threads.ThreadGroup() as group:
    for index in range(num_threads):
      group.start(f'worker_{index}', functools.partial(run, index))
    return measure(group, counts.sum, warm_up, seconds)


def measure(
  group: threads.ThreadGroup,
  count: Callable[[], float],
  warm_up: float,
  seconds: float,
  read: Callable[[], Counts] = dict,
) -> dict[str, Any]:
  """Returns what a group of threads does in a second, after the warm-up.

  When a thread fails it returns early, for the group to raise the failure.

  Args:
    group: of the threads.
    count: returns the agent steps so far.
    warm_up: seconds before the measured ones.
    seconds: measured.
    read: returns more numbers that grow.

  Returns:
    `steps_per_second`, `cpu_ms_per_step` (milliseconds of all cores for one
    agent step), `cores_used` (CPU seconds in a second), `used_by_others` (the
    same of all other processes), and by their names the increases per second of
    what `read` returns.
  """
  start_count = count()
  # Tracing and building are no part of it.
  while count() == start_count and not group.wait_for_stop(0.01):
    pass
  group.wait_for_stop(warm_up)
  start, start_count = time.perf_counter(), count()
  start_cpu, start_all, start_numbers = _cpu_seconds(), _of_all(), read()
  group.wait_for_stop(seconds)
  elapsed, steps = time.perf_counter() - start, count() - start_count
  cpu, of_all = _cpu_seconds() - start_cpu, _of_all() - start_all
  numbers = read()
  return {
    'steps_per_second': steps / elapsed,
    'cpu_ms_per_step': 1000 * cpu / steps if steps else float('nan'),
    'cores_used': cpu / elapsed,
    'used_by_others': max(0.0, of_all - cpu) / elapsed,
    **{
      name: {
        kind: (value - start_numbers[name].get(kind, 0)) / elapsed
        for kind, value in values.items()
      }
      for name, values in numbers.items()
    },
  }


def _cpu_seconds() -> float:
  used = resource.getrusage(resource.RUSAGE_SELF)
  return used.ru_utime + used.ru_stime


def _of_all() -> float:
  """Returns CPU seconds of all processes, and of other machines on this one."""
  times = psutil.cpu_times()._asdict()
  # What guests use is in what their users do.
  idle = ('idle', 'iowait', 'guest', 'guest_nice')
  return sum(seconds for name, seconds in times.items() if name not in idle)


def peak_rss_mib() -> float:
  """Returns the most memory that this process had, in MiB."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def cpu_of_threads() -> dict[str, float]:
  """Returns CPU seconds by kind of thread.

  A kind is the name of Python's thread without its number; `TensorFlow`, its
  pools; or `native`, all others, such as those of emulators.
  """
  names = {one.native_id: one.name for one in threading.enumerate()}
  seconds: dict[str, float] = {}
  for one in psutil.Process().threads():
    name = names.get(one.id)
    if name is None:
      kind = 'TensorFlow' if _comm(one.id).startswith('tf_') else 'native'
    else:
      kind = re.sub(r'_\d+$', '', name)
    seconds[kind] = seconds.get(kind, 0) + one.user_time + one.system_time
  return seconds


def _comm(thread_id: int) -> str:
  """Returns what Linux calls a thread; '' if it has ended, or elsewhere."""
  try:
    path = pathlib.Path(f'/proc/self/task/{thread_id}/comm')
    return path.read_text(encoding='utf-8')
  except OSError:
    return ''
