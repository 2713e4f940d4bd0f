"""V-trace: off-policy actor-critic targets.

Espeholt et al. 2018, "IMPALA: Scalable Distributed Deep-RL with Importance
Weighted Actor-Learner Architectures", https://arxiv.org/abs/1802.01561,
section 4. All functions are pure, time comes first, and everything is float32.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from scalable_agent.action_spaces import Discrete
from scalable_agent.actions import log_prob


class VTraceReturns(NamedTuple):
  """What V-trace computes; no gradient flows through either.

  Attributes:
    vs: [T, B, ...] float32, targets of the baseline.
    pg_advantages: [T, B, ...] float32, advantages of the policy gradient, the
      clipped importance weight included.
  """

  vs: tf.Tensor
  pg_advantages: tf.Tensor


class VTraceFromLogitsReturns(NamedTuple):
  """VTraceReturns and what they were computed from.

  Attributes:
    vs: [T, B] float32, without gradient.
    pg_advantages: [T, B] float32, without gradient.
    log_rhos: [T, B] float32, log(target policy / behaviour policy).
    behaviour_action_log_probs: [T, B] float32.
    target_action_log_probs: [T, B] float32.
  """

  vs: tf.Tensor
  pg_advantages: tf.Tensor
  log_rhos: tf.Tensor
  behaviour_action_log_probs: tf.Tensor
  target_action_log_probs: tf.Tensor


def log_probs_from_logits_and_actions(
  policy_logits: Any, actions: Any
) -> tf.Tensor:
  """Returns the log-probabilities of the actions taken.

  Args:
    policy_logits: [T, B, A] float32, unnormalised log-probabilities.
    actions: [T, B] int32, each in [0, A).

  Returns:
    [T, B] float32.

  Raises:
    ValueError: if a rank is another.
  """
  policy_logits = tf.convert_to_tensor(policy_logits, tf.float32)
  actions = tf.convert_to_tensor(actions, tf.int32)
  policy_logits.shape.assert_has_rank(3)
  actions.shape.assert_has_rank(2)
  space = Discrete(policy_logits.shape[-1])
  return log_prob(space, policy_logits, actions)


def from_logits(
  behaviour_policy_logits: Any,
  target_policy_logits: Any,
  actions: Any,
  discounts: Any,
  rewards: Any,
  values: Any,
  bootstrap_value: Any,
  clip_rho_threshold: float | None = 1.0,
  clip_pg_rho_threshold: float | None = 1.0,
  lambda_: float = 1.0,
  mask: Any = None,
) -> VTraceFromLogitsReturns:
  """V-trace for softmax policies.

  Args:
    behaviour_policy_logits: [T, B, A] float32, of the weights that acted.
    target_policy_logits: [T, B, A] float32, of the weights being learned.
    actions: [T, B] int32, sampled from the behaviour policy.
    discounts: see `from_importance_weights`, as for all that follow.
    rewards: [T, B] float32.
    values: [T, B] float32.
    bootstrap_value: [B] float32.
    clip_rho_threshold: rho bar, or None.
    clip_pg_rho_threshold: rho bar of the policy gradient, or None.
    lambda_: in [0, 1].
    mask: [T, B] bool or None.

  Returns:
    VTraceFromLogitsReturns.

  Raises:
    ValueError: if a rank does not fit the others.
  """
  behaviour_action_log_probs = log_probs_from_logits_and_actions(
    behaviour_policy_logits, actions
  )
  target_action_log_probs = log_probs_from_logits_and_actions(
    target_policy_logits, actions
  )
  log_rhos = target_action_log_probs - behaviour_action_log_probs
  returns = from_importance_weights(
    log_rhos=log_rhos,
    discounts=discounts,
    rewards=rewards,
    values=values,
    bootstrap_value=bootstrap_value,
    clip_rho_threshold=clip_rho_threshold,
    clip_pg_rho_threshold=clip_pg_rho_threshold,
    lambda_=lambda_,
    mask=mask,
  )
  return VTraceFromLogitsReturns(
    vs=returns.vs,
    pg_advantages=returns.pg_advantages,
    log_rhos=log_rhos,
    behaviour_action_log_probs=behaviour_action_log_probs,
    target_action_log_probs=target_action_log_probs,
  )


def from_importance_weights(
  log_rhos: Any,
  discounts: Any,
  rewards: Any,
  values: Any,
  bootstrap_value: Any,
  clip_rho_threshold: float | None = 1.0,
  clip_pg_rho_threshold: float | None = 1.0,
  lambda_: float = 1.0,
  mask: Any = None,
) -> VTraceReturns:
  """V-trace from log importance weights.

  Element t of each input belongs to the transition from column t to t + 1.
  Axes after the first two are optional, and may be 1 in some of the inputs.

  Args:
    log_rhos: [T, B, ...] float32, log(target policy / behaviour policy) of the
      actions taken.
    discounts: [T, B, ...] float32, 0 where the transition ends an episode by
      termination.
    rewards: [T, B, ...] float32.
    values: [T, B, ...] float32, the target policy's value estimates.
    bootstrap_value: [B, ...] float32, the value estimate of column T.
    clip_rho_threshold: rho bar of the paper, a positive scalar: clips the
      weights of the temporal differences. None: no clipping.
    clip_pg_rho_threshold: the same for the weights of `pg_advantages`.
    lambda_: multiplies the trace coefficients c = min(1, rho), in [0, 1]; see
      remark 2 of the paper. c bar is always 1, whatever rho bar is.
    mask: [T, B] bool or float, or None. 0 marks a pair of columns that is no
      transition, from the last column of an episode to the first of the next:
      there `vs` is V and `pg_advantages` is 0, and nothing flows across.

  Returns:
    VTraceReturns of [T, B, ...].

  Raises:
    ValueError: if a rank does not fit the others, or a threshold is no scalar.
  """
  log_rhos = tf.convert_to_tensor(log_rhos, tf.float32)
  discounts = tf.convert_to_tensor(discounts, tf.float32)
  rewards = tf.convert_to_tensor(rewards, tf.float32)
  values = tf.convert_to_tensor(values, tf.float32)
  bootstrap_value = tf.convert_to_tensor(bootstrap_value, tf.float32)
  rank = log_rhos.shape.rank
  values.shape.assert_has_rank(rank)
  bootstrap_value.shape.assert_has_rank(rank - 1)
  discounts.shape.assert_has_rank(rank)
  rewards.shape.assert_has_rank(rank)

  rhos = tf.exp(log_rhos)
  clipped_rhos = _clip(rhos, clip_rho_threshold)
  clipped_pg_rhos = _clip(rhos, clip_pg_rho_threshold)
  cs = lambda_ * tf.minimum(1.0, rhos)

  values_t_plus_1 = tf.concat([values[1:], bootstrap_value[tf.newaxis]], axis=0)
  deltas = clipped_rhos * (rewards + discounts * values_t_plus_1 - values)
  trace_discounts = discounts * cs
  if mask is not None:
    mask = _expand_mask(mask, rank)
    # A select and not a product: what stands in a masked place (the logits of
    # an action that was never taken) may be infinite.
    deltas = tf.where(mask, deltas, 0.0)
    trace_discounts = tf.where(mask, trace_discounts, 0.0)
  vs = values + discounted_sums(deltas, trace_discounts)

  vs_t_plus_1 = tf.concat(
    [vs[1:], tf.broadcast_to(bootstrap_value, tf.shape(vs)[1:])[tf.newaxis]],
    axis=0,
  )
  pg_advantages = clipped_pg_rhos * (rewards + discounts * vs_t_plus_1 - values)
  if mask is not None:
    pg_advantages = tf.where(mask, pg_advantages, 0.0)
  return VTraceReturns(
    vs=tf.stop_gradient(vs), pg_advantages=tf.stop_gradient(pg_advantages)
  )


def discounted_sums(inputs: tf.Tensor, discounts: tf.Tensor) -> tf.Tensor:
  """Solves sums[t] = inputs[t] + discounts[t] * sums[t + 1], sums[T] = 0.

  Takes ceil(log2(T)) vectorised steps in place of T small ones, by doubling
  the horizon of every partial sum (Hillis and Steele 1986, "Data Parallel
  Algorithms"): on a CPU 0.3 ms at T = 100, B = 32, and 0.5 ms where T is not
  known in advance; `tf.scan` and a loop over t take 1.2 ms.

  Args:
    inputs: [T, ...] float32; T may be unknown in a graph.
    discounts: [T, ...] float32, broadcastable to `inputs`.

  Returns:
    [T, ...] float32.
  """

  def double_horizon(horizon, sums, products):
    # sums[t] covers [t, t + horizon), products[t] discounts what follows.
    sums = tf.concat(
      [
        sums[:-horizon] + products[:-horizon] * sums[horizon:],
        sums[-horizon:],
      ],
      axis=0,
    )
    products = tf.concat(
      [
        products[:-horizon] * products[horizon:],
        tf.zeros_like(products[-horizon:]),
      ],
      axis=0,
    )
    return 2 * horizon, sums, products

  carry = (1, inputs, discounts)
  if inputs.shape[0] is not None:
    # Unrolled: faster, and XLA can compile it.
    while carry[0] < inputs.shape[0]:
      carry = double_horizon(*carry)
  else:
    length = tf.shape(inputs)[0]
    carry = tf.while_loop(
      lambda horizon, *_: horizon < length, double_horizon, carry
    )
  return tf.ensure_shape(carry[1], inputs.shape)


def _clip(rhos: tf.Tensor, threshold: float | None) -> tf.Tensor:
  """Returns min(threshold, rhos), or `rhos` where there is no threshold."""
  if threshold is None:
    return rhos
  maximum = tf.convert_to_tensor(threshold, tf.float32)
  maximum.shape.assert_has_rank(0)
  return tf.minimum(maximum, rhos)


def _expand_mask(mask: tf.Tensor, rank: int) -> tf.Tensor:
  """Returns a [T, B] mask as a bool [T, B, 1, ...] of the given rank."""
  mask = tf.cast(mask, tf.bool)
  mask.shape.assert_has_rank(2)
  for _ in range(rank - 2):
    mask = mask[..., tf.newaxis]
  return mask
