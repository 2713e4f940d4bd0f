"""An agent's weights as bytes, in pieces that fit into a message."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Snapshot(NamedTuple):
  """The weights of one policy version; nothing changes them any more.

  Attributes:
    version: learner updates that they have seen.
    values: tensors or arrays in the order of the agent's variables.
  """

  version: int
  values: Sequence[Any]


def describe(variables: Sequence[Any]) -> list[list]:
  """Returns [name, shape, dtype] of every variable, as JSON-able data."""
  return [[v.name, [int(n) for n in v.shape], v.dtype.name] for v in variables]


def to_bytes(values: Sequence[Any]) -> bytes:
  """Returns the memory of all values, one behind the other."""
  return b''.join(np.asarray(value).tobytes() for value in values)


def split(data: bytes, max_bytes: int) -> list[bytes]:
  """Returns pieces of at most `max_bytes` that make up `data`."""
  return [data[i : i + max_bytes] for i in range(0, len(data), max_bytes)]


def assign(variables: Sequence[Any], data: bytes) -> None:
  """Sets all variables to what `to_bytes` was given.

  Raises:
    ValueError: the bytes are those of other variables; nothing is set.
  """
  values, offset = [], 0
  sizes = [int(np.prod(v.shape)) * v.dtype.size for v in variables]
  if sum(sizes) != len(data):
    raise ValueError(f'{len(data)} bytes of weights instead of {sum(sizes)}')
  for variable, size in zip(variables, sizes, strict=True):
    dtype = variable.dtype.as_numpy_dtype
    flat = np.frombuffer(data, dtype, size // variable.dtype.size, offset)
    values.append(flat.reshape(variable.shape))
    offset += size
  for variable, value in zip(variables, values, strict=True):
    variable.assign(value)
