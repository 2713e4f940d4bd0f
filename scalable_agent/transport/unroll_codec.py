"""Unrolls as bytes, each frame once.

What one unroll shares with the one before it of the same environments is not
sent: its column 0 is the other's last column, and the frame stack before it is
made of the other's latest observations. With a stack of 4 and unrolls of 20
that saves a fifth of the bytes. So a stream of messages begins with a whole
unroll, and a message that was lost makes it begin anew.

A message is a fixed header and the arrays' memory: there is nothing in it that
could be run, and its length follows from the header.
"""

import itertools
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tree

from scalable_agent import networks, structures
from scalable_agent.transport.malformed import Malformed, check_steps

# Number in the stream, columns E, policy version, index of the level.
_HEADER = struct.Struct('<IIqi')


class OutOfStep(Exception):
  """A message of a stream without the one before it: begin anew."""


class _Field(NamedTuple):
  """One array of an unroll."""

  in_time: bool
  sent_again: bool  # False: follows from the unroll before.
  spec: structures.TensorSpec


class Layout:
  """Which arrays an unroll consists of, for any number of columns.

  Attributes:
    unroll_length: T, agent steps.
    action_space: of the environment.
    names: of the arrays of an unroll.
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
    self.action_space = spec.action_space
    state = tree.map_structure(
      lambda x: structures.TensorSpec(
        tuple(x.shape[1:]), np.dtype(x.dtype.as_numpy_dtype)
      ),
      initial_state,
    )
    self._nest = (
      state,
      structures.step_output_spec(spec),
      structures.agent_output_spec(spec.action_space),
    )
    frames = len(tree.flatten(state.frames))
    states = len(tree.flatten(state))
    self._fields = [
      _Field(index >= states, index >= frames, leaf)
      for index, leaf in enumerate(tree.flatten(self._nest))
    ]
    self.names = [entry[0] for entry in self.describe()]

  def num_bytes(self, columns: int, whole: bool) -> int:
    """Returns the length of a message."""
    return _HEADER.size + sum(
      int(np.prod(shape)) * field.spec.dtype.itemsize
      for field, shape in self._shapes(columns, whole)
    )

  def columns_per_message(self, max_bytes: int) -> int:
    """Returns how many columns fit into a message; 0 if not even one does."""
    one = self.num_bytes(1, whole=True) - _HEADER.size
    return (max_bytes - _HEADER.size) // one

  def bytes_of(self, name: str) -> int:
    """Returns what one array of one column takes in a whole unroll."""
    field = self._fields[self.names.index(name)]
    time = self.unroll_length + 1 if field.in_time else 1
    return time * int(np.prod(field.spec.shape)) * field.spec.dtype.itemsize

  def describe(self) -> list[list]:
    """Returns [name, shape, dtype] of every array, as JSON-able data."""
    return [
      ['/'.join(map(str, path)), list(spec.shape), str(spec.dtype)]
      for path, spec in tree.flatten_with_path(self._nest)
    ]

  def _shapes(self, columns: int, whole: bool):
    """Yields every field of a message and the shape of its array."""
    for field in self._fields:
      if not (whole or field.sent_again):
        continue
      time = (self.unroll_length + whole,) if field.in_time else ()
      yield field, (*time, columns, *field.spec.shape)

  def write(self, unroll: structures.ActorOutput, number: int) -> bytes:
    """Returns the message `number` of a stream."""
    whole = number == 0
    arrays = tree.flatten(
      (unroll.agent_state, unroll.env_outputs, unroll.agent_outputs)
    )
    version, level = int(unroll.policy_version[0]), int(unroll.level[0])
    parts = [_HEADER.pack(number, len(unroll.level), version, level)]
    for field, array in zip(self._fields, arrays, strict=True):
      if whole or field.sent_again:
        sent = array[1:] if field.in_time and not whole else array
        parts.append(np.ascontiguousarray(sent, field.spec.dtype).tobytes())
    return b''.join(parts)

  def read(self, message: bytes | memoryview, max_columns: int):
    """Returns (number, policy version, level, arrays of the fields sent)."""
    if len(message) < _HEADER.size:
      raise Malformed(f'{len(message)} bytes are no unroll')
    number, columns, version, level = _HEADER.unpack_from(message)
    whole = number == 0
    if not 1 <= columns <= max_columns:
      raise Malformed(f'{columns} columns; at most {max_columns} fit')
    if len(message) != self.num_bytes(columns, whole):
      raise Malformed(
        f'{len(message)} bytes for {columns} columns; expected '
        f'{self.num_bytes(columns, whole)}'
      )
    arrays, offset = [], _HEADER.size
    for field, shape in self._shapes(columns, whole):
      count = int(np.prod(shape))
      flat = np.frombuffer(message, field.spec.dtype, count, offset)
      arrays.append(flat.reshape(shape))
      offset += flat.nbytes
    return number, version, level, arrays

  def assemble(self, arrays: list[np.ndarray]):
    """Returns (agent_state, env_outputs, agent_outputs) of all fields."""
    return tree.unflatten_as(self._nest, arrays)


class Encoder:
  """The sending end of a stream."""

  def __init__(self, layout: Layout):
    self._layout = layout
    self._number = 0

  def restart(self) -> None:
    """Has the next message be whole."""
    self._number = 0

  def encode(self, unroll: structures.ActorOutput) -> bytes:
    """Returns the next message; unrolls must follow each other."""
    message = self._layout.write(unroll, self._number)
    self._number = (self._number + 1) % 2**32
    return message


class Decoder:
  """The receiving end of a stream."""

  def __init__(
    self, layout: Layout, skip_frames: Callable[..., Any], max_columns: int
  ):
    """Initialises.

    Args:
      layout: the same as at the other end.
      skip_frames: of the agent, see networks.Agent.skip_frames.
      max_columns: of a message.
    """
    self._layout = layout
    self._skip_frames = skip_frames
    self._max_columns = max_columns
    self._number = 0
    # What the next unroll begins with: its frame stack and its column 0.
    self._frames: Any = None
    self._column: list[np.ndarray] = []

  def decode(self, message: bytes | memoryview) -> structures.ActorOutput:
    """Returns an unroll of numpy [T + 1, E, ...].

    Raises:
      Malformed: the bytes are no unroll, or one that no actor makes.
      OutOfStep: a message is missing before this one.
    """
    number, version, level, arrays = self._layout.read(
      message, self._max_columns
    )
    if number > 0:
      if number != self._number:
        raise OutOfStep(f'message {number} came when {self._number} was due')
      arrays = self._complete(arrays)
    state, env_outputs, agent_outputs = self._layout.assemble(arrays)
    self._check(arrays, env_outputs, agent_outputs)
    columns = env_outputs.step_type.shape[1]
    self._remember(state, env_outputs, agent_outputs)
    self._number = number + 1
    return structures.ActorOutput(
      agent_state=state,
      env_outputs=env_outputs,
      agent_outputs=agent_outputs,
      policy_version=np.full([columns], version, np.int64),
      level=np.full([columns], level, np.int32),
    )

  def _complete(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Adds what was not sent to what was."""
    in_time = len(self._column)
    core, steps = arrays[:-in_time], arrays[-in_time:]
    if steps[0].shape[1] != len(self._column[0]):
      raise Malformed('the number of columns has changed within a stream')
    return [
      *tree.flatten(self._frames),
      *core,
      *(
        np.concatenate([first[None], rest])
        for first, rest in zip(self._column, steps, strict=True)
      ),
    ]

  def _remember(self, state, env_outputs, agent_outputs) -> None:
    # The last column has not been fed to the agent yet.
    first = env_outputs.step_type[:-1] == structures.FIRST
    observations = tree.map_structure(lambda x: x[:-1], env_outputs.observation)
    # Copies: views would keep all of the message.
    self._frames = tree.map_structure(
      np.array, self._skip_frames(observations, first, state.frames)
    )
    self._column = [
      x[-1].copy() for x in tree.flatten((env_outputs, agent_outputs))
    ]

  def _check(self, arrays, env_outputs, agent_outputs) -> None:
    check_steps(env_outputs, agent_outputs, self._layout.action_space)
    discount = env_outputs.discount
    if discount.min() < 0 or discount.max() > 1:
      raise Malformed('a discount beyond 0 to 1')
    for name, values in zip(self._layout.names, arrays, strict=True):
      # One number that is not finite would spoil all weights.
      if values.dtype.kind == 'f' and not np.isfinite(values).all():
        raise Malformed(f'{name} is not finite')


def split(unroll: structures.ActorOutput, pieces: int):
  """Returns `pieces` unrolls, each with an even share of the columns."""
  columns = len(unroll.level)
  bounds = [columns * i // pieces for i in range(pieces + 1)]
  return [
    structures.slice_columns(unroll, *pair)
    for pair in itertools.pairwise(bounds)
  ]
