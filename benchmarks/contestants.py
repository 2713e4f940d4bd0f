"""What `batcher.py` compares, and what the callers carry.

Contestants:
  op:         `dynamic_batching.Batcher` with the native op and one server.
  packed:     the op behind it, given and returning flat lists: no nest is
              checked, flattened or packed. The most that `op` can reach.
  fallback:   `dynamic_batching.Batcher` in pure Python.
  tensorflow: `tf.nondifferentiable_batch_function` with one batch thread.
  bare:       the model without any batching, in a `tf.function`.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

import dynamic_batching
from dynamic_batching import ops
from scalable_agent import networks, structures


class Contestant(NamedTuple):
  """A way to have a call computed.

  Attributes:
    call: does so, with the inputs of one call.
    flat: whether it wants them, and gives its outputs, as a flat list.
  """

  call: Callable[[Any], Any]
  flat: bool = False


Factory = Callable[[], contextlib.AbstractContextManager[Contestant]]

_MAXIMUM_ROWS = 1024
_ACTIONS = 6


class Load(NamedTuple):
  """What a call carries, and what is done about it.

  Attributes:
    name: in the table.
    rows: of one call.
    inputs: nest of `tf.TensorSpec` of a batch.
    outputs: nest of `tf.TensorSpec` of its results.
    model: from the one to the other, and next to nothing.
    arrays: whether callers have NumPy arrays, not tensors.
  """

  name: str
  rows: int
  inputs: Any
  outputs: Any
  model: Callable[[Any], Any]
  arrays: bool

  def values(self) -> Any:
    """Returns the inputs of one call."""

    def value(spec: tf.TensorSpec) -> Any:
      shape = [self.rows, *spec.shape[1:]]
      zeros = np.zeros(shape, spec.dtype.as_numpy_dtype)
      return zeros if self.arrays else tf.convert_to_tensor(zeros)

    return tf.nest.map_structure(value, self.inputs)


def bytes_load(size: int) -> Load:
  """Returns a load of one row of `size` bytes, in one tensor."""

  def model(rows: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(rows[:, :8], tf.int32), axis=1)

  return Load(
    f'{size} B', 1, _spec(size), _spec(dtype=tf.int32), model, arrays=False
  )


def agent_load(environments: int, arrays: bool) -> Load:
  """Returns what an actor of `environments` Atari games asks the agent for."""
  frames = _spec(84, 84, dtype=tf.uint32)
  state = networks.AgentState(frames=frames, core=())
  step = structures.StepOutput(
    step_type=_spec(dtype=tf.int32),
    reward=_spec(dtype=tf.float32),
    discount=(),
    observation=_spec(84, 84, 1),
    info=(),
  )
  answer = structures.AgentOutput(
    action=_spec(dtype=tf.int32),
    policy_logits=_spec(_ACTIONS, dtype=tf.float32),
    baseline=_spec(dtype=tf.float32),
  )

  def model(inputs: Any) -> Any:
    env_output, last_action, state = inputs
    pixel = tf.cast(env_output.observation[:, 0, 0, 0], tf.int32)
    logits = tf.tile(env_output.reward[:, tf.newaxis], [1, _ACTIONS])
    output = structures.AgentOutput(
      last_action + pixel, logits, env_output.reward
    )
    return output, state

  return Load(
    f'{environments} agent',
    environments,
    (step, _spec(dtype=tf.int32), state),
    (answer, state),
    model,
    arrays,
  )


def make(kind: str, callers: int, load: Load) -> dict[str, list[Factory]]:
  """Returns, by name, factories of contexts; the best of each name counts.

  Args:
    kind: of the callers, 'eager' or 'function'.
    callers: number of threads.
    load: what they carry.
  """
  all_rows = callers * load.rows
  names = ['op', 'fallback']
  if kind == 'eager' and tf.nest.is_nested(load.inputs):
    names.insert(1, 'packed')
  result: dict[str, list[Factory]] = {
    name: [
      functools.partial(_ours, name, kind, minimum, callers, load)
      for minimum in sorted({1, all_rows})
    ]
    for name in names
  }
  most = max(_MAXIMUM_ROWS, all_rows)
  result['tensorflow'] = [
    functools.partial(_tensorflows, kind, maximum, timeout_us, load)
    for maximum, timeout_us in ((all_rows, 5000), (most, 100))
  ]
  if kind == 'function':
    result['bare'] = [functools.partial(_bare, load)]
  return result


def _spec(*shape: int, dtype: tf.DType = tf.uint8) -> tf.TensorSpec:
  return tf.TensorSpec([None, *shape], dtype)


@contextlib.contextmanager
def _ours(
  name: str, kind: str, minimum: int, callers: int, load: Load
) -> Iterator[Contestant]:
  """A running `dynamic_batching.Batcher`."""
  batcher = dynamic_batching.Batcher(
    load.inputs,
    load.outputs,
    minimum_batch_size=minimum,
    maximum_batch_size=max(_MAXIMUM_ROWS, callers * load.rows),
    timeout_ms=5,
    implementation='fallback' if name == 'fallback' else 'op',
  )
  server = threading.Thread(
    target=batcher.serve_forever,
    args=(tf.function(functools.partial(load.model)),),
  )
  server.start()
  contestant = Contestant(batcher.compute)
  if name == 'packed':
    contestant = _packed(batcher, load)
  elif kind == 'function':
    contestant = Contestant(
      tf.function(
        functools.partial(batcher.compute), input_signature=[load.inputs]
      )
    )
  try:
    yield contestant
  finally:
    batcher.close()
    server.join()


def _packed(batcher: dynamic_batching.Batcher, load: Load) -> Contestant:
  """The op of a batcher."""
  handle = batcher._core.handle
  types = [spec.dtype for spec in tf.nest.flatten(load.outputs)]
  library = ops.load()

  def call(flat: list[Any]) -> list[tf.Tensor]:
    return library.batcher_compute(handle, flat, types)

  return Contestant(call, flat=True)


@contextlib.contextmanager
def _tensorflows(
  kind: str, maximum: int, timeout_us: int, load: Load
) -> Iterator[Contestant]:
  """TensorFlow's own batching, which knows flat inputs only."""
  options = {
    'num_batch_threads': 1,
    'max_batch_size': maximum,
    'batch_timeout_micros': timeout_us,
    'max_enqueued_batches': 100,
  }
  name = f'benchmark_{kind}_{maximum}_{timeout_us}_{load.name}_{load.arrays}'
  name = name.replace(' ', '_')
  flat_specs = tf.nest.flatten(load.inputs)

  def model(*flat: tf.Tensor) -> Any:
    return load.model(tf.nest.pack_sequence_as(load.inputs, flat))

  if kind == 'function':
    batched = tf.nondifferentiable_batch_function(**options)(model)

    def named(values: Any) -> Any:
      # The queue is shared by all that are traced in a scope of this name, and
      # has the options of the first.
      with tf.name_scope(name):
        return batched(*tf.nest.flatten(values))

    yield Contestant(
      tf.function(functools.partial(named), input_signature=[load.inputs])
    )
    return
  concrete = tf.function(model).get_concrete_function(*flat_specs)
  types = [spec.dtype for spec in tf.nest.flatten(load.outputs)]

  def call(flat: list[Any]) -> list[tf.Tensor]:
    return tf.raw_ops.BatchFunction(
      in_tensors=flat,
      captured_tensors=[],
      f=concrete,
      Tout=types,
      shared_name=name,
      **options,
    )

  yield Contestant(call, flat=True)


@contextlib.contextmanager
def _bare(load: Load) -> Iterator[Contestant]:
  """No batching."""
  yield Contestant(
    tf.function(functools.partial(load.model), input_signature=[load.inputs])
  )
