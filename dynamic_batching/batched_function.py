"""Decorators that make concurrent calls of a function run as one call."""

import dataclasses
import functools
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from dynamic_batching.batcher import Batcher
from dynamic_batching.nests import Nest
from dynamic_batching.structures import Options


def batch_fn(function: Callable[..., Nest]) -> Callable[..., Nest]:
  """Makes concurrent calls of a function run as one call on all their rows.

  See `batch_fn_with_options`, of which this is the version with all defaults.

  Args:
    function: Takes and returns nests of tensors whose first dimension is rows.

  Returns:
    The batched function.
  """
  return batch_fn_with_options()(function)


def batch_fn_with_options(
  minimum_batch_size: int = 1,
  maximum_batch_size: int = 1024,
  timeout_ms: int | None = 100,
  allowed_batch_sizes: Sequence[int] = (),
  implementation: str | None = None,
) -> Callable[[Callable[..., Nest]], Callable[..., Nest]]:
  """Returns a decorator that makes concurrent calls run as one.

  The first call of the decorated function fixes the types and the shapes of a
  row and starts a thread that serves the batches. If the function fails, the
  callers of that batch get its exception and every other and later call fails
  with a CancelledError, 'Batcher is closed'.

  The decorated function can be called from eager code and from a `tf.function`.
  It has two attributes of its own: `close()` and, for its `Batcher`, `batcher`
  (None before the first call). It is closed when it is garbage-collected.

  Args:
    minimum_batch_size: Rows, at least 1.
    maximum_batch_size: Rows, at least `minimum_batch_size`.
    timeout_ms: Milliseconds; 0 serves whatever waits at once, None waits for
      `minimum_batch_size` rows however long it takes.
    allowed_batch_sizes: See `Batcher`.
    implementation: See `Batcher`.

  Raises:
    ValueError: An option is not valid.
  """
  options = Options(
    minimum_batch_size, maximum_batch_size, timeout_ms, allowed_batch_sizes
  )

  def decorator(function: Callable[..., Nest]) -> _BatchedFunction:
    return _BatchedFunction(function, options, implementation)

  return decorator


class _BatchedFunction:
  """What `batch_fn` makes of a function."""

  def __init__(
    self,
    function: Callable[..., Nest],
    options: Options,
    implementation: str | None,
  ):
    functools.update_wrapper(self, function)
    self.batcher: Batcher | None = None
    self._function = function
    self._options = options
    self._implementation = implementation
    self._lock = threading.Lock()

  def __call__(self, *inputs: Nest) -> Nest:
    # As for tf.convert_to_tensor, a list is data; any other nest is a nest.
    inputs = tuple(
      tf.convert_to_tensor(value)
      if isinstance(value, list)
      else tf.nest.map_structure(tf.convert_to_tensor, value)
      for value in inputs
    )
    with self._lock:
      if self.batcher is None:
        self.batcher = _Service(
          self._function, inputs, self._options, self._implementation
        ).batcher
        # Also runs at exit, so that the daemon thread ends in time.
        weakref.finalize(self, _close, self.batcher)
    return self.batcher.compute(inputs)

  def close(self) -> None:
    """Closes the batcher, if there was a call yet."""
    if self.batcher is not None:
      self.batcher.close()


class _Service:
  """A batcher and the thread that serves it.

  All work is done in the constructor: AutoGraph, which converts what a
  `tf.function` calls, leaves constructors alone.
  """

  def __init__(
    self,
    function: Callable[..., Nest],
    inputs: Nest,
    options: Options,
    implementation: str | None,
  ):
    input_specs = tf.nest.map_structure(_spec_of_rows, inputs)
    with tf.init_scope():
      concrete = tf.function(function).get_concrete_function(*input_specs)
      output_specs = tf.nest.map_structure(
        _output_spec, concrete.structured_outputs
      )
      self.batcher = Batcher(
        input_specs,
        output_specs,
        **dataclasses.asdict(options),
        implementation=implementation,
      )
    # Calls the trace above, so that the function is traced only once.
    served = tf.function(lambda batch: concrete(*batch), autograph=False)
    threading.Thread(
      target=_serve,
      args=(self.batcher, served, getattr(function, '__name__', 'function')),
      name='dynamic_batching',
      daemon=True,
    ).start()


def _serve(batcher: Batcher, served: Callable[[Nest], Nest], name: str) -> None:
  try:
    batcher.serve_forever(served)
  except Exception:
    logging.exception('%s failed; its batcher is closed.', name)


def _close(batcher: Batcher) -> None:
  # The garbage collector may run while a function is traced.
  with tf.init_scope():
    batcher.close()


def _output_spec(output: Any) -> tf.TensorSpec:
  if not isinstance(output, (tf.Tensor, tf.TensorSpec)):
    raise ValueError(
      f'A batched function must return dense tensors but one is {output!r}'
    )
  return tf.TensorSpec(output.shape, output.dtype)


def _spec_of_rows(tensor: tf.Tensor) -> tf.TensorSpec:
  shape = tensor.shape
  if shape.rank == 0:
    raise ValueError(
      'Input shape must have a batch dimension. Shape observed: []'
    )
  if shape.rank is not None:
    shape = tf.TensorShape([None]).concatenate(shape[1:])
  return tf.TensorSpec(shape, tensor.dtype)
