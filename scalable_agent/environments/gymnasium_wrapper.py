"""What the agent sees and does in any environment of Gymnasium.

A nest of images, numbers, categories and text, and actions from 0; see
`gymnasium_spaces`.
"""

from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import tree
from gymnasium import spaces

from scalable_agent import action_spaces
from scalable_agent.environments import gymnasium_spaces

if TYPE_CHECKING:
  from scalable_agent.environments.gymnasium_suite import GymnasiumOptions

# Among the metadata, which reach the process that steps: (spec of the
# observations, ActionSpace).
SEEN = 'scalable_agent'


class Plain(gymnasium.Wrapper):
  """Plain observations, actions from 0, repeated actions and no infos."""

  def __init__(
    self, env: gymnasium.Env, name: str, options: 'GymnasiumOptions'
  ):
    """Initialises.

    Args:
      env: to wrap.
      name: of it, for messages.
      options: of the suite.

    Raises:
      ValueError: its actions or observations are of an unsupported kind.
    """
    super().__init__(env)
    self._num_action_repeats = options.num_action_repeats
    self._actions = gymnasium_spaces.actions_of(
      env.action_space, name, options.action_bounds
    )
    self._decode = self._actions.decode
    self._parts = gymnasium_spaces.parts_of(
      env.observation_space, name, options.instruction_length
    )
    self.action_space = _space_of(self._actions.space)
    self.observation_space = _nest_of_spaces(self._parts)
    observation = tree.map_structure(lambda part: part.spec, self._parts)
    self.metadata = env.metadata | {SEEN: (observation, self._actions.space)}

  def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
    # What is left of the vector environment's own options is nothing.
    observation, _ = self.env.reset(seed=seed, options=options or None)
    return self._plain(observation), {}

  def step(self, action: Any) -> Any:
    action = self._decode(action)
    if isinstance(action, np.generic):
      action = action.item()  # Some environments want no NumPy.
    total = 0.0
    for _ in range(self._num_action_repeats):
      observation, reward, terminated, truncated, _ = self.env.step(action)
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

  def _plain(self, observation: Any) -> Any:
    return gymnasium_spaces.encode(self._parts, observation)


def _nest_of_spaces(parts: Any) -> spaces.Space:
  if isinstance(parts, dict):
    return spaces.Dict({k: _nest_of_spaces(v) for k, v in parts.items()})
  if isinstance(parts, tuple):
    return spaces.Tuple([_nest_of_spaces(part) for part in parts])
  return parts.space


def _space_of(space: action_spaces.ActionSpace) -> spaces.Space:
  """Returns what `space.to_environment` gives an action of."""
  if isinstance(space, action_spaces.Discrete):
    return spaces.Discrete(space.num_actions)
  if isinstance(space, action_spaces.MultiDiscrete):
    return spaces.MultiDiscrete(space.nums)
  return spaces.Box(-np.inf, np.inf, space.shape, np.float32)
