"""What a learner answers to actors that send gradients: A3C's."""

from collections.abc import Callable
from typing import Any

from scalable_agent import gradient_queue
from scalable_agent.transport import (
  gradient_codec,
  learner_service,
  protocol,
  rpc,
  sessions,
)


class _Actor(sessions.Actor):
  """One that sends gradients, in pieces.

  Attributes:
    pieces_of: version of the weights that they are of.
    received: pieces so far, of those that it is sending; never more than one
      set, and none before it was told to send.
  """

  def __init__(self, *args: Any):
    super().__init__(*args)
    self.pieces_of = -1
    self.received: list[bytes] = []


class GradientService(learner_service.LearnerService):
  """Takes gradients: of a gradient_codec.Layout, into a GradientQueue."""

  cargo = 'gradient'
  make_actor = _Actor

  def handlers(self) -> dict[str, Callable[[bytes], bytes]]:
    """See base class."""
    return super().handlers() | {'gradients': self._gradients}

  def _begun(self, actor, columns: int) -> None:
    actor.received = []

  def _gone(self, actor) -> None:
    actor.received = []

  def _gradients(self, request: bytes) -> bytes:
    header = protocol.GRADIENTS
    session, version, index = learner_service.unpack(header, request)
    actor = self._sessions.find(session)
    with actor.lock:
      try:
        self._take(actor, version, index, request[header.size :])
      except rpc.Refused:
        actor.received = []
        raise
    self._record(len(request), 0)
    return protocol.TAKEN

  def _take(self, actor: Any, version: int, index: int, piece: bytes) -> None:
    columns = actor.columns
    if not columns or actor.may_send < columns:
      raise rpc.Refused(f'actor {actor.task} was not told to send this')
    self._check_version(version)
    if index == 0:
      actor.pieces_of, actor.received = version, []
    due = actor.pieces_of, len(actor.received)
    if (version, index) != due:
      raise rpc.Refused(
        f'piece {index} of gradients of version {version} came when piece '
        f'{due[1]} of version {due[0]} was due'
      )
    most = gradient_codec.MAX_BYTES
    rest = self._layout.num_bytes(columns) - index * most
    if len(piece) != min(rest, most):
      raise rpc.Refused(
        f'actor {actor.task} sent no gradients: {len(piece)} bytes in piece '
        f'{index} instead of {min(rest, most)}'
      )
    actor.received.append(piece)
    if rest > most:
      self._admission.arrived(actor.task, more=True)
      return
    data, actor.received = b''.join(actor.received), []
    try:
      given, unroll = self._layout.read(data, columns, self._level_of(actor))
    except gradient_codec.Malformed as error:
      reason = f'actor {actor.task} sent no gradients: {error}'
      raise rpc.Refused(reason) from error
    computed = gradient_queue.Computed(given, version, unroll)
    self._enqueue(actor, columns, lambda: self._queue.put(computed))
    self._record(0, columns * self._layout.unroll_length)
