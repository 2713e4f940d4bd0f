"""Torsos as `shallow` that treat pixels or weights otherwise.

For comparisons with the defaults, see docs/results:

  python benchmarks/probe.py --levels=pong,breakout -- \\
    --network=benchmarks.torsos:Divided
"""

import math

import sonnet as snt
import tensorflow as tf

from scalable_agent import structures


class Divided(snt.Module):
  """Pixels from 0 to 1, orthogonal weights: as in many A2C and PPO codes."""

  zero, unit = 0.0, 255.0
  w_init = snt.initializers.Orthogonal(math.sqrt(2))
  normalise = False

  def __init__(self, observation: structures.TensorSpec):
    del observation
    super().__init__(name='shallow')
    self._convs = [
      snt.Conv2D(16, 8, 4, padding='VALID', w_init=self.w_init),
      snt.Conv2D(32, 4, 2, padding='VALID', w_init=self.w_init),
    ]
    self._linear = snt.Linear(256, w_init=self.w_init)
    self._norm = snt.LayerNorm([1, 2, 3], True, True)

  def __call__(self, x: tf.Tensor) -> tf.Tensor:
    x = (tf.cast(x, tf.float32) - self.zero) / self.unit
    x = self._convs[0](x)
    if self.normalise:
      x = self._norm(x)
    x = self._convs[1](tf.nn.relu(x))
    return tf.nn.relu(self._linear(snt.flatten(tf.nn.relu(x))))


class Normalised(Divided):
  """Pixels from 0 to 1, and a normalising layer behind the first layer."""

  normalise = True


class Fixed(Divided):
  """128 is subtracted from all pixels."""

  zero, unit = 128.0, 64.0


class FixedSonnet(Fixed):
  """The same with Sonnet's weights, smaller by sqrt(2) and not orthogonal."""

  w_init = None
