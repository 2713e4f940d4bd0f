"""Parts of losses against their definitions; a clock for the alignment."""

import numpy as np
import pytest
import tensorflow as tf

from scalable_agent import action_spaces, actions, losses, structures
from tests.loss_batches import (
  NUM_COLUMNS,
  NUM_STEPS,
  STEP_TYPES,
  TERMINATIONS,
  episode_ends,
)

FIRST, MID, LAST = structures.FIRST, structures.MID, structures.LAST

# Alignment.


def clockwork():
  """A batch in which everything tells when it happened.

  An action taken in column t of batch column b, and the logits it came from,
  are 100 * b + t; a reward got on arriving in column t is 100 * b + t.
  """
  step_type, discount = episode_ends()
  t, b = np.indices(step_type.shape)
  env_outputs = structures.StepOutput(
    step_type=step_type,
    reward=(100 * b + t).astype(np.float32),
    discount=discount,
    observation=100 * b + t,
    info=None,
  )
  taken = 100 * b + t - 1
  agent_outputs = structures.AgentOutput(
    action=taken.astype(np.int32),
    policy_logits=np.stack([taken, -taken], axis=-1).astype(np.float32),
    baseline=np.full(step_type.shape, np.nan, np.float32),
  )
  return env_outputs, agent_outputs


def test_align_gives_each_transition_what_belongs_to_it():
  env_outputs, agent_outputs = clockwork()
  transitions = losses.align(env_outputs, agent_outputs, discounting=0.9)
  for t in range(NUM_STEPS):
    for b in range(NUM_COLUMNS):
      clock = 100 * b + t
      assert env_outputs.observation[t, b] == clock
      assert transitions.actions[t, b] == clock
      np.testing.assert_array_equal(
        transitions.behaviour_policy_logits[t, b], [clock, -clock]
      )
      assert transitions.rewards[t, b] == clock + 1
      ends = (b, t + 1) in TERMINATIONS
      assert transitions.discounts[t, b] == np.float32(0.0 if ends else 0.9)
      assert transitions.mask[t, b] == (STEP_TYPES[b][t] != LAST)
  assert transitions.mask.dtype == tf.bool
  assert transitions.mask.shape == (NUM_STEPS, NUM_COLUMNS)


def test_the_columns_cover_every_kind_of_end():
  step_type, discount = episode_ends()
  last = step_type == LAST
  assert (last & (discount == 0)).any(), 'no termination'
  assert (last & (discount == 1)).any(), 'no truncation'
  assert ((step_type == MID) & (discount == 0)).any(), 'no lost life'
  assert last[0].any()
  assert last[-1].any()
  assert last[1:-1].any()
  assert (step_type[1:][last[:-1]] == FIRST).all()


# Single losses.


def test_policy_gradient_loss_is_a_sum():
  random = np.random.RandomState(1)
  log_probs, advantages = random.normal(size=(2, 3, 2)).astype(np.float32)
  expected = 0.0
  for t, b in np.ndindex(3, 2):
    expected -= log_probs[t, b] * advantages[t, b]
  actual = losses.compute_policy_gradient_loss(
    log_probs, advantages, np.ones([3, 2], bool)
  )
  np.testing.assert_allclose(actual, expected, rtol=1e-5)
  no_mask = losses.compute_policy_gradient_loss(log_probs, advantages)
  assert no_mask == actual


def test_no_gradient_flows_through_the_advantages_of_the_policy():
  advantages = tf.Variable([[2.0]])
  with tf.GradientTape() as tape:
    loss = losses.compute_policy_gradient_loss(
      tf.constant([[-0.5]]), advantages
    )
  assert tape.gradient(loss, advantages) is None


def test_baseline_loss_is_half_a_sum_of_squares():
  advantages = tf.Variable([[1.0, -2.0], [3.0, 5.0]])
  mask = tf.constant([[True, True], [True, False]])
  with tf.GradientTape() as tape:
    loss = losses.compute_baseline_loss(advantages, mask)
  assert loss == 0.5 * (1 + 4 + 9)
  np.testing.assert_array_equal(
    tape.gradient(loss, advantages), [[1.0, -2.0], [3.0, 0.0]]
  )
  assert losses.compute_baseline_loss(advantages) == 0.5 * (1 + 4 + 9 + 25)


def test_entropy_loss_is_minus_a_sum():
  entropies = np.array([[0.0, 1.0], [2.0, 4.0]], np.float32)
  mask = np.array([[True, True], [False, True]])
  assert losses.compute_entropy_loss(entropies, mask) == -5.0
  assert losses.compute_entropy_loss(entropies) == -7.0


def test_the_entropy_bonus_flattens_the_policy():
  space = action_spaces.Discrete(3)
  logits = tf.Variable([[[2.0, 0.0, 0.0]]])
  with tf.GradientTape() as tape:
    loss = losses.compute_entropy_loss(actions.entropy(space, logits))
  gradient = tape.gradient(loss, logits)[0, 0]
  assert gradient[0] > 0  # Descent lowers the largest logit.
  assert (gradient[1:].numpy() < 0).all()


def test_losses_ignore_infinities_in_masked_places():
  mask = np.array([[True, False]])
  values = np.array([[1.0, np.inf]], np.float32)
  loss = losses.compute_policy_gradient_loss(
    np.array([[-0.5, -0.5]], np.float32), values, mask
  )
  assert loss == 0.5
  assert losses.compute_entropy_loss(values, mask) == -1.0
  assert losses.compute_baseline_loss(values, mask) == 0.5


def test_log_epsilon_bounds_the_loss_and_fades_the_gradient():
  space = action_spaces.Discrete(2)
  logits = tf.Variable([[[0.0, -100.0]]])
  results = {}
  for epsilon in (0.0, 1e-6):
    with tf.GradientTape() as tape:
      loss = losses.compute_policy_gradient_loss(
        actions.log_prob(space, logits, tf.constant([[1]])),
        tf.constant([[1.0]]),
        log_epsilon=epsilon,
      )
    results[epsilon] = loss, tape.gradient(loss, logits)[0, 0, 0]
  np.testing.assert_allclose(results[0.0], [100.0, 1.0], rtol=1e-5)
  np.testing.assert_allclose(
    results[1e-6], [-np.log(1e-6), 0.0], rtol=1e-5, atol=1e-6
  )


def test_log_epsilon_leaves_a_large_density_as_it_is():
  log_probs = tf.Variable([[100.0]])  # Its exponential is infinite.
  with tf.GradientTape() as tape:
    loss = losses.compute_policy_gradient_loss(
      log_probs, tf.constant([[1.0]]), log_epsilon=1e-6
    )
  np.testing.assert_allclose(loss, -100, rtol=1e-6)
  np.testing.assert_allclose(tape.gradient(loss, log_probs), [[-1]], rtol=1e-6)


# Rewards.


def test_abs_one_clips_rewards_to_the_unit_interval():
  actual = losses.clip_rewards(
    tf.constant([-7.0, -1.0, -0.5, 0.0, 0.25, 1.0, 30.0]), 'abs_one'
  )
  np.testing.assert_array_equal(actual, [-1, -1, -0.5, 0, 0.25, 1, 1])


def test_soft_asymmetric_squeezes_rewards_and_shrinks_negative_ones():
  actual = losses.clip_rewards(
    tf.constant([-1000.0, -5.0, -0.01, 0.0, 0.01, 5.0, 1000.0]),
    'soft_asymmetric',
  )
  # tanh(1) = (e^2 - 1) / (e^2 + 1)
  tanh_of_one = (np.e**2 - 1) / (np.e**2 + 1)
  np.testing.assert_allclose(
    actual,
    [-1.5, -1.5 * tanh_of_one, -0.003, 0, 0.01, 5 * tanh_of_one, 5.0],
    rtol=1e-5,
  )


def test_optimistic_asymmetric_is_that_of_the_papers_figure():
  rewards = np.array([-1000.0, -2.0, -0.01, 0.0, 0.01, 2.0, 1000.0])
  # Read from figure D.1: from -0.3 to 5, both within a few units.
  tanh = np.tanh(rewards)
  expected = 0.3 * np.minimum(tanh, 0) + 5 * np.maximum(tanh, 0)
  np.testing.assert_allclose(
    losses.clip_rewards(
      tf.constant(rewards, tf.float32), 'optimistic_asymmetric'
    ),
    expected,
    rtol=1e-5,
  )
  assert (expected.min(), expected.max()) == (-0.3, 5.0)


def test_rewards_may_be_left_alone():
  rewards = tf.constant([-7.0, 0.5, 30.0])
  np.testing.assert_array_equal(losses.clip_rewards(rewards, 'none'), rewards)


def test_an_unknown_clipping_raises_and_names_the_known_ones():
  with pytest.raises(ValueError, match=r"'abs_two'.*abs_one, soft_asymmetric"):
    losses.clip_rewards(tf.zeros([1]), 'abs_two')
