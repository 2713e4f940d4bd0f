"""What a learner answers to actors that send unrolls: IMPALA's."""

from collections.abc import Callable
from typing import Any

from scalable_agent import structures
from scalable_agent.transport import (
  learner_service,
  protocol,
  rpc,
  sessions,
  unroll_codec,
)


class _Actor(sessions.Actor):
  """One that sends streams of unrolls."""

  def __init__(self, *args: Any):
    super().__init__(*args)
    self.streams = 0
    self.decoders: dict[int, unroll_codec.Decoder] = {}


class UnrollService(learner_service.LearnerService):
  """Takes unrolls, into an UnrollQueue."""

  cargo = 'unroll'
  make_actor = _Actor

  def __init__(
    self,
    *,
    layout: unroll_codec.Layout,
    skip_frames: Callable[..., Any],
    record_unroll: Callable[[structures.ActorOutput], None],
    **arguments: Any,
  ):
    """Initialises.

    Args:
      layout: of the unrolls.
      skip_frames: of the agent, see networks.Agent.skip_frames.
      record_unroll: told of every unroll, too. What it raised would be answered
        to an actor, whose fault it is not.
      **arguments: of the base class.
    """
    super().__init__(layout=layout, **arguments)
    self._skip_frames = skip_frames
    self._record_unroll = record_unroll
    self._max_columns = layout.columns_per_message(
      rpc.MAX_BYTES - protocol.UNROLL.size
    )

  def handlers(self) -> dict[str, Callable[[bytes], bytes]]:
    """See base class."""
    return super().handlers() | {'unroll': self._unroll}

  def _begun(self, actor, columns: int) -> None:
    # Not more, as the learner keeps the latest frames of each.
    actor.streams = -(-columns // self._max_columns)

  def _gone(self, actor) -> None:
    actor.streams = 0

  def _unroll(self, request: bytes) -> bytes:
    session, stream = learner_service.unpack(protocol.UNROLL, request)
    actor = self._sessions.find(session)
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
      self._check_version(unroll.policy_version[0])
      if unroll.level[0] != self._level_of(actor):
        raise rpc.Refused(f'actor {actor.task} plays another level')
      self._enqueue(
        actor,
        columns,
        lambda: self._queue.put(unroll, actor.task, wait=False),
      )
    self._record_unroll(unroll)
    self._record(len(request), columns * self._layout.unroll_length)
    return protocol.TAKEN
