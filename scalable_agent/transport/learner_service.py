"""What a learner answers to its actors; see `protocol`.

What is the same whatever actors send; what they do is for `unroll_service` and
`gradient_service`.

Nothing here waits: calls are answered by a few threads, and one that waited for
room in the queue would keep others from fetching weights. An actor with an
unroll is told to send it, or when to ask again. That is the back-pressure.
"""

import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from absl import logging

import scalable_agent
from scalable_agent import queues
from scalable_agent.transport import (
  admission,
  protocol,
  rpc,
  sessions,
  weights,
)


class Layout(Protocol):
  """Which arrays actors send."""

  @property
  def unroll_length(self) -> int: ...
  def describe(self) -> list[list]: ...


class LearnerService:
  """Registers actors, hands out weights, and says who may send.

  Attributes:
    num_expected: actors that belong to this learner.
  """

  # Of what is sent, under which it is counted.
  cargo = ''
  # What is known of an actor.
  make_actor: Callable[..., Any] = sessions.Actor

  def __init__(
    self,
    *,
    options: Mapping[str, Any],
    num_actors: int,
    index: int,
    num_learners: int,
    deal: Sequence[int],
    weights_description: list[list],
    layout: Layout,
    queue: queues.ClosableQueue,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Initialises; `publish` must be called before the first actor comes.

    Args:
      options: that actors must have, too, by name.
      num_actors: tasks of actors are below it.
      index: of this learner.
      num_learners: actor i comes to learner i modulo num_learners.
      deal: indices of levels, with which the actors of a learner take turns.
      weights_description: of `weights.describe`.
      layout: of what actors send.
      queue: where it goes.
      clock: seconds, monotonic.
    """
    self._options = dict(options)
    self.num_expected = len(range(index, num_actors, num_learners))
    self._num_actors = num_actors
    self._index = index
    self._num_learners = num_learners
    self._deal = tuple(deal)
    self._weights_description = weights_description
    self._layout: Any = layout
    self._queue: Any = queue
    self._sessions = sessions.Sessions(self.make_actor, clock)
    self._lock = threading.Lock()  # Held for moments only.
    self._snapshot = weights.Snapshot(-1, ())
    self._pieces = weights.Pieces()
    self._frames = 0
    self._admission = admission.Admission(
      lambda: len(queue), queue.capacity, clock
    )
    self._finished = False
    self._failures = 0
    self._bytes = {self.cargo: 0, 'weight': 0}
    self._agent_steps = 0

  def handlers(self) -> dict[str, Callable[[bytes], bytes]]:
    """Returns what an rpc.Server is to answer with."""
    return {
      'register': self._register,
      'begin': self._begin,
      'weights': self._weights,
      'ready': self._ready,
      'failed': self._failed,
    }

  def publish(self, snapshot: weights.Snapshot, frames: int) -> None:
    """Has actors get these weights from now on."""
    self._snapshot, self._frames = snapshot, frames

  def finish(self) -> None:
    """Tells every actor that comes from now on that training is over."""
    self._finished = True

  def all_told(self, everybody: bool) -> bool:
    """Whether the actors know that training is over.

    Args:
      everybody: all num_actors; else those that have been heard of lately.
    """
    return self._sessions.all_told(self.num_expected if everybody else 0)

  def silence(self) -> float:
    """Returns seconds since any actor was heard of; infinite if none was."""
    return self._sessions.silence()

  def gauges(self) -> dict[str, Any]:
    """Returns numbers for TensorBoard."""
    running = self._sessions.running()
    with self._lock:
      return {
        'actors': running,
        'actors/failures': self._failures,
        'actors/agent_steps': self._agent_steps,
        **{f'actors/{k}_bytes': count for k, count in self._bytes.items()},
      }

  # Handlers.

  def _register(self, request: bytes) -> bytes:
    values = _parse(request)
    task = values.get('task')
    for name, own in (
      ('protocol', protocol.VERSION),
      ('version', scalable_agent.__version__),
    ):
      if values.get(name) != own:
        raise rpc.Refused(
          f'the learner has {name} {own}, actor {task} {values.get(name)}. '
          'Install the same version of scalable_agent for both.'
        )
    options = values.get('options')
    if not isinstance(options, dict):
      raise rpc.Refused('an actor without options')
    differ = [
      f'--{name} is {own} at the learner and {options.get(name)} at actor '
      f'{task}'
      for name, own in self._options.items()
      if options.get(name) != own
    ]
    if differ:
      raise rpc.Refused(
        f'{"; ".join(differ)}. Start both with the same options.'
      )
    if not isinstance(task, int) or not 0 <= task < self._num_actors:
      raise rpc.Refused(
        f'--task={task} is none of the --num_actors={self._num_actors} actors '
        f'(0 to {self._num_actors - 1})'
      )
    if task % self._num_learners != self._index:
      raise rpc.Refused(
        f'actor {task} belongs to learner {task % self._num_learners}, not '
        f'{self._index}. Give all processes the same --learner_address.'
      )
    actor = self._sessions.begin(task)
    self._admission.leave(task)
    return protocol.to_json(
      session=actor.session, frames=self._frames, starts=actor.starts
    )

  def _begin(self, request: bytes) -> bytes:
    values = _parse(request)
    actor = self._sessions.find(values.get('session'))
    differences = (
      protocol.difference(
        self._layout.describe(), values.get('layout'), f'{self.cargo}s'
      ),
      protocol.difference(
        self._weights_description, values.get('weights'), 'weights'
      ),
    )
    for difference in filter(None, differences):
      raise rpc.Refused(
        f'{difference}. Is the level or --network another version there?'
      )
    columns = values.get('columns')
    if not isinstance(columns, int) or not 1 <= columns <= 2**16:
      raise rpc.Refused(f'--envs_per_actor={columns} cannot be')
    self._begun(actor, columns)
    actor.columns = columns
    logging.info(
      'Actor %d has joined%s.', actor.task, ' again' if actor.starts else ''
    )
    return protocol.to_json()

  def _weights(self, request: bytes) -> bytes:
    session, has, version, index = unpack(protocol.WEIGHTS_REQUEST, request)
    actor = self._sessions.find(session)
    if self._finished:
      actor.told = True
      return protocol.WEIGHTS_ANSWER.pack(has, 0, True)
    if version == -1:
      snapshot = self._snapshot
      if snapshot.version == has:
        return protocol.WEIGHTS_ANSWER.pack(has, 0, False)
      # Kept until this actor has all of it, however slow its network is.
      limit = rpc.MAX_BYTES - protocol.WEIGHTS_ANSWER.size
      actor.pieces = self._pieces.of(snapshot, limit)
    held, pieces = actor.pieces
    if version not in (-1, held) or index >= len(pieces):
      raise rpc.Refused(f'there is no piece {index} of weights {version}')
    version = held
    piece = pieces[index]
    if index == len(pieces) - 1:
      actor.pieces = (-1, [])
    with self._lock:
      self._bytes['weight'] += len(piece)
    return protocol.WEIGHTS_ANSWER.pack(version, len(pieces), False) + piece

  def _ready(self, request: bytes) -> bytes:
    (session,) = unpack(protocol.SESSION, request)
    actor = self._sessions.find(session)
    if self._finished:
      actor.told = True
      return protocol.READY_ANSWER.pack(0, True)
    if not actor.columns:
      raise rpc.Refused(f'actor {actor.task} has not begun')
    wait = self._admission.ask(actor.task)
    if not wait:
      actor.may_send = actor.columns
    return protocol.READY_ANSWER.pack(int(wait * 1000), False)

  # What actors send.

  def _begun(self, actor: Any, columns: int) -> None:
    """Takes note of an actor that may send, of so many columns."""

  def _gone(self, actor: Any) -> None:
    """Takes note of an actor that has failed."""

  def _check_version(self, version: int) -> None:
    if not 0 <= version <= self._snapshot.version:
      raise rpc.Refused('a policy version that does not exist')

  def _enqueue(self, actor: Any, columns: int, put: Callable[[], None]) -> None:
    """Has what an actor has sent wait for the learner; under its lock."""
    try:
      put()
    except queues.Closed:
      if not self._finished:
        raise rpc.Refused(protocol.STOPPING) from None
    # Not before it counts as waiting in the queue, or its place would seem
    # free for a moment.
    actor.may_send -= columns
    self._admission.arrived(actor.task, more=actor.may_send > 0)

  def _record(self, num_bytes: int, agent_steps: int) -> None:
    with self._lock:
      self._bytes[self.cargo] += num_bytes
      self._agent_steps += agent_steps

  def _level_of(self, actor: Any) -> int:
    return protocol.level_of(actor.task, self._num_learners, self._deal)

  def _failed(self, request: bytes) -> bytes:
    values = _parse(request)
    actor = self._sessions.find(values.get('session'))
    with self._lock:
      self._failures += 1
      actor.columns = actor.may_send = 0
      self._gone(actor)
      self._admission.leave(actor.task)
      actor.told = True  # It will not ask again.
    message = rpc.printable(str(values.get('message')))
    logging.error('Actor %d failed: %s', actor.task, message)
    return protocol.to_json()


def _parse(request: bytes) -> dict[str, Any]:
  try:
    return protocol.from_json(request)
  except ValueError as error:
    raise rpc.Refused(f'not a message of an actor: {error}') from error


def unpack(header: struct.Struct, request: bytes) -> tuple:
  """Returns the fields of a header; raises rpc.Refused if there is none."""
  if len(request) < header.size:
    raise rpc.Refused('not a message of an actor')
  return header.unpack_from(request)
