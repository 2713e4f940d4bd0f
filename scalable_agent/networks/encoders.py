"""The default torso of nests: each part by its kind, side by side."""

from typing import Any

import sonnet as snt
import tensorflow as tf
import tree

from scalable_agent import structures
from scalable_agent.networks import language, torsos


class Encoder(snt.Module):
  """Features of all parts of a nest of observations.

  Images go through the torso of --network, one for each of them, and so do
  names of things that are laid out like one, as one-hot channels. Words go
  through an LSTM. All that is left, numbers and single names as one-hot, goes
  through `torsos.Mlp` as one vector.

  What these give stands side by side. Unless the agent's own LSTM follows, a
  layer of 256 units does: policy and baseline are linear, and whether a thing
  is the one that a text names is no sum of what is known of both.
  """

  def __init__(self, network: str, spec: Any, mix: bool):
    """Builds the modules.

    Args:
      network: --network, resolved; the name of a torso of `torsos`.
      spec: nest of specs of stacked observations.
      mix: whether a layer is to follow, if there are several features.

    Raises:
      ValueError: it needs images and there are none, or one that is too small.
    """
    super().__init__(name='encoder')
    self._specs = tree.flatten(spec)
    self._images: list[snt.Module | None] = []
    self._texts: list[snt.Module | None] = []
    size = 0
    for one in self._specs:
      text = isinstance(one, structures.TextSpec)
      plain = torsos.as_numbers(one)
      image = not text and torsos.is_image(plain)
      self._texts.append(language.Language(one) if text else None)
      self._images.append(
        torsos.find_torso(network, plain)(plain) if image else None
      )
      if not text and not image:
        size += plain.shape[0]
    if network != 'mlp' and not any(self._images):
      raise ValueError(
        f'--network={network} needs images, and none of the observations is '
        'one. Use --network=mlp.'
      )
    vector = structures.TensorSpec((size,), torsos.FLOAT)
    self._vector = torsos.Mlp(vector) if size else None
    modules = [*self._images, *self._texts, self._vector]
    several = sum(module is not None for module in modules) > 1
    self._mix = torsos.make_linear(256) if mix and several else None

  def __call__(self, observation: Any) -> tf.Tensor:
    """Returns [N, features] of a nest of [N, ...]."""
    features, vectors = [], []
    parts = zip(
      self._specs,
      tree.flatten(observation),
      self._images,
      self._texts,
      strict=True,
    )
    for spec, part, image, text in parts:
      if text is not None:
        features.append(text(part))
        continue
      numbers = _one_hot(spec, part)
      if image is not None:
        features.append(image(numbers))
      else:
        vectors.append(snt.flatten(tf.cast(numbers, tf.float32)))
    if self._vector is not None:
      features.append(self._vector(tf.concat(vectors, -1)))
    both = tf.concat(features, -1)
    return tf.nn.relu(self._mix(both)) if self._mix is not None else both


def _one_hot(spec: structures.TensorSpec, part: tf.Tensor) -> tf.Tensor:
  """Returns names as numbers, of the shape of `torsos.as_numbers`."""
  if not isinstance(spec, structures.CategorySpec):
    return part
  ones = tf.one_hot(part, spec.num_values)
  return tf.reshape(ones, [-1, *torsos.as_numbers(spec).shape])


def make_torso(network: str, spec: Any, mix: bool = True) -> Any:
  """Returns what makes features of stacked observations.

  Args:
    network: --network.
    spec: nest of specs of stacked observations. A torso of the user's gets it
      as it is, and so do those of `torsos` if it is one image or vector.
    mix: see `Encoder`.

  Raises:
    ValueError: no such network, or one that does not fit the observations.
  """
  plain = type(spec) is structures.TensorSpec
  if plain or ':' in network:
    return torsos.find_torso(network, spec)(spec)
  return Encoder(torsos.resolve(network, spec), spec, mix)
