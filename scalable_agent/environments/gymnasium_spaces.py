"""Spaces of Gymnasium in the terms of this package.

An observation is a nest of parts, each an image, numbers, categories or text;
an action is of one of the kinds in `action_spaces`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces

from scalable_agent import action_spaces, structures
from scalable_agent.environments import instructions

_MOST_CHANNELS = 4
# A network has weights for each.
_MOST_NAMES = 100_000


@dataclasses.dataclass(frozen=True)
class Part:
  """One part of an observation.

  Attributes:
    spec: of it, as agents see it.
    encode: returns what an environment gave, as the spec says. Arrays may have
      more axes in front.
  """

  spec: structures.TensorSpec
  encode: Callable[[Any], np.ndarray]

  @property
  def space(self) -> spaces.Space:
    """What a wrapped environment says of it."""
    spec = self.spec
    if isinstance(spec, structures.CategorySpec):
      return spaces.Box(0, spec.num_values - 1, spec.shape, spec.dtype.type)
    if isinstance(spec, structures.TextSpec):
      return spaces.Box(0, spec.num_buckets, spec.shape, spec.dtype.type)
    if spec.dtype == np.uint8:
      return spaces.Box(0, 255, spec.shape, np.uint8)
    return spaces.Box(-np.inf, np.inf, spec.shape, np.float32)


def parts_of(space: spaces.Space, name: str, instruction_length: int) -> Any:
  """Returns what an observation consists of.

  Args:
    space: of observations; Dict and Tuple are nests.
    name: of the environment, for messages.
    instruction_length: most words that a text may have.

  Returns:
    Nest of Part, dicts for Dict and tuples for Tuple.

  Raises:
    ValueError: a part is of a kind that cannot be handled; names it.
  """
  return _parts_of(space, name, '', instruction_length)


def encode(parts: Any, observation: Any) -> Any:
  """Returns the nest that an agent sees for what an environment gave.

  Args:
    parts: of `parts_of`.
    observation: a nest alike, in which lists may stand for tuples.
  """
  if isinstance(parts, Part):
    return parts.encode(observation)
  if isinstance(parts, dict):
    return {key: encode(part, observation[key]) for key, part in parts.items()}
  pairs = zip(parts, observation, strict=True)
  return tuple(encode(part, x) for part, x in pairs)


def _parts_of(space: Any, name: str, path: str, length: int) -> Any:
  if isinstance(space, spaces.Dict):
    return {
      key: _parts_of(part, name, f'{path}[{key!r}]', length)
      for key, part in space.spaces.items()
    }
  if isinstance(space, spaces.Tuple):
    return tuple(
      _parts_of(part, name, f'{path}[{i}]', length)
      for i, part in enumerate(space.spaces)
    )
  if _is_nothing(space):
    raise _refusal(name, path, space, 'holds nothing. Leave it out')
  if isinstance(space, spaces.Discrete):
    space = spaces.MultiDiscrete(np.array(space.n), start=np.array(space.start))
  if isinstance(space, spaces.MultiDiscrete):
    if space.nvec.max() * space.nvec.size > _MOST_NAMES:
      raise _refusal(
        name,
        path,
        space,
        f'are more than {_MOST_NAMES:,} things to tell '
        'apart. Give numbers that describe them',
      )
    return _categories(space)
  if isinstance(space, spaces.MultiBinary):
    return _numbers(space.shape)
  if isinstance(space, spaces.Box):
    if space.dtype == np.uint8 and len(space.shape) in (2, 3):
      return _image(space.shape, name, path)
    return _numbers(space.shape)
  if _is_text(space):
    return Part(
      instructions.make_spec(length),
      lambda text: instructions.encode(text, length),
    )
  raise _refusal(
    name,
    path,
    space,
    'has no fixed size or is of an unknown kind. Give a Box, Discrete, '
    'MultiDiscrete, MultiBinary or Text there, or leave it out',
  )


def _refusal(name: str, path: str, space: Any, problem: str) -> ValueError:
  what = f'the part {path} of its observations' if path else 'observations'
  return ValueError(
    f'{name} has {what} of the space {space}, which {problem}, by a wrapper.'
  )


def _is_nothing(space: spaces.Space) -> bool:
  """Whether a space is of arrays without entries, on which kernels abort."""
  return 0 in (space.shape or ())


def _is_text(space: spaces.Space) -> bool:
  """Whether a space is Text, or one of another library that is like it."""
  if isinstance(space, spaces.Text):
    return True
  try:
    return isinstance(space.sample(), str)
  except Exception:  # Whatever an unknown one raises: it is refused.
    return False


def _categories(space: spaces.MultiDiscrete) -> Part:
  start, num_values = space.start, int(space.nvec.max())
  spec = structures.CategorySpec(space.shape, np.dtype(np.int32), num_values)
  return Part(spec, lambda x: (np.asarray(x) - start).astype(np.int32))


def _numbers(shape: tuple[int, ...]) -> Part:
  spec = structures.TensorSpec(
    (int(np.prod(shape, dtype=int)),), np.dtype(np.float32)
  )
  return Part(spec, lambda x: _shaped(x, shape, spec))


def _image(shape: tuple[int, ...], name: str, path: str) -> Part:
  if len(shape) == 3 and shape[0] <= _MOST_CHANNELS < shape[2]:
    where = f' in the part {path}' if path else ''
    raise ValueError(
      f'{name} has images of shape {shape}{where}, which looks like channels '
      'first. Wrap the environment so that channels come last.'
    )
  plain = shape if len(shape) == 3 else (*shape, 1)
  spec = structures.TensorSpec(plain, np.dtype(np.uint8))
  return Part(spec, lambda x: _shaped(x, shape, spec))


def _shaped(
  x: Any, shape: tuple[int, ...], spec: structures.TensorSpec
) -> np.ndarray:
  x = np.asarray(x, spec.dtype)
  if shape == spec.shape:
    return x
  if x.shape[max(x.ndim - len(shape), 0) :] != shape:
    # As many numbers in another order would pass for those.
    raise ValueError(
      f'an observation came in the shape {x.shape}, and its space has {shape}'
    )
  return x.reshape(x.shape[: x.ndim - len(shape)] + spec.shape)


@dataclasses.dataclass(frozen=True)
class Actions:
  """What one may do in an environment.

  Attributes:
    space: of it.
    decode: returns what the environment takes for `space.to_environment` of
      one action. Arrays may have more axes in front.
  """

  space: action_spaces.ActionSpace
  decode: Callable[[np.ndarray], Any]


def actions_of(space: spaces.Space, name: str, bounds: str) -> Actions:
  """Returns what one may do.

  Args:
    space: of actions.
    name: of the environment, for messages.
    bounds: --action_bounds.

  Raises:
    ValueError: it is of a kind that cannot be handled.
  """
  if _is_nothing(space):
    raise ValueError(
      f'{name} has the action space {space}, in which there is nothing to '
      'choose. Wrap the environment so that it offers something.'
    )
  if isinstance(space, spaces.Discrete):
    start = space.start
    return Actions(action_spaces.Discrete(int(space.n)), lambda a: a + start)
  if isinstance(space, spaces.MultiDiscrete):
    shape, start = space.shape, space.start
    nums = tuple(int(n) for n in space.nvec.ravel())
    return Actions(
      action_spaces.MultiDiscrete(nums),
      lambda a: a.reshape(a.shape[:-1] + shape) + start,
    )
  if isinstance(space, spaces.MultiBinary):
    shape = space.shape
    nums = (2,) * int(np.prod(shape, dtype=int))
    return Actions(
      action_spaces.MultiDiscrete(nums),
      lambda a: a.reshape(a.shape[:-1] + shape).astype(np.int8),
    )
  if isinstance(space, spaces.Box) and space.dtype.kind == 'f':
    shape, dtype = space.shape, space.dtype
    low, high = (tuple(x.ravel().tolist()) for x in (space.low, space.high))
    try:
      box = action_spaces.Box(low, high, squash=bounds == 'squash')
    except ValueError as error:
      raise ValueError(f'Of actions of {name}, {error}.') from error
    return Actions(
      box,
      # In double precision, a bound may lie beyond the nearest float32.
      lambda a: np.clip(
        a.reshape(a.shape[:-1] + shape).astype(dtype), space.low, space.high
      ),
    )
  raise ValueError(
    f'{name} has the action space {space}, but only Discrete, MultiDiscrete, '
    'MultiBinary and Box of floats are supported. Wrap the environment so that '
    'it offers one of these, and register the wrapped one.'
  )
