"""Torsos: from observations to features.

A torso maps `[N, ...]` observations to `[N, features]`. Your own is any class
with the constructor `Torso(observation)`, `observation` being the spec of one
(stacked) observation, or the nest of them that a level gives, and a `__call__`;
name it with `--network=module:Class`. Bytes of images reach it as --precision
says, see `normalisation`; names of things and words as they are, see
`structures`. Those here compute in the type of what they get, and give float32.
"""

import importlib
import math
from typing import Any

import numpy as np
import sonnet as snt
import tensorflow as tf
import tree

from scalable_agent import structures
from scalable_agent.networks import layers

FLOAT = np.dtype(np.float32)


def is_image(spec: structures.TensorSpec) -> bool:
  """Whether it has the three axes of an image."""
  return len(spec.shape) == 3


def as_numbers(spec: structures.TensorSpec) -> structures.TensorSpec:
  """Returns the spec of names as one-hot numbers, of others as it is.

  What is laid out like an image stays so, with more channels; of all else
  there is one axis.
  """
  if not isinstance(spec, structures.CategorySpec):
    return spec
  if is_image(spec):
    *places, channels = spec.shape
    return structures.TensorSpec((*places, channels * spec.num_values), FLOAT)
  size = math.prod(spec.shape) * spec.num_values
  return structures.TensorSpec((size,), FLOAT)


def _orthogonal() -> snt.initializers.Initializer:
  """Returns weights that keep the size of a signal through layers of ReLUs."""
  return snt.initializers.Orthogonal(math.sqrt(2))


def make_linear(size: int) -> snt.Linear:
  """Returns a layer of `size` ReLUs, to be."""
  return layers.Linear(size, w_init=_orthogonal())


def _features(x: tf.Tensor) -> tf.Tensor:
  return tf.cast(x, tf.float32)


def _check_pixels(
  network: str, observation: structures.TensorSpec, least: int
) -> None:
  """Refuses images in which a kernel of `network` would not fit."""
  height, width, _ = observation.shape
  if min(height, width) < least:
    raise ValueError(
      f'--network={network} needs at least {least} x {least} pixels; this '
      f'level gives {height} x {width}. Use larger frames, or --network=small.'
    )


class Shallow(snt.Module):
  """Two convolutions and a layer of 256 units (A3C; IMPALA on DMLab)."""

  # Without padding, the second kernel of 4 needs as many outputs of the first.
  MIN_PIXELS = 8 + 3 * 4

  def __init__(self, observation: structures.TensorSpec):
    super().__init__(name='shallow')
    _check_pixels('shallow', observation, self.MIN_PIXELS)
    self._conv_1 = layers.Conv2D(
      16, 8, 4, padding='VALID', w_init=_orthogonal()
    )
    self._conv_2 = layers.Conv2D(
      32, 4, 2, padding='VALID', w_init=_orthogonal()
    )
    self._linear = make_linear(256)

  def __call__(self, observation: tf.Tensor) -> tf.Tensor:
    x = tf.nn.relu(self._conv_1(layers.floating(observation)))
    x = tf.nn.relu(self._conv_2(x))
    return _features(tf.nn.relu(self._linear(snt.flatten(x))))


class Nature(snt.Module):
  """Three convolutions and a layer of 512 units (Mnih et al. 2015, DQN).

  The net of A3C's 57 games and of the IMPALA paper's shallow Atari experts
  (section 5.3.2, "three convolutional layers").
  """

  # Without padding: 3 outputs of the second convolution, for the third.
  MIN_PIXELS = 8 + (4 + 2 * 2 - 1) * 4

  def __init__(self, observation: structures.TensorSpec):
    super().__init__(name='nature')
    _check_pixels('nature', observation, self.MIN_PIXELS)
    self._conv_1 = layers.Conv2D(
      32, 8, 4, padding='VALID', w_init=_orthogonal()
    )
    self._conv_2 = layers.Conv2D(
      64, 4, 2, padding='VALID', w_init=_orthogonal()
    )
    self._conv_3 = layers.Conv2D(
      64, 3, 1, padding='VALID', w_init=_orthogonal()
    )
    self._linear = make_linear(512)

  def __call__(self, observation: tf.Tensor) -> tf.Tensor:
    x = tf.nn.relu(self._conv_1(layers.floating(observation)))
    x = tf.nn.relu(self._conv_2(x))
    x = tf.nn.relu(self._conv_3(x))
    return _features(tf.nn.relu(self._linear(snt.flatten(x))))


class _ResidualBlock(snt.Module):
  """relu, 3x3, relu, 3x3, plus the input.

  What is added to a signal need not be as large as it: Sonnet's weights.
  """

  def __init__(self, channels: int):
    super().__init__(name='residual_block')
    self._conv_1 = layers.Conv2D(channels, 3)
    self._conv_2 = layers.Conv2D(channels, 3)

  def __call__(self, x: tf.Tensor) -> tf.Tensor:
    return x + self._conv_2(tf.nn.relu(self._conv_1(tf.nn.relu(x))))


class Deep(snt.Module):
  """The residual net of 15 convolutions (IMPALA paper, Figure 3, right)."""

  def __init__(self, observation: structures.TensorSpec):
    super().__init__(name='deep')
    self._sections = [
      (
        layers.Conv2D(channels, 3, w_init=_orthogonal()),
        [_ResidualBlock(channels) for _ in range(2)],
      )
      for channels in (16, 32, 32)
    ]
    self._linear = make_linear(256)

  def __call__(self, observation: tf.Tensor) -> tf.Tensor:
    x = layers.floating(observation)
    for conv, blocks in self._sections:
      x = tf.nn.max_pool2d(conv(x), 3, 2, padding='SAME')
      for block in blocks:
        x = block(x)
    x = snt.flatten(tf.nn.relu(x))
    return _features(tf.nn.relu(self._linear(x)))


class Universe(snt.Module):
  """Four convolutions of 32 channels with ELUs, for 42 x 42 pixels.

  The net of OpenAI's universe-starter-agent and of pytorch-a3c, whose LSTM is
  the agent's (--lstm).
  """

  def __init__(self, observation: structures.TensorSpec):
    del observation
    super().__init__(name='universe')
    self._convs = [
      layers.Conv2D(32, 3, 2, w_init=_orthogonal()) for _ in range(4)
    ]

  def __call__(self, observation: tf.Tensor) -> tf.Tensor:
    x = layers.floating(observation)
    for conv in self._convs:
      x = tf.nn.elu(conv(x))
    return _features(snt.flatten(x))


class Small(snt.Module):
  """Two padded convolutions of 3 x 3 and a layer of 256 units.

  For what is too small for the kernels of `Shallow`, such as grids of symbols.
  """

  def __init__(self, observation: structures.TensorSpec):
    del observation
    super().__init__(name='small')
    self._conv_1 = layers.Conv2D(16, 3, w_init=_orthogonal())
    self._conv_2 = layers.Conv2D(32, 3, w_init=_orthogonal())
    self._linear = make_linear(256)

  def __call__(self, observation: tf.Tensor) -> tf.Tensor:
    x = tf.nn.relu(self._conv_1(layers.floating(observation)))
    x = tf.nn.relu(self._conv_2(x))
    return _features(tf.nn.relu(self._linear(snt.flatten(x))))


class Mlp(snt.Module):
  """Two layers of 64 tanh units for vector observations."""

  def __init__(self, observation: structures.TensorSpec):
    super().__init__(name='mlp')
    self._layers = [snt.Linear(64, w_init=_orthogonal()) for _ in range(2)]

  def __call__(self, observation: tf.Tensor) -> tf.Tensor:
    x = snt.flatten(tf.cast(observation, tf.float32))
    for layer in self._layers:
      x = tf.nn.tanh(layer(x))
    return x


_TORSOS = {
  'shallow': Shallow,
  'nature': Nature,
  'deep': Deep,
  'universe': Universe,
  'small': Small,
  'mlp': Mlp,
}


def resolve(network: str, observation: Any) -> str:
  """Returns `--network`, with auto replaced by what fits the observations."""
  if network != 'auto':
    return network
  images = [one for one in tree.flatten(observation) if is_image(one)]
  if not images:
    return 'mlp'
  least = min(min(one.shape[:2]) for one in images)
  return 'shallow' if least >= Shallow.MIN_PIXELS else 'small'


def find_torso(network: str, observation: Any) -> type:
  """Returns the torso class that `--network` names.

  Raises:
    ValueError: no such network, or one that does not fit the observation.
  """
  network = resolve(network, observation)
  if ':' in network:
    module, _, name = network.partition(':')
    try:
      return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
      raise ValueError(
        f'--network={network} cannot be imported: {error}. Give module:Class '
        'of a module on the Python path.'
      ) from error
  if network not in _TORSOS:
    raise ValueError(
      f'--network={network} is not known. Choose one of: auto, '
      f'{", ".join(_TORSOS)}, or module:Class of your own.'
    )
  if network != 'mlp' and not is_image(observation):
    raise ValueError(
      f'--network={network} needs image observations; this level gives '
      f'{observation.shape}. Use --network=mlp.'
    )
  return _TORSOS[network]
