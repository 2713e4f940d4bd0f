"""The Python face of the batcher: nests in, nests out."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from dynamic_batching import nests, ops, serving
from dynamic_batching.nests import Nest
from dynamic_batching.structures import Options, Statistics


class Batcher:
  """Joins the rows of concurrent calls into batches.

  Any number of threads call `compute`; one or more threads serve, with
  `serve_forever`, or with `get_inputs` and `set_outputs`. All methods but
  `statistics` and the serve loops may also be used inside a `tf.function`,
  where nothing but data and `tf.control_dependencies` orders them, so that
  several calls can share a batch; only `close` keeps its place.

  Ctrl-C reaches a caller of `compute`, whose rows may be computed all the same,
  and `serve_forever` of a `tf.function`. It does not reach a main thread that
  waits in `get_inputs` of the native op.

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
    allowed_batch_sizes: Sequence[int] = (),
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
      allowed_batch_sizes: Rows, increasing, the last at least
        `maximum_batch_size`. A batch is padded up to the next of them with
        copies of its last row, so that XLA compiles a function no more often
        than there are sizes; outputs are to have these rows, too, and are
        dropped. Empty: no batch is padded.
      implementation: 'op', 'fallback', or None for the environment variable
        `DYNAMIC_BATCHING` or else the op where it can be had.

    Raises:
      ValueError: An option or a spec is not valid.
      RuntimeError: A TensorFlow 1 graph is being built.
      ImportError: The op is demanded but can be neither built nor loaded.
    """
    self.options = Options(
      minimum_batch_size, maximum_batch_size, timeout_ms, allowed_batch_sizes
    )
    self.input_specs = input_specs
    self.output_specs = output_specs
    self._inputs = nests.Structure('input_specs', input_specs)
    self._outputs = nests.Structure('output_specs', output_specs)
    with tf.init_scope():
      _require_tensorflow_2(tf.executing_eagerly())
      self._core = ops.create(
        self.options, self._inputs.flat, self._outputs.flat, implementation
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
    # Callers hold the GIL here, for which all the others wait: be quick.
    if tf.executing_eagerly():
      flat = self._inputs.flatten('Inputs', inputs, self._core.takes_arrays)
      return self._outputs.pack(self._core.compute(flat))
    _is_eager()
    flat = self._inputs.flatten('Inputs', inputs)
    outputs = self._core.compute_in_graph(flat)
    nests.set_shapes(outputs, self._outputs.flat, flat[0].shape)
    return self._outputs.pack(outputs)

  def get_inputs(self) -> tuple[Nest, tf.Tensor]:
    """Waits for a batch and takes it.

    Each batch must be answered: `set_outputs` or `set_error`.

    Returns:
      Nest of tensors like `input_specs`, and the id of the batch, `int64 []`.

    Raises:
      tf.errors.CancelledError: The batcher is or was closed.
    """
    eager = _is_eager()
    flat, computation_id = self._core.get_inputs()
    if not eager:
      nests.set_shapes(flat, self._inputs.flat, tf.TensorShape(None))
    return self._inputs.pack(flat), computation_id

  def set_outputs(self, outputs: Nest, computation_id: tf.Tensor) -> None:
    """Answers the calls of a batch, each with its own rows.

    Args:
      outputs: Nest of tensors like `output_specs` with the rows of the batch,
        padding included.
      computation_id: The batch, from `get_inputs`.

    Raises:
      tf.errors.InvalidArgumentError: The outputs do not have the rows of the
        batch or do not fit the specs (it stays open then), or there is no such
        batch.
      tf.errors.CancelledError: The batcher is closed.
    """
    _is_eager()
    self._core.set_outputs(
      self._outputs.flatten('Outputs', outputs), computation_id
    )

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
    _is_eager()
    self._core.set_error(computation_id, *_code_and_message(error))

  def close(self) -> None:
    """Makes all calls and consumers, now and later, fail with CancelledError.

    Closing a closed batcher does nothing.
    """
    _is_eager()
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
    stop: Callable[[], bool] | None = None,
    on_error: Callable[[BaseException], None] | None = None,
  ) -> None:
    """Computes batch after batch in this thread, until the batcher is closed.

    The first exception of `function` reaches the callers of that batch, closes
    the batcher and is raised here. Several threads may serve one batcher.

    Args:
      function: From a nest like `input_specs` to one like `output_specs`. A
        `tf.function` is traced once, for any number of rows and threads, and
        then looped over inside one graph, so that serving does not wait for the
        GIL. It may use variables.
      close_on_error: If False, an exception is logged instead and the loop goes
        on with the next batch.
      stop: Asked at the start and after each batch or, where a `tf.function` is
        looped over, after a batch at most every 0.1 s. Where it returns True,
        this thread serves no more and returns, and the batcher stays open for
        others. It does not wake a thread that waits for a batch.
      on_error: Told of each exception before the callers of its batch are, and
        before the batcher is closed. What it raises itself is raised in place
        of it.

    Raises:
      ValueError: The outputs of a `tf.function` never have the structure of
        `output_specs`, whatever the batch.
      Exception: What `function` raised, unless `close_on_error` is False or it
        was while `function` was traced.
    """
    serving.serve_forever(self, function, close_on_error, stop, on_error)

  def statistics(self) -> Statistics:
    """Returns what the batcher has done so far."""
    return self._core.statistics()


def _require_tensorflow_2(fulfilled: bool) -> None:
  if not fulfilled:
    raise RuntimeError(
      'A batcher works eagerly and inside a tf.function, not in a tf.Graph '
      'that a session runs. Leave the graph, or turn the function that builds '
      'it into a tf.function.'
    )


def _is_eager() -> bool:
  eager = tf.executing_eagerly()
  _require_tensorflow_2(eager or tf.inside_function())
  return eager


def _code_and_message(error: BaseException) -> tuple[int, str]:
  """Describes any exception, so that its batch gets an answer in any case."""
  code, name, text = tf.errors.UNKNOWN, f'{type(error).__name__}: ', error
  if isinstance(error, tf.errors.OpError) and 0 < error.error_code <= 16:
    code, name, text = error.error_code, '', error.message
  try:
    message = f'{name}{text}'
  except Exception as failure:
    message = f'{name}(its text raises {type(failure).__name__})'
  # Not every str can be encoded: a file name may hold lone surrogates.
  return code, message.encode('utf-8', 'backslashreplace').decode('utf-8')
