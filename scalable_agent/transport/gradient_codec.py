"""Gradients as bytes, with what reports need of the unroll that they are of.

All arrays, one behind the other, in an order that both sides agree on: of what
a message has to say only the numbers travel.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tree

from scalable_agent import gradients, structures
from scalable_agent.transport import protocol, rpc, weights
from scalable_agent.transport.malformed import Malformed, check_steps

# Of a piece of them.
MAX_BYTES = rpc.MAX_BYTES - protocol.GRADIENTS.size


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
    self._specs = specs
    # Of one step of one environment.
    self._steps = _reported(
      structures.step_output_spec(spec),
      structures.agent_output_spec(spec.action_space),
    )

  def describe(self) -> list[list]:
    """Returns [name, shape, dtype] of every array, as JSON-able data."""
    named = {'gradients': self._specs, 'unroll': self._steps}
    return [
      [
        '/'.join(map(str, path)),
        [int(n) for n in one.shape],
        tf.as_dtype(one.dtype).name,
      ]
      for path, one in tree.flatten_with_path(named)
    ]

  def num_bytes(self, columns: int) -> int:
    """Returns the length of what `write` makes of an unroll of E columns."""
    return weights.num_bytes(tree.flatten(self._arrays(columns)))

  def write(
    self, given: gradients.Gradients, unroll: structures.ActorOutput
  ) -> bytes:
    """Returns the bytes of gradients and of the unroll that they are of."""
    steps = _reported(unroll.env_outputs, unroll.agent_outputs)
    return weights.to_bytes(tree.flatten((given, steps)))

  def read(
    self, data: bytes, columns: int, level: int
  ) -> tuple[gradients.Gradients, structures.ActorOutput]:
    """Returns what `write` was given.

    Args:
      data: of gradients, which may be any numbers but for their metric
        `num_transitions`: it must be the unroll's.
      columns: E, of the unroll.
      level: index of the level that was played.

    Returns:
      The gradients, and an unroll of numpy [T + 1, E] that has no more than
      reports need.

    Raises:
      Malformed: the bytes are none of these, or of an unroll that no actor
        makes.
    """
    arrays = self._arrays(columns)
    try:
      values = weights.from_bytes(tree.flatten(arrays), data)
    except ValueError as error:
      raise Malformed(str(error)) from error
    given, (env_outputs, agent_outputs) = tree.unflatten_as(arrays, values)
    self._check(env_outputs, agent_outputs)
    count = gradients.num_transitions(env_outputs.step_type)
    said = float(given.metrics['num_transitions'])
    if said != count:
      raise Malformed(f'{said} transitions in an unroll of {count}')
    return given, structures.ActorOutput(
      agent_state=(),
      env_outputs=env_outputs,
      agent_outputs=agent_outputs,
      policy_version=(),
      level=np.full([columns], level, np.int32),
    )

  def _arrays(self, columns: int) -> Any:
    steps = self.unroll_length + 1, columns
    return self._specs, tree.map_structure(
      lambda x: tf.TensorSpec((*steps, *x.shape), tf.as_dtype(x.dtype)),
      self._steps,
    )

  def _check(self, env_outputs, agent_outputs) -> None:
    check_steps(env_outputs, agent_outputs, self._action_space)
    if not np.isfinite(env_outputs.info.episode_return).all():
      raise Malformed('an episode return that is not finite')


def _reported(env_outputs: Any, agent_outputs: Any) -> Sequence[Any]:
  """Returns the two without what reports have no use for."""
  return (
    env_outputs._replace(reward=(), discount=(), observation=()),
    agent_outputs._replace(policy_logits=(), baseline=()),
  )
