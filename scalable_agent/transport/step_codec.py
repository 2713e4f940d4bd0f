"""What environments show and are told, one agent step at a time, as bytes."""

import numpy as np
import tree

from scalable_agent import structures
from scalable_agent.transport import malformed, packing


class Layout:
  """Which arrays a step consists of, for any number of columns."""

  def __init__(self, spec: structures.EnvironmentSpec):
    """Initialises.

    Args:
      spec: of the environment.
    """
    self._space = spec.action_space
    self._step = structures.step_output_spec(spec)
    self._action = structures.TensorSpec(self._space.shape, self._space.dtype)

  def describe(self) -> list[list]:
    """Returns [name, shape, dtype] of every array, as JSON-able data."""
    return packing.describe((self._step, self._action))

  def write(
    self, env_output: structures.StepOutput, header: bytes = b''
  ) -> bytes:
    """Returns a header and the bytes of what E environments show."""
    columns = len(env_output.step_type)
    return packing.pack(self._specs(columns), tree.flatten(env_output), header)

  def read(
    self, message: bytes, offset: int, columns: int
  ) -> structures.StepOutput:
    """Returns a StepOutput of numpy [E, ...].

    Args:
      message: of `write`.
      offset: bytes of its header.
      columns: E.

    Raises:
      Malformed: the bytes are none, or no environment shows this.
    """
    arrays = packing.unpack(self._specs(columns), message, offset)
    env_output = tree.unflatten_as(self._step, arrays)
    malformed.check_steps(env_output)
    malformed.check_finite(env_output)
    return env_output

  def write_action(self, action: np.ndarray) -> bytes:
    """Returns the bytes of the actions of E environments."""
    spec = packing.with_axes(self._action, len(action))
    return packing.pack([spec], [action])

  def read_action(self, message: bytes, columns: int) -> np.ndarray:
    """Returns actions [E, ...]; raises Malformed for other bytes."""
    spec = packing.with_axes(self._action, columns)
    (action,) = packing.unpack([spec], message)
    return action

  def _specs(self, columns: int) -> list[structures.TensorSpec]:
    return [
      packing.with_axes(spec, columns) for spec in tree.flatten(self._step)
    ]
