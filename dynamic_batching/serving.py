"""Loops that compute the batches of a batcher.

With the native op and a `tf.function` the whole loop is one graph. A loop in
Python would need the GIL three times per batch and queue for it behind all the
callers, which are Python threads: that halved the throughput at 32 callers.
"""

from collections.abc import Callable
from typing import Protocol

import tensorflow as tf
from absl import logging

from dynamic_batching import nests
from dynamic_batching.interrupts import interruptible
from dynamic_batching.nests import Nest


class Batcher(Protocol):
  """What the loops need of `batcher.Batcher`, see there."""

  input_specs: Nest
  output_specs: Nest

  @property
  def implementation(self) -> str: ...
  @property
  def closed(self) -> bool: ...
  def get_inputs(self) -> tuple[Nest, tf.Tensor]: ...
  def set_outputs(self, outputs: Nest, computation_id: tf.Tensor) -> None: ...
  def set_error(
    self, computation_id: tf.Tensor, error: BaseException
  ) -> None: ...
  def close(self) -> None: ...


def serve_once(batcher: Batcher, function: Callable[[Nest], Nest]) -> bool:
  """See `Batcher.serve_once`."""
  try:
    inputs, computation_id = batcher.get_inputs()
  except tf.errors.CancelledError:
    if batcher.closed:
      return False
    raise
  try:
    outputs = function(inputs)
  except BaseException as error:
    _fail(batcher, computation_id, error)
    raise
  try:
    batcher.set_outputs(outputs, computation_id)
  except BaseException as error:
    if not _fail(batcher, computation_id, error):
      return False
    raise
  return True


def serve_forever(
  batcher: Batcher,
  function: Callable[[Nest], Nest],
  close_on_error: bool,
  stop: Callable[[], bool] | None = None,
) -> None:
  """See `Batcher.serve_forever`."""
  try:
    serve = _loop(batcher, function, in_graph=stop is None)
    while stop is None or not stop():
      try:
        if not serve():
          return
      except Exception:
        if close_on_error:
          raise
        logging.exception('A batch failed. Serving the next one.')
  except BaseException:
    batcher.close()
    raise


def _loop(
  batcher: Batcher, function: Callable[[Nest], Nest], in_graph: bool
) -> Callable[[], bool]:
  """Returns what serves one or more batches and tells whether to go on."""
  if not hasattr(function, 'get_concrete_function'):
    return lambda: serve_once(batcher, function)
  concrete = function.get_concrete_function(batcher.input_specs)
  # What does not fit now never will: no batch shall be taken in vain.
  nests.Structure('output_specs', batcher.output_specs).check(
    'Outputs', concrete.structured_outputs
  )
  if batcher.implementation != 'op' or not in_graph:
    return lambda: serve_once(batcher, concrete)

  with tf.device('cpu'):
    # The batch in hand. When the graph fails, this is all that is left of it.
    current = tf.Variable(-1, dtype=tf.int64, trainable=False)

  def body(unused: tf.Tensor) -> list[tf.Tensor]:
    inputs, computation_id = batcher.get_inputs()
    with tf.control_dependencies([current.assign(computation_id)]):
      outputs = concrete(inputs)
    batcher.set_outputs(outputs, computation_id)
    return [unused]

  @tf.function(autograph=False)
  def run() -> None:
    # One iteration at a time: a batch taken in advance would be smaller and
    # would wait.
    tf.while_loop(lambda _: True, body, [tf.constant(0)], parallel_iterations=1)

  def serve() -> bool:
    try:
      interruptible(run)
    except BaseException as error:
      if batcher.closed and isinstance(error, tf.errors.CancelledError):
        return False
      _fail(batcher, current, error)
      raise
    raise AssertionError('unreachable: the loop only ends by an error')

  return serve


def _fail(
  batcher: Batcher, computation_id: tf.Tensor, error: BaseException
) -> bool:
  """Returns whether the batch could still be answered with the error."""
  try:
    batcher.set_error(tf.identity(computation_id), error)
  except tf.errors.CancelledError:
    return False
  except tf.errors.InvalidArgumentError:
    # Answered already: it was not this batch that failed.
    return True
  return True
