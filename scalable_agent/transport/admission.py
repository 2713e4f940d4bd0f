"""Who may send an unroll now, and when the others are to ask again."""

import threading
import time
from collections.abc import Callable

# Seconds for which room is kept for a sender that was admitted: if it dies or
# freezes now, the others must not wait for it.
_LEASE = 1.0
# Bounds of the time to ask again, in seconds.
_SHORTEST_WAIT, _LONGEST_WAIT = 0.002, 1.0
# Times that a sender asks until there is room, on average.
_ASKS = 4
# Seconds after which one that was to wait and has not asked again is forgotten.
_PATIENCE = 3.0


class Admission:
  """Shares out the room of a queue; thread-safe, and never waits."""

  def __init__(
    self,
    queue_length: Callable[[], int],
    capacity: int,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Initialises.

    Args:
      queue_length: returns how many unrolls wait.
      capacity: how many may wait, those included that are on their way.
      clock: seconds, monotonic.
    """
    self._queue_length = queue_length
    self._capacity = capacity
    self._clock = clock
    self._lock = threading.Lock()
    self._leases: dict[int, float] = {}  # When they end, by sender.
    self._waiting: dict[int, float] = {}  # When they last asked, by sender.
    self._admitted = clock()
    self._interval = 0.02  # Seconds between two admissions, smoothed.

  def ask(self, sender: int) -> float:
    """Returns 0 if `sender` may send now, else seconds until it asks again."""
    with self._lock:
      now = self._clock()
      self._leases.pop(sender, None)
      promised = sum(end > now for end in self._leases.values())
      if self._queue_length() + promised < self._capacity:
        self._interval += 0.2 * (now - self._admitted - self._interval)
        self._admitted = now
        self._leases[sender] = now + _LEASE
        self._waiting.pop(sender, None)
        return 0.0
      self._waiting[sender] = now
      waiting = sum(now - t < _PATIENCE for t in self._waiting.values())
      interval = self._interval
    # However many wait, each asks a few times for each of its unrolls.
    wait = interval * waiting / _ASKS
    return min(max(wait, _SHORTEST_WAIT), _LONGEST_WAIT)

  def arrived(self, sender: int, more: bool) -> None:
    """Takes note of a part of what an admitted sender has sent.

    Args:
      sender: of the part, which waits in the queue by now.
      more: whether other parts are still to come.
    """
    with self._lock:
      if more:
        self._leases[sender] = self._clock() + _LEASE
      else:
        self._leases.pop(sender, None)

  def leave(self, sender: int) -> None:
    """Forgets a sender."""
    with self._lock:
      self._leases.pop(sender, None)
      self._waiting.pop(sender, None)
