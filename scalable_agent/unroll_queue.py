"""A bounded queue that turns unrolls of actors into learner batches."""

import collections
import threading
import time

import numpy as np
import tree

from scalable_agent import structures


class Closed(Exception):
  """The queue was closed while a caller waited or before it came."""


def _concatenate(parts: list[structures.ActorOutput]):
  if len(parts) == 1:
    return parts[0]
  return tree.map_structure_with_path(
    lambda path, *xs: np.concatenate(xs, structures.column_axis(path)), *parts
  )


class UnrollQueue:
  """Unrolls in, batches of exactly `batch_size` columns out, in order.

  Columns of one unroll may end up in several batches, and a batch may be made
  of several unrolls. `put` blocks while `capacity` unrolls are waiting, which
  is what slows actors down to the pace of the learner.
  """

  def __init__(self, batch_size: int, capacity: int):
    """Initialises an empty queue.

    Args:
      batch_size: columns of a batch.
      capacity: unrolls that may wait. Never less than what one batch needs is
        held back, so any capacity >= 1 makes progress.
    """
    self._batch_size = batch_size
    self._capacity = capacity
    self._unrolls: collections.deque = collections.deque()
    # Taken or restored, not yet batched; older than all that wait.
    self._rest: collections.deque = collections.deque()
    self._condition = threading.Condition()
    self._closed = False

  def __len__(self) -> int:
    """Number of unrolls that wait."""
    return len(self._unrolls)

  @property
  def capacity(self) -> int:
    """Number of unrolls that may wait."""
    return self._capacity

  @property
  def closed(self) -> bool:
    """Whether the queue is closed."""
    return self._closed

  @property
  def ready(self) -> bool:
    """Whether `get` would return at once."""
    with self._condition:
      waiting = [*self._rest, *self._unrolls]
    return sum(u.level.shape[0] for u in waiting) >= self._batch_size

  def snapshot(self) -> list[structures.ActorOutput]:
    """Returns the columns that wait, oldest first, for `restore`."""
    with self._condition:
      return [*self._rest, *self._unrolls]

  def restore(self, snapshot: list[structures.ActorOutput]) -> None:
    """Makes an empty queue hold what `snapshot` returned."""
    with self._condition:
      # Not among those that count for the capacity: `put` must not block on
      # columns that are too few for a batch.
      self._rest.extend(snapshot)

  def put(self, unroll: structures.ActorOutput, wait: bool = True) -> None:
    """Adds an unroll of [T + 1, E] columns.

    Args:
      unroll: to add.
      wait: blocks while the queue is full; without, it is added even then.

    Raises:
      Closed: the queue is closed.
    """
    with self._condition:
      self._condition.wait_for(
        lambda: self._closed or not wait or len(self._unrolls) < self._capacity
      )
      if self._closed:
        raise Closed('the unroll queue is closed')
      self._unrolls.append(unroll)
      self._condition.notify_all()

  def get(self, timeout: float | None = None) -> structures.ActorOutput | None:
    """Returns a batch of [T + 1, B] columns; blocks until there is one.

    For one consumer only.

    Args:
      timeout: seconds after which None is returned, and nothing is lost.

    Raises:
      Closed: the queue is closed.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    parts: list[structures.ActorOutput] = []
    columns = 0
    while columns < self._batch_size:
      unroll = self._rest.popleft() if self._rest else self._pop(deadline)
      if unroll is None:
        self._rest.extendleft(reversed(parts))
        return None
      size = unroll.level.shape[0]
      take = min(size, self._batch_size - columns)
      if take < size:
        self._rest.appendleft(structures.slice_columns(unroll, take, size))
        unroll = structures.slice_columns(unroll, 0, take)
      parts.append(unroll)
      columns += take
    return _concatenate(parts)

  def _pop(self, deadline: float | None) -> structures.ActorOutput | None:
    with self._condition:
      timeout = None if deadline is None else deadline - time.monotonic()
      self._condition.wait_for(lambda: self._closed or self._unrolls, timeout)
      if self._closed:
        raise Closed('the unroll queue is closed')
      if not self._unrolls:
        return None
      unroll = self._unrolls.popleft()
      self._condition.notify_all()
      return unroll

  def close(self) -> None:
    """Wakes every caller with Closed."""
    with self._condition:
      self._closed = True
      self._condition.notify_all()
