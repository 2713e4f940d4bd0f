"""Nests of numpy arrays and plain values in one .npz file, without pickle.

Reading such a file runs no code that is in it. Named tuples are restored as
what they were if they are of `structures`, by their name alone, wherever they
were defined when the file was written.
"""

import json
from typing import Any

import numpy as np

from scalable_agent import structures

_STRUCTURE = 'structure'


def write(path: str, nest: Any) -> None:
  """Writes `nest` to a file.

  Args:
    path: of the file.
    nest: dicts, lists, tuples, named tuples of `structures`, numpy arrays and
      scalars, tensors (read back as arrays), bytes, str, int, float, bool and
      None.

  Raises:
    TypeError: there is something else in it; the message says where.
  """
  arrays: dict[str, np.ndarray] = {}
  structure = json.dumps(_encode(nest, arrays, 'state'))
  arrays[_STRUCTURE] = np.frombuffer(structure.encode(), np.uint8)
  with open(path, 'wb') as file:
    np.savez(file, **arrays)  # type: ignore[arg-type]


def read(path: str) -> Any:
  """Returns the nest that `write` wrote, with the same types and bits."""
  with np.load(path, allow_pickle=False) as arrays:
    structure = json.loads(arrays[_STRUCTURE].tobytes())
    return _decode(structure, arrays)


def _encode(value: Any, arrays: dict[str, np.ndarray], where: str) -> Any:
  """Returns JSON-able data; a list [kind, ...] for all but plain values."""
  # By exact type: an IntEnum or a subclass of str would not come back as such.
  if value is None or type(value) in (bool, int, float, str):
    return value
  if type(value) is bytes:
    return _put('bytes', np.frombuffer(value, np.uint8), arrays)
  if isinstance(value, np.generic):
    return _put('scalar', np.asarray(value), arrays)
  if type(value) is dict:
    items = [
      [
        _encode(key, arrays, f'a key of {where}'),
        _encode(item, arrays, f'{where}[{key!r}]'),
      ]
      for key, item in value.items()
    ]
    return ['dict', items]
  if isinstance(value, list | tuple):
    items = [
      _encode(item, arrays, f'{where}[{i}]') for i, item in enumerate(value)
    ]
    if type(value) in (list, tuple):
      return [type(value).__name__, items]
    name = type(value).__name__
    if getattr(structures, name, None) is type(value):
      fields = list(value._fields)  # type: ignore[union-attr]
      return ['namedtuple', name, fields, items]
  elif hasattr(value, '__array__'):
    array = np.asarray(value)
    if array.dtype.kind in 'biufcSU':
      return _put('array', array, arrays)
  raise TypeError(
    f'{where} is a {type(value).__module__}.{type(value).__qualname__}, which '
    'cannot be saved. Use numpy arrays, bytes, str, numbers, lists, tuples and '
    'dicts.'
  )


def _put(kind: str, array: np.ndarray, arrays: dict[str, np.ndarray]) -> list:
  key = f'array_{len(arrays)}'
  arrays[key] = array
  return [kind, key]


def _decode(data: Any, arrays: Any) -> Any:
  if not isinstance(data, list):
    return data
  kind, *rest = data
  if kind == 'bytes':
    return arrays[rest[0]].tobytes()
  if kind == 'scalar':
    return arrays[rest[0]][()]
  if kind == 'array':
    return arrays[rest[0]]
  if kind == 'dict':
    return {_decode(k, arrays): _decode(v, arrays) for k, v in rest[0]}
  items = [_decode(item, arrays) for item in rest[-1]]
  if kind == 'namedtuple':
    return _find_namedtuple(rest[0], rest[1])(*items)
  return tuple(items) if kind == 'tuple' else items


def _find_namedtuple(name: str, fields: list[str]) -> type:
  # The module was once saved as well.
  found: Any = getattr(structures, name.rpartition(':')[2], None)
  if not hasattr(found, '_fields'):
    raise ValueError(f'{name} is not of {structures.__name__}')
  if list(found._fields) != fields:
    raise ValueError(f'{name} does not have the fields {fields} any more')
  return found
