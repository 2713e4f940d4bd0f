"""What losses are made of: alignment, clipped rewards, policy, value, entropy.

Losses are sums over time and batch, as in the IMPALA paper and in the code of
2018, and not means: learning rates do not transfer between the two.
"""

import math
from typing import NamedTuple

import tensorflow as tf

from scalable_agent import structures
from scalable_agent.options import LossOptions, choices_of

REWARD_CLIPPINGS = choices_of(LossOptions, 'reward_clipping')


class Transitions(NamedTuple):
  """The T transitions between the T + 1 columns of a learner batch.

  Attributes:
    actions: [T, B, *shape], taken in column t.
    behaviour_policy_logits: [T, B, A] float32, that `actions` were drawn from.
    rewards: [T, B] float32, raw, received on arriving in column t + 1.
    discounts: [T, B] float32, 0 where column t + 1 terminates its episode.
    mask: [T, B] bool, False where column t is the last of an episode: what
      follows it is the first column of the next one, and no transition.
  """

  actions: tf.Tensor
  behaviour_policy_logits: tf.Tensor
  rewards: tf.Tensor
  discounts: tf.Tensor
  mask: tf.Tensor


def align(
  env_outputs: structures.StepOutput,
  agent_outputs: structures.AgentOutput,
  discounting: float,
) -> Transitions:
  """Gathers what belongs to each transition from column t to column t + 1.

  This is the only place that shifts in time, see the table in `structures`.
  The learner's own outputs for these transitions are those of columns 0 to
  T - 1; its baseline of column T is the bootstrap value.

  Args:
    env_outputs: StepOutput of [T + 1, B, ...].
    agent_outputs: AgentOutput of [T + 1, B, ...]; `action[t + 1]` led from
      column t to column t + 1, `policy_logits[t + 1]` gave it.
    discounting: gamma, per agent step.

  Returns:
    Transitions of [T, B, ...].
  """
  return Transitions(
    actions=agent_outputs.action[1:],
    behaviour_policy_logits=tf.cast(
      agent_outputs.policy_logits[1:], tf.float32
    ),
    rewards=tf.cast(env_outputs.reward[1:], tf.float32),
    discounts=discounting * tf.cast(env_outputs.discount[1:], tf.float32),
    mask=tf.not_equal(env_outputs.step_type[:-1], structures.LAST),
  )


def clip_rewards(rewards: tf.Tensor, reward_clipping: str) -> tf.Tensor:
  """Clips rewards for the learner; the environment's stay raw.

  Args:
    rewards: [...] float32.
    reward_clipping: 'abs_one' clips to [-1, 1]; 'soft_asymmetric' is
      5 tanh(r / 5), times 0.3 where negative (DMLab-30 in the code of 2018);
      'optimistic_asymmetric' is 0.3 min(tanh r, 0) + 5 max(tanh r, 0) (DMLab-30
      in the IMPALA paper, figure D.1: another function, with a range of -0.3 to
      5 instead of -1.5 to 5); 'none' returns the rewards as they are.

  Returns:
    [...] float32.

  Raises:
    ValueError: if `reward_clipping` is none of these.
  """
  if reward_clipping not in REWARD_CLIPPINGS:
    raise ValueError(
      f'reward_clipping is {reward_clipping!r}; it must be one of '
      f'{", ".join(REWARD_CLIPPINGS)}.'
    )
  if reward_clipping == 'abs_one':
    return tf.clip_by_value(rewards, -1.0, 1.0)
  if reward_clipping == 'soft_asymmetric':
    squeezed = tf.tanh(rewards / 5.0)
    return 5.0 * tf.where(rewards < 0, 0.3 * squeezed, squeezed)
  if reward_clipping == 'optimistic_asymmetric':
    squeezed = tf.tanh(rewards)
    return tf.where(rewards < 0, 0.3 * squeezed, 5.0 * squeezed)
  return rewards


def compute_policy_gradient_loss(
  log_probs: tf.Tensor,
  advantages: tf.Tensor,
  mask: tf.Tensor | None = None,
  log_epsilon: float = 0.0,
) -> tf.Tensor:
  """Returns -sum(advantages * log(policy(actions))), summed over T and B.

  Args:
    log_probs: [T, B] float32, of the actions, by the policy being learned.
    advantages: [T, B] float32; no gradient flows through them.
    mask: [T, B] bool, False where there is nothing to learn from; None: all.
    log_epsilon: added to the probabilities inside the logarithm, so that the
      gradient fades where a probability is far below it (GA3C; the IMPALA
      paper's epsilon-correction).

  Returns:
    [] float32.
  """
  if log_epsilon:
    # log(exp(x) + epsilon); densities may be beyond what exp(x) can be.
    log_least = math.log(log_epsilon)
    log_probs = log_least + tf.nn.softplus(log_probs - log_least)
  return -masked_sum(log_probs * tf.stop_gradient(advantages), mask)


def compute_baseline_loss(
  advantages: tf.Tensor, mask: tf.Tensor | None = None
) -> tf.Tensor:
  """Returns 0.5 * sum(advantages ** 2), summed over T and B.

  Args:
    advantages: [T, B] float32, targets minus baselines. The gradient flows
      through them: stop it at the targets.
    mask: [T, B] bool or None, as in `compute_policy_gradient_loss`.

  Returns:
    [] float32.
  """
  return 0.5 * masked_sum(tf.square(advantages), mask)


def compute_entropy_loss(
  entropies: tf.Tensor, mask: tf.Tensor | None = None
) -> tf.Tensor:
  """Returns minus the entropy of the policy in nats, summed over T and B.

  Args:
    entropies: [T, B] float32.
    mask: [T, B] bool or None, as in `compute_policy_gradient_loss`.

  Returns:
    [] float32.
  """
  return -masked_sum(entropies, mask)


def masked_sum(x: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
  if mask is not None:
    # A select: 0 times an infinity in a masked place would be NaN.
    x = tf.where(tf.cast(mask, tf.bool), x, 0.0)
  return tf.reduce_sum(x)


def masked_count(mask: tf.Tensor) -> tf.Tensor:
  return tf.reduce_sum(tf.cast(mask, tf.float32))


def masked_mean(x: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
  return tf.math.divide_no_nan(masked_sum(x, mask), masked_count(mask))
