"""Gradients as bytes, with what reports need of the unroll that they are of.

All arrays, one behind the other, in an order that both sides agree on: of what
a message has to say only the numbers travel.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tree

from scalable_agent import gradients, structures
from scalable_agent.transport import malformed, packing


class Layout:
  """Which arrays there are, for unrolls of any number of columns.

  Attributes:
    unroll_length: T, agent steps.
  """

  def __init__(
    self,
    specs: gradients.Gradients,
    spec: structures.EnvironmentSpec,
    unroll_length: int,
  ):
    """Initialises.

    Args:
      specs: of `gradients.GradientFunction.specs`.
      spec: of the environment.
      unroll_length: T, agent steps.
    """
    self.unroll_length = unroll_length
    self._action_space = spec.action_space
    self._specs = tree.map_structure(packing.spec_of, specs)
    # Of one step of one environment.
    self._steps = _reported(
      structures.step_output_spec(spec),
      structures.agent_output_spec(spec.action_space),
    )

  def describe(self) -> list[list]:
    """Returns [name, shape, dtype] of every array, as JSON-able data."""
    return packing.describe({'gradients': self._specs, 'unroll': self._steps})

  def num_bytes(self, columns: int) -> int:
    """Returns the length of what `write` makes of an unroll of E columns."""
    return packing.num_bytes(tree.flatten(self._arrays(columns)))

  def write(
    self,
    given: gradients.Gradients,
    unroll: structures.ActorOutput,
    header: bytes = b'',
  ) -> bytes:
    """Returns a header, the bytes of gradients, and of their unroll."""
    steps = _reported(unroll.env_outputs, unroll.agent_outputs)
    specs = self._arrays(len(unroll.level))
    return packing.pack(
      tree.flatten(specs), tree.flatten((given, steps)), header
    )

  def read(
    self, message: bytes, offset: int, columns: int, level: int
  ) -> tuple[gradients.Gradients, structures.ActorOutput]:
    """Returns what `write` was given.

    Args:
      message: of `write`, with gradients that may be any numbers but for their
        metric `num_transitions`: it must be the unroll's.
      offset: bytes of its header.
      columns: E, of the unroll.
      level: index of the level that was played.

    Returns:
      The gradients, and an unroll of numpy [T + 1, E] that has no more than
      reports need.

    Raises:
      Malformed: the bytes are none of these, or of an unroll that no actor
        makes.
    """
    specs = self._arrays(columns)
    arrays = packing.unpack(tree.flatten(specs), message, offset)
    given, (env_outputs, agent_outputs) = tree.unflatten_as(specs, arrays)
    malformed.check_steps(env_outputs)
    malformed.check_actions(agent_outputs.action, self._action_space)
    malformed.check_finite(env_outputs.info)
    count = gradients.num_transitions(env_outputs.step_type)
    said = float(given.metrics['num_transitions'])
    if said != count:
      raise malformed.Malformed(f'{said} transitions in an unroll of {count}')
    return given, structures.ActorOutput(
      agent_state=(),
      env_outputs=env_outputs,
      agent_outputs=agent_outputs,
      policy_version=(),
      level=np.full([columns], level, np.int32),
    )

  def _arrays(self, columns: int) -> Any:
    return self._specs, tree.map_structure(
      lambda x: packing.with_axes(x, self.unroll_length + 1, columns),
      self._steps,
    )


def _reported(env_outputs: Any, agent_outputs: Any) -> Sequence[Any]:
  """Returns the two without what reports have no use for."""
  return (
    env_outputs._replace(reward=(), discount=(), observation=()),
    agent_outputs._replace(policy_logits=(), baseline=()),
  )
