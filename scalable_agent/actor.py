"""An actor: environment and policy in, unrolls out."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tree

from scalable_agent import structures


class _Recorder:
  """Writes columns into fresh [T + 1, E, ...] arrays."""

  def __init__(self, example: Any, length: int):
    self.arrays = tree.map_structure(
      lambda x: np.empty((length, *x.shape), x.dtype), example
    )
    self._flat = tree.flatten(self.arrays)

  def write(self, column: int, values: Any) -> None:
    for array, value in zip(self._flat, tree.flatten(values), strict=True):
      array[column] = value


class Actor:
  """Steps one batched environment and assembles unrolls.

  It keeps the core state across unrolls and repeats the last column of an
  unroll as the first one of the next. It knows no learner and no queue.

  Attributes:
    environment_seconds: spent in the environment's steps so far.
  """

  def __init__(
    self,
    environment: Any,
    policy: Callable,
    initial_state: Any,
    unroll_length: int,
    level: int = 0,
    policy_version: Callable[[], int] = lambda: 0,
  ):
    """Resets the environment.

    Args:
      environment: a BatchedEnvironment of E environments.
      policy: called with (StepOutput of [E, ...], last action [E, ...], state),
        returns (AgentOutput of [E, ...], state); see `policies`.
      initial_state: nest of [E, ...], the agent's state before its first step.
      unroll_length: T, in agent steps.
      level: index of the level in the run's list.
      policy_version: returns the learner updates that the policy has seen.
    """
    self._environment = environment
    self._policy = policy
    self._unroll_length = unroll_length
    self._policy_version = policy_version
    self._level = np.full([environment.num_envs], level, np.int32)
    self._state = initial_state
    self.environment_seconds = 0.0
    self._env_output = environment.reset()
    self._agent_output = tree.map_structure(
      lambda s: np.zeros((environment.num_envs, *s.shape), s.dtype),
      structures.agent_output_spec(environment.spec.action_space),
    )

  def unroll(self) -> structures.ActorOutput:
    """Takes T agent steps in each environment; returns numpy [T + 1, E]."""
    version = np.full_like(self._level, self._policy_version(), np.int64)
    initial_state = tree.map_structure(np.asarray, self._state)
    length = self._unroll_length + 1
    env_outputs = _Recorder(self._env_output, length)
    agent_outputs = _Recorder(self._agent_output, length)
    env_outputs.write(0, self._env_output)
    agent_outputs.write(0, self._agent_output)
    for t in range(1, length):
      agent_output, self._state = self._policy(
        self._env_output, self._agent_output.action, self._state
      )
      self._agent_output = structures.AgentOutput(
        *map(np.asarray, agent_output)
      )
      start = time.perf_counter()
      self._env_output = self._environment.step(self._agent_output.action)
      self.environment_seconds += time.perf_counter() - start
      env_outputs.write(t, self._env_output)
      agent_outputs.write(t, self._agent_output)
    return structures.ActorOutput(
      agent_state=initial_state,
      env_outputs=env_outputs.arrays,
      agent_outputs=agent_outputs.arrays,
      policy_version=version,
      level=self._level,
    )

  def snapshot(self) -> Any:
    """Returns what `restore` needs to go on from here, as a pickle-able nest.

    Only for environments that can save their state.
    """
    return {
      'environment': self._environment.get_state(),
      'env_output': self._env_output,
      'agent_output': self._agent_output,
      'agent_state': tree.map_structure(np.asarray, self._state),
    }

  def restore(self, snapshot: Any) -> None:
    """Goes back to where `snapshot` was taken."""
    self._environment.set_state(snapshot['environment'])
    self._env_output = snapshot['env_output']
    self._agent_output = snapshot['agent_output']
    self._state = snapshot['agent_state']
