"""What all queues are in which something waits for the learner."""

import threading


class Closed(Exception):
  """The queue was closed while a caller waited or before it came."""


class ClosableQueue:
  """Many threads put, one gets, and any may close it, which wakes them all.

  A subclass has `put` and `get`, which hold `_condition` for all that they do,
  and notify all of what may have ended another's wait. `put` begins with
  `_check_open`, `get` with `_note_fill`; both check after a wait.

  `put` blocks while more wait than the capacity. What waits when the queue is
  closed is given up.
  """

  def __init__(self, capacity: int):
    """Initialises.

    Args:
      capacity: items that may wait.
    """
    self._capacity = capacity
    # Two numbers: nobody may ever ask.
    self._fills, self._num_fills = 0.0, 0
    self._condition = threading.Condition()
    self._closed = False

  def __len__(self) -> int:
    """Number of items that wait, of those that count for the capacity."""
    raise NotImplementedError

  @property
  def capacity(self) -> int:
    """Number of items that may wait."""
    return self._capacity

  @property
  def closed(self) -> bool:
    """Whether the queue is closed."""
    return self._closed

  def fill(self) -> float:
    """Returns how full `get` found it since the last call, 0 to 1, a mean."""
    with self._condition:
      fill = self._fills / max(self._num_fills, 1)
      self._fills, self._num_fills = 0.0, 0
    return fill

  def close(self) -> None:
    """Wakes every caller with Closed, also those that come later."""
    with self._condition:
      self._closed = True
      self._condition.notify_all()

  def _check_open(self) -> None:
    if self._closed:
      raise Closed('the queue is closed')

  def _note_fill(self, waiting: int) -> None:
    # More may wait than there are places.
    self._fills += min(waiting / self._capacity, 1.0)
    self._num_fills += 1
