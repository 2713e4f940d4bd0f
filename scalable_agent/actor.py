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


class Unroller:
  """Acts on what environments show, and makes unrolls of it.

  It keeps the core state across unrolls and repeats the last column of an
  unroll as the first one of the next. It knows no environment, no learner and
  no queue.
  """

  def __init__(
    self,
    policy: Callable,
    initial_state: Any,
    spec: structures.EnvironmentSpec,
    num_envs: int,
    unroll_length: int,
    level: int = 0,
    policy_version: Callable[[], int] = lambda: 0,
  ):
    """Initialises.

    Args:
      policy: called with (StepOutput of [E, ...], last action [E, ...], state),
        returns (AgentOutput of [E, ...], state); see `policies`.
      initial_state: nest of [E, ...], the agent's state before its first step.
      spec: of the environments.
      num_envs: E.
      unroll_length: T, in agent steps.
      level: index of the level in the run's list.
      policy_version: returns the learner updates that the policy has seen.
    """
    self._policy = policy
    self._length = unroll_length + 1
    self._policy_version = policy_version
    self._level = np.full([num_envs], level, np.int32)
    self._state = initial_state
    self._env_output: Any = None
    self._agent_output = tree.map_structure(
      lambda s: np.zeros((num_envs, *s.shape), s.dtype),
      structures.agent_output_spec(spec.action_space),
    )
    self._column = 0  # That is written next; 0: of an unroll not begun.

  def observe(
    self, env_output: structures.StepOutput
  ) -> structures.ActorOutput | None:
    """Takes what the environments show, at first after a reset, then a step.

    Args:
      env_output: of numpy [E, ...].

    Returns:
      The unroll that ends with it, numpy [T + 1, E], if one does.
    """
    self._env_output = env_output
    if not self._column:
      return None
    self._write()
    if self._column < self._length:
      return None
    self._column = 0
    return structures.ActorOutput(
      agent_state=self._initial_state,
      env_outputs=self._env_outputs.arrays,
      agent_outputs=self._agent_outputs.arrays,
      policy_version=self._version,
      level=self._level,
    )

  def act(self) -> np.ndarray:
    """Returns what to do, [E, ...] of the action space."""
    if not self._column:
      self._begin()
    agent_output, self._state = self._policy(
      self._env_output, self._agent_output.action, self._state
    )
    self._agent_output = structures.AgentOutput(*map(np.asarray, agent_output))
    return self._agent_output.action

  def _begin(self) -> None:
    # Not before it acts: what it waited for may have brought newer weights.
    self._version = np.full_like(self._level, self._policy_version(), np.int64)
    self._initial_state = tree.map_structure(np.asarray, self._state)
    self._env_outputs = _Recorder(self._env_output, self._length)
    self._agent_outputs = _Recorder(self._agent_output, self._length)
    self._write()

  def _write(self) -> None:
    self._env_outputs.write(self._column, self._env_output)
    self._agent_outputs.write(self._column, self._agent_output)
    self._column += 1

  def snapshot(self) -> dict[str, Any]:
    """Returns what `restore` needs, between two unrolls, as a nest."""
    return {
      'env_output': self._env_output,
      'agent_output': self._agent_output,
      'agent_state': tree.map_structure(np.asarray, self._state),
    }

  def restore(self, snapshot: dict[str, Any]) -> None:
    """Goes back to where `snapshot` was taken."""
    self._env_output = snapshot['env_output']
    self._agent_output = snapshot['agent_output']
    self._state = snapshot['agent_state']
    self._column = 0


class Actor:
  """Steps one batched environment and assembles unrolls.

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
      policy: see Unroller, as for the following.
      initial_state: of the agent.
      unroll_length: T, in agent steps.
      level: index of the level.
      policy_version: learner updates that the policy has seen.
    """
    self._environment = environment
    self._unroller = Unroller(
      policy,
      initial_state,
      environment.spec,
      environment.num_envs,
      unroll_length,
      level,
      policy_version,
    )
    self.environment_seconds = 0.0
    self._unroller.observe(environment.reset())

  def unroll(self) -> structures.ActorOutput:
    """Takes T agent steps in each environment; returns numpy [T + 1, E]."""
    while True:
      action = self._unroller.act()
      start = time.perf_counter()
      env_output = self._environment.step(action)
      self.environment_seconds += time.perf_counter() - start
      unroll = self._unroller.observe(env_output)
      if unroll is not None:
        return unroll

  def snapshot(self) -> Any:
    """Returns what `restore` needs to go on from here, as a pickle-able nest.

    Only for environments that can save their state.
    """
    return {
      'environment': self._environment.get_state(),
      **self._unroller.snapshot(),
    }

  def restore(self, snapshot: Any) -> None:
    """Goes back to where `snapshot` was taken."""
    self._environment.set_state(snapshot['environment'])
    self._unroller.restore(snapshot)
