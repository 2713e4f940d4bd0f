"""Nests of tensors: what fits a nest of specs, and how it lies flat."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from dynamic_batching import nest_code

# A nest (tf.nest) of tensors or of specs.
Nest = Any

# Every look into TensorFlow's module takes time.
_Tensor = tf.Tensor

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


class Structure:
  """A nest of specs, compiled: what fits it is flattened without tf.nest.

  Attributes:
    specs: The nest.
    flat: Its leaves.
  """

  def __init__(self, name: str, specs: Nest):
    """Compiles a nest of specs.

    Raises:
      ValueError: They are not specs of rows that can be batched; names `name`.
    """
    self.specs = specs
    self.flat = flat_specs(name, specs)
    try:
      self._read = nest_code.make_reader(specs, tf.TensorSpec)
      self._write = nest_code.make_writer(specs, tf.TensorSpec)
    except nest_code.RareError:
      self._read = lambda nest: None
      self._write = functools.partial(tf.nest.pack_sequence_as, specs)
    self._dtypes = [_array_dtypes(spec) for spec in self.flat]

  def flatten(self, name: str, nest: Nest, arrays: bool = False) -> list[Any]:
    """Returns the leaves of a nest like the specs as tensors.

    A list or tuple of Python's or NumPy's scalars, where the specs have a leaf,
    is the data of a tensor.

    Args:
      name: Of the nest, in errors.
      nest: Of tensors, or of what can be converted to them.
      arrays: Whether NumPy arrays of the right type are left as they are.

    Raises:
      ValueError: The nest has another structure, or leaves that are no dense
        tensors; names `name`.
    """
    flat = self._read(nest)
    if flat is None:
      flat = self._leaves(name, nest)
    for value in flat:
      if not isinstance(value, _Tensor):
        break
    else:
      return flat
    for i, value in enumerate(flat):
      if isinstance(value, _Tensor) or (
        arrays and type(value) is np.ndarray and value.dtype in self._dtypes[i]
      ):
        continue
      self._check_leaf(name, i, value)
      flat[i] = tf.convert_to_tensor(value, self.flat[i].dtype)
    return flat

  def check(self, name: str, nest: Nest) -> None:
    """Raises as `flatten`, of anything that may stand for tensors."""
    for i, value in enumerate(self._leaves(name, nest)):
      if not isinstance(value, tf.Tensor):
        self._check_leaf(name, i, value)

  def pack(self, flat: list[tf.Tensor]) -> Nest:
    """Returns a nest like the specs."""
    return self._write(flat)

  def _leaves(self, name: str, nest: Nest) -> list[Any]:
    try:
      tf.nest.assert_same_structure(self.specs, nest, check_types=False)
      if _have_same_keys(self.specs, nest):
        return tf.nest.flatten(nest)
    except (TypeError, ValueError):
      pass
    return _flatten_up_to(name, nest, self.specs)

  def _check_leaf(self, name: str, i: int, value: Any) -> None:
    _check_leaf(f'{name} must have the structure {self.specs} but', i, value)


def _array_dtypes(spec: tf.TensorSpec) -> tuple[np.dtype, ...]:
  """Returns the types of arrays that an op takes as they are."""
  dtype = np.dtype(spec.dtype.as_numpy_dtype)
  return (dtype,) if dtype.kind in 'biufc' else ()


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


def _have_same_keys(one: Nest, two: Nest) -> bool:
  """Whether dicts are alike where tf.nest looks at their sizes only."""
  if isinstance(one, Mapping) and isinstance(two, Mapping):
    return one.keys() == two.keys() and all(
      _have_same_keys(one[key], two[key]) for key in one
    )
  if isinstance(one, (tuple, list)) and isinstance(two, (tuple, list)):
    return all(map(_have_same_keys, one, two))
  return True


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
