"""A bounded queue that turns unrolls of actors into learner batches."""

import collections
import dataclasses
import time
from collections.abc import Iterator
from typing import overload

import numpy as np

from scalable_agent import queues, structures


@dataclasses.dataclass
class _Waiting:
  """An unroll of which some columns wait.

  Attributes:
    unroll: all of it.
    actor: that it is of.
    start: number of its columns that were taken.
    counts: whether it counts for the capacity.
  """

  unroll: structures.ActorOutput
  actor: int
  start: int = 0
  counts: bool = True

  def __len__(self) -> int:
    return self.unroll.level.shape[0] - self.start

  def rest(self) -> structures.ActorOutput:
    return self._slice(len(self))

  def take(self, columns: int) -> structures.ActorOutput:
    taken = self._slice(columns)
    self.start += columns
    self.counts = False
    return taken

  def _slice(self, columns: int) -> structures.ActorOutput:
    if not self.start and columns == len(self):
      return self.unroll
    return structures.slice_columns(
      self.unroll, self.start, self.start + columns
    )


def _concatenate(parts: list[structures.ActorOutput]):
  if len(parts) == 1:
    return parts[0]
  return structures.map_columns(
    lambda axis, *xs: np.concatenate(xs, axis), *parts
  )


class UnrollQueue(queues.ClosableQueue):
  """Unrolls in, batches of exactly `batch_size` columns out.

  A batch takes its columns in turns from all actors of which any wait, so that
  it mixes actors, and with them levels, as far as it can: of the actors whose
  oldest unrolls came first where it has fewer columns than there are actors.
  Those of one actor come out in the order in which they went in. Columns of one
  unroll thus end up in several batches.

  `put` blocks while `capacity` unrolls are waiting of which no column has been
  taken, which is what slows actors down to the pace of the learner.
  """

  def __init__(self, batch_size: int, capacity: int):
    """Initialises an empty queue.

    Args:
      batch_size: columns of a batch.
      capacity: unrolls that may wait. Never less than what one batch needs is
        held back, so any capacity >= 1 makes progress.
    """
    super().__init__(capacity)
    self._batch_size = batch_size
    self._waiting: list[_Waiting] = []  # Oldest first.

  def __len__(self) -> int:
    """Number of untouched unrolls, also those that are being put."""
    with self._condition:
      return sum(1 for _ in self._untouched())

  @property
  def ready(self) -> bool:
    """Whether `get` would return at once."""
    with self._condition:
      return self._has_batch()

  def snapshot(self) -> list[structures.ActorOutput]:
    """Returns the columns that wait, oldest first, for `restore`.

    It does not tell actors apart.
    """
    with self._condition:
      return [waiting.rest() for waiting in self._waiting]

  def restore(self, snapshot: list[structures.ActorOutput]) -> None:
    """Makes an empty queue of one actor hold what `snapshot` returned."""
    with self._condition:
      # Not among those that count for the capacity: `put` must not block on
      # columns that are too few for a batch.
      self._waiting.extend(_Waiting(u, 0, counts=False) for u in snapshot)

  def put(self, unroll: structures.ActorOutput, actor: int = 0) -> None:
    """Adds an unroll of [T + 1, E] columns.

    It may be learned from at once; what waits for room is the caller.

    Args:
      unroll: to add.
      actor: that it is of.

    Raises:
      queues.Closed: the queue is closed.
    """
    with self._condition:
      self._check_open()
      waiting = _Waiting(unroll, actor)
      self._waiting.append(waiting)
      self._condition.notify_all()
      self._condition.wait_for(lambda: self._closed or self._has_room(waiting))
      self._check_open()

  @overload
  def get(self) -> structures.ActorOutput: ...
  @overload
  def get(self, timeout: float) -> structures.ActorOutput | None: ...
  def get(self, timeout: float | None = None) -> structures.ActorOutput | None:
    """Returns a batch of [T + 1, B] columns; blocks until there is one.

    Args:
      timeout: seconds after which None is returned, and nothing is lost.

    Raises:
      queues.Closed: the queue is closed.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    with self._condition:
      self._note_fill(sum(1 for _ in self._untouched()))
      while not self._closed and not self._has_batch():
        # All that there is will be part of the batch.
        for waiting in self._waiting:
          waiting.counts = False
        self._condition.notify_all()
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
          return None
        self._condition.wait(left)
      self._check_open()
      parts = self._take()
      self._condition.notify_all()
    return _concatenate(parts)

  def _untouched(self) -> Iterator[_Waiting]:
    return (waiting for waiting in self._waiting if waiting.counts)

  def _has_room(self, waiting: _Waiting) -> bool:
    """Whether `waiting` is among those for which there is room."""
    if not waiting.counts:
      return True
    older = 0
    for other in self._untouched():
      if other is waiting:
        break
      older += 1
    return older < self._capacity

  def _has_batch(self) -> bool:
    return sum(map(len, self._waiting)) >= self._batch_size

  def _take(self) -> list[structures.ActorOutput]:
    """Takes the columns of a batch, those of one actor side by side."""
    of_actors = collections.defaultdict(list)
    for waiting in self._waiting:
      of_actors[waiting.actor].append(waiting)
    # No more actors than columns: whose unrolls have been begun are the oldest,
    # and one column of each of very many would leave all of them to age.
    queues = list(of_actors.values())[: self._batch_size]
    shares = _share(self._batch_size, [sum(map(len, q)) for q in queues])
    parts = []
    for queue, share in zip(queues, shares, strict=True):
      for waiting in queue:
        if share:
          parts.append(waiting.take(min(share, len(waiting))))
          share -= parts[-1].level.shape[0]
    self._waiting = [waiting for waiting in self._waiting if len(waiting)]
    return parts


def _share(total: int, available: list[int]) -> list[int]:
  """Deals `total` out, one by one in turns, to those who have some left."""
  shares = [0] * len(available)
  while total:
    for i, most in enumerate(available):
      if total and shares[i] < most:
        shares[i] += 1
        total -= 1
  return shares
