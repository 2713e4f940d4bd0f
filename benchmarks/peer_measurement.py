"""Measures a program from outside: its own count and CPU time."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import numpy as np

from benchmarks import process_tree

# Seconds between two looks at the processes.
_TICK = 0.25
# Seconds until the first count, and for an end in peace.
_START_TIMEOUT, _STOP_TIMEOUT = 180.0, 20.0
# Of what a program said before it failed.
_TAIL = 4000


class PeerError(Exception):
  """A peer could not be measured."""


def read_counts(path: str) -> list[tuple[float, float]]:
  """Returns (Unix time, agent steps) of all lines that are complete."""
  try:
    with open(path, encoding='utf-8') as file:
      lines = file.read().split('\n')[:-1]
  except FileNotFoundError:
    return []
  return [(row['time'], row['steps']) for row in map(json.loads, lines)]


def rates(
  counts: Sequence[tuple[float, float]],
  cpu: Sequence[tuple[float, float]],
) -> dict[str, float]:
  """Returns what was done from the first to the last count of a window.

  Args:
    counts: (time, agent steps), at any time.
    cpu: (time, CPU seconds), from the beginning to the end of the window.

  Raises:
    PeerError: fewer than two counts are in it, or they are all the same.
  """
  start, end = cpu[0][0], cpu[-1][0]
  within = [row for row in counts if start <= row[0] <= end]
  steps = within[-1][1] - within[0][1] if within else 0
  if not steps:
    raise PeerError(
      f'learned nothing in {end - start:.0f} s: raise --seconds or --warm_up'
    )
  clock = within[0][0], within[-1][0]
  used = np.interp(clock, *zip(*cpu, strict=True))
  seconds, cpu_seconds = clock[1] - clock[0], float(used[1] - used[0])
  return {
    'steps_per_second': steps / seconds,
    'cpu_ms_per_step': 1000 * cpu_seconds / steps,
    'cores_used': cpu_seconds / seconds,
  }


def measure(command: Sequence[str], counts: str, options) -> dict[str, float]:
  """Starts a program, looks at it for a while, and ends all its processes.

  Args:
    command: what to start.
    counts: the file that it appends its counts to.
    options: `warm_up` and `seconds`.

  Raises:
    PeerError: it ended by itself, or learned nothing.
  """
  # What programs leave behind is left in a folder that is removed.
  with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
    process = subprocess.Popen(
      command,
      cwd=folder,
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=subprocess.STDOUT,
      # Ctrl-C is for this program, which then ends all of that one.
      start_new_session=True,
    )
    tree = process_tree.ProcessTree(process.pid)
    try:
      cpu = _watch(process, tree, counts, options)
    except PeerError as error:
      log.seek(0)
      tail = log.read()[-_TAIL:].decode(errors='replace')
      print(f'{tail}\n{error}', file=sys.stderr)
      raise
    finally:
      tree.end(_STOP_TIMEOUT)
      process.wait()
  return rates(read_counts(counts), cpu)


def _watch(process, tree, counts: str, options) -> list[tuple[float, float]]:
  """Returns (time, CPU seconds) from the warm-up's end to the window's."""
  cpu: list[tuple[float, float]] = []
  began, ready = time.time(), None
  while not cpu or cpu[-1][0] < ready + options.warm_up + options.seconds:
    if process.poll() is not None:
      raise PeerError(f'ended by itself with status {process.returncode}')
    used, now = tree.cpu_seconds(), time.time()
    if ready is None:
      if any(steps > 0 for _, steps in read_counts(counts)):
        ready = now
      elif now > began + _START_TIMEOUT:
        raise PeerError(f'learned nothing in its first {_START_TIMEOUT:.0f} s')
    elif now >= ready + options.warm_up:
      cpu.append((now, used))
    time.sleep(_TICK)
  return cpu
