"""Threads of one kind, whose number may change while they work."""

import threading
from collections.abc import Callable

from scalable_agent.runtimes import threads


class Member:
  """One thread of a pool.

  Attributes:
    index: its place in the pool: those before it stay longer.
    leaving: whether it has been told to finish what it has in hand, and end.
  """

  def __init__(self, index: int):
    self.index = index
    self.leaving = False


class Pool:
  """Runs one function in several threads; `len` is how many of them stay."""

  def __init__(
    self,
    group: threads.ThreadGroup,
    name: str,
    work: Callable[[Member], None],
    least: int = 1,
  ):
    """Initialises an empty pool.

    Args:
      group: that the threads belong to.
      name: of the threads, before their index.
      work: what a thread does, until its member is leaving or the group stops.
      least: that `remove` leaves.
    """
    self._group = group
    self._name = name
    self._work = work
    self._least = least
    self._lock = threading.Lock()
    self._members: list[Member] = []
    self._leaving: set[Member] = set()

  def __len__(self) -> int:
    with self._lock:
      return len(self._members)

  @property
  def settled(self) -> bool:
    """Whether all who were told to leave have."""
    with self._lock:
      return not self._leaving

  @property
  def shrinkable(self) -> bool:
    """Whether `remove` would have one leave."""
    return len(self) > self._least

  def add(self) -> None:
    """Starts a thread."""
    with self._lock:
      member = Member(len(self._members))
      self._members.append(member)
    self._group.start(f'{self._name}_{member.index}', lambda: self._run(member))

  def remove(self) -> None:
    """Has the newest thread finish what it has in hand; does not wait.

    Raises:
      ValueError: there are no more than the least.
    """
    with self._lock:
      if len(self._members) <= self._least:
        raise ValueError(
          f'{len(self._members)} {self._name} threads cannot become fewer.'
        )
      member = self._members.pop()
      self._leaving.add(member)
      member.leaving = True

  def _run(self, member: Member) -> None:
    try:
      self._work(member)
    finally:
      with self._lock:
        self._leaving.discard(member)
