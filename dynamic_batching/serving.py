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

# Is told what went wrong.
OnError = Callable[[BaseException], None]

# A graph loop comes back as often to ask whether it is to stop: so seldom that
# it costs nothing, and soon enough for who waits for a thread to leave.
_ASK_S = 0.1


def _ignore(_: BaseException) -> None:
  pass


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


def serve_once(
  batcher: Batcher,
  function: Callable[[Nest], Nest],
  on_error: OnError = _ignore,
) -> bool:
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
    _fail(batcher, computation_id, error, on_error)
    raise
  try:
    batcher.set_outputs(outputs, computation_id)
  except BaseException as error:
    if batcher.closed or not _fail(batcher, computation_id, error, on_error):
      return False
    raise
  return True


def serve_forever(
  batcher: Batcher,
  function: Callable[[Nest], Nest],
  close_on_error: bool,
  stop: Callable[[], bool] | None = None,
  on_error: OnError | None = None,
) -> None:
  """See `Batcher.serve_forever`."""
  on_error = on_error or _ignore
  try:
    serve = _loop(batcher, function, stop is not None, on_error)
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
  batcher: Batcher,
  function: Callable[[Nest], Nest],
  stoppable: bool,
  on_error: OnError,
) -> Callable[[], bool]:
  """Returns what serves one or more batches and tells whether to go on."""
  if not hasattr(function, 'get_concrete_function'):
    return lambda: serve_once(batcher, function, on_error)
  try:
    concrete = function.get_concrete_function(batcher.input_specs)
    # What does not fit now never will: no batch shall be taken in vain.
    nests.Structure('output_specs', batcher.output_specs).check(
      'Outputs', concrete.structured_outputs
    )
  except BaseException as error:
    on_error(error)
    raise
  if batcher.implementation != 'op':
    return lambda: serve_once(batcher, concrete, on_error)

  with tf.device('cpu'):
    # The batch in hand. When the graph fails, this is all that is left of it.
    current = tf.Variable(-1, dtype=tf.int64, trainable=False)
  run = _graph(batcher, concrete, current, stoppable)

  def serve() -> bool:
    try:
      interruptible(run)
    except BaseException as error:
      if batcher.closed and isinstance(error, tf.errors.CancelledError):
        return False
      _fail(batcher, current, error, on_error)
      raise
    return True

  return serve


def _graph(
  batcher: Batcher,
  function: Callable[[Nest], Nest],
  current: tf.Variable,
  stoppable: bool,
) -> Callable[[], None]:
  """Returns a graph that serves until an error or, if stoppable, for a while.

  Args:
    batcher: Of the native op.
    function: A trace.
    current: Is told the id of each batch.
    stoppable: Whether the graph ends with the first batch that is answered
      later than `_ASK_S` after its start.
  """

  def goes_on(end: tf.Tensor) -> tf.Tensor:
    return tf.timestamp() < end if stoppable else tf.constant(True)

  def body(end: tf.Tensor) -> list[tf.Tensor]:
    inputs, computation_id = batcher.get_inputs()
    with tf.control_dependencies([current.assign(computation_id)]):
      outputs = function(inputs)
    batcher.set_outputs(outputs, computation_id)
    return [end]

  @tf.function(autograph=False)
  def run() -> None:
    # One iteration at a time: a batch taken in advance would be smaller and
    # would wait.
    tf.while_loop(
      goes_on, body, [tf.timestamp() + _ASK_S], parallel_iterations=1
    )

  return run


def _fail(
  batcher: Batcher,
  computation_id: tf.Tensor,
  error: BaseException,
  on_error: OnError,
) -> bool:
  """Returns whether the batch could still be answered with the error."""
  try:
    on_error(error)
  finally:
    answered = _answer(batcher, computation_id, error)
  return answered


def _answer(
  batcher: Batcher, computation_id: tf.Tensor, error: BaseException
) -> bool:
  try:
    batcher.set_error(tf.identity(computation_id), error)
  except tf.errors.CancelledError:
    return False
  except tf.errors.InvalidArgumentError:
    # Answered already: it was not this batch that failed.
    return True
  return True
