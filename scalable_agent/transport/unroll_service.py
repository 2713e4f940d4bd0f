"""What a learner answers to actors that send unrolls: IMPALA's."""

from collections.abc import Callable
from typing import Any

from scalable_agent import structures
from scalable_agent.transport import learner_service, protocol, rpc


class UnrollService(learner_service.LearnerService):
  """Takes unrolls of an unroll_codec.Layout, into an UnrollQueue."""

  cargo = 'unroll'

  def __init__(
    self,
    *,
    record_unroll: Callable[[structures.ActorOutput], None],
    **arguments: Any,
  ):
    """Initialises.

    Args:
      record_unroll: told of every unroll, too. What it raised would be answered
        to an actor, whose fault it is not.
      **arguments: of the base class.
    """
    super().__init__(**arguments)
    self._record_unroll = record_unroll

  def handlers(self) -> dict[str, Callable[[bytes], bytes]]:
    """See base class."""
    return super().handlers() | {'unroll': self._unroll}

  def _begun(self, actor: Any, columns: int) -> None:
    try:
      self._layout.check_size(columns)
    except ValueError as error:
      raise rpc.Refused(str(error)) from error

  def _unroll(self, request: bytes) -> bytes:
    header = protocol.VERSIONED
    session, version = learner_service.header_of(header, request)
    with self._sending(session) as actor:
      self._check_version(version)
      unroll = self._layout.read(
        request, header.size, actor.columns, version, self._level_of(actor)
      )
      self._record_unroll(unroll)
      agent_steps = actor.columns * self._layout.unroll_length
      self._record(len(request), agent_steps)
      self._queue.put(unroll, actor.task)
    return b''
