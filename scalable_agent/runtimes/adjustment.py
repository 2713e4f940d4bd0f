"""Searches for the numbers of threads with which training is fastest."""

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from absl import logging

from scalable_agent.options import AdjustmentOptions

# Parts that a measurement is made of: their scatter tells how far to trust it.
_PARTS = 10
# Seconds between two looks at whether a thread has left.
_TICK = 0.1


class Pool(Protocol):
  """What is adjusted; see `pools.Pool`."""

  def __len__(self) -> int: ...
  @property
  def settled(self) -> bool: ...
  @property
  def shrinkable(self) -> bool: ...
  def add(self) -> None: ...
  def remove(self) -> None: ...


class Stopped(Exception):
  """The run ends."""


class Adjuster:
  """Changes one number by one at a time and keeps what makes training faster.

  Each try measures the speed before and after, as it drifts over a run. The
  change is kept if the difference of the two means exceeds `confidence` times
  its standard error, which the scatter of each measurement's parts gives; else
  it is taken back. GA3C (Babaeizadeh et al. 2017, section 4.4) compared two
  counts of updates, and so followed the noise.
  """

  def __init__(
    self,
    pools: Mapping[str, Pool],
    steps: Callable[[], float],
    wait: Callable[[float], bool],
    options: AdjustmentOptions,
    seed: int,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Initialises.

    Args:
      pools: what to change, by name.
      steps: returns the agent steps learned from so far.
      wait: waits for some seconds, or until the run ends; whether it does.
      options: how long to measure, and what to believe.
      seed: of the order of tries.
      clock: seconds.
    """
    self._pools = pools
    self._steps = steps
    self._wait = wait
    self._options = options
    self._random = random.Random(seed)
    self._clock = clock

  def run(self) -> None:
    """Tries one change after the other until the run ends."""
    try:
      self._sleep(self._options.dynamic_settings_initial_wait)
      while True:
        self.try_one()
    except Stopped:
      pass

  def try_one(self) -> bool:
    """Returns whether the change was kept.

    Raises:
      Stopped: the run ends.
    """
    before = self._measure()
    moves = [(name, 1) for name in self._pools]
    moves += [(n, -1) for n, pool in self._pools.items() if pool.shrinkable]
    name, change = self._random.choice(moves)
    self._change(name, change)
    after = self._measure()
    gain = statistics.mean(after) - statistics.mean(before)
    error = math.hypot(_standard_error(before), _standard_error(after))
    kept = gain > self._options.dynamic_settings_confidence * error
    count = len(self._pools[name])
    if not kept:
      self._change(name, -change)
    logging.info(
      'Dynamic adjustment: %s %d -> %d gives %.0f -> %.0f agent steps/s, a '
      'difference of %+.0f +- %.0f: %s. %s',
      name,
      count - change,
      count,
      statistics.mean(before),
      statistics.mean(after),
      gain,
      error,
      'kept' if kept else 'taken back',
      ' '.join(f'{name}={len(pool)}' for name, pool in self._pools.items()),
    )
    return kept

  def _change(self, name: str, change: int) -> None:
    pool = self._pools[name]
    if change > 0:
      pool.add()
    else:
      pool.remove()
    while not pool.settled:
      self._sleep(_TICK)
    # A thread that has just begun makes its environments, and batches of
    # another size are new to TensorFlow.
    self._sleep(self._options.dynamic_settings_step_wait / _PARTS)

  def _measure(self) -> list[float]:
    """Returns agent steps per second of each part."""
    rates = []
    then, steps_then = self._clock(), self._steps()
    for _ in range(_PARTS):
      self._sleep(self._options.dynamic_settings_step_wait / _PARTS)
      now, steps = self._clock(), self._steps()
      rates.append((steps - steps_then) / (now - then))
      then, steps_then = now, steps
    return rates

  def _sleep(self, seconds: float) -> None:
    if self._wait(seconds):
      raise Stopped


def _standard_error(rates: list[float]) -> float:
  return statistics.stdev(rates) / math.sqrt(len(rates))
