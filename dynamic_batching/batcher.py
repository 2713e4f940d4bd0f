"""The Python face of the batcher: nests in, nests out."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from dynamic_batching import ops, serving
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
    return _pack(self.output_specs, outputs)

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
    return _pack(self.input_specs, flat), computation_id

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
    return serving.serve_once(self, function)

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
        `tf.function` is traced once, for any number of rows, and then looped
        over inside one graph, so that serving does not wait for the GIL.
      close_on_error: If False, an exception is logged instead and the loop goes
        on with the next batch.

    Raises:
      Exception: What `function` raised, unless `close_on_error` is False.
    """
    serving.serve_forever(self, function, close_on_error)

  def statistics(self) -> Statistics:
    """Returns what the batcher has done so far."""
    return self._core.statistics()


def _flat_specs(name: str, specs: Nest) -> list[tf.TensorSpec]:
  flat = tf.nest.flatten(specs)
  if not flat:
    raise ValueError(f'{name} must hold at least one tf.TensorSpec')
  for spec in flat:
    if not isinstance(spec, tf.TensorSpec):
      raise ValueError(f'{name} must be a nest of tf.TensorSpec: {spec!r}')
    if spec.shape.rank == 0 or (spec.shape.rank and spec.shape[0] is not None):
      raise ValueError(
        f'{name} must have the rows, None, as first dimension: {spec!r}'
      )
  return flat


def _flatten(
  name: str, nest: Nest, specs: Nest, flat_specs: list[tf.TensorSpec]
) -> list[tf.Tensor]:
  if specs is flat_specs[0]:
    flat = [nest]
  else:
    try:
      tf.nest.assert_same_structure(specs, nest, check_types=False)
      flat = tf.nest.flatten(nest)
    except (TypeError, ValueError):
      flat = _flatten_up_to(name, nest, specs)
  return [
    value
    if isinstance(value, tf.Tensor)
    else tf.convert_to_tensor(value, spec.dtype)
    for value, spec in zip(flat, flat_specs, strict=True)
  ]


def _pack(specs: Nest, flat: list[tf.Tensor]) -> Nest:
  # Spares the most common case a function that is slow for many callers.
  if isinstance(specs, tf.TensorSpec):
    return flat[0]
  return tf.nest.pack_sequence_as(specs, flat)


def _flatten_up_to(name: str, nest: Nest, specs: Nest) -> list[Any]:
  """Slower than tf.nest, but takes lists for tensors where specs end."""
  # Needed for little, and not where only the library is built.
  import tree

  try:
    return tree.flatten_up_to(specs, nest, check_types=False)
  except (TypeError, ValueError) as error:
    raise ValueError(
      f'{name} must have the structure {specs} but are {nest}: {error}'
    ) from None


def _set_shapes(
  tensors: list[tf.Tensor],
  specs: list[tf.TensorSpec],
  like: tf.TensorShape,
) -> None:
  for tensor, spec in zip(tensors, specs, strict=True):
    tensor.set_shape(spec.shape)
    if spec.shape.rank and like.rank:
      tensor.set_shape(like[:1].concatenate(spec.shape[1:]))
