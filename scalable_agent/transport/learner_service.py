"""What a learner answers to its actors; see `protocol`.

What is the same whatever actors send; what they do is for `unroll_service`,
`gradient_service` and `step_service`.

A call may wait: for room in the queue, which is what slows actors down to the
pace of the learner.
"""

import contextlib
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from absl import logging

import scalable_agent
from scalable_agent import queues
from scalable_agent.transport import (
  malformed,
  packing,
  protocol,
  rpc,
  sessions,
  weights,
)

# Of one actor.
_MOST_COLUMNS = 2**16


class Layout(Protocol):
  """Which arrays actors send."""

  def describe(self) -> list[list]: ...


class LearnerService:
  """Registers actors, and hands out weights.

  Attributes:
    num_expected: actors that belong to this learner.
  """

  # Of what is sent, under which it is counted.
  cargo = ''
  # Who evaluates the agent.
  inference = 'actor'
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
    self._packed = weights.Packed()
    self._frames = 0
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
    # What an actor leaves open is the learner's to say.
    left_open = {n: v for n, v in self._options.items() if _is_open(options, n)}
    differ = [
      f'--{name} is {own} at the learner and {options.get(name)} at actor '
      f'{task}'
      for name, own in self._options.items()
      if name not in left_open and options.get(name) != own
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
    actor = self._sessions.register(task)
    self._check_going_on(actor)
    return protocol.to_json(
      session=actor.session,
      frames=self._frames,
      starts=actor.starts,
      options=left_open,
      inference=self.inference,
    )

  def _begin(self, request: bytes) -> bytes:
    values = _parse(request)
    with self._sessions.call(values.get('session')) as actor:
      self._check_going_on(actor)
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
      if not isinstance(columns, int) or not 1 <= columns <= _MOST_COLUMNS:
        raise rpc.Refused(f'--envs_per_actor={columns} cannot be')
      self._begun(actor, columns)
      self._sessions.begin(actor)
      actor.columns = columns
      logging.info(
        'Actor %d has joined%s.', actor.task, ' again' if actor.starts else ''
      )
    return protocol.to_json()

  def _weights(self, request: bytes) -> bytes:
    session, has = header_of(protocol.VERSIONED, request)
    with self._sessions.call(session) as actor:
      self._check_going_on(actor)
      snapshot = self._snapshot
      if snapshot.version == has:
        return protocol.WEIGHTS_ANSWER.pack(has)
      version, data = self._packed.of(snapshot)
      with self._lock:
        self._bytes['weight'] += len(data)
      return protocol.WEIGHTS_ANSWER.pack(version) + data

  # What actors send.

  def _begun(self, actor: Any, columns: int) -> None:
    """Takes note of an actor that sends so many columns; may refuse it."""

  @contextlib.contextmanager
  def _sending(self, session: int) -> Iterator[Any]:
    """Yields the actor of a session that sends something.

    Raises:
      rpc.Over, rpc.Again: it is to stop, or to come back.
      rpc.Refused: it has not begun, or has sent something else.
    """
    with self._sessions.call(session) as actor:
      self._check_going_on(actor)
      if not actor.columns:
        raise rpc.Refused(f'actor {actor.task} has not begun')
      try:
        yield actor
      except malformed.Malformed as error:
        raise rpc.Refused(
          f'actor {actor.task} sent no {self.cargo}: {error}'
        ) from error
      except queues.Closed:
        self._check_going_on(actor)
        raise rpc.Again(protocol.STOPPING) from None

  def _check_going_on(self, actor: Any) -> None:
    if self._finished:
      actor.told = True
      raise rpc.Over('training is over')

  def _check_version(self, version: int) -> None:
    if not 0 <= version <= self._snapshot.version:
      raise malformed.Malformed('a policy version that does not exist')

  def _record(self, num_bytes: int, agent_steps: int) -> None:
    with self._lock:
      self._bytes[self.cargo] += num_bytes
      self._agent_steps += agent_steps

  def _level_of(self, actor: Any) -> int:
    return protocol.level_of(actor.task, self._num_learners, self._deal)

  def _failed(self, request: bytes) -> bytes:
    values = _parse(request)
    with self._sessions.call(values.get('session')) as actor:
      with self._lock:
        self._failures += 1
      actor.columns = 0
      actor.told = True  # It will not ask again.
      message = rpc.printable(str(values.get('message')))
      logging.error('Actor %d failed: %s', actor.task, message)
    return protocol.to_json()


def _is_open(options: Mapping[str, Any], name: str) -> bool:
  return options.get(name) == protocol.AUTO


def _parse(request: bytes) -> dict[str, Any]:
  try:
    return protocol.from_json(request)
  except ValueError as error:
    raise rpc.Refused(f'not a message of an actor: {error}') from error


def header_of(header: struct.Struct, request: bytes) -> tuple:
  """Returns the fields of a header; raises rpc.Refused if there is none."""
  try:
    return packing.header_of(header, request)
  except malformed.Malformed as error:
    raise rpc.Refused(f'not a message of an actor: {error}') from error
