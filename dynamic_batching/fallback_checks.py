"""What the fallback demands of inputs and outputs, as `cc/checks.h`."""

import tensorflow as tf


def closed_error() -> tf.errors.CancelledError:
  """Returns the error of everything that needs an open batcher."""
  return tf.errors.CancelledError(None, None, 'Batcher is closed')


def invalid_error(message: str) -> tf.errors.InvalidArgumentError:
  """Returns the error of an argument that is not valid."""
  return tf.errors.InvalidArgumentError(None, None, message)


def scalar(name: str, value: tf.Tensor | int) -> int:
  """Returns the value of a scalar or raises an InvalidArgumentError."""
  shape = tf.TensorShape(getattr(value, 'shape', []))
  if shape.rank != 0:
    raise invalid_error(
      f'{name} must be a scalar but has the shape {shape.as_list()}'
    )
  return int(value)


def check_inputs(
  inputs: list[tf.Tensor], specs: list[tf.TensorSpec], maximum: int
) -> None:
  """Raises an InvalidArgumentError unless the inputs are one call."""
  rows = _check_rows('Input', inputs, specs)
  if rows < 1:
    raise invalid_error(
      'Batcher requires a batch size of at least 1 row but was 0'
    )
  if rows > maximum:
    raise invalid_error(
      'Batcher requires a batch size of at most maximum_batch_size='
      f'{maximum} rows but was {rows}'
    )


def check_outputs(outputs: list[tf.Tensor], specs: list[tf.TensorSpec]) -> int:
  """Returns the rows of outputs; raises an InvalidArgumentError."""
  return _check_rows('Output', outputs, specs)


def _check_rows(
  name: str, tensors: list[tf.Tensor], specs: list[tf.TensorSpec]
) -> int:
  for i, (tensor, spec) in enumerate(zip(tensors, specs, strict=True)):
    if tensor.dtype != spec.dtype:
      raise invalid_error(
        f'{name} {i} must be {spec.dtype.name} of shape {spec.shape} but was '
        f'{tensor.dtype.name}'
      )
    if tensor.shape.rank == 0:
      raise invalid_error(
        f'{name} shape must have a batch dimension. Shape observed: '
        f'{tensor.shape}'
      )
    if tensor.shape[0] != tensors[0].shape[0]:
      lower = name.lower()
      raise invalid_error(
        f'Batcher requires {lower}s of the same batch size but {lower} 0 has '
        f'{tensors[0].shape[0]} rows and {lower} {i} has {tensor.shape[0]}'
      )
    if not spec.shape.is_compatible_with(tensor.shape):
      raise invalid_error(
        f'{name} {i} must be {spec.dtype.name} of shape {spec.shape} but was '
        f'of shape {tensor.shape}'
      )
  return int(tensors[0].shape[0])
