"""Processes that a benchmark measures in, each on some of the cores."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Sequence

from scalable_agent.runtimes import cores

# Characters of what a process wrote before it failed.
_SHOWN = 4000
_SIBLINGS = '/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list'


class Failure(Exception):
  """A process failed; the message ends with what it wrote."""


def run(
  program: str,
  arguments: Sequence[str],
  timeout: float,
  num_cores: int | None = None,
) -> dict:
  """Runs a Python program; returns the JSON object on its last line.

  Args:
    program: path of the program.
    arguments: of the program.
    timeout: seconds; then it is killed.
    num_cores: that it may use; None: those that this process may.

  Raises:
    Failure: it failed, did not end in time, or wrote no such line.
    ValueError: there are not as many cores.
  """
  command = [sys.executable, os.path.abspath(program), *arguments]
  name = ' '.join([os.path.basename(program), *arguments])
  with contextlib.nullcontext() if num_cores is None else pinned(num_cores):
    process = subprocess.Popen(
      command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
  with process:
    try:
      output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
      raise Failure(f'{name} did not end within {timeout:.0f} s') from None
    finally:
      process.kill()  # Also when this one is interrupted.
  if process.returncode:
    raise Failure(
      f'{name} failed ({process.returncode}):\n{errors.strip()[-_SHOWN:]}'
    )
  try:
    return dict(json.loads(output.splitlines()[-1]))
  except (IndexError, TypeError, ValueError):
    raise Failure(f'{name} printed no result:\n{output[-_SHOWN:]}') from None


@contextlib.contextmanager
def pinned(num_cores: int) -> Iterator[None]:
  """Has the processes that this thread starts use some of the cores only.

  Raises:
    ValueError: there are not as many, or this system cannot pin.
  """
  check_cores(num_cores)
  before = os.sched_getaffinity(0)
  os.sched_setaffinity(0, _in_order(before)[:num_cores])
  try:
    yield
  finally:
    os.sched_setaffinity(0, before)


def check_cores(num_cores: int) -> None:
  """Raises ValueError if no process can be pinned to as many cores."""
  if not hasattr(os, 'sched_setaffinity'):
    raise ValueError(
      f'--cores={num_cores}: processes are pinned to cores on Linux only. '
      'Leave it out to measure on all of them.'
    )
  most = cores.usable_cores()
  if not 1 <= num_cores <= most:
    raise ValueError(
      f'--cores={num_cores}: this process may use {most} core(s). Name '
      f'numbers from 1 to {most}.'
    )


def _in_order(usable: set[int]) -> list[int]:
  """Returns CPUs so that those that share a core come last."""

  def rank(cpu: int) -> tuple[int, int]:
    try:
      text = pathlib.Path(_SIBLINGS.format(cpu)).read_text(encoding='utf-8')
    except OSError:
      return 0, cpu
    ends = [part.split('-') for part in text.strip().split(',')]
    siblings = [
      one for end in ends for one in range(int(end[0]), int(end[-1]) + 1)
    ]
    among = [one for one in siblings if one in usable]
    return among.index(cpu), cpu

  return sorted(usable, key=rank)
