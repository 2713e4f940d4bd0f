"""What the agent sees and does in any environment of Gymnasium.

One of two observations, a uint8 image [height, width, channels] or a float32
vector, and actions from 0.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

_MOST_CHANNELS = 4


class Plain(gymnasium.Wrapper):
  """Plain observations, actions from 0, repeated actions and no infos."""

  def __init__(self, env: gymnasium.Env, name: str, num_action_repeats: int):
    """Initialises.

    Args:
      env: to wrap.
      name: of it, for messages.
      num_action_repeats: times that it takes each action.

    Raises:
      ValueError: its actions or observations are of an unsupported kind.
    """
    super().__init__(env)
    actions = env.action_space
    if not isinstance(actions, spaces.Discrete):
      raise ValueError(
        f'{name} has the action space {actions}, but only Discrete actions are '
        'supported. Wrap the environment so that it offers a list of actions, '
        'and register the wrapped one.'
      )
    self._first_action = int(actions.start)
    self._num_action_repeats = num_action_repeats
    self._raw_space = env.observation_space
    self._shape = _image_shape(name, self._raw_space)
    self.action_space = spaces.Discrete(int(actions.n))
    if self._shape is not None:
      self.observation_space = spaces.Box(0, 255, self._shape, np.uint8)
    else:
      self._check_flattens(name, self._raw_space)
      size = spaces.flatdim(self._raw_space)
      self.observation_space = spaces.Box(-np.inf, np.inf, (size,), np.float32)

  def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
    # What is left of the vector environment's own options is nothing.
    observation, _ = self.env.reset(seed=seed, options=options or None)
    return self._plain(observation), {}

  def step(self, action: Any) -> Any:
    total = 0.0
    for _ in range(self._num_action_repeats):
      observation, reward, terminated, truncated, _ = self.env.step(
        int(action) + self._first_action
      )
      total += float(reward)
      if terminated or truncated:
        break
    return (
      self._plain(observation),
      total,
      bool(terminated),
      bool(truncated),
      {},
    )

  def _plain(self, observation: Any) -> np.ndarray:
    if self._shape is not None:
      return np.asarray(observation, np.uint8).reshape(self._shape)
    return spaces.flatten(self._raw_space, observation).astype(np.float32)

  def _check_flattens(self, name: str, space: spaces.Space) -> None:
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
      parts = space.values() if isinstance(space, spaces.Dict) else space
      for part in parts:
        self._check_flattens(name, part)
        if _is_image(part):
          raise ValueError(
            f'{name} has images inside the observation space '
            f'{self._raw_space}. Wrap the environment so that it gives the '
            'image alone, or vectors only.'
          )
      return
    known = (
      spaces.Box,
      spaces.Discrete,
      spaces.MultiBinary,
      spaces.MultiDiscrete,
    )
    if not isinstance(space, known):
      raise ValueError(
        f'{name} has the observation space {space}, which has no fixed size. '
        'Wrap the environment so that it gives a Box.'
      )


def _is_image(space: spaces.Space) -> bool:
  return (
    isinstance(space, spaces.Box)
    and space.dtype == np.uint8
    and len(space.shape) in (2, 3)
  )


def _image_shape(name: str, space: spaces.Space) -> tuple[int, ...] | None:
  """Returns [height, width, channels] of an image, None of anything else."""
  if not _is_image(space):
    return None
  if len(space.shape) == 2:
    return (*space.shape, 1)
  if space.shape[0] <= _MOST_CHANNELS < space.shape[2]:
    raise ValueError(
      f'{name} has images of shape {space.shape}, which looks like channels '
      'first. Wrap the environment so that channels come last.'
    )
  return space.shape
