"""Which actors a learner knows, and when it last heard of them."""

import collections
import contextlib
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from scalable_agent.transport import protocol, rpc

# Seconds without a word after which an actor does not count as running.
_SILENCE = 30.0
# Processes whose place was taken, and that are told so.
_REMEMBERED = 4096


class Actor:
  """What the learner knows of one actor.

  Attributes:
    task: of the actor.
    session: by which it is known since it registered.
    starts: registrations with this task before.
    columns: E; 0 as long as it has not begun, and once it has failed.
    told: whether it knows that there is nothing more to do.
  """

  def __init__(self, task: int, session: int, starts: int):
    self.task = task
    self.session = session
    self.starts = starts
    self.columns = 0
    self.told = False
    self.seen = 0.0
    self.calling = threading.Lock()  # Held during a call.


class Sessions:
  """The actors of a learner, one of each task; thread-safe."""

  def __init__(
    self,
    make_actor: Callable[[int, int, int], Any] = Actor,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Initialises.

    Args:
      make_actor: makes an Actor of a task, a session and earlier starts.
      clock: seconds, monotonic.
    """
    self._make_actor = make_actor
    self._clock = clock
    self._actors: dict[int, Any] = {}  # Those that have begun, by task.
    self._by_session: dict[int, Any] = {}
    # Those that have not, by session; the latest ones.
    self._newcomers: collections.OrderedDict[int, Any] = (
      collections.OrderedDict()
    )
    self._registrations: dict[int, int] = collections.defaultdict(int)
    # Tasks of processes whose place was taken, the latest ones.
    self._replaced: collections.OrderedDict[int, int] = (
      collections.OrderedDict()
    )
    self._lock = threading.Lock()  # Held for moments only.

  def __len__(self) -> int:
    return len(self._by_session)

  def register(self, task: int) -> Any:
    """Returns the Actor of a process that is about to begin."""
    with self._lock:
      session = secrets.randbits(63)
      actor = self._make_actor(task, session, self._registrations[task])
      self._registrations[task] += 1
      actor.seen = self._clock()
      self._newcomers[session] = self._by_session[session] = actor
      if len(self._newcomers) > _REMEMBERED:
        self._forget(next(iter(self._newcomers)))
    return actor

  def begin(self, actor: Any) -> None:
    """Has an actor take the place of any process before it.

    Not when it registers: that may come late, of a process that was killed or
    has lost its patience, and must not end the one at work.

    Args:
      actor: that calls.

    Raises:
      rpc.Again: one that registered later has begun meanwhile.
    """
    with self._lock:
      if actor.session not in self._by_session:
        raise rpc.Again(protocol.UNKNOWN)
      previous = self._actors.get(actor.task)
      if previous is actor:
        return
      self._actors[actor.task] = actor
      for session, other in list(self._newcomers.items()):
        if other.task == actor.task and other.starts < actor.starts:
          self._forget(session)
      del self._newcomers[actor.session]
      if previous:
        del self._by_session[previous.session]
        self._replaced[previous.session] = actor.task
        if len(self._replaced) > _REMEMBERED:
          self._replaced.popitem(last=False)

  def _forget(self, session: int) -> None:
    """Has a newcomer register again, should it still come."""
    del self._newcomers[session], self._by_session[session]

  @contextlib.contextmanager
  def call(self, session: Any) -> Iterator[Any]:
    """Yields the actor of a session, which calls as long as this lasts.

    Raises:
      rpc.Again: there is none any more.
      rpc.Refused: another process has its task, or it calls already.
    """
    actor = self._find(session)
    if not actor.calling.acquire(blocking=False):
      raise rpc.Refused(f'actor {actor.task} calls twice at a time')
    try:
      yield actor
    finally:
      actor.seen = self._clock()
      actor.calling.release()

  def _find(self, session: Any) -> Any:
    if not isinstance(session, int):
      raise rpc.Refused('a message without a session')
    with self._lock:
      actor = self._by_session.get(session)
      if session in self._replaced:
        raise rpc.Refused(
          f'another process with --task={self._replaced[session]} has taken '
          'its place'
        )
      if actor is None:
        raise rpc.Again(protocol.UNKNOWN)
      actor.seen = self._clock()
      return actor

  def all_told(self, least: int) -> bool:
    """Whether those that were heard of lately know that training is over.

    Args:
      least: number of actors that must have registered.
    """
    with self._lock:
      # Those that have not begun yet would wait for this learner in vain, too.
      told = all(a.told or not self._is_heard_of(a) for a in self._all())
      return told and len(self._registrations) >= least

  def silence(self) -> float:
    """Returns seconds since any actor was heard of; infinite if none was."""
    with self._lock:
      # One whose call lasts is heard of.
      if any(actor.calling.locked() for actor in self._all()):
        return 0.0
      heard = [actor.seen for actor in self._all()]
    return self._clock() - max(heard, default=-math.inf)

  def running(self) -> int:
    """Returns how many have begun and were heard of lately."""
    with self._lock:
      return sum(a.columns > 0 and self._is_heard_of(a) for a in self._all())

  def _all(self):
    return self._by_session.values()

  def _is_heard_of(self, actor: Actor) -> bool:
    return actor.calling.locked() or self._clock() - actor.seen < _SILENCE
