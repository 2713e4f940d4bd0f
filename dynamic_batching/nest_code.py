"""Functions that flatten and pack the nests of one structure, and no other.

They are written as source code, a line for each node, and compiled: a function
that works on any nest takes longer than the op that the nest is for.
"""

import itertools
from collections.abc import Callable
from typing import Any

# A nest (tf.nest).
Nest = Any


class RareError(Exception):
  """The nest has a node, or a depth, that only tf.nest knows."""


def make_reader(
  example: Nest, leaf: type
) -> Callable[[Nest], list[Any] | None]:
  """Returns what flattens nests like `example`, in the order of tf.nest.

  It returns None where any node has another type or number of parts. It does
  not look at the leaves.

  Args:
    example: Of tuples, named tuples, lists, dicts and leaves.
    leaf: Type of the leaves.

  Raises:
    RareError: The example holds something else, or too deep a nest.
  """
  names: dict[str, Any] = {}
  lines = ['def read(n0):']
  leaves: list[str] = []
  numbers = itertools.count(1)

  def visit(node: Nest, name: str) -> None:
    if isinstance(node, leaf):
      leaves.append(name)
      return
    parts = _parts(node)
    kind = f'Kind{len(names)}'
    names[kind] = type(node)
    inner = [f'n{next(numbers)}' for _ in parts]
    differs = f'type({name}) is not {kind} or len({name}) != {len(parts)}'
    lines.append(f'  if {differs}: return None')
    if isinstance(node, dict):
      keys = names[f'{kind}_keys'] = tuple(parts)
      names[f'{kind}_set'] = set(keys)
      lines.append(f'  if {name}.keys() != {kind}_set: return None')
      for i, part in enumerate(inner):
        lines.append(f'  {part} = {name}[{kind}_keys[{i}]]')
    elif inner:
      lines.append(f'  {", ".join(inner)}, = {name}')
    for part, part_name in zip(parts.values(), inner, strict=True):
      visit(part, part_name)

  visit(example, 'n0')
  lines.append(f'  return [{", ".join(leaves)}]')
  return _compile(lines, names)


def make_writer(example: Nest, leaf: type) -> Callable[[list[Any]], Nest]:
  """Returns what packs as many leaves as `example` has into a nest like it.

  Args, Raises: See `make_reader`.
  """
  names: dict[str, Any] = {}
  numbers = itertools.count()

  def visit(node: Nest) -> str:
    if isinstance(node, leaf):
      return f'n{next(numbers)}'
    parts = {key: visit(part) for key, part in _parts(node).items()}
    if type(node) is list:
      return f'[{", ".join(parts.values())}]'
    inner = ''.join(f'{part}, ' for part in parts.values())
    if type(node) is tuple:
      return f'({inner})'
    kind = f'Kind{len(names)}'
    if type(node) is dict:
      names[kind] = tuple(node)
      pairs = (f'{kind}[{i}]: {parts[key]}' for i, key in enumerate(node))
      return '{' + ', '.join(pairs) + '}'
    names[kind] = type(node)
    return f'{kind}({inner})'

  result = visit(example)
  leaves = ''.join(f'n{i}, ' for i in range(next(numbers)))
  lines = ['def write(flat):', f'  {leaves} = flat', f'  return {result}']
  return _compile(lines, names)


def _parts(node: Nest) -> dict[Any, Nest]:
  """Returns the parts of a node by key or index, in the order of tf.nest."""
  if type(node) is dict:
    return {key: node[key] for key in sorted(node)}
  if type(node) in (tuple, list) or (
    isinstance(node, tuple) and hasattr(node, '_fields')
  ):
    return dict(enumerate(node))
  raise RareError(type(node).__name__)


def _compile(lines: list[str], names: dict[str, Any]) -> Callable[..., Any]:
  # Of the example, only numbers of nodes are in the source; the rest has names.
  made: dict[str, Any] = {}
  try:
    exec('\n'.join(lines), names, made)
  except (SyntaxError, RecursionError, MemoryError) as error:
    # Parentheses within 200 others are too many for Python.
    raise RareError('nested too deeply') from error
  (function,) = made.values()
  return function
