"""What the fallback demands of inputs and outputs, as `cc/checks.h`."""

import tensorflow as tf


def closed_error() -> tf.errors.CancelledError:
  """Returns the error of everything that needs an open batcher."""
  return tf.errors.CancelledError(None, None, 'Batcher is closed')


def invalid_error(message: str) -> tf.errors.InvalidArgumentError:
  """Returns the error of an argument that is not valid."""
  return tf.errors.InvalidArgumentError(None, None, message)


def check_inputs(
  inputs: list[tf.Tensor], specs: list[tf.TensorSpec], maximum: int
) -> None:
  """Raises an InvalidArgumentError unless the inputs are one call."""
  rows = inputs[0].shape[0] if inputs[0].shape.rank else 0
  for i, (tensor, spec) in enumerate(zip(inputs, specs, strict=True)):
    if tensor.shape.rank == 0:
      raise invalid_error(
        'Input shape must have a batch dimension. Shape observed: '
        f'{tensor.shape}'
      )
    if tensor.shape[0] != rows:
      raise invalid_error(
        'Batcher requires inputs of the same batch size but input 0 has '
        f'{rows} rows and input {i} has {tensor.shape[0]}'
      )
    if tensor.dtype != spec.dtype or not spec.shape.is_compatible_with(
      tensor.shape
    ):
      raise invalid_error(
        f'Input {i} must be {spec.dtype.name} of shape {spec.shape} but was '
        f'{tensor.dtype.name} of shape {tensor.shape}'
      )
  if rows < 1:
    raise invalid_error(
      'Batcher requires a batch size of at least 1 row but was 0'
    )
  if rows > maximum:
    raise invalid_error(
      'Batcher requires a batch size of at most maximum_batch_size='
      f'{maximum} rows but was {rows}'
    )


def type_error(
  outputs: list[tf.Tensor], specs: list[tf.TensorSpec]
) -> tf.errors.InvalidArgumentError | None:
  """Returns what the callers get unless the outputs have their types."""
  for i, (output, spec) in enumerate(zip(outputs, specs, strict=True)):
    if output.dtype != spec.dtype:
      return invalid_error(
        f'Output {i} must be {spec.dtype.name} but was {output.dtype.name}'
      )
  return None


def check_outputs(outputs: list[tf.Tensor], rows: int) -> None:
  """Raises an InvalidArgumentError unless the outputs have these rows."""
  for output in outputs:
    if output.shape.rank == 0:
      raise invalid_error(
        'Output shape must have a batch dimension. Shape observed: '
        f'{output.shape}'
      )
    if output.shape[0] != rows:
      raise invalid_error(
        'Output shape must have the same batch dimension as the input batch '
        f'size. Expected: {rows} Observed: {output.shape[0]}'
      )
