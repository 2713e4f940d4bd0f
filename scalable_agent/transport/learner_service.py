"""What a learner answers to its actors; see `protocol`.

Nothing here waits: calls are answered by a few threads, and one that waited for
room in the queue would keep others from fetching weights. An actor with an
unroll is told to send it, or when to ask again. That is the back-pressure.
"""

import math
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from absl import logging

import scalable_agent
from scalable_agent import structures, unroll_queue
from scalable_agent.transport import (
  admission,
  protocol,
  rpc,
  unroll_codec,
  weights,
)

# Seconds without a word after which an actor does not count as running.
_SILENCE = 30.0


class _Actor:
  """What the learner knows of one actor."""

  def __init__(self, task: int, session: int, previous: '_Actor | None'):
    self.task = task
    self.session = session
    # Sessions of processes whose place was taken.
    self.replaced: frozenset[int] = (
      previous.replaced | {previous.session} if previous else frozenset()
    )
    self.starts: int = previous.starts + 1 if previous else 0
    self.lock = threading.Lock()  # Of the decoders.
    self.columns = 0  # 0: has not begun, or has failed.
    self.streams = 0
    self.decoders: dict[int, unroll_codec.Decoder] = {}
    self.may_send = 0  # Columns.
    self.pieces: tuple[int, list[bytes]] = (-1, [])
    self.seen = 0.0
    self.told = False


class LearnerService:
  """Registers actors, hands out weights and takes unrolls.

  Attributes:
    num_expected: actors that belong to this learner.
  """

  def __init__(
    self,
    *,
    options: Mapping[str, Any],
    num_actors: int,
    index: int,
    num_learners: int,
    num_levels: int,
    layout: unroll_codec.Layout,
    skip_frames: Callable[..., Any],
    weights_description: list[list],
    queue: unroll_queue.UnrollQueue,
    record_unroll: Callable[[structures.ActorOutput], None],
    clock: Callable[[], float] = time.monotonic,
  ):
    """Initialises; `publish` must be called before the first actor comes.

    Args:
      options: that actors must have, too, by name.
      num_actors: tasks of actors are below it.
      index: of this learner.
      num_learners: actor i comes to learner i modulo num_learners.
      num_levels: the actors of a learner take turns with the levels.
      layout: of the unrolls.
      skip_frames: of the agent, see networks.Agent.skip_frames.
      weights_description: of `weights.describe`.
      queue: where unrolls go.
      record_unroll: told of every unroll, too. What it raised would be answered
        to an actor, whose fault it is not.
      clock: seconds, monotonic.
    """
    self._options = dict(options)
    self.num_expected = len(range(index, num_actors, num_learners))
    self._num_actors = num_actors
    self._index = index
    self._num_learners = num_learners
    self._num_levels = num_levels
    self._layout = layout
    self._skip_frames = skip_frames
    self._weights_description = weights_description
    self._queue = queue
    self._record_unroll = record_unroll
    self._clock = clock
    self._max_columns = layout.columns_per_message(
      rpc.MAX_BYTES - protocol.UNROLL.size
    )
    self._actors: dict[int, _Actor] = {}  # By task.
    self._lock = threading.Lock()  # Held for moments only.
    self._pieces_lock = threading.Lock()
    self._snapshot = weights.Snapshot(-1, ())
    self._pieces: tuple[int, list[bytes]] = (-1, [])
    self._frames = 0
    self._admission = admission.Admission(
      lambda: len(queue), queue.capacity, clock
    )
    self._finished = False
    self._failures = 0
    self._bytes = {'unrolls': 0, 'weights': 0}
    self._agent_steps = 0

  def handlers(self) -> dict[str, Callable[[bytes], bytes]]:
    """Returns what an rpc.Server is to answer with."""
    return {
      'register': self._register,
      'begin': self._begin,
      'weights': self._weights,
      'ready': self._ready,
      'unroll': self._unroll,
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
    with self._lock:
      actors = list(self._actors.values())
      # Those that have not begun yet would wait for this learner in vain, too.
      told = all(a.told or not self._is_heard_of(a) for a in actors)
      return told and (not everybody or len(actors) >= self.num_expected)

  def silence(self) -> float:
    """Returns seconds since any actor was heard of; infinite if none was."""
    with self._lock:
      heard = [actor.seen for actor in self._actors.values()]
    return self._clock() - max(heard, default=-math.inf)

  def gauges(self) -> dict[str, Any]:
    """Returns numbers for TensorBoard."""
    with self._lock:
      running = sum(map(self._is_running, self._actors.values()))
      return {
        'actors': running,
        'actors/failures': self._failures,
        'actors/agent_steps': self._agent_steps,
        'actors/unroll_bytes': self._bytes['unrolls'],
        'actors/weight_bytes': self._bytes['weights'],
      }

  def _is_running(self, actor: _Actor) -> bool:
    return actor.columns > 0 and self._is_heard_of(actor)

  def _is_heard_of(self, actor: _Actor) -> bool:
    return self._clock() - actor.seen < _SILENCE

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
    with self._lock:
      self._admission.leave(task)
      actor = _Actor(task, secrets.randbits(63), self._actors.get(task))
      actor.seen = self._clock()
      self._actors[task] = actor
    return protocol.to_json(
      session=actor.session, frames=self._frames, starts=actor.starts
    )

  def _begin(self, request: bytes) -> bytes:
    values = _parse(request)
    actor = self._find(values.get('session'))
    differences = (
      protocol.difference(
        self._layout.describe(), values.get('layout'), 'unrolls'
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
    # Not more, as the learner keeps the latest frames of each.
    actor.streams = -(-columns // self._max_columns)
    actor.columns = columns
    logging.info(
      'Actor %d has joined%s.', actor.task, ' again' if actor.starts else ''
    )
    return protocol.to_json()

  def _weights(self, request: bytes) -> bytes:
    session, has, version, index = _unpack(protocol.WEIGHTS_REQUEST, request)
    actor = self._find(session)
    if self._finished:
      actor.told = True
      return protocol.WEIGHTS_ANSWER.pack(has, 0, True)
    if version == -1:
      snapshot = self._snapshot
      if snapshot.version == has:
        return protocol.WEIGHTS_ANSWER.pack(has, 0, False)
      # Kept until this actor has all of it, however slow its network is.
      actor.pieces = self._pieces_of(snapshot)
    held, pieces = actor.pieces
    if version not in (-1, held) or index >= len(pieces):
      raise rpc.Refused(f'there is no piece {index} of weights {version}')
    version = held
    piece = pieces[index]
    if index == len(pieces) - 1:
      actor.pieces = (-1, [])
    with self._lock:
      self._bytes['weights'] += len(piece)
    return protocol.WEIGHTS_ANSWER.pack(version, len(pieces), False) + piece

  def _pieces_of(self, snapshot: weights.Snapshot) -> tuple[int, list[bytes]]:
    """Serialises a version once for all actors that ask for it."""
    with self._pieces_lock:
      if self._pieces[0] < snapshot.version:
        data = weights.to_bytes(snapshot.values)
        limit = rpc.MAX_BYTES - protocol.WEIGHTS_ANSWER.size
        self._pieces = snapshot.version, weights.split(data, limit)
      return self._pieces

  def _ready(self, request: bytes) -> bytes:
    (session,) = _unpack(protocol.SESSION, request)
    actor = self._find(session)
    if self._finished:
      actor.told = True
      return protocol.READY_ANSWER.pack(0, True)
    if not actor.columns:
      raise rpc.Refused(f'actor {actor.task} has not begun')
    wait = self._admission.ask(actor.task)
    if not wait:
      actor.may_send = actor.columns
    return protocol.READY_ANSWER.pack(int(wait * 1000), False)

  def _unroll(self, request: bytes) -> bytes:
    session, stream = _unpack(protocol.UNROLL, request)
    actor = self._find(session)
    if stream >= actor.streams:
      raise rpc.Refused(f'there is no stream {stream}')
    with actor.lock:
      decoder = actor.decoders.get(stream)
      if decoder is None:
        decoder = unroll_codec.Decoder(
          self._layout, self._skip_frames, self._max_columns
        )
        actor.decoders[stream] = decoder
      try:
        unroll = decoder.decode(memoryview(request)[protocol.UNROLL.size :])
      except unroll_codec.OutOfStep:
        return protocol.RESTART
      except unroll_codec.Malformed as error:
        reason = f'actor {actor.task} sent no unroll: {error}'
        raise rpc.Refused(reason) from error
      columns = len(unroll.level)
      if columns > actor.may_send:
        raise rpc.Refused(f'actor {actor.task} was not told to send this')
      if not 0 <= unroll.policy_version[0] <= self._snapshot.version:
        raise rpc.Refused('a policy version that does not exist')
      if unroll.level[0] != self._level_of(actor):
        raise rpc.Refused(f'actor {actor.task} plays another level')
      try:
        self._queue.put(unroll, actor.task, wait=False)
      except unroll_queue.Closed:
        if not self._finished:
          raise rpc.Refused(protocol.STOPPING) from None
      # Not before it counts as waiting in the queue, or its place would seem
      # free for a moment.
      actor.may_send -= columns
      self._admission.arrived(actor.task, more=actor.may_send > 0)
    self._record_unroll(unroll)
    with self._lock:
      self._bytes['unrolls'] += len(request)
      self._agent_steps += columns * self._layout.unroll_length
    return protocol.TAKEN

  def _level_of(self, actor: _Actor) -> int:
    return protocol.level_of(actor.task, self._num_learners, self._num_levels)

  def _failed(self, request: bytes) -> bytes:
    values = _parse(request)
    actor = self._find(values.get('session'))
    with self._lock:
      self._failures += 1
      actor.columns = actor.streams = actor.may_send = 0
      self._admission.leave(actor.task)
      actor.told = True  # It will not ask again.
    message = rpc.printable(str(values.get('message')))
    logging.error('Actor %d failed: %s', actor.task, message)
    return protocol.to_json()

  def _find(self, session: Any) -> _Actor:
    """Returns the actor of a session, which has been heard of just now."""
    if not isinstance(session, int):
      raise rpc.Refused('a message without a session')
    with self._lock:
      for actor in self._actors.values():
        if actor.session == session:
          actor.seen = self._clock()
          return actor
        if session in actor.replaced:
          raise rpc.Refused(
            f'another process with --task={actor.task} has taken its place'
          )
    raise rpc.Refused(protocol.UNKNOWN)


def _parse(request: bytes) -> dict[str, Any]:
  try:
    return protocol.from_json(request)
  except ValueError as error:
    raise rpc.Refused(f'not a message of an actor: {error}') from error


def _unpack(header, request: bytes) -> tuple:
  if len(request) < header.size:
    raise rpc.Refused('not a message of an actor')
  return header.unpack_from(request)
