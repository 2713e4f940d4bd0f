"""What happens to the processes of a soak, and how often."""

import contextlib
import heapq
import itertools
import pathlib
import random
import signal
import time
from collections.abc import Callable
from typing import Any

from benchmarks.soaking.cluster import FULL_DISK, Cluster, Seat
from benchmarks.soaking.strangers import Strangers

# How often, relative to each other. What an actor costs to start makes the
# second of two: with an agent of its own.
_OF_STRANGERS = {
  'random bytes': 12,
  'http': 5,
  'half-open': 8,
  'huge frame': 8,
  'no token': 6,
  'wrong token': 6,
  'garbage calls': 14,
  'replay': 5,
  'late registration': 2,
}
_OF_CONNECTIONS = {
  'cut': 8,
  'truncate': 8,
  'half-close': 0.8,
  'stall': 4,
  # Longer than a call to register waits, and than gRPC does for a sign of life.
  'outage': 0.2,
  'throttle': 3,
  'flip': 4,
}
_OF_ACTORS = {
  'freeze an actor': (3, 3),
  'kill an actor': (3, 0.6),
  'stop an actor': (1.5, 0.3),
  'two of a task': (0.8, 0.2),
}
_OF_LEARNERS = {
  'freeze the learner': 0.4,
  'kill the learner': 0.12,
  'stop the learner': 0.1,
  'full disk': 0.06,
}


class Faults:
  """Injects them."""

  def __init__(
    self,
    cluster: Cluster,
    strangers: Strangers,
    submit: Callable[..., Any],
    rng: random.Random,
    disk: pathlib.Path | None,
  ):
    """Initialises.

    Args:
      cluster: whose.
      strangers: who attack it.
      submit: has a function called in another thread; returns a future.
      rng: of all choices.
      disk: a small file system that the learner writes to.
    """
    self._cluster = cluster
    self._strangers = strangers
    self._submit = submit
    self._rng = rng
    self._disk = disk
    self._due: list[tuple[float, int, Callable[[], None]]] = []
    self._order = itertools.count()

  def kinds(self, inference: str, tls: bool) -> dict[str, float]:
    """Returns how often each is to be."""
    dear = inference == 'actor'
    kinds = {
      **_OF_STRANGERS,
      **_OF_CONNECTIONS,
      **{kind: weights[dear] for kind, weights in _OF_ACTORS.items()},
      **_OF_LEARNERS,
    }
    if not tls:
      del kinds['flip']  # Nothing would show it.
    if self._disk is None:
      del kinds['full disk']
    return kinds

  def are_left(self) -> bool:
    """Whether some have yet to end."""
    return bool(self._due)

  def end_those_due(self) -> None:
    """Ends those whose time is over."""
    while self._due and self._due[0][0] <= time.monotonic():
      heapq.heappop(self._due)[2]()

  def _later(self, seconds: float, end: Callable[[], None]) -> None:
    due = time.monotonic() + seconds
    heapq.heappush(self._due, (due, next(self._order), end))

  def inject(self, kind: str) -> str | None:
    """Returns what was done; None where it cannot be now."""
    if kind in _OF_STRANGERS:
      return self._by_a_stranger(kind)
    if kind in _OF_LEARNERS:
      return self._to_the_learner(kind)
    seat = self._rng.choice(self._cluster.seats)
    if kind in _OF_CONNECTIONS:
      return self._to_a_connection(kind, seat)
    return self._to_an_actor(kind, seat)

  def _by_a_stranger(self, kind: str) -> str | None:
    if not self._cluster.is_listening():
      return None
    attack = getattr(self._strangers, kind.replace(' ', '_').replace('-', '_'))
    seed = self._rng.getrandbits(32)
    self._submit(attack, random.Random(seed))
    return f'of seed {seed}'

  def _to_a_connection(self, kind: str, seat: Seat) -> str:
    later = 0.0
    after = int(self._rng.paretovariate(0.3)) % 100_000
    if kind == 'cut':
      later = self._rng.choice([0.0, 0.0, self._rng.uniform(0, 3)])
      seat.proxy.cut(later)
    elif kind in ('stall', 'outage'):
      later = self._rng.uniform(*((0, 4) if kind == 'stall' else (10, 45)))
      seat.proxy.stall(later)
    elif kind == 'throttle':
      later = self._rng.uniform(0, 4)
      seat.proxy.throttle(self._rng.choice([100, 3000, 30_000]), later)
    else:
      seat.proxy.damage(kind, after)
    self._cluster.touch(seat, kind, later=later)
    return f'actor {seat.task}, {later:.1f} s, after {after} bytes'

  def _to_an_actor(self, kind: str, seat: Seat) -> str | None:
    if len(seat.processes) != 1 or seat.processes[0].asked:
      return None
    (process,) = seat.processes
    least = self._cluster.next_number()
    said = f'actor {seat.task}, process {process.number}'
    if kind == 'freeze an actor':
      if process.frozen:
        return None
      seconds = self._rng.choice([0.1, 1, 3, 3, 12]) * self._rng.random()
      process.send(signal.SIGSTOP)
      self._later(seconds, lambda: process.send(signal.SIGCONT))
      self._cluster.touch(seat, kind, later=seconds)
      return f'{said}, for {seconds:.1f} s'
    if kind == 'two of a task':
      if process.frozen or not process.has_said('is connected'):
        return None
      self._cluster.touch(seat, kind)
      process.rivals = True
      rival = self._cluster.start_actor(seat)
      rival.rivals = True
      return f'{said} and {rival.number}'
    self._cluster.touch(seat, kind, least=least)
    seat.restart_at = time.monotonic() + self._rng.uniform(0, 3)
    process.send(signal.SIGKILL if kind == 'kill an actor' else signal.SIGTERM)
    seat.holds = None
    if kind == 'kill an actor' and self._rng.random() < 0.5:
      rng = random.Random(self._rng.getrandbits(32))
      if self._cluster.is_listening():
        seat.holds = self._submit(self._strangers.ghost, rng, seat.task)
        said += ', and a ghost comes'
    return said

  def _to_the_learner(self, kind: str) -> str | None:
    if not self._cluster.is_listening():
      return None
    learner = self._cluster.learner
    assert learner is not None
    if kind == 'freeze the learner':
      seconds = self._rng.choice([0.5, 3, 10]) * self._rng.random()
      learner.send(signal.SIGSTOP)
      self._later(seconds, lambda: learner.send(signal.SIGCONT))
      self._cluster.touch_all(kind, later=seconds)
      return f'for {seconds:.1f} s'
    pause = self._rng.uniform(0, 3)
    self._cluster.learner_restart_at = time.monotonic() + pause
    self._cluster.touch_all(kind, restarts=True)
    if kind == 'full disk':
      assert self._disk is not None
      learner.ask(FULL_DISK)
      ballast = fill(self._disk)
      self._free_after(learner, ballast)
    else:
      learner.send(
        signal.SIGKILL if kind == 'kill the learner' else signal.SIGTERM
      )
    return f'restarts after {pause:.1f} s'

  def _free_after(self, learner: Any, ballast: pathlib.Path) -> None:
    """Frees the disk once the learner has ended."""
    if learner.popen.poll() is None:
      self._later(0.05, lambda: self._free_after(learner, ballast))
    else:
      ballast.unlink()


def fill(disk: pathlib.Path) -> pathlib.Path:
  """Returns a file that leaves not a byte of a file system."""
  ballast = disk / 'ballast'
  with open(ballast, 'wb', buffering=0) as file:
    for size in (2**20, 2**12, 1):
      with contextlib.suppress(OSError):
        while True:
          file.write(bytes(size))
  return ballast
