"""The Python face of the batcher: nests, serve loops, decorators."""

import functools
import threading
import weakref
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from absl import logging

from dynamic_batching import ops
from dynamic_batching.structures import Options, Statistics

# A nest (tf.nest) of tensors or of specs.
Nest = Any


class Batcher:
  """Joins the rows of concurrent calls into batches.

  Any number of threads call `compute`; one or more threads serve, with
  `serve_forever`, or with `get_inputs` and `set_outputs`. All methods but
  `statistics` and the serve loops may also be used inside a `tf.function`
  (where TensorFlow runs several uses of the *same* batcher one by one).

  A batch is served as soon as `minimum_batch_size` rows wait or the oldest call
  has waited `timeout_ms`. Calls are taken in order of arrival while they fit
  into `maximum_batch_size` rows and never split, so a batch can be smaller than
  `minimum_batch_size` when the next call does not fit.
  """

  def __init__(
    self,
    input_specs: Nest,
    output_specs: Nest,
    *,
    minimum_batch_size: int = 1,
    maximum_batch_size: int = 1024,
    timeout_ms: int | None = 100,
    implementation: str | None = None,
  ):
    """Creates an open batcher.

    Args:
      input_specs: Nest of `tf.TensorSpec` of the inputs of a batch, each with
        the rows, None, as first dimension.
      output_specs: The same of the outputs.
      minimum_batch_size: Rows, at least 1.
      maximum_batch_size: Rows, at least `minimum_batch_size`.
      timeout_ms: Milliseconds; 0 serves whatever waits at once, None waits for
        `minimum_batch_size` rows however long it takes.
      implementation: 'op', 'fallback', or None for the environment variable
        `DYNAMIC_BATCHING` or else the op where it can be had.

    Raises:
      ValueError: An option or a spec is not valid.
      ImportError: The op is demanded but can be neither built nor loaded.
    """
    self.options = Options(minimum_batch_size, maximum_batch_size, timeout_ms)
    self.input_specs = input_specs
    self.output_specs = output_specs
    self._inputs = _flat_specs('input_specs', input_specs)
    self._outputs = _flat_specs('output_specs', output_specs)
    with tf.init_scope():
      self._core = ops.create(
        self.options, self._inputs, self._outputs, implementation
      )

  @property
  def implementation(self) -> str:
    """'op' or 'fallback'."""
    return self._core.implementation

  @property
  def closed(self) -> bool:
    """Whether the batcher is closed."""
    return self._core.closed()

  def compute(self, inputs: Nest) -> Nest:
    """Has some rows computed as a part of a batch; waits for the result.

    Args:
      inputs: Nest of tensors like `input_specs` that share their first
        dimension: 1 to `maximum_batch_size` rows.

    Returns:
      Nest of tensors like `output_specs` with the same number of rows.

    Raises:
      tf.errors.InvalidArgumentError: The inputs do not fit the specs or the
        calls that wait.
      tf.errors.CancelledError: The batcher is or was closed.
      tf.errors.OpError: What the served function raised, if one of these, else
        an UnknownError with the type and message of what it raised.
    """
    flat = _flatten('Inputs', inputs, self.input_specs, self._inputs)
    outputs = self._core.compute(flat)
    if not tf.executing_eagerly():
      _set_shapes(outputs, self._outputs, flat[0].shape)
    return tf.nest.pack_sequence_as(self.output_specs, outputs)

  def get_inputs(self) -> tuple[Nest, tf.Tensor]:
    """Waits for a batch and takes it.

    Each batch must be answered: `set_outputs` or `set_error`.

    Returns:
      Nest of tensors like `input_specs`, and the id of the batch, `int64 []`.

    Raises:
      tf.errors.CancelledError: The batcher is or was closed.
    """
    flat, computation_id = self._core.get_inputs()
    if not tf.executing_eagerly():
      _set_shapes(flat, self._inputs, tf.TensorShape(None))
    return tf.nest.pack_sequence_as(self.input_specs, flat), computation_id

  def set_outputs(self, outputs: Nest, computation_id: tf.Tensor) -> None:
    """Answers the calls of a batch, each with its own rows.

    Args:
      outputs: Nest of tensors like `output_specs` with the rows of the batch.
      computation_id: The batch, from `get_inputs`.

    Raises:
      tf.errors.InvalidArgumentError: The outputs do not have the rows of the
        batch (which stays open then), or there is no such batch.
      tf.errors.CancelledError: The batcher is closed.
    """
    flat = _flatten('Outputs', outputs, self.output_specs, self._outputs)
    self._core.set_outputs(flat, computation_id)

  def set_error(self, computation_id: tf.Tensor, error: BaseException) -> None:
    """Answers the calls of a batch with an error.

    Args:
      computation_id: The batch, from `get_inputs`.
      error: A `tf.errors.OpError` keeps its type; anything else becomes an
        UnknownError.

    Raises:
      tf.errors.InvalidArgumentError: There is no such batch.
      tf.errors.CancelledError: The batcher is closed.
    """
    if isinstance(error, tf.errors.OpError):
      code, message = error.error_code, error.message
    else:
      code, message = tf.errors.UNKNOWN, f'{type(error).__name__}: {error}'
    self._core.set_error(computation_id, code, message)

  def close(self) -> None:
    """Makes all calls and consumers, now and later, fail with CancelledError.

    Closing a closed batcher does nothing.
    """
    self._core.close()

  def serve_once(self, function: Callable[[Nest], Nest]) -> bool:
    """Waits for one batch and computes it.

    Args:
      function: From a nest like `input_specs` to one like `output_specs`.

    Returns:
      False if the batcher was closed instead.

    Raises:
      Exception: What `function` raised, or why its outputs were not accepted.
        The callers of the batch got it, too; the batcher is still open.
    """
    try:
      inputs, computation_id = self.get_inputs()
    except tf.errors.CancelledError:
      if self.closed:
        return False
      raise
    try:
      outputs = function(inputs)
    except BaseException as error:
      self._fail(computation_id, error)
      raise
    try:
      self.set_outputs(outputs, computation_id)
    except BaseException as error:
      if self._fail(computation_id, error):
        raise
      return False
    return True

  def serve_forever(
    self,
    function: Callable[[Nest], Nest],
    *,
    close_on_error: bool = True,
  ) -> None:
    """Computes batch after batch in this thread, until the batcher is closed.

    The first exception of `function` reaches the callers of that batch, closes
    the batcher and is raised here. Several threads may serve one batcher.

    Args:
      function: From a nest like `input_specs` to one like `output_specs`. A
        `tf.function` is traced once, for any number of rows.
      close_on_error: If False, an exception is logged instead and the loop goes
        on with the next batch.

    Raises:
      Exception: What `function` raised, unless `close_on_error` is False.
    """
    try:
      if hasattr(function, 'get_concrete_function'):
        function = function.get_concrete_function(self.input_specs)
      while True:
        try:
          if not self.serve_once(function):
            return
        except Exception:
          if close_on_error:
            raise
          logging.exception('A batch failed. Serving the next one.')
    except BaseException:
      self.close()
      raise

  def statistics(self) -> Statistics:
    """Returns what the batcher has done so far."""
    return self._core.statistics()

  def _fail(self, computation_id: tf.Tensor, error: BaseException) -> bool:
    """Returns whether the batch could still be answered with the error."""
    try:
      self.set_error(computation_id, error)
    except tf.errors.CancelledError:
      return False
    return True


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
    implementation: See `Batcher`.

  Raises:
    ValueError: An option is not valid.
  """
  options = Options(minimum_batch_size, maximum_batch_size, timeout_ms)

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
        self.batcher = _start(
          self._function, inputs, self._options, self._implementation
        )
        # Also runs at exit, so that the daemon thread ends in time.
        weakref.finalize(self, self.batcher.close)
    return self.batcher.compute(inputs)

  def close(self) -> None:
    """Closes the batcher, if there was a call yet."""
    if self.batcher is not None:
      self.batcher.close()


def _start(
  function: Callable[..., Nest],
  inputs: Nest,
  options: Options,
  implementation: str | None,
) -> Batcher:
  def rows_of(tensor: tf.Tensor) -> tf.TensorSpec:
    shape = tensor.shape
    if shape.rank == 0:
      raise ValueError(
        'Input shape must have a batch dimension. Shape observed: []'
      )
    if shape.rank is not None:
      shape = tf.TensorShape([None]).concatenate(shape[1:])
    return tf.TensorSpec(shape, tensor.dtype)

  input_specs = tf.nest.map_structure(rows_of, inputs)
  with tf.init_scope():
    concrete = tf.function(function).get_concrete_function(*input_specs)
    output_specs = tf.nest.map_structure(
      lambda spec: tf.TensorSpec(spec.shape, spec.dtype),
      concrete.structured_outputs,
    )
    batcher = Batcher(
      input_specs,
      output_specs,
      minimum_batch_size=options.minimum_batch_size,
      maximum_batch_size=options.maximum_batch_size,
      timeout_ms=options.timeout_ms,
      implementation=implementation,
    )

  def serve() -> None:
    try:
      batcher.serve_forever(lambda batch: concrete(*batch))
    except Exception:
      logging.exception('%s failed; its batcher is closed.', function)

  threading.Thread(target=serve, name='dynamic_batching', daemon=True).start()
  return batcher


def _flat_specs(name: str, specs: Nest) -> list[tf.TensorSpec]:
  flat = tf.nest.flatten(specs)
  if not flat:
    raise ValueError(f'{name} must hold at least one tf.TensorSpec')
  for spec in flat:
    if not isinstance(spec, tf.TensorSpec):
      raise ValueError(f'{name} must be a nest of tf.TensorSpec: {spec!r}')
  return flat


def _flatten(
  name: str, nest: Nest, specs: Nest, flat_specs: list[tf.TensorSpec]
) -> list[tf.Tensor]:
  flat = [nest] if specs is flat_specs[0] else tf.nest.flatten(nest)
  if len(flat) != len(flat_specs):
    raise ValueError(f'{name} must have the structure {specs} but are {nest}')
  return [
    value
    if isinstance(value, tf.Tensor)
    else tf.convert_to_tensor(value, spec.dtype)
    for value, spec in zip(flat, flat_specs, strict=True)
  ]


def _set_shapes(
  tensors: list[tf.Tensor],
  specs: list[tf.TensorSpec],
  like: tf.TensorShape,
) -> None:
  for tensor, spec in zip(tensors, specs, strict=True):
    tensor.set_shape(spec.shape)
    if spec.shape.rank and like.rank:
      tensor.set_shape(like[:1].concatenate(spec.shape[1:]))
