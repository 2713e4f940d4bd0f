"""Returns and advantages against sums over all that follows."""

import numpy as np
import pytest
import tensorflow as tf

from scalable_agent import returns

NUM_STEPS, NUM_COLUMNS = 7, 5


def make_inputs():
  """Rewards, discounts, values, bootstrap values and mask, [T, B]."""
  random = np.random.RandomState(1)
  shape = (NUM_STEPS, NUM_COLUMNS)
  discounts = np.full(shape, 0.9, np.float32)
  mask = np.ones(shape, bool)
  # Column 0 has no end; 1 terminates after step 2, and what follows its last
  # column is no transition; 2 is truncated; 3 begins with a last column, 4
  # terminates at its end.
  discounts[2, 1] = 0.0
  mask[3, 1] = False
  mask[4, 2] = False
  mask[0, 3] = False
  discounts[6, 4] = 0.0
  return (
    random.normal(size=shape).astype(np.float32),
    discounts,
    random.normal(size=shape).astype(np.float32),
    random.normal(size=NUM_COLUMNS).astype(np.float32),
    mask,
  )


def by_definition(rewards, discounts, values, bootstrap_value, mask, lambda_):
  """Sums over the steps of an episode that follow, one by one."""
  values = np.concatenate([values, bootstrap_value[None]]).astype(np.float64)
  targets = np.zeros(mask.shape)
  advantages = np.zeros(mask.shape)
  for b in range(NUM_COLUMNS):
    for t in range(NUM_STEPS):
      discount = trace = 1.0
      for k in range(t, NUM_STEPS + 1):
        if k == NUM_STEPS or not mask[k, b]:
          targets[t, b] += discount * values[k, b]
          break
        targets[t, b] += discount * rewards[k, b]
        td_error = (
          rewards[k, b] + discounts[k, b] * values[k + 1, b] - values[k, b]
        )
        advantages[t, b] += trace * td_error
        discount *= discounts[k, b]
        trace *= discounts[k, b] * lambda_
  return targets, advantages


@pytest.mark.parametrize('lambda_', [0.0, 0.6, 1.0])
def test_advantages_are_discounted_sums_of_td_errors(lambda_):
  inputs = make_inputs()
  rewards, discounts, values, bootstrap_value, mask = inputs
  advantages = returns.generalised_advantages(
    rewards, discounts, values, bootstrap_value, lambda_, mask
  )
  _, expected = by_definition(*inputs, lambda_)
  np.testing.assert_allclose(advantages, expected, rtol=1e-5, atol=1e-6)


def test_n_step_returns_are_discounted_sums_of_rewards():
  inputs = make_inputs()
  expected, _ = by_definition(*inputs, 1.0)
  np.testing.assert_allclose(
    returns.n_step_returns(*inputs), expected, rtol=1e-5, atol=1e-6
  )


def test_with_lambda_one_advantages_are_returns_less_the_baseline():
  inputs = make_inputs()
  rewards, discounts, values, bootstrap_value, mask = inputs
  advantages = returns.generalised_advantages(
    rewards, discounts, values, bootstrap_value, 1.0, mask
  )
  targets = returns.n_step_returns(*inputs)
  np.testing.assert_allclose(advantages, targets - values, rtol=1e-4, atol=1e-6)


def test_without_a_mask_all_are_transitions():
  inputs = make_inputs()
  everything = (*inputs[:-1], np.ones_like(inputs[-1]))
  np.testing.assert_array_equal(
    returns.n_step_returns(*inputs[:-1]), returns.n_step_returns(*everything)
  )


def test_infinities_in_masked_places_do_not_matter():
  rewards, discounts, values, bootstrap_value, mask = make_inputs()
  expected = returns.generalised_advantages(
    rewards, discounts, values, bootstrap_value, 0.9, mask
  )
  advantages = returns.generalised_advantages(
    np.where(mask, rewards, np.inf).astype(np.float32),
    discounts,
    values,
    bootstrap_value,
    0.9,
    mask,
  )
  np.testing.assert_array_equal(advantages, expected)


def test_no_gradient_flows_through_targets_or_advantages():
  rewards, discounts, values, bootstrap_value, mask = make_inputs()
  values, bootstrap_value = tf.constant(values), tf.constant(bootstrap_value)
  with tf.GradientTape(persistent=True) as tape:
    tape.watch([values, bootstrap_value])
    parts = rewards, discounts, values, bootstrap_value
    results = (
      returns.n_step_returns(*parts, mask),
      returns.generalised_advantages(*parts, 0.9, mask),
    )
  for result in results:
    assert tape.gradient(result, [values, bootstrap_value]) == [None, None]
