"""From a learner batch to a scalar: alignment, reward clipping and losses.

Losses are sums over time and batch, as in the IMPALA paper and in the code of
2018, and not means: learning rates do not transfer between the two.
"""

from typing import NamedTuple

import tensorflow as tf

from scalable_agent import structures, vtrace
from scalable_agent.options import LossOptions, choices_of

CORRECTIONS = choices_of(LossOptions, 'correction')
REWARD_CLIPPINGS = choices_of(LossOptions, 'reward_clipping')

# Of the epsilon-correction, IMPALA paper, section 5.2.2.
_LOG_EPSILON = 1e-6


class Transitions(NamedTuple):
  """The T transitions between the T + 1 columns of a learner batch.

  Attributes:
    actions: [T, B] int32, taken in column t.
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
  logits: tf.Tensor,
  actions: tf.Tensor,
  advantages: tf.Tensor,
  mask: tf.Tensor | None = None,
  log_epsilon: float = 0.0,
) -> tf.Tensor:
  """Returns -sum(advantages * log(policy(actions))), summed over T and B.

  Args:
    logits: [T, B, A] float32, of the policy being learned.
    actions: [T, B] int32.
    advantages: [T, B] float32; no gradient flows through them.
    mask: [T, B] bool, False where there is nothing to learn from; None: all.
    log_epsilon: added to the probabilities inside the logarithm, so that the
      gradient fades where a probability is far below it (GA3C; the IMPALA
      paper's epsilon-correction).

  Returns:
    [] float32.
  """
  log_probs = vtrace.log_probs_from_logits_and_actions(logits, actions)
  if log_epsilon:
    log_probs = tf.math.log(tf.exp(log_probs) + log_epsilon)
  return -_masked_sum(log_probs * tf.stop_gradient(advantages), mask)


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
  return 0.5 * _masked_sum(tf.square(advantages), mask)


def compute_entropy_loss(
  logits: tf.Tensor, mask: tf.Tensor | None = None
) -> tf.Tensor:
  """Returns minus the entropy of the policy in nats, summed over T and B.

  Args:
    logits: [T, B, A] float32, unnormalised log-probabilities.
    mask: [T, B] bool or None, as in `compute_policy_gradient_loss`.

  Returns:
    [] float32.
  """
  policy = tf.nn.softmax(logits)
  log_policy = tf.nn.log_softmax(logits)
  return _masked_sum(tf.reduce_sum(policy * log_policy, axis=-1), mask)


def compute_loss(
  options: LossOptions,
  learner_logits: tf.Tensor,
  learner_baselines: tf.Tensor,
  env_outputs: structures.StepOutput,
  agent_outputs: structures.AgentOutput,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
  """The whole loss of one learner batch.

  Args:
    options: LossOptions; a threshold of 0 or None clips nothing.
    learner_logits: [T + 1, B, A], of the weights being learned, in each column.
    learner_baselines: [T + 1, B], likewise.
    env_outputs: StepOutput of [T + 1, B, ...].
    agent_outputs: AgentOutput of [T + 1, B, ...].

  Returns:
    The total loss, [] float32, summed over T and B: pg_loss + baseline_cost *
    baseline_loss + entropy_cost * entropy_loss; and the metrics, [] float32
    each. `total_loss`, `pg_loss`, `baseline_loss` and `entropy_loss` are sums
    over the batch, the last three before their weights. The others concern its
    transitions: `num_transitions`; means `entropy` (nats), `mean_rho` (target /
    behaviour policy, unclipped), `mean_vs`, `mean_baseline`; `max_rho`;
    `clipped_rho_fraction`, of rhos above clip_rho_threshold, whatever the
    correction does with them; `vs_variance`; `error_variance`, of vs minus
    baseline.
  """
  learner_logits = tf.cast(learner_logits, tf.float32)
  learner_baselines = tf.cast(learner_baselines, tf.float32)
  transitions = align(env_outputs, agent_outputs, options.discounting)
  logits = learner_logits[:-1]  # [T, B, A]
  baselines = learner_baselines[:-1]  # [T, B]
  log_rhos = vtrace.log_probs_from_logits_and_actions(
    logits, transitions.actions
  ) - vtrace.log_probs_from_logits_and_actions(
    transitions.behaviour_policy_logits, transitions.actions
  )  # [T, B]
  log_rhos = tf.stop_gradient(log_rhos)
  targets = _targets(
    options, log_rhos, transitions, baselines, learner_baselines[-1]
  )

  mask = transitions.mask
  pg_loss = compute_policy_gradient_loss(
    logits,
    transitions.actions,
    targets.pg_advantages,
    mask,
    log_epsilon=_LOG_EPSILON if options.correction == 'epsilon' else 0.0,
  )
  baseline_loss = compute_baseline_loss(targets.vs - baselines, mask)
  entropy_loss = compute_entropy_loss(logits, mask)
  total_loss = (
    pg_loss
    + options.baseline_cost * baseline_loss
    + options.entropy_cost * entropy_loss
  )
  metrics = {
    'total_loss': total_loss,
    'pg_loss': pg_loss,
    'baseline_loss': baseline_loss,
    'entropy_loss': entropy_loss,
    'entropy': tf.math.divide_no_nan(-entropy_loss, _masked_count(mask)),
    **_rho_metrics(log_rhos, options.clip_rho_threshold or None, mask),
    **_baseline_metrics(targets.vs, baselines, mask),
    'num_transitions': _masked_count(mask),
  }
  return total_loss, {k: tf.stop_gradient(v) for k, v in metrics.items()}


def _targets(
  options: LossOptions,
  log_rhos: tf.Tensor,
  transitions: Transitions,
  baselines: tf.Tensor,
  bootstrap_value: tf.Tensor,
) -> vtrace.VTraceReturns:
  """Targets and advantages; corrections of the IMPALA paper, section 5.2.2."""
  rewards = clip_rewards(transitions.rewards, options.reward_clipping)
  if options.correction == 'vtrace':
    return vtrace.from_importance_weights(
      log_rhos=log_rhos,
      discounts=transitions.discounts,
      rewards=rewards,
      values=baselines,
      bootstrap_value=bootstrap_value,
      clip_rho_threshold=options.clip_rho_threshold or None,
      clip_pg_rho_threshold=options.clip_pg_rho_threshold or None,
      lambda_=options.lambda_,
      mask=transitions.mask,
    )
  # With every rho = 1 V-trace is the on-policy n-step (lambda) return, also
  # where a threshold below 1 is set: the others have no clipping in V.
  uncorrected = vtrace.from_importance_weights(
    log_rhos=tf.zeros_like(log_rhos),
    discounts=transitions.discounts,
    rewards=rewards,
    values=baselines,
    bootstrap_value=bootstrap_value,
    clip_rho_threshold=None,
    clip_pg_rho_threshold=None,
    lambda_=options.lambda_,
    mask=transitions.mask,
  )
  if options.correction != 'one_step_is':
    return uncorrected
  rhos = tf.exp(log_rhos)
  if options.clip_pg_rho_threshold:
    rhos = tf.minimum(rhos, options.clip_pg_rho_threshold)
  return uncorrected._replace(
    pg_advantages=tf.where(
      transitions.mask, rhos * uncorrected.pg_advantages, 0.0
    )
  )


def _rho_metrics(
  log_rhos: tf.Tensor, threshold: float | None, mask: tf.Tensor
) -> dict[str, tf.Tensor]:
  """How far the learner's policy is from the actors'."""
  rhos = tf.exp(log_rhos)
  clipped = rhos > (float('inf') if threshold is None else threshold)
  return {
    'mean_rho': _masked_mean(rhos, mask),
    'max_rho': tf.reduce_max(tf.where(mask, rhos, 0.0)),
    'clipped_rho_fraction': _masked_mean(tf.cast(clipped, tf.float32), mask),
  }


def _baseline_metrics(
  vs: tf.Tensor, baselines: tf.Tensor, mask: tf.Tensor
) -> dict[str, tf.Tensor]:
  """How well the baseline predicts its targets."""
  mean_vs = _masked_mean(vs, mask)
  errors = vs - baselines
  variance = _masked_mean(tf.square(vs - mean_vs), mask)
  unexplained = _masked_mean(
    tf.square(errors - _masked_mean(errors, mask)), mask
  )
  return {
    'mean_vs': mean_vs,
    'mean_baseline': _masked_mean(baselines, mask),
    'vs_variance': variance,
    'error_variance': unexplained,
  }


def _masked_sum(x: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
  if mask is not None:
    # A select: 0 times an infinity in a masked place would be NaN.
    x = tf.where(tf.cast(mask, tf.bool), x, 0.0)
  return tf.reduce_sum(x)


def _masked_count(mask: tf.Tensor) -> tf.Tensor:
  return tf.reduce_sum(tf.cast(mask, tf.float32))


def _masked_mean(x: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
  return tf.math.divide_no_nan(_masked_sum(x, mask), _masked_count(mask))
