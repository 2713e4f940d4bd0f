"""Nests of tensors: what fits a nest of specs, and how it lies flat."""

from typing import Any

import numpy as np
import tensorflow as tf

# A nest (tf.nest) of tensors or of specs.
Nest = Any

# What can be joined and split by both implementations.
_TYPES = frozenset(
  tf.as_dtype(name)
  for name in (
    *('bool', 'string', 'float16', 'bfloat16', 'float32', 'float64'),
    *('complex64', 'complex128', 'int8', 'int16', 'int32', 'int64'),
    *('uint8', 'uint16', 'uint32', 'uint64'),
  )
)
_SCALARS = (bool, int, float, complex, str, bytes, np.generic)


def flat_specs(name: str, specs: Nest) -> list[tf.TensorSpec]:
  """Returns the leaves of a nest of specs.

  Raises:
    ValueError: They are not specs of rows that can be batched; names `name`.
  """
  flat = tf.nest.flatten(specs)
  if not flat:
    raise ValueError(f'{name} must hold at least one tf.TensorSpec')
  for spec in flat:
    if not isinstance(spec, tf.TensorSpec):
      raise ValueError(f'{name} must be a nest of tf.TensorSpec: {spec!r}')
    if spec.dtype not in _TYPES:
      raise ValueError(
        f'{name} must have types whose rows can be copied but one is '
        f'{spec.dtype.name}. There are: '
        f'{", ".join(sorted(dtype.name for dtype in _TYPES))}'
      )
    if spec.shape.rank == 0 or (spec.shape.rank and spec.shape[0] is not None):
      raise ValueError(
        f'{name} must have the rows, None, as first dimension: {spec!r}'
      )
  return flat


def flatten(
  name: str, nest: Nest, specs: Nest, flat_specs: list[tf.TensorSpec]
) -> list[tf.Tensor]:
  """Returns the leaves of a nest like `specs` as tensors.

  A list or tuple of Python's or NumPy's scalars, where `specs` has a leaf, is
  the data of a tensor.

  Raises:
    ValueError: The nest has another structure, or leaves that are no dense
      tensors; names `name`.
  """
  return [
    value
    if isinstance(value, tf.Tensor)
    else tf.convert_to_tensor(value, spec.dtype)
    for value, spec in zip(
      flat_leaves(name, nest, specs, flat_specs), flat_specs, strict=True
    )
  ]


def flat_leaves(
  name: str, nest: Nest, specs: Nest, flat_specs: list[tf.TensorSpec]
) -> list[Any]:
  """As `flatten`, of anything that may stand for tensors."""
  if specs is flat_specs[0]:
    flat = [nest]
  else:
    try:
      tf.nest.assert_same_structure(specs, nest, check_types=False)
      flat = tf.nest.flatten(nest)
    except (TypeError, ValueError):
      flat = _flatten_up_to(name, nest, specs)
  for i, value in enumerate(flat):
    if not isinstance(value, tf.Tensor):
      _check_leaf(f'{name} must have the structure {specs} but', i, value)
  return flat


def pack(specs: Nest, flat: list[tf.Tensor]) -> Nest:
  """Returns a nest like `specs`."""
  # Spares the most common case a function that is slow for many callers.
  if isinstance(specs, tf.TensorSpec):
    return flat[0]
  return tf.nest.pack_sequence_as(specs, flat)


def set_shapes(
  tensors: list[tf.Tensor],
  specs: list[tf.TensorSpec],
  like: tf.TensorShape,
) -> None:
  """Sets the static shapes of symbolic tensors that have the rows of `like`."""
  for tensor, spec in zip(tensors, specs, strict=True):
    tensor.set_shape(spec.shape)
    if spec.shape.rank and like.rank:
      tensor.set_shape(like[:1].concatenate(spec.shape[1:]))


def _flatten_up_to(name: str, nest: Nest, specs: Nest) -> list[Any]:
  """Slower than tf.nest, but takes lists for tensors where specs end."""
  # Needed for little, and not where only the library is built.
  import tree

  try:
    return tree.flatten_up_to(specs, nest, check_types=False)
  except (TypeError, ValueError) as error:
    raise ValueError(
      f'{name} must have the structure {specs} but are {nest}: {error}'
    ) from None


def _check_leaf(start: str, i: int, value: Any) -> None:
  """Refuses what convert_to_tensor would stack or misunderstand."""
  if value is None:
    raise ValueError(f'{start} leaf {i} is None')
  if isinstance(value, (tf.RaggedTensor, tf.SparseTensor, tf.IndexedSlices)):
    raise ValueError(
      f'{start} leaf {i} is a {type(value).__name__}: only dense tensors have '
      'rows that can be split (see its to_tensor, or tf.sparse.to_dense)'
    )
  if isinstance(value, (list, tuple, dict)) and not all(
    isinstance(x, _SCALARS) for x in tf.nest.flatten(value)
  ):
    raise ValueError(f'{start} leaf {i} is a {type(value).__name__}: {value!r}')
