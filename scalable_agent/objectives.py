"""From a learner batch to what is minimised: the whole loss of each algorithm.

All of them take the same and return the same; `learner.Learner` minimises any.
"""

from typing import NamedTuple

import tensorflow as tf

from scalable_agent import actions, losses, returns, structures, vtrace
from scalable_agent.action_spaces import ActionSpace
from scalable_agent.losses import masked_count, masked_mean
from scalable_agent.options import (
  AdvantageOptions,
  GA3CLossOptions,
  LossOptions,
  VTraceOptions,
  choices_of,
)

CORRECTIONS = choices_of(VTraceOptions, 'correction')

# Of the epsilon-correction, IMPALA paper, section 5.2.2.
_LOG_EPSILON = 1e-6


class Loss(NamedTuple):
  """What is minimised, and what is reported of it.

  Attributes:
    policy: [] float32, policy gradient loss + entropy_cost * entropy loss.
    baseline: [] float32, baseline_cost * baseline loss.
    metrics: [] float32 each, by name. `total_loss`, `pg_loss`, `baseline_loss`
      and `entropy_loss` are sums over the batch, the last three before their
      weights. The others concern its transitions: `num_transitions`; means
      `entropy` (nats), `mean_rho` (target / behaviour policy, unclipped),
      `mean_vs` (the baseline's targets), `mean_baseline`; `max_rho`;
      `clipped_rho_fraction`, of rhos above clip_rho_threshold (1 where there is
      no such option), whatever the loss does with them; `vs_variance`;
      `error_variance`, of vs minus baseline.
  """

  policy: tf.Tensor
  baseline: tf.Tensor
  metrics: dict[str, tf.Tensor]

  @property
  def total(self) -> tf.Tensor:
    """[] float32."""
    return self.policy + self.baseline


class _Batch(NamedTuple):
  """A learner batch, aligned: T transitions, and what the learner makes of it.

  Attributes:
    transitions: losses.Transitions of [T, B].
    rewards: [T, B] float32, scaled and clipped.
    logits: [T, B, A] float32, of the weights being learned.
    log_probs: [T, B] float32, of the actions, likewise.
    baselines: [T, B] float32, likewise.
    bootstrap_value: [B] float32, likewise.
    log_rhos: [T, B] float32, log(target / behaviour policy) of the actions; no
      gradient flows through them.
  """

  transitions: losses.Transitions
  rewards: tf.Tensor
  logits: tf.Tensor
  log_probs: tf.Tensor
  baselines: tf.Tensor
  bootstrap_value: tf.Tensor
  log_rhos: tf.Tensor


def vtrace_loss(
  options: VTraceOptions,
  space: ActionSpace,
  learner_logits: tf.Tensor,
  learner_baselines: tf.Tensor,
  env_outputs: structures.StepOutput,
  agent_outputs: structures.AgentOutput,
) -> Loss:
  """IMPALA's loss (Espeholt et al. 2018, section 4.2), summed over T and B.

  Args:
    options: VTraceOptions; a threshold of 0 or None clips nothing.
    space: of the actions.
    learner_logits: [T + 1, B, A], of the weights being learned, in each column.
    learner_baselines: [T + 1, B], likewise.
    env_outputs: StepOutput of [T + 1, B, ...].
    agent_outputs: AgentOutput of [T + 1, B, ...].
  """
  batch = _align(
    options,
    space,
    learner_logits,
    learner_baselines,
    env_outputs,
    agent_outputs,
  )
  targets = _vtrace_targets(options, batch)
  pg_loss = losses.compute_policy_gradient_loss(
    batch.log_probs,
    targets.pg_advantages,
    batch.transitions.mask,
    log_epsilon=_LOG_EPSILON if options.correction == 'epsilon' else 0.0,
  )
  entropy_loss = losses.compute_entropy_loss(
    actions.entropy(space, batch.logits), batch.transitions.mask
  )
  return _combine(
    options,
    batch,
    targets.vs,
    pg_loss,
    entropy_loss,
    threshold=options.clip_rho_threshold or None,
  )


def advantage_loss(
  options: AdvantageOptions,
  space: ActionSpace,
  learner_logits: tf.Tensor,
  learner_baselines: tf.Tensor,
  env_outputs: structures.StepOutput,
  agent_outputs: structures.AgentOutput,
) -> Loss:
  """The loss of A3C and A2C (Mnih et al. 2016, section 4).

  The baseline's targets are n-step returns, the policy gradient's advantages
  GAE's; with `gae_lambda` 1 they are the returns less the baseline, as in the
  paper. Nothing corrects for actions of another policy.

  Args: see `vtrace_loss`.
  """
  batch = _align(
    options,
    space,
    learner_logits,
    learner_baselines,
    env_outputs,
    agent_outputs,
  )
  transitions = batch.transitions
  parts = (
    batch.rewards,
    transitions.discounts,
    batch.baselines,
    batch.bootstrap_value,
  )
  advantages = returns.generalised_advantages(
    *parts, options.gae_lambda, transitions.mask
  )
  pg_loss = losses.compute_policy_gradient_loss(
    batch.log_probs, advantages, transitions.mask
  )
  entropy_loss = losses.compute_entropy_loss(
    actions.entropy(space, batch.logits), transitions.mask
  )
  loss = _combine(
    options,
    batch,
    returns.n_step_returns(*parts, transitions.mask),
    pg_loss,
    entropy_loss,
  )
  if options.loss_reduction == 'sum':
    return loss
  # At least one: a batch may begin at the end of all its episodes.
  count = tf.maximum(masked_count(transitions.mask), 1.0)
  return loss._replace(
    policy=loss.policy / count, baseline=loss.baseline / count
  )


def ga3c_loss(
  options: GA3CLossOptions,
  space: ActionSpace,
  learner_logits: tf.Tensor,
  learner_baselines: tf.Tensor,
  env_outputs: structures.StepOutput,
  agent_outputs: structures.AgentOutput,
  entropy_cost: tf.Tensor | None = None,
) -> Loss:
  """The loss of GA3C (Babaeizadeh et al. 2017), summed over T and B.

  A3C's with n-step returns, but for the logarithms: of max(p, log_epsilon), in
  the policy gradient as in the entropy, so that no gradient flows through the
  logarithm of what is less probable.

  Args: see `vtrace_loss`.
    entropy_cost: [] float32; None: that of `options`.

  Returns:
    A Loss with `entropy_cost` and `num_episodes`, that ended in the batch,
    among its metrics.
  """
  batch = _align(
    options,
    space,
    learner_logits,
    learner_baselines,
    env_outputs,
    agent_outputs,
  )
  transitions = batch.transitions
  if options.reward_clipping == 'abs_one':
    rewards = tf.clip_by_value(
      options.reward_scale * transitions.rewards,
      options.reward_min,
      options.reward_max,
    )
    batch = batch._replace(rewards=rewards)
  targets = returns.n_step_returns(
    batch.rewards,
    transitions.discounts,
    batch.baselines,
    batch.bootstrap_value,
    transitions.mask,
  )
  floor = 0.0 if options.use_log_softmax else options.log_epsilon
  log_probs = actions.log_prob(space, batch.logits, transitions.actions, floor)
  advantages = tf.stop_gradient(targets - batch.baselines)
  if entropy_cost is None:
    entropy_cost = tf.constant(options.entropy_cost)
  loss = _combine(
    options,
    batch,
    targets,
    losses.compute_policy_gradient_loss(
      log_probs, advantages, transitions.mask
    ),
    losses.compute_entropy_loss(
      actions.entropy(space, batch.logits, floor), transitions.mask
    ),
    entropy_cost=entropy_cost,
  )
  ended = tf.equal(env_outputs.step_type[1:], structures.LAST)
  more = {
    'entropy_cost': tf.identity(entropy_cost),
    'num_episodes': losses.masked_count(ended),
  }
  return loss._replace(metrics=loss.metrics | more)


def _align(
  options: LossOptions,
  space: ActionSpace,
  learner_logits: tf.Tensor,
  learner_baselines: tf.Tensor,
  env_outputs: structures.StepOutput,
  agent_outputs: structures.AgentOutput,
) -> _Batch:
  learner_baselines = tf.cast(learner_baselines, tf.float32)
  transitions = losses.align(env_outputs, agent_outputs, options.discounting)
  logits = tf.cast(learner_logits, tf.float32)[:-1]  # [T, B, A]
  log_probs = actions.log_prob(space, logits, transitions.actions)  # [T, B]
  log_rhos = log_probs - actions.log_prob(
    space, transitions.behaviour_policy_logits, transitions.actions
  )  # [T, B]
  return _Batch(
    transitions=transitions,
    rewards=losses.clip_rewards(
      options.reward_scale * transitions.rewards, options.reward_clipping
    ),
    logits=logits,
    log_probs=log_probs,
    baselines=learner_baselines[:-1],
    bootstrap_value=learner_baselines[-1],
    log_rhos=tf.stop_gradient(log_rhos),
  )


def _vtrace_targets(
  options: VTraceOptions, batch: _Batch
) -> vtrace.VTraceReturns:
  """Targets and advantages; corrections of the IMPALA paper, section 5.2.2."""
  transitions = batch.transitions
  if options.correction == 'vtrace':
    return vtrace.from_importance_weights(
      log_rhos=batch.log_rhos,
      discounts=transitions.discounts,
      rewards=batch.rewards,
      values=batch.baselines,
      bootstrap_value=batch.bootstrap_value,
      clip_rho_threshold=options.clip_rho_threshold or None,
      clip_pg_rho_threshold=options.clip_pg_rho_threshold or None,
      lambda_=options.lambda_,
      mask=transitions.mask,
    )
  # With every rho = 1 V-trace is the on-policy n-step (lambda) return, also
  # where a threshold below 1 is set: the others have no clipping in V.
  uncorrected = vtrace.from_importance_weights(
    log_rhos=tf.zeros_like(batch.log_rhos),
    discounts=transitions.discounts,
    rewards=batch.rewards,
    values=batch.baselines,
    bootstrap_value=batch.bootstrap_value,
    clip_rho_threshold=None,
    clip_pg_rho_threshold=None,
    lambda_=options.lambda_,
    mask=transitions.mask,
  )
  if options.correction != 'one_step_is':
    return uncorrected
  rhos = tf.exp(batch.log_rhos)
  if options.clip_pg_rho_threshold:
    rhos = tf.minimum(rhos, options.clip_pg_rho_threshold)
  return uncorrected._replace(
    pg_advantages=tf.where(
      transitions.mask, rhos * uncorrected.pg_advantages, 0.0
    )
  )


def _combine(
  options: LossOptions,
  batch: _Batch,
  targets: tf.Tensor,
  pg_loss: tf.Tensor,
  entropy_loss: tf.Tensor,
  threshold: float | None = 1.0,
  entropy_cost: tf.Tensor | None = None,
) -> Loss:
  """Returns the weighted sum of the losses; the baseline's is made here."""
  mask = batch.transitions.mask
  baseline_loss = losses.compute_baseline_loss(targets - batch.baselines, mask)
  if entropy_cost is None:
    entropy_cost = options.entropy_cost
  policy = pg_loss + entropy_cost * entropy_loss
  baseline = options.baseline_cost * baseline_loss
  metrics = {
    'total_loss': policy + baseline,
    'pg_loss': pg_loss,
    'baseline_loss': baseline_loss,
    'entropy_loss': entropy_loss,
    'entropy': tf.math.divide_no_nan(-entropy_loss, masked_count(mask)),
    **_rho_metrics(batch.log_rhos, threshold, mask),
    **_baseline_metrics(targets, batch.baselines, mask),
    'num_transitions': masked_count(mask),
  }
  metrics = {k: tf.stop_gradient(v) for k, v in metrics.items()}
  return Loss(policy, baseline, metrics)


def _rho_metrics(
  log_rhos: tf.Tensor, threshold: float | None, mask: tf.Tensor
) -> dict[str, tf.Tensor]:
  """How far the learner's policy is from the actors'."""
  rhos = tf.exp(log_rhos)
  clipped = rhos > (float('inf') if threshold is None else threshold)
  return {
    'mean_rho': masked_mean(rhos, mask),
    'max_rho': tf.reduce_max(tf.where(mask, rhos, 0.0)),
    'clipped_rho_fraction': masked_mean(tf.cast(clipped, tf.float32), mask),
  }


def _baseline_metrics(
  vs: tf.Tensor, baselines: tf.Tensor, mask: tf.Tensor
) -> dict[str, tf.Tensor]:
  """How well the baseline predicts its targets."""
  mean_vs = masked_mean(vs, mask)
  errors = vs - baselines
  variance = masked_mean(tf.square(vs - mean_vs), mask)
  unexplained = masked_mean(tf.square(errors - masked_mean(errors, mask)), mask)
  return {
    'mean_vs': mean_vs,
    'mean_baseline': masked_mean(baselines, mask),
    'vs_variance': variance,
    'error_variance': unexplained,
  }
