"""What an agent may do: kinds of actions, without TensorFlow.

How a policy chooses among them is in `actions`.
"""

import abc
import dataclasses
import functools

import numpy as np


class ActionSpace(abc.ABC):
  """What actions look like, and what a policy says of them.

  All kinds are frozen dataclasses: two that are equal are the same to an agent.

  Attributes:
    shape: of one action.
    dtype: numpy dtype of an action.
    num_parameters: numbers that describe a distribution over actions, the
      length of `policy_logits`.
  """

  shape: tuple[int, ...]
  dtype: np.dtype

  @property
  @abc.abstractmethod
  def num_parameters(self) -> int: ...

  def check(self, actions: np.ndarray) -> None:
    """Raises ValueError, which says why, unless all are actions of this space.

    Args:
      actions: [..., *shape] numpy array.
    """
    rank = len(self.shape)
    if actions.shape[actions.ndim - rank :] != self.shape:
      raise ValueError(
        f'actions must have the shape [..., {", ".join(map(str, self.shape))}],'
        f' not {list(actions.shape)}'
      )
    self._check_values(actions)

  @abc.abstractmethod
  def _check_values(self, actions: np.ndarray) -> None: ...

  def to_environment(self, actions: np.ndarray) -> np.ndarray:
    """Returns what a simulator is given for `actions`, [..., *shape]."""
    return actions

  @abc.abstractmethod
  def sample(self, generator: np.random.Generator, size: int) -> np.ndarray:
    """Returns random actions, [size, *shape]."""


@dataclasses.dataclass(frozen=True)
class Discrete(ActionSpace):
  """One of `num_actions` actions; a policy gives each a logit.

  An action is an int32 from 0 to num_actions - 1.
  """

  num_actions: int

  shape = ()
  dtype = np.dtype(np.int32)

  @property
  def num_parameters(self) -> int:
    return self.num_actions

  def _check_values(self, actions: np.ndarray) -> None:
    _check_integers(actions, np.array(self.num_actions))

  def sample(self, generator: np.random.Generator, size: int) -> np.ndarray:
    return generator.integers(self.num_actions, size=size, dtype=np.int32)

  def __str__(self) -> str:
    return f'{self.num_actions} actions'


@dataclasses.dataclass(frozen=True)
class MultiDiscrete(ActionSpace):
  """Several choices at once, each drawn on its own.

  An action is int32 [F], entry f from 0 to nums[f] - 1. The logits of all
  choices stand one after the other.
  """

  nums: tuple[int, ...]

  dtype = np.dtype(np.int32)

  @property
  def shape(self) -> tuple[int, ...]:  # type: ignore[override]
    return (len(self.nums),)

  @property
  def num_parameters(self) -> int:
    return sum(self.nums)

  def _check_values(self, actions: np.ndarray) -> None:
    _check_integers(actions, np.array(self.nums))

  def sample(self, generator: np.random.Generator, size: int) -> np.ndarray:
    return generator.integers(
      self.nums, size=(size, len(self.nums)), dtype=np.int32
    )

  def __str__(self) -> str:
    return f'choices of {", ".join(map(str, self.nums))} actions'


@dataclasses.dataclass(frozen=True)
class Box(ActionSpace):
  """Numbers; a policy gives each a mean and the logarithm of a deviation.

  An action is float32 [D], as it was drawn: `to_environment` puts it within
  bounds. Where an entry has two bounds, -1 and 1 stand for them; one without
  is given as it is.

  Attributes:
    low: D bounds, -inf for none.
    high: likewise, inf for none.
    squash: whether tanh brings a number between its bounds; else it is cut off
      at them.

  Raises:
    ValueError: bounds leave nothing, or there are none to squash a number in.
  """

  low: tuple[float, ...]
  high: tuple[float, ...]
  squash: bool = False

  dtype = np.dtype(np.float32)

  def __post_init__(self):
    for i, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
      if not low < high:
        raise ValueError(
          f'number {i} has the bounds {low:g} and {high:g}, which leave '
          'nothing to choose. Wrap the environment so that it is left out'
        )
    if self.squash and not self.has_bounds.all():
      raise ValueError(
        f'bounds {list(self.low)} and {list(self.high)} are not finite, and '
        '--action_bounds=squash needs two of each number. Choose clip'
      )

  @property
  def shape(self) -> tuple[int, ...]:  # type: ignore[override]
    return (len(self.low),)

  @property
  def num_parameters(self) -> int:
    return 2 * len(self.low)

  @property
  def has_bounds(self) -> np.ndarray:
    """[D] bool, which entries have both."""
    return np.isfinite(self.low) & np.isfinite(self.high)

  def _check_values(self, actions: np.ndarray) -> None:
    if actions.dtype.kind != 'f' or not np.isfinite(actions).all():
      raise ValueError(
        'actions must be finite floats; if the agent has diverged, try a lower '
        '--learning_rate'
      )

  def to_environment(self, actions: np.ndarray) -> np.ndarray:
    low, high, bounded, middle, half = self._scale
    units = np.tanh(actions) if self.squash else np.clip(actions, -1, 1)
    inside = np.where(bounded, middle + half * units, actions)
    # What has one bound is cut off there; rounding must not leave any.
    return np.clip(inside.astype(np.float32), low, high)

  @functools.cached_property
  def _scale(self) -> tuple[np.ndarray, ...]:
    """Bounds, which entries have both, and the middle and half of their span.

    Once, as actions are scaled at every step.
    """
    low, high = (np.array(x, np.float64) for x in (self.low, self.high))
    bounded = self.has_bounds
    middle, half = np.zeros_like(low), np.ones_like(low)
    middle[bounded] = (low[bounded] + high[bounded]) / 2
    half[bounded] = (high[bounded] - low[bounded]) / 2
    bounds = low.astype(np.float32), high.astype(np.float32)
    return *bounds, bounded, middle, half

  def sample(self, generator: np.random.Generator, size: int) -> np.ndarray:
    return generator.uniform(-1, 1, (size, *self.shape)).astype(np.float32)

  def __str__(self) -> str:
    how = 'squashed' if self.squash else 'clipped'
    bounds = ', '.join(
      f'{low:g} to {high:g}'
      for low, high in zip(self.low, self.high, strict=True)
    )
    return f'numbers from {bounds}, {how}'


def _check_integers(actions: np.ndarray, nums: np.ndarray) -> None:
  if actions.dtype.kind not in 'iu':
    raise ValueError(f'actions must be integers, not {actions.dtype}')
  wrong = (actions < 0) | (actions >= nums)
  if wrong.any():
    raise ValueError(
      f'actions must be in 0 to {(nums - 1).tolist()}, not {actions[wrong][0]}'
    )
