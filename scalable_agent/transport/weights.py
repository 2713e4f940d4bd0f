"""Weights, and other arrays in a fixed order, as bytes in pieces that fit."""

import threading
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


class Pieces:
  """The newest snapshot in pieces, made once for all who ask; thread-safe."""

  def __init__(self) -> None:
    self._lock = threading.Lock()
    self._latest: tuple[int, list[bytes]] = (-1, [])

  def of(self, snapshot: Snapshot, max_bytes: int) -> tuple[int, list[bytes]]:
    """Returns the version of a snapshot, or of a newer one, and its pieces."""
    with self._lock:
      if self._latest[0] < snapshot.version:
        data = to_bytes(snapshot.values)
        self._latest = snapshot.version, split(data, max_bytes)
      return self._latest


def describe(variables: Sequence[Any]) -> list[list]:
  """Returns [name, shape, dtype] of every variable, as JSON-able data."""
  return [[v.name, [int(n) for n in v.shape], v.dtype.name] for v in variables]


def to_bytes(values: Sequence[Any]) -> bytes:
  """Returns the memory of all values, one behind the other."""
  return b''.join(np.asarray(value).tobytes() for value in values)


def split(data: bytes, max_bytes: int) -> list[bytes]:
  """Returns pieces of at most `max_bytes` that make up `data`."""
  return [data[i : i + max_bytes] for i in range(0, len(data), max_bytes)]


def from_bytes(like: Sequence[Any], data: bytes) -> list[np.ndarray]:
  """Returns what `to_bytes` was given, as views of the bytes.

  Args:
    like: whatever has the shapes and TensorFlow's dtypes of the values.
    data: of all of them.

  Raises:
    ValueError: the bytes are those of other values.
  """
  values, offset = [], 0
  size = num_bytes(like)
  if size != len(data):
    raise ValueError(f'{len(data)} bytes instead of {size}')
  for one in like:
    dtype = one.dtype.as_numpy_dtype
    flat = np.frombuffer(data, dtype, int(np.prod(one.shape)), offset)
    values.append(flat.reshape(one.shape))
    offset += flat.nbytes
  return values


def num_bytes(like: Sequence[Any]) -> int:
  """Returns the length of what `to_bytes` makes of such values."""
  return sum(int(np.prod(one.shape)) * one.dtype.size for one in like)


def assign(variables: Sequence[Any], data: bytes) -> None:
  """Sets all variables to what `to_bytes` was given.

  Raises:
    ValueError: the bytes are those of other variables; nothing is set.
  """
  values = from_bytes(variables, data)
  for variable, value in zip(variables, values, strict=True):
    variable.assign(value)
