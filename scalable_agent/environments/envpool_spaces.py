"""Observations and actions of EnvPool in the terms of this package."""

import dataclasses
from typing import Any

import numpy as np
from gymnasium import spaces

from scalable_agent import structures
from scalable_agent.environments import gymnasium_spaces, instructions
from scalable_agent.environments.gymnasium_spaces import Actions, Part

# Of kinds, colours and states of what is in a cell of MiniGrid.
_MINIGRID_VALUES = 11
# dm_control's word for no bound, and more than that: EnvPool's.
_NO_BOUND = 1e10
_MOST_CHANNELS = 4


def parts_of(
  space: Any, family: str, name: str, instruction_length: int
) -> Any:
  """Returns what an observation consists of.

  Args:
    space: EnvPool's, of one environment; Dict is a nest.
    family: of the id.
    name: of the level, for messages.
    instruction_length: most words that a text may have.

  Returns:
    Nest of Part, whose `encode` takes what EnvPool gives for E environments.

  Raises:
    ValueError: a part is of a kind that cannot be handled; names it.
  """
  return _parts_of(space, family, '', name, instruction_length)


def _parts_of(space: Any, family: str, key: str, name: str, length: int) -> Any:
  if isinstance(space, spaces.Dict):
    return {
      key: _parts_of(part, family, key, name, length)
      for key, part in space.spaces.items()
    }
  if family == 'minigrid' and key == 'mission':
    return _text(length)
  if _is_bytes(space) and len(space.shape) == 3:
    if family == 'minigrid':
      return _symbols(space.shape, _MINIGRID_VALUES)
    if space.high.max() < 255:
      return _symbols(space.shape, int(space.high.max()) + 1)
    if space.shape[0] <= _MOST_CHANNELS < space.shape[2]:
      return _channels_first(space.shape)
  return _shaped(space.shape, gymnasium_spaces.parts_of(space, name, length))


def _is_bytes(space: Any) -> bool:
  return isinstance(space, spaces.Box) and space.dtype == np.uint8


def _text(length: int) -> Part:
  """Words as bytes, and zeros after them."""

  def encode(texts: np.ndarray) -> np.ndarray:
    return np.stack(
      [
        instructions.encode(text.tobytes().rstrip(b'\0').decode(), length)
        for text in texts
      ]
    )

  return Part(instructions.make_spec(length), encode)


def _symbols(shape: tuple[int, ...], num_values: int) -> Part:
  """Bytes that name what is there."""
  spec = structures.CategorySpec(shape, np.dtype(np.uint8), num_values)
  return Part(spec, lambda x: x)


def _channels_first(shape: tuple[int, ...]) -> Part:
  channels, height, width = shape
  spec = structures.TensorSpec((height, width, channels), np.dtype(np.uint8))
  if channels == 1:
    return Part(spec, lambda x: x.reshape(-1, *spec.shape))
  return Part(spec, lambda x: np.ascontiguousarray(np.moveaxis(x, -3, -1)))


def _shaped(shape: tuple[int, ...], part: Part) -> Part:
  """Single values come as [E] or as [E, 1]."""
  encode = part.encode
  return dataclasses.replace(
    part, encode=lambda x: encode(x.reshape(len(x), *shape))
  )


def actions_of(space: Any, array: Any, name: str, bounds: str) -> Actions:
  """Returns what one may do.

  Args:
    space: EnvPool's, of one environment.
    array: EnvPool's ArraySpec of actions.
    name: of the level, for messages.
    bounds: --action_bounds.

  Returns:
    Actions, whose `decode` gives what EnvPool takes for E environments.

  Raises:
    ValueError: it is of a kind that cannot be handled.
  """
  actions = gymnasium_spaces.actions_of(_plain(space), name, bounds)
  decode = actions.decode
  # Without the axis of players.
  shape = tuple(size for size in array.shape if size != -1)

  def encode(chosen: np.ndarray) -> np.ndarray:
    plain = np.asarray(decode(chosen)).reshape(len(chosen), *shape)
    return np.ascontiguousarray(plain, array.dtype)

  return dataclasses.replace(actions, decode=encode)


def _plain(space: Any) -> Any:
  """Returns an action space as Gymnasium would put it."""
  if not isinstance(space, spaces.Box):
    return space
  if space.dtype.kind in 'iu':
    low = space.low.astype(np.int64)
    return spaces.MultiDiscrete(
      space.high.astype(np.int64) - low + 1, start=low
    )
  low, high = (x.astype(np.float64) for x in (space.low, space.high))
  return spaces.Box(
    np.where(low <= -_NO_BOUND, -np.inf, low).astype(space.dtype),
    np.where(high >= _NO_BOUND, np.inf, high).astype(space.dtype),
    dtype=space.dtype.type,
  )
