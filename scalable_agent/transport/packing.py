"""Arrays as bytes: the memory of each, one behind the other.

There is nothing in it that could be run, and its length follows from the shapes
that both sides have agreed on.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tree

from scalable_agent.structures import TensorSpec
from scalable_agent.transport.malformed import Malformed


def spec_of(like: Any) -> TensorSpec:
  """Returns the spec of a variable, a tensor, or a spec of TensorFlow."""
  dtype = getattr(like.dtype, 'as_numpy_dtype', like.dtype)
  return TensorSpec(tuple(int(n) for n in like.shape), np.dtype(dtype))


def with_axes(spec: TensorSpec, *axes: int) -> TensorSpec:
  """Returns the spec of arrays with more axes in front."""
  return TensorSpec((*axes, *spec.shape), spec.dtype)


def describe(nest: Any) -> list[list]:
  """Returns [name, shape, dtype] of every spec, as JSON-able data."""
  return [
    ['/'.join(map(str, path)), list(one.shape), one.dtype.name]
    for path, one in tree.flatten_with_path(nest)
  ]


def size_of(spec: TensorSpec) -> int:
  """Returns the bytes of one array."""
  return int(np.prod(spec.shape)) * spec.dtype.itemsize


def num_bytes(specs: Iterable[TensorSpec]) -> int:
  """Returns the bytes of all arrays."""
  return sum(map(size_of, specs))


def pack(
  specs: Sequence[TensorSpec], arrays: Sequence[Any], header: bytes = b''
) -> bytes:
  """Returns a header and the memory of arrays, copied once."""
  parts: list[Any] = [header]
  for spec, array in zip(specs, arrays, strict=True):
    flat = np.ascontiguousarray(array, spec.dtype).reshape(-1)
    parts.append(flat.view(np.uint8).data)
  return b''.join(parts)


def unpack(
  specs: Sequence[TensorSpec], message: bytes, offset: int = 0
) -> list[np.ndarray]:
  """Returns what `pack` was given, as views of the bytes.

  Args:
    specs: of the arrays.
    message: header and arrays.
    offset: bytes of the header.

  Raises:
    Malformed: they are of another length.
  """
  expected = num_bytes(specs)
  if len(message) - offset != expected:
    raise Malformed(f'{len(message) - offset} bytes instead of {expected}')
  arrays = []
  for spec in specs:
    flat = np.frombuffer(message, spec.dtype, int(np.prod(spec.shape)), offset)
    arrays.append(flat.reshape(spec.shape))
    offset += flat.nbytes
  return arrays


def header_of(header: struct.Struct, message: bytes) -> tuple:
  """Returns the fields of a header; raises Malformed if there is none."""
  if len(message) < header.size:
    raise Malformed(f'{len(message)} bytes have no header')
  return header.unpack_from(message)
