"""What a learner answers to actors that send gradients: A3C's."""

from collections.abc import Callable

from scalable_agent import gradient_queue
from scalable_agent.transport import learner_service, protocol


class GradientService(learner_service.LearnerService):
  """Takes gradients of a gradient_codec.Layout, into a GradientQueue."""

  cargo = 'gradient'

  def handlers(self) -> dict[str, Callable[[bytes], bytes]]:
    """See base class."""
    return super().handlers() | {'gradients': self._gradients}

  def _gradients(self, request: bytes) -> bytes:
    header = protocol.VERSIONED
    session, version = learner_service.header_of(header, request)
    with self._sending(session) as actor:
      self._check_version(version)
      given, unroll = self._layout.read(
        request, header.size, actor.columns, self._level_of(actor)
      )
      agent_steps = actor.columns * self._layout.unroll_length
      self._record(len(request), agent_steps)
      self._queue.put(gradient_queue.Computed(given, version, unroll))
    return b''
