"""How an actor obtains its actions."""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tree

import dynamic_batching
from scalable_agent import networks, structures


class Seeds:
  """Endless seeds for action sampling, one for each call of the policy.

  No two threads ever draw the same.
  """

  def __init__(self, seed: int):
    with tf.device('cpu'):
      self._generator = tf.random.Generator.from_seed(seed, alg='philox')

  def __call__(self) -> tf.Tensor:
    """Returns the next seed, [2] int64; also inside of a tf.function."""
    return self._generator.make_seeds(1)[:, 0]

  def get_state(self) -> list[int]:
    """Returns where it is, as JSON-able data."""
    return self._generator.state.numpy().tolist()

  def set_state(self, state: list[int] | int) -> None:
    """Goes on from where `get_state` was called.

    Args:
      state: of `get_state`, or the number of draws, which older checkpoints
        hold.
    """
    if isinstance(state, int):
      self._generator.skip(state)
    else:
      self._generator.reset(state)


def make_step(agent: networks.Agent, seeds: Seeds):
  """Returns `agent.step` as one graph for any number of rows, with its seeds.

  It is called with (env_output, last_action, state).
  """

  def step(env_output, last_action, state):
    return agent.step(env_output, last_action, state, seeds())

  # No autograph: nothing here branches on tensors, and translating all the
  # libraries below takes five seconds at the start of every run. Partial, so
  # that TensorFlow, which warns of a function that is traced again and again,
  # does not count the steps of all agents of a process together.
  return tf.function(
    functools.partial(step), reduce_retracing=True, autograph=False
  )


# In both policies the agent's step sees neither the discount nor the episode
# statistics: it must not depend on them.


class Direct:
  """Evaluates the agent in the thread that asks.

  Attributes:
    seconds: spent in the agent so far, until its device was done.
  """

  def __init__(self, step: Any):
    """Initialises.

    Args:
      step: of `make_step`.
    """
    self._step = step
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
    result = self._step(env_output, last_action, state)
    # The device works on after a call has returned: reading one small tensor
    # waits for all that it was given before.
    np.asarray(result[0].baseline)
    self.seconds += time.perf_counter() - start
    return result


class Batched:
  """Has the agent evaluated together with the rows of other actors.

  Actors call it; one or more threads run `serve`. `close` wakes them all.
  """

  def __init__(
    self,
    step: Any,
    spec: structures.EnvironmentSpec,
    example_state: networks.AgentState,
    minimum_batch_size: int,
    maximum_batch_size: int,
    timeout_ms: int,
    implementation: str | None = None,
    allowed_batch_sizes: Sequence[int] = (),
  ):
    """Creates the batcher.

    Args:
      step: of `make_step`.
      spec: of the environments.
      example_state: the agent's initial state, for any number of rows.
      minimum_batch_size: rows to wait for.
      maximum_batch_size: rows of one batch at most.
      timeout_ms: after which fewer rows are served; 0 = at once.
      implementation: 'op', 'fallback' or None; see dynamic_batching.Batcher.
      allowed_batch_sizes: rows to which batches are padded, see there.
    """
    self._step = step
    with tf.device('cpu'):
      self._seconds = tf.Variable(0.0, trainable=False, dtype=tf.float64)
    # A graph, so that threads that serve need no GIL.
    self._evaluate = tf.function(
      functools.partial(self._evaluate_rows), autograph=False
    )
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
      allowed_batch_sizes=allowed_batch_sizes,
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
    on_error: Callable[[BaseException], None] | None = None,
    stop: Callable[[], bool] | None = None,
  ) -> None:
    """Evaluates batch after batch until `close`, in one or more threads.

    Args:
      on_error: gets what the agent raises before the callers see its message.
      stop: asked between two batches, whether this thread is to end.

    Raises:
      Exception: what the agent raised.
    """
    self._batcher.serve_forever(self._evaluate, stop=stop, on_error=on_error)

  def _evaluate_rows(self, inputs: Any) -> Any:
    with tf.device('cpu'):
      start = tf.timestamp()
    with tf.control_dependencies([start]):
      result = self._step(*inputs)
    with tf.device('cpu'):
      # Its copy waits for the device.
      done = tf.identity(result[0].baseline)
      with tf.control_dependencies([done]):
        self._seconds.assign_add(tf.timestamp() - start)
    return result

  @property
  def seconds(self) -> float:
    """Spent in the agent so far, by all that serve, until it was done."""
    return float(self._seconds.numpy())

  def close(self) -> None:
    """Wakes everybody who waits, with CancelledError."""
    self._batcher.close()

  def statistics(self) -> dynamic_batching.Statistics:
    """Returns what the batcher has done so far."""
    return self._batcher.statistics()


def _rows(spec: structures.TensorSpec) -> tf.TensorSpec:
  return tf.TensorSpec([None, *spec.shape], spec.dtype)
