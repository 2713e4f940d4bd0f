"""What a learner answers to actors that are environments only.

It evaluates the agent for them, as SEED RL's does (Espeholt et al., 2020): what
environments show comes in, what they are to do goes out. The agent's state and
the unrolls stay here.
"""

from collections.abc import Callable
from typing import Any

from scalable_agent import actor as actor_lib
from scalable_agent import structures
from scalable_agent.transport import (
  learner_service,
  protocol,
  rpc,
  sessions,
)


class _Actor(sessions.Actor):
  """One whose environments are elsewhere.

  Attributes:
    unroller: acts for it.
  """

  unroller: actor_lib.Unroller


class StepService(learner_service.LearnerService):
  """Acts for environments of a step_codec.Layout, into an UnrollQueue."""

  cargo = 'observation'
  inference = 'learner'
  make_actor = _Actor

  def __init__(
    self,
    *,
    make_unroller: Callable[[int, int], actor_lib.Unroller],
    most_columns: int,
    record_unroll: Callable[[structures.ActorOutput], None],
    **arguments: Any,
  ):
    """Initialises.

    Args:
      make_unroller: makes what acts, given the number of environments and the
        index of their level; its policy raises queues.Closed, too.
      most_columns: that the policy takes at a time.
      record_unroll: told of every unroll; see UnrollService.
      **arguments: of the base class.
    """
    # No weights travel.
    super().__init__(**(arguments | {'weights_description': []}))
    self._make_unroller = make_unroller
    self._most_columns = most_columns
    self._record_unroll = record_unroll

  def handlers(self) -> dict[str, Callable[[bytes], bytes]]:
    """See base class."""
    return super().handlers() | {'step': self._step}

  def _begun(self, actor: Any, columns: int) -> None:
    if columns > self._most_columns:
      raise rpc.Refused(
        f'--envs_per_actor={columns} of actor {actor.task} exceed the '
        f"learner's --inference_maximum_batch_size={self._most_columns}. Lower "
        'one, or raise the other'
      )
    actor.unroller = self._make_unroller(columns, self._level_of(actor))

  def _step(self, request: bytes) -> bytes:
    header = protocol.SESSION
    (session,) = learner_service.header_of(header, request)
    with self._sending(session) as actor:
      env_output = self._layout.read(request, header.size, actor.columns)
      self._record(len(request), actor.columns)
      unroll = actor.unroller.observe(env_output)
      if unroll is not None:
        self._record_unroll(unroll)
        self._queue.put(unroll, actor.task)
      return self._layout.write_action(actor.unroller.act())
