"""The weights that actors fetch, as bytes, made once for all of them."""

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from scalable_agent.transport import packing


class Snapshot(NamedTuple):
  """The weights of one policy version; nothing changes them any more.

  Attributes:
    version: learner updates that they have seen.
    values: tensors or arrays in the order of the agent's variables.
  """

  version: int
  values: Sequence[Any]


class Packed:
  """The bytes of the newest snapshot; thread-safe."""

  def __init__(self) -> None:
    self._lock = threading.Lock()
    self._latest: tuple[int, bytes] = (-1, b'')

  def of(self, snapshot: Snapshot) -> tuple[int, bytes]:
    """Returns the version of a snapshot, or of a newer one, and its bytes."""
    with self._lock:
      if self._latest[0] < snapshot.version:
        specs = [packing.spec_of(value) for value in snapshot.values]
        data = packing.pack(specs, snapshot.values)
        self._latest = snapshot.version, data
      return self._latest


def describe(variables: Sequence[Any]) -> list[list]:
  """Returns [name, shape, dtype] of every variable, as JSON-able data."""
  return [[v.name, [int(n) for n in v.shape], v.dtype.name] for v in variables]


def assign(variables: Sequence[Any], data: bytes, offset: int = 0) -> None:
  """Sets all variables to those of a snapshot.

  Args:
    variables: of the agent.
    data: a header and the snapshot's bytes.
    offset: bytes of the header.

  Raises:
    Malformed: the bytes are those of other variables; nothing is set.
  """
  specs = [packing.spec_of(variable) for variable in variables]
  values = packing.unpack(specs, data, offset)
  for variable, value in zip(variables, values, strict=True):
    variable.assign(value)
