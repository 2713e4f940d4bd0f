"""A link over which an actor sends gradients, as A3C's do."""

from collections.abc import Sequence
from typing import Any

from scalable_agent import gradients, structures
from scalable_agent.transport import (
  gradient_codec,
  learner_link,
  protocol,
  weights,
)


class GradientLink(learner_link.LearnerLink):
  """See base class."""

  cargo = 'gradients'

  def begin(
    self,
    layout: gradient_codec.Layout,
    columns: int,
    variables: Sequence[Any],
  ) -> None:
    """Agrees on what will be sent.

    Args:
      layout: of the gradients.
      columns: of the unrolls that they are of, E.
      variables: of the agent, to be set by `update_weights`.

    Raises:
      LinkError: the learner has another level, network or loss.
    """
    self._layout = layout
    self._agree(variables, layout=layout.describe(), columns=columns)

  def send(
    self, computed: gradients.Gradients, unroll: structures.ActorOutput
  ) -> None:
    """Sends gradients once the learner has room for them.

    Args:
      computed: of the newest weights.
      unroll: that they are of.
    """

    def transfer():
      version = int(unroll.policy_version[0])
      data = self._layout.write(computed, unroll)
      pieces = weights.split(data, gradient_codec.MAX_BYTES)
      for index, piece in enumerate(pieces):
        header = protocol.GRADIENTS.pack(self._session, version, index)
        self._client.call('gradients', header + piece)

    self._deliver(transfer)
