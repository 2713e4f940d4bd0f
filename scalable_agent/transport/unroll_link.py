"""A link over which an actor sends unrolls, as IMPALA's do."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from scalable_agent import structures
from scalable_agent.transport import (
  learner_link,
  protocol,
  rpc,
  unroll_codec,
)


class UnrollLink(learner_link.LearnerLink):
  """See base class."""

  cargo = 'unrolls'

  def __init__(self, *args: Any):
    """Initialises; see base class."""
    super().__init__(*args)
    self._encoders: list[unroll_codec.Encoder] = []

  def begin(
    self,
    layout: unroll_codec.Layout,
    columns: int,
    variables: Sequence[Any],
  ) -> None:
    """Agrees on what will be sent.

    Args:
      layout: of the unrolls.
      columns: of each unroll, E.
      variables: of the agent, to be set by `update_weights`.

    Raises:
      LinkError: the learner has another level or network, or not even one
        trajectory fits into a message.
    """
    pieces = -(-columns // check_size(layout))
    self._encoders = [unroll_codec.Encoder(layout) for _ in range(pieces)]
    self._agree(variables, layout=layout.describe(), columns=columns)

  def send(self, unroll: structures.ActorOutput) -> None:
    """Sends an unroll once the learner has room for it."""

    def transfer():
      pieces = unroll_codec.split(unroll, len(self._encoders))
      for stream, encoder in enumerate(self._encoders):
        self._send_piece(stream, encoder, pieces[stream])

    self._deliver(transfer)

  def _restart(self) -> None:
    for encoder in self._encoders:
      encoder.restart()

  def _send_piece(self, stream, encoder, piece) -> None:
    header = protocol.UNROLL.pack(self._session, stream)
    for _ in range(2):
      answer = self._client.call('unroll', header + encoder.encode(piece))
      if answer == protocol.TAKEN:
        return
      encoder.restart()
    raise rpc.Refused('the learner does not take a whole unroll')


def check_size(layout: unroll_codec.Layout) -> int:
  """Returns how many trajectories fit into a message.

  Raises:
    LinkError: not even one does; the message has the arithmetic.
  """
  max_bytes = rpc.MAX_BYTES - protocol.UNROLL.size
  fit = layout.columns_per_message(max_bytes)
  if fit:
    return fit
  entries = layout.describe()
  name, shape, dtype = max(entries, key=lambda e: layout.bytes_of(e[0]))
  size = np.dtype(dtype).itemsize
  product = ' x '.join(map(str, [layout.unroll_length + 1, *shape, size]))
  raise learner_link.LinkError(
    f'--unroll_length={layout.unroll_length}: one trajectory takes '
    f'{layout.num_bytes(1, whole=True):,} bytes, of which {name} {product} = '
    f'{layout.bytes_of(name):,}, and gRPC takes at most {max_bytes:,} in one '
    'message. Lower --unroll_length, --width or --height.'
  )
