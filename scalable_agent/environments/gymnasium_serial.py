"""Gymnasium environments, one after the other in the thread that steps them.

What SyncVectorEnv does, for `gymnasium_wrapper.Plain` only: no infos, and each
observation is copied once, where SyncVectorEnv copies them twice.
"""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
import tree

from scalable_agent.environments import gymnasium_wrapper


class SerialVectorEnv:
  """Environments that start anew at the step after the end of an episode.

  Attributes:
    envs: what it steps.
    metadata: of the first one.
  """

  def __init__(
    self, name: str, factories: Sequence[Callable[[], gymnasium.Env]]
  ):
    """Makes the environments.

    Args:
      name: of them, for messages.
      factories: make a Plain each.

    Raises:
      ValueError: they are not alike.
    """
    self.envs = [factory() for factory in factories]
    self.metadata = self.envs[0].metadata
    specs, actions = self.metadata[gymnasium_wrapper.SEEN]
    for env in self.envs:
      if env.metadata[gymnasium_wrapper.SEEN] != (specs, actions):
        raise ValueError(
          f'Two environments of {name} differ in their spaces, '
          f'{env.metadata[gymnasium_wrapper.SEEN]} and {(specs, actions)}. '
          'Wrap them to be alike.'
        )
    self._name = name
    self._specs = specs
    self._shapes = [
      (len(self.envs), one.shape, one.dtype) for one in tree.flatten(specs)
    ]
    self._ended = [False] * len(self.envs)

  def reset(self, *, seed: Sequence[int], options: Any) -> tuple[Any, dict]:
    """Starts episodes; see VectorEnv.

    Args:
      seed: of each environment.
      options: `reset_mask`, [E] bool, those to start; only their observations
        count.
    """
    parts = self._new_parts()
    for i in np.flatnonzero(options['reset_mask']).tolist():
      self._write(parts, i, self.envs[i].reset(seed=seed[i])[0])
      self._ended[i] = False
    return self._nest(parts), {}

  def step(
    self, actions: np.ndarray
  ) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict]:
    """Steps all, or starts those whose episodes have ended; see VectorEnv."""
    parts = self._new_parts()
    rewards, terminated, truncated = [], [], []
    for i, (env, action) in enumerate(zip(self.envs, actions, strict=True)):
      reward, ends, cut = 0.0, False, False
      if self._ended[i]:
        observation, _ = env.reset()
      else:
        observation, reward, ends, cut, _ = env.step(action)
      self._write(parts, i, observation)
      self._ended[i] = ends or cut
      rewards.append(reward)
      terminated.append(ends)
      truncated.append(cut)
    return (
      self._nest(parts),
      np.array(rewards, np.float64),
      np.array(terminated, bool),
      np.array(truncated, bool),
      {},
    )

  def _new_parts(self) -> list[np.ndarray]:
    return [np.zeros((n, *shape), dtype) for n, shape, dtype in self._shapes]

  def _write(self, parts: list[np.ndarray], i: int, observation: Any) -> None:
    for part, value in zip(parts, tree.flatten(observation), strict=True):
      # NumPy would fill a row with fewer numbers.
      if value.shape != part.shape[1:]:
        raise ValueError(
          f'{self._name} has given an observation in the shape {value.shape}, '
          f'and its space has {part.shape[1:]}. Correct its observation space, '
          'or wrap it.'
        )
      part[i] = value

  def _nest(self, parts: list[np.ndarray]) -> Any:
    return tree.unflatten_as(self._specs, parts)

  def close(self) -> None:
    """Closes all environments."""
    for env in self.envs:
      env.close()
