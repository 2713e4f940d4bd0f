"""Unrolls as bytes: each is whole, and stands for itself."""

from typing import Any

import numpy as np
import tree

from scalable_agent import networks, structures
from scalable_agent.transport import malformed, packing, rpc


class Layout:
  """Which arrays an unroll consists of, for any number of columns.

  Attributes:
    unroll_length: T, agent steps.
  """

  def __init__(
    self,
    spec: structures.EnvironmentSpec,
    initial_state: networks.AgentState,
    unroll_length: int,
  ):
    """Initialises.

    Args:
      spec: of the environment.
      initial_state: the agent's, for any number of columns.
      unroll_length: T, agent steps.
    """
    self.unroll_length = unroll_length
    self._action_space = spec.action_space
    self._state = tree.map_structure(
      lambda x: structures.TensorSpec(
        tuple(x.shape[1:]), packing.spec_of(x).dtype
      ),
      initial_state,
    )
    self._steps = (
      structures.step_output_spec(spec),
      structures.agent_output_spec(spec.action_space),
    )

  def describe(self) -> list[list]:
    """Returns [name, shape, dtype] of every array, as JSON-able data."""
    return packing.describe((self._state, *self._steps))

  def num_bytes(self, columns: int) -> int:
    """Returns the length of what `write` makes, without a header."""
    return packing.num_bytes(tree.flatten(self._specs(columns)))

  def write(self, unroll: structures.ActorOutput, header: bytes = b'') -> bytes:
    """Returns a header and the bytes of an unroll."""
    specs = tree.flatten(self._specs(len(unroll.level)))
    arrays = tree.flatten(
      (unroll.agent_state, (unroll.env_outputs, unroll.agent_outputs))
    )
    return packing.pack(specs, arrays, header)

  def read(
    self, message: bytes, offset: int, columns: int, version: int, level: int
  ) -> structures.ActorOutput:
    """Returns an unroll of numpy [T + 1, E, ...].

    Args:
      message: of `write`.
      offset: bytes of its header.
      columns: E.
      version: policy version that it is of.
      level: index of the level that was played.

    Raises:
      Malformed: the bytes are no unroll, or one that no actor makes.
    """
    specs = self._specs(columns)
    arrays = packing.unpack(tree.flatten(specs), message, offset)
    state, (env_outputs, agent_outputs) = tree.unflatten_as(specs, arrays)
    malformed.check_steps(env_outputs)
    malformed.check_actions(agent_outputs.action, self._action_space)
    malformed.check_finite((state, env_outputs, agent_outputs))
    return structures.ActorOutput(
      agent_state=state,
      env_outputs=env_outputs,
      agent_outputs=agent_outputs,
      policy_version=np.full([columns], version, np.int64),
      level=np.full([columns], level, np.int32),
    )

  def check_size(self, columns: int) -> None:
    """Raises ValueError, with the arithmetic, if no message takes an unroll.

    Args:
      columns: E.
    """
    total = self.num_bytes(columns)
    if total <= rpc.MAX_BYTES - 1024:
      return
    path, spec = max(
      tree.flatten_with_path(self._specs(columns)),
      key=lambda entry: packing.size_of(entry[1]),
    )
    product = ' x '.join(map(str, [*spec.shape, spec.dtype.itemsize]))
    raise ValueError(
      f'--unroll_length={self.unroll_length} and --envs_per_actor={columns}: '
      f'an unroll takes {total:,} bytes, of which {"/".join(map(str, path))} '
      f'{product} = {packing.size_of(spec):,}, and at most '
      f'{rpc.MAX_BYTES:,} travel in one message. Lower either of them, or '
      '--width and --height.'
    )

  def _specs(self, columns: int) -> Any:
    return (
      tree.map_structure(lambda x: packing.with_axes(x, columns), self._state),
      tree.map_structure(
        lambda x: packing.with_axes(x, self.unroll_length + 1, columns),
        self._steps,
      ),
    )
