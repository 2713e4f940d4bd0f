"""Policies: distributions over the actions of a space, as pure functions.

A distribution is a vector of `space.num_parameters` numbers, the last axis of
`policy_logits`:

* Discrete: logits of a categorical.
* MultiDiscrete: logits of one categorical after the other; the choices are
  independent of each other.
* Box: D means, then D logarithms of standard deviations of a diagonal Gaussian.
  An action is what was drawn from it. Where the space is squashed, densities
  are those of tanh(action), the number in units of its bounds; where it is
  clipped, those of the Gaussian, as is usual: what lies beyond a bound keeps
  its own density, though the environment sees the bound.

Log-probabilities are sums over the choices or numbers of an action, natural
logarithms, float32.
"""

import math
from typing import Any

import numpy as np
import tensorflow as tf

from scalable_agent.action_spaces import (
  ActionSpace,
  Box,
  Discrete,
  MultiDiscrete,
)

_HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)
# Of the Gauss-Hermite rule: exact to 1e-3 nats up to a deviation of 3.
_NODES = 32


def sample(space: ActionSpace, logits: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
  """Draws actions.

  Args:
    space: of the actions.
    logits: [B, num_parameters] float32.
    seed: [2] int64; the same seed and logits give the same actions.

  Returns:
    [B, *shape] of the space's dtype.
  """
  if isinstance(space, Discrete):
    return tf.random.stateless_categorical(logits, 1, seed, tf.int32)[:, 0]
  if isinstance(space, MultiDiscrete):
    # The largest of logits plus Gumbel noise is a draw from their softmax.
    uniform = tf.random.stateless_uniform(
      tf.shape(logits), seed, minval=np.finfo(np.float32).tiny
    )
    return mode(space, logits - tf.math.log(-tf.math.log(uniform)))
  mean, log_std = _split_box(logits)
  noise = tf.random.stateless_normal(tf.shape(mean), seed)
  return mean + tf.exp(log_std) * noise


def mode(space: ActionSpace, logits: Any) -> tf.Tensor:
  """Returns the most probable actions.

  Of a squashed Box it is the median, tanh of the mean: its density has no
  maximum where a deviation is large.

  Args:
    space: of the actions.
    logits: [..., num_parameters] float32.

  Returns:
    [..., *shape] of the space's dtype.
  """
  if isinstance(space, Discrete):
    return tf.argmax(logits, -1, tf.int32)
  if isinstance(space, MultiDiscrete):
    choices = tf.split(logits, space.nums, -1)
    return tf.stack([tf.argmax(one, -1, tf.int32) for one in choices], -1)
  return _split_box(logits)[0]


def log_prob(
  space: ActionSpace,
  logits: tf.Tensor,
  actions: tf.Tensor,
  floor: float = 0.0,
) -> tf.Tensor:
  """Returns the log-probability, or log-density, of each action.

  Args:
    space: of the actions.
    logits: [..., num_parameters] float32.
    actions: [..., *shape].
    floor: of the probability of each choice, below which no gradient flows: log
      of max(p, floor), as in GA3C. Densities have none.

  Returns:
    [...] float32.
  """
  if isinstance(space, Discrete):
    if floor:
      return tf.gather(
        _log_softmax(logits, floor), actions, batch_dims=len(actions.shape)
      )
    return -tf.nn.sparse_softmax_cross_entropy_with_logits(
      labels=actions, logits=logits
    )
  if isinstance(space, MultiDiscrete):
    return _sum_over_choices(space, log_prob, logits, actions, floor=floor)
  mean, log_std = _split_box(logits)
  z = (actions - mean) * tf.exp(-log_std)
  logs = -0.5 * tf.square(z) - log_std - _HALF_LOG_2_PI
  if _squashes(space):
    logs -= _log_slope(actions)
  return tf.reduce_sum(logs, -1)


def entropy(
  space: ActionSpace, logits: tf.Tensor, floor: float = 0.0
) -> tf.Tensor:
  """Returns the entropy of each distribution, in nats.

  Of a squashed Box by numerical integration (Gauss-Hermite, 32 nodes).

  Args:
    space: of the actions.
    logits: [..., num_parameters] float32.
    floor: see `log_prob`.

  Returns:
    [...] float32; that of densities may be negative.
  """
  if isinstance(space, Discrete):
    policy = tf.nn.softmax(logits)
    return -tf.reduce_sum(policy * _log_softmax(logits, floor), -1)
  if isinstance(space, MultiDiscrete):
    return _sum_over_choices(space, entropy, logits, floor=floor)
  mean, log_std = _split_box(logits)
  entropies = log_std + 0.5 + _HALF_LOG_2_PI
  if _squashes(space):
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    weights = (weights / weights.sum()).astype(np.float32)
    drawn = mean[..., None] + tf.exp(log_std)[..., None] * nodes.astype(
      np.float32
    )
    entropies += tf.reduce_sum(weights * _log_slope(drawn), -1)
  return tf.reduce_sum(entropies, -1)


def kl(space: ActionSpace, logits: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
  """Returns the Kullback-Leibler divergence KL(logits || other), in nats.

  Args:
    space: of the actions. Squashing changes nothing.
    logits: [..., num_parameters] float32.
    other: likewise.

  Returns:
    [...] float32.
  """
  if isinstance(space, Discrete):
    logs = tf.nn.log_softmax(logits)
    return tf.reduce_sum(
      tf.exp(logs) * (logs - tf.nn.log_softmax(other)), axis=-1
    )
  if isinstance(space, MultiDiscrete):
    return _sum_over_choices(space, kl, logits, other)
  mean, log_std = _split_box(logits)
  other_mean, other_log_std = _split_box(other)
  shift = (mean - other_mean) * tf.exp(-other_log_std)
  ratio = tf.exp(2 * (log_std - other_log_std))
  parts = other_log_std - log_std + 0.5 * (ratio + tf.square(shift) - 1)
  return tf.reduce_sum(parts, -1)


def encode(space: ActionSpace, actions: tf.Tensor) -> tf.Tensor:
  """Returns actions as features: one-hot, or numbers from -1 to 1.

  Args:
    space: of the actions.
    actions: [..., *shape].

  Returns:
    [..., num_features] float32. Numbers without bounds are not clipped.
  """
  if isinstance(space, Discrete):
    return tf.one_hot(actions, space.num_actions)
  if isinstance(space, MultiDiscrete):
    choices = [tf.one_hot(actions[..., i], n) for i, n in enumerate(space.nums)]
    return tf.concat(choices, -1)
  assert isinstance(space, Box)
  if space.squash:
    return tf.tanh(actions)
  return tf.where(space.has_bounds, tf.clip_by_value(actions, -1, 1), actions)


def mix_uniform(
  space: ActionSpace, logits: tf.Tensor, least: float
) -> tf.Tensor:
  """Adds `least` to the probability of each choice, and scales them to sum 1.

  Args:
    space: of the actions.
    logits: [..., num_parameters] float32.
    least: added; 0 changes nothing.

  Raises:
    ValueError: numbers have no probabilities.
  """
  if not least:
    return logits
  if isinstance(space, Discrete):
    policy = tf.nn.softmax(logits) + least
    return tf.math.log(policy / (1.0 + least * space.num_actions))
  if isinstance(space, MultiDiscrete):
    choices = zip(space.nums, tf.split(logits, space.nums, -1), strict=True)
    return tf.concat(
      [mix_uniform(Discrete(n), one, least) for n, one in choices], -1
    )
  raise ValueError(
    f'--min_policy={least} is of probabilities, and actions are numbers here. '
    'Set it to 0.'
  )


def _log_softmax(logits: tf.Tensor, floor: float) -> tf.Tensor:
  if not floor:
    return tf.nn.log_softmax(logits)
  return tf.math.log(tf.maximum(tf.nn.softmax(logits), floor))


def _sum_over_choices(
  space: MultiDiscrete, function: Any, logits: tf.Tensor, *others: Any, **kw
) -> tf.Tensor:
  """Adds up what `function` gives for each choice alone."""
  parts = []
  choices = tf.split(logits, space.nums, -1)
  for i, (n, one) in enumerate(zip(space.nums, choices, strict=True)):
    # Of what else there is, logits are split and actions taken apart.
    rest = [
      other[..., i]
      if other.dtype.is_integer
      else tf.split(other, space.nums, -1)[i]
      for other in map(tf.convert_to_tensor, others)
    ]
    parts.append(function(Discrete(n), one, *rest, **kw))
  return tf.add_n(parts)


def _split_box(logits: Any) -> tuple[tf.Tensor, tf.Tensor]:
  mean, log_std = tf.split(logits, 2, -1)
  return mean, log_std


def _squashes(space: ActionSpace) -> bool:
  return isinstance(space, Box) and space.squash


def _log_slope(x: tf.Tensor) -> tf.Tensor:
  """Returns log(1 - tanh(x)^2), which is far from 0 where that is 0."""
  return 2.0 * (math.log(2.0) - x - tf.nn.softplus(-2.0 * x))
