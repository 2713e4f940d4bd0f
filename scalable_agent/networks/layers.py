"""Layers that compute in the type of their input, with variables of float32."""

import sonnet as snt
import tensorflow as tf


def floating(x: tf.Tensor) -> tf.Tensor:
  """Returns bfloat16 as it is, all else as float32."""
  return x if x.dtype == tf.bfloat16 else tf.cast(x, tf.float32)


@tf.custom_gradient
def _add_bias(x: tf.Tensor, bias: tf.Tensor):
  """Adds a float32 bias to [..., channels].

  TensorFlow sums the gradient of one in its own type: in bfloat16, such a sum
  of ones ends at 256.
  """

  def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    axes = list(range(len(x.shape) - 1))
    return dy, tf.reduce_sum(tf.cast(dy, tf.float32), axes)

  return tf.nn.bias_add(x, tf.cast(bias, x.dtype)), gradient


class _OfItsInput(snt.Module):
  """A layer with bias that takes the type of its input, not of its weights."""

  def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
    """See the layer's own class."""
    if inputs.dtype == tf.float32:
      return super().__call__(inputs)
    if not hasattr(self, 'w'):
      super().__call__(tf.cast(inputs, tf.float32))
    outputs = self._multiply(inputs, tf.cast(self.w, inputs.dtype))
    return _add_bias(outputs, tf.convert_to_tensor(self.b))

  def _multiply(self, inputs: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    raise NotImplementedError


class Conv2D(_OfItsInput, snt.Conv2D):
  """A convolution of [N, height, width, channels], with bias, not dilated."""

  def _multiply(self, inputs: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    return tf.nn.conv2d(inputs, weights, self.stride, self.conv_padding)


class Linear(_OfItsInput, snt.Linear):
  """A layer of [N, features], with bias."""

  def _multiply(self, inputs: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    return tf.matmul(inputs, weights)
