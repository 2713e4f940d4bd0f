"""Targets and advantages of actors that follow the policy being learned.

Time-major, as everywhere: element t belongs to the transition from column t to
column t + 1. No gradient flows through any result.
"""

import tensorflow as tf

from scalable_agent import vtrace


def generalised_advantages(
  rewards: tf.Tensor,
  discounts: tf.Tensor,
  values: tf.Tensor,
  bootstrap_value: tf.Tensor,
  lambda_: float,
  mask: tf.Tensor | None = None,
) -> tf.Tensor:
  """Returns GAE (Schulman et al. 2015, equation 16), cut off after T steps.

  A_t = sum_k (gamma lambda)^k delta_{t+k},
  delta_t = r_t + gamma V_{t+1} - V_t.

  Args:
    rewards: [T, B] float32.
    discounts: [T, B] float32, gamma, or 0 where the transition ends an episode
      by termination.
    values: [T, B] float32, V of columns 0 to T - 1.
    bootstrap_value: [B] float32, V of column T.
    lambda_: from 0 to 1.
    mask: [T, B] bool or None; False where a pair of columns is no transition:
      its advantage is 0, and nothing flows across.

  Returns:
    [T, B] float32.
  """
  values_t_plus_1 = tf.concat([values[1:], bootstrap_value[tf.newaxis]], 0)
  deltas = rewards + discounts * values_t_plus_1 - values
  traces = lambda_ * discounts
  if mask is not None:
    # A select and not a product: what stands there may be infinite.
    deltas = tf.where(mask, deltas, 0.0)
    traces = tf.where(mask, traces, 0.0)
  return tf.stop_gradient(vtrace.discounted_sums(deltas, traces))


def n_step_returns(
  rewards: tf.Tensor,
  discounts: tf.Tensor,
  values: tf.Tensor,
  bootstrap_value: tf.Tensor,
  mask: tf.Tensor | None = None,
) -> tf.Tensor:
  """Returns R_t = r_t + gamma R_{t+1}, R_T = V_T (Mnih et al. 2016, section 4).

  Args:
    rewards: [T, B] float32.
    discounts: [T, B] float32, gamma, or 0 where the transition ends an episode
      by termination.
    values: [T, B] float32, V of columns 0 to T - 1: what a masked element is,
      and so what the transition before it bootstraps from.
    bootstrap_value: [B] float32, V of column T.
    mask: [T, B] bool or None; False where a pair of columns is no transition.

  Returns:
    [T, B] float32.
  """
  # With lambda = 1 the sum of TD errors telescopes to R_t - V_t.
  advantages = generalised_advantages(
    rewards, discounts, values, bootstrap_value, 1.0, mask
  )
  return tf.stop_gradient(values) + advantages
