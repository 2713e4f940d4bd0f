"""Finds, builds, loads and wraps the native ops, or falls back to Python."""

import os
import threading
import types
import warnings
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from dynamic_batching import fallback, graph_calls
from dynamic_batching.interrupts import interruptible
from dynamic_batching.structures import Options, Statistics

# 'op' demands the native op, 'fallback' the Python implementation; if unset,
# the op is used wherever it can be built.
ENVIRONMENT_VARIABLE = 'DYNAMIC_BATCHING'

_lock = threading.Lock()
_library: types.ModuleType | None = None
_failure: Exception | None = None


class FallbackWarning(RuntimeWarning):
  """The native ops cannot be had; batching is done in Python."""


def load() -> types.ModuleType:
  """Returns the module of the native ops; builds them first if need be.

  Raises:
    ImportError: They cannot be built or loaded. Raised again by later calls,
      since a second attempt would be as slow and as vain as the first.
  """
  global _library, _failure
  with _lock:
    if _library is None and _failure is None:
      try:
        _library = _load()
      except ImportError as error:
        _failure = error
    if _library is None:
      raise ImportError(str(_failure)) from _failure
    return _library


def _load() -> types.ModuleType:
  # Imported late so that `python -m dynamic_batching.build` runs it only once.
  from dynamic_batching import build

  try:
    try:
      return tf.load_op_library(str(build.build()))
    except tf.errors.NotFoundError:
      # The right name but the wrong symbols: a TensorFlow rebuilt under the
      # same version, or a damaged file.
      return tf.load_op_library(str(build.build(force=True)))
  except (build.BuildError, OSError, tf.errors.NotFoundError) as error:
    raise ImportError(
      'The native ops of dynamic_batching are not available for TensorFlow '
      f'{tf.__version__}: {error}'
    ) from error


def create(
  options: Options,
  input_specs: Sequence[tf.TensorSpec],
  output_specs: Sequence[tf.TensorSpec],
  implementation: str | None = None,
) -> 'NativeBatcher | fallback.PythonBatcher':
  """Returns the implementation to use.

  Args:
    options: When to serve a batch.
    input_specs: Specs of the flat inputs.
    output_specs: Specs of the flat outputs.
    implementation: 'op', 'fallback', or None: the environment variable
      `DYNAMIC_BATCHING` if set, else the op where it can be had.

  Raises:
    ValueError: No such implementation.
    ImportError: The op is demanded but not available.
  """
  source = 'implementation'
  if implementation is None:
    source = f'environment variable {ENVIRONMENT_VARIABLE}'
    implementation = os.environ.get(ENVIRONMENT_VARIABLE) or None
  if implementation not in (None, 'op', 'fallback'):
    raise ValueError(
      f"{source} must be 'op' or 'fallback' but was {implementation!r}"
    )
  if implementation != 'fallback':
    try:
      return NativeBatcher(load(), options, input_specs, output_specs)
    except ImportError as error:
      if implementation == 'op':
        raise
      _warn(error)
  return fallback.PythonBatcher(options, input_specs, output_specs)


def _warn(error: ImportError) -> None:
  warnings.warn(
    f'{error}\nBatching in Python instead: several times slower, it competes '
    'for the GIL with the callers, and inside a tf.function a cancelled call '
    'is computed nevertheless. To get the native ops, install a C++ compiler '
    'and run `python -m dynamic_batching.build`; to silence this, set '
    f'{ENVIRONMENT_VARIABLE}=fallback.',
    FallbackWarning,
    stacklevel=4,
  )


class NativeBatcher:
  """A batcher resource and its ops, on flat lists of tensors."""

  implementation = 'op'
  # Converted by the op, for a fraction of what tf.convert_to_tensor costs. They
  # may share the memory of the caller's array then.
  takes_arrays = True

  def __init__(
    self,
    library: types.ModuleType,
    options: Options,
    input_specs: Sequence[tf.TensorSpec],
    output_specs: Sequence[tf.TensorSpec],
  ):
    self._library = library
    self._compute = library.batcher_compute
    self._input_types = [spec.dtype for spec in input_specs]
    self._output_types = [spec.dtype for spec in output_specs]
    with tf.device('cpu'):
      self.handle = library.batcher(
        minimum_batch_size=options.minimum_batch_size,
        maximum_batch_size=options.maximum_batch_size,
        timeout_ms=-1 if options.timeout_ms is None else options.timeout_ms,
        allowed_batch_sizes=list(options.allowed_batch_sizes),
        input_types=self._input_types,
        input_shapes=[spec.shape for spec in input_specs],
        output_types=self._output_types,
        output_shapes=[spec.shape for spec in output_specs],
      )

  # In a graph by themselves, TensorFlow's wrappers of these ops would have them
  # run one by one.

  def compute_in_graph(self, inputs: list[tf.Tensor]) -> list[tf.Tensor]:
    return graph_calls.add_unordered(
      'BatcherCompute',
      [self.handle, *inputs],
      Tinput_list=self._input_types,
      Toutput_list=self._output_types,
    )

  def compute(self, inputs: list[tf.Tensor | np.ndarray]) -> list[tf.Tensor]:
    if threading.current_thread() is not threading.main_thread():
      return self._compute(self.handle, inputs, self._output_types)
    # After an interrupt, the caller may write to arrays of a call that waits.
    tensors = [tf.convert_to_tensor(x) for x in inputs]
    return interruptible(
      lambda: self._compute(self.handle, tensors, self._output_types)
    )

  def get_inputs(self) -> tuple[list[tf.Tensor], tf.Tensor]:
    if not tf.executing_eagerly():
      *inputs, computation_id = graph_calls.add_unordered(
        'BatcherGetInputs', [self.handle], Tinput_list=self._input_types
      )
      return inputs, computation_id
    return self._library.batcher_get_inputs(self.handle, self._input_types)

  def set_outputs(
    self, outputs: list[tf.Tensor], computation_id: tf.Tensor
  ) -> None:
    if not tf.executing_eagerly():
      graph_calls.add_unordered(
        'BatcherSetOutputs',
        [self.handle, *outputs, computation_id],
        Toutput_list=[x.dtype for x in outputs],
      )
      return
    self._library.batcher_set_outputs(self.handle, outputs, computation_id)

  def set_error(
    self, computation_id: tf.Tensor, code: int, message: str
  ) -> None:
    if not tf.executing_eagerly():
      graph_calls.add_unordered(
        'BatcherSetError',
        [self.handle, computation_id, tf.constant(code), tf.constant(message)],
      )
      return
    self._library.batcher_set_error(self.handle, computation_id, code, message)

  def close(self) -> None:
    self._library.batcher_close(self.handle)

  def closed(self) -> bool:
    return bool(self._library.batcher_statistics(self.handle).closed)

  def statistics(self) -> Statistics:
    read = self._library.batcher_statistics(self.handle)
    waiting_calls, waiting_rows, batches, calls, rows = read.counters.numpy()
    return Statistics(
      waiting_calls=int(waiting_calls),
      waiting_rows=int(waiting_rows),
      batches=int(batches),
      calls=int(calls),
      rows=int(rows),
      batch_sizes={int(n): int(count) for n, count in read.batch_sizes.numpy()},
      mean_wait_ms=float(read.mean_wait_ms),
    )
