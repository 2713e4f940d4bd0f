"""How an actor obtains its actions."""

import functools
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tree

import dynamic_batching
from scalable_agent import networks, structures


class Seeds:
  """Endless seeds for action sampling, one for each call of the policy.

  Attributes:
    count: seeds handed out so far; set it to go on from there.
  """

  def __init__(self, seed: int, count: int = 0):
    self._seed = seed
    self.count = count
    self._lock = threading.Lock()

  def __call__(self) -> np.ndarray:
    """Returns the next seed, [2] int64."""
    with self._lock:
      self.count += 1
      return np.array([self._seed, self.count], np.int64)


def make_step(agent: networks.Agent):
  """Returns `agent.step` as one graph for any number of rows."""
  # No autograph: nothing here branches on tensors, and translating all the
  # libraries below takes five seconds at the start of every run. Partial, so
  # that TensorFlow, which warns of a method that is traced again and again,
  # does not count the steps of all agents of a process together.
  return tf.function(
    functools.partial(agent.step), reduce_retracing=True, autograph=False
  )


# In both policies the agent's step sees neither the discount nor the episode
# statistics: it must not depend on them.


def _wait(result: Any) -> None:
  """Waits for the device, which works on after a call has returned.

  Reading one small tensor waits for all that its device was given before.
  """
  np.asarray(result[0].baseline)


class Direct:
  """Evaluates the agent in the thread that asks.

  Attributes:
    seconds: spent in the agent so far, until its device was done.
  """

  def __init__(self, step: Any, seeds: Seeds):
    """Initialises.

    Args:
      step: of `make_step`.
      seeds: of the action sampling.
    """
    self._step = step
    self._seeds = seeds
    self.seconds = 0.0

  def __call__(
    self,
    env_output: structures.StepOutput,
    last_action: np.ndarray,
    state: networks.AgentState,
  ) -> tuple[structures.AgentOutput, networks.AgentState]:
    """Returns actions for [E, ...] observations, and the next state."""
    env_output = env_output._replace(info=(), discount=())
    start = time.perf_counter()
    result = self._step(env_output, last_action, state, self._seeds())
    _wait(result)
    self.seconds += time.perf_counter() - start
    return result


class Batched:
  """Has the agent evaluated together with the rows of other actors.

  Actors call it; one or more threads run `serve`. `close` wakes them all.

  Attributes:
    seconds: spent in the agent so far, until its device was done.
  """

  def __init__(
    self,
    step: Any,
    seeds: Seeds,
    spec: structures.EnvironmentSpec,
    example_state: networks.AgentState,
    minimum_batch_size: int,
    maximum_batch_size: int,
    timeout_ms: int,
    implementation: str | None = None,
  ):
    """Creates the batcher.

    Args:
      step: of `make_step`.
      seeds: of the action sampling.
      spec: of the environments.
      example_state: the agent's initial state, for any number of rows.
      minimum_batch_size: rows to wait for.
      maximum_batch_size: rows of one batch at most.
      timeout_ms: after which fewer rows are served; 0 = at once.
      implementation: 'op', 'fallback' or None; see dynamic_batching.Batcher.
    """
    self._step = step
    self._seeds = seeds
    self.seconds = 0.0
    self._lock = threading.Lock()  # Of the above.
    action = structures.agent_output_spec(spec.action_space).action
    env_output = structures.step_output_spec(spec)
    env_output = env_output._replace(info=(), discount=())
    state = tree.map_structure(
      lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), example_state
    )
    self._batcher = dynamic_batching.Batcher(
      input_specs=(
        tree.map_structure(_rows, env_output),
        _rows(action),
        state,
      ),
      output_specs=(
        tree.map_structure(
          _rows, structures.agent_output_spec(spec.action_space)
        ),
        state,
      ),
      minimum_batch_size=minimum_batch_size,
      maximum_batch_size=maximum_batch_size,
      timeout_ms=timeout_ms,
      implementation=implementation,
    )

  def __call__(
    self,
    env_output: structures.StepOutput,
    last_action: np.ndarray,
    state: networks.AgentState,
  ) -> tuple[structures.AgentOutput, networks.AgentState]:
    """Returns actions for [E, ...] observations, and the next state."""
    env_output = env_output._replace(info=(), discount=())
    return self._batcher.compute((env_output, last_action, state))

  def serve(
    self,
    on_error: Callable[[BaseException], None] = lambda error: None,
    stop: Callable[[], bool] | None = None,
  ) -> None:
    """Evaluates batch after batch until `close`, in one or more threads.

    Args:
      on_error: gets what the agent raises before the callers see its message.
      stop: asked between two batches, whether this thread is to end.

    Raises:
      Exception: what the agent raised.
    """

    def evaluate(inputs):
      start = time.perf_counter()
      try:
        result = self._step(*inputs, self._seeds())
        _wait(result)
      except BaseException as error:
        on_error(error)
        raise
      with self._lock:
        self.seconds += time.perf_counter() - start
      return result

    self._batcher.serve_forever(evaluate, stop=stop)

  def close(self) -> None:
    """Wakes everybody who waits, with CancelledError."""
    self._batcher.close()

  def statistics(self) -> dynamic_batching.Statistics:
    """Returns what the batcher has done so far."""
    return self._batcher.statistics()


def _rows(spec: structures.TensorSpec) -> tf.TensorSpec:
  return tf.TensorSpec([None, *spec.shape], spec.dtype)
