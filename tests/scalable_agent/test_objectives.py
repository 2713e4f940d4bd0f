"""Losses of all algorithms against definitions, transition by transition."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from scalable_agent import (
  action_spaces,
  losses,
  objectives,
  structures,
  vtrace,
)
from scalable_agent.objectives import advantage_loss, ga3c_loss, vtrace_loss
from scalable_agent.options import (
  AdvantageOptions,
  GA3CLossOptions,
  VTraceOptions,
)
from tests.loss_batches import (
  NUM_ACTIONS,
  NUM_STEPS,
  SPACE,
  Batch,
  log_softmax,
  make_batch,
)

FIRST, MID, LAST = structures.FIRST, structures.MID, structures.LAST


def vtrace_targets(options, log_rhos, rewards, discounts, values):
  """Targets, advantages and log-epsilon of an episode's piece of one column.

  V-trace itself, which has tests of its own, is not written out.
  """
  corrected = options.correction == 'vtrace'
  results = vtrace.from_importance_weights(
    log_rhos=(log_rhos if corrected else 0 * log_rhos)[:, None],
    discounts=np.array(discounts)[:, None],
    rewards=np.array(rewards)[:, None],
    values=values[:-1, None],
    bootstrap_value=values[-1:],
    clip_rho_threshold=options.clip_rho_threshold if corrected else None,
    clip_pg_rho_threshold=options.clip_pg_rho_threshold if corrected else None,
    lambda_=options.lambda_,
  )
  advantages = results.pg_advantages[:, 0].numpy().astype(np.float64)
  if options.correction == 'one_step_is':
    advantages *= np.minimum(np.exp(log_rhos), options.clip_pg_rho_threshold)
  epsilon = 1e-6 if options.correction == 'epsilon' else 0.0
  return results.vs[:, 0].numpy().astype(np.float64), advantages, epsilon


def advantage_targets(options, log_rhos, rewards, discounts, values):
  """The same for n-step returns and GAE, sums over all that follows."""
  del log_rhos
  targets, advantages = [], []
  for t in range(len(rewards)):
    target, advantage, discount, trace = 0.0, 0.0, 1.0, 1.0
    for k in range(t, len(rewards)):
      td_error = rewards[k] + discounts[k] * values[k + 1] - values[k]
      target += discount * rewards[k]
      advantage += trace * td_error
      discount *= discounts[k]
      trace *= discounts[k] * options.gae_lambda
    targets.append(target + discount * values[-1])
    advantages.append(advantage)
  return targets, advantages, 0.0


def reference(batch, options):
  """The loss and its gradients, one transition of the design's table at a time.

  Targets are those of each episode's piece of a column alone.
  """
  log_policy = log_softmax(batch.learner_logits)
  policy = np.exp(log_policy)
  log_behaviour = log_softmax(batch.agent_outputs.policy_logits)
  v = batch.learner_baselines.astype(np.float64)
  env = batch.env_outputs
  totals = {'pg': 0.0, 'baseline': 0.0, 'entropy': 0.0}
  d_logits = np.zeros(batch.learner_logits.shape)
  d_baselines = np.zeros(v.shape)
  rhos, seen = [], []

  for b in range(v.shape[1]):
    ends = [t for t in range(NUM_STEPS) if env.step_type[t, b] == LAST]
    start = 0
    for end in [*ends, NUM_STEPS]:
      steps = range(start, end)  # Transitions t -> t + 1.
      start = end + 1
      if not steps:
        continue
      actions = [batch.agent_outputs.action[t + 1, b] for t in steps]
      log_rhos = np.array(
        [
          log_policy[t, b, a] - log_behaviour[t + 1, b, a]
          for t, a in zip(steps, actions, strict=True)
        ]
      )
      rewards = [env.reward[t + 1, b] for t in steps]
      if options.reward_clipping == 'abs_one':
        rewards = [max(-1.0, min(1.0, r)) for r in rewards]
      discounts = [options.discounting * env.discount[t + 1, b] for t in steps]
      find = (
        vtrace_targets
        if isinstance(options, VTraceOptions)
        else advantage_targets
      )
      targets, advantages, epsilon = find(
        options, log_rhos, rewards, discounts, v[[*steps, end], b]
      )
      for i, (t, a) in enumerate(zip(steps, actions, strict=True)):
        target, advantage = targets[i], advantages[i]
        p, log_p = policy[t, b], log_policy[t, b]
        one_hot = np.eye(NUM_ACTIONS)[a]
        totals['pg'] -= advantage * np.log(p[a] + epsilon)
        totals['baseline'] += 0.5 * (target - v[t, b]) ** 2
        totals['entropy'] += (p * log_p).sum()
        d_logits[t, b] -= advantage * p[a] / (p[a] + epsilon) * (one_hot - p)
        d_logits[t, b] += options.entropy_cost * p * (log_p - (p * log_p).sum())
        d_baselines[t, b] -= options.baseline_cost * (target - v[t, b])
        rhos.append(np.exp(log_rhos[i]))
        seen.append((target, v[t, b]))
  total = (
    totals['pg']
    + options.baseline_cost * totals['baseline']
    + options.entropy_cost * totals['entropy']
  )
  vs, baselines = np.array(seen).T
  metrics = {
    'total_loss': total,
    'pg_loss': totals['pg'],
    'baseline_loss': totals['baseline'],
    'entropy_loss': totals['entropy'],
    'entropy': -totals['entropy'] / len(rhos),
    'mean_rho': np.mean(rhos),
    'max_rho': np.max(rhos),
    'clipped_rho_fraction': np.mean(
      np.array(rhos) > (getattr(options, 'clip_rho_threshold', 1.0) or np.inf)
    ),
    'mean_vs': vs.mean(),
    'mean_baseline': baselines.mean(),
    'vs_variance': vs.var(),
    'error_variance': (vs - baselines).var(),
    'num_transitions': len(rhos),
  }
  return total, metrics, [d_logits, d_baselines]


def test_below_lambda_one_advantages_are_not_those_of_gae():
  """The second TD error has its full weight, as VTraceOptions says."""
  gamma, lambda_ = 0.9, 0.5
  rewards, values = np.array([1.0, -2.0, 3.0, 0.5]), np.array([0.3, 2, -1, 0.7])
  bootstrap = 1.5
  deltas = rewards + gamma * np.append(values[1:], bootstrap) - values
  weights = np.array([1, gamma, gamma**2 * lambda_, gamma**3 * lambda_**2])
  gae = np.array([(gamma * lambda_) ** k for k in range(4)])
  returns = vtrace.from_importance_weights(
    log_rhos=tf.zeros([4, 1]),
    discounts=tf.fill([4, 1], gamma),
    rewards=tf.constant(rewards[:, None], tf.float32),
    values=tf.constant(values[:, None], tf.float32),
    bootstrap_value=tf.constant([bootstrap]),
    lambda_=lambda_,
  )
  first = float(returns.pg_advantages[0, 0])
  assert first == pytest.approx(weights @ deltas, rel=1e-5)
  assert first != pytest.approx(gae @ deltas, rel=0.1)


# The whole loss.


@pytest.mark.parametrize('correction', objectives.CORRECTIONS)
@pytest.mark.parametrize(
  'changes',
  [
    {},
    {
      'reward_clipping': 'none',
      'clip_rho_threshold': 2.0,
      'clip_pg_rho_threshold': 1.5,
      'lambda_': 0.9,
      'discounting': 0.8,
      'baseline_cost': 1.3,
      'entropy_cost': 0.5,
    },
    {'clip_rho_threshold': 0.5, 'clip_pg_rho_threshold': 0.5},
  ],
)
def test_loss_metrics_and_gradients_are_those_of_the_definition(
  correction, changes
):
  batch = make_batch()
  options = VTraceOptions(correction=correction, **changes)
  loss, metrics, gradients = batch.loss(vtrace_loss, options)
  expected_loss, expected_metrics, expected_gradients = reference(
    batch, options
  )
  np.testing.assert_allclose(loss, expected_loss, rtol=1e-4)
  assert metrics.keys() == expected_metrics.keys()
  for name, metric in metrics.items():
    assert metric.shape == ()
    assert metric.dtype == tf.float32
    np.testing.assert_allclose(
      metric, expected_metrics[name], rtol=1e-4, atol=1e-6, err_msg=name
    )
  for actual, expected in zip(gradients, expected_gradients, strict=True):
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=2e-5)
  assert 0 < metrics['clipped_rho_fraction'] < 1
  assert np.abs(batch.env_outputs.reward).max() > 1


@pytest.mark.parametrize(
  'changes',
  [
    {},
    {'gae_lambda': 0.0},
    {
      'gae_lambda': 0.7,
      'reward_clipping': 'none',
      'discounting': 0.8,
      'baseline_cost': 1.3,
      'entropy_cost': 0.5,
    },
  ],
)
def test_the_loss_of_a3c_is_that_of_the_definition(changes):
  batch = make_batch()
  options = AdvantageOptions(**changes)
  loss, metrics, gradients = batch.loss(advantage_loss, options)
  expected_loss, expected_metrics, expected_gradients = reference(
    batch, options
  )
  np.testing.assert_allclose(loss, expected_loss, rtol=1e-4)
  assert metrics.keys() == expected_metrics.keys()
  for name, metric in metrics.items():
    np.testing.assert_allclose(
      metric, expected_metrics[name], rtol=1e-4, atol=1e-6, err_msg=name
    )
  for actual, expected in zip(gradients, expected_gradients, strict=True):
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=2e-5)


def ga3c_reference(batch, options):
  """GA3C's loss and gradients, one transition at a time; seen probabilities."""
  log_p = log_softmax(batch.learner_logits)
  p = np.exp(log_p)
  v = batch.learner_baselines.astype(np.float64)
  env, least = batch.env_outputs, options.log_epsilon
  total, seen = 0.0, []
  d_logits, d_baselines = np.zeros(p.shape), np.zeros(v.shape)
  for b in range(v.shape[1]):
    for t in range(NUM_STEPS):
      if env.step_type[t, b] == LAST:
        continue
      # Up to the end of the episode, or of the unroll.
      target, discount = 0.0, 1.0
      for k in range(t, NUM_STEPS):
        reward = env.reward[k + 1, b]
        if options.reward_clipping == 'abs_one':
          reward = max(options.reward_min, min(options.reward_max, reward))
        target += discount * reward
        discount *= options.discounting * env.discount[k + 1, b]
        if env.step_type[k + 1, b] == LAST:
          break
      target += discount * v[k + 1, b]
      advantage = target - v[t, b]
      a = batch.agent_outputs.action[t + 1, b]
      logs, alive = log_p[t, b], np.ones(NUM_ACTIONS)
      if not options.use_log_softmax:
        logs = np.log(np.maximum(p[t, b], least))
        alive = p[t, b] > least
      total -= advantage * logs[a]
      total += options.entropy_cost * (p[t, b] * logs).sum()
      total += options.baseline_cost * 0.5 * advantage**2
      d_logits[t, b] -= (
        advantage * alive[a] * (np.eye(NUM_ACTIONS)[a] - p[t, b])
      )
      slope = logs + alive
      d_logits[t, b] += (
        options.entropy_cost * p[t, b] * (slope - (p[t, b] * slope).sum())
      )
      d_baselines[t, b] -= options.baseline_cost * advantage
      seen.append((p[t, b, a], reward, env.reward[t + 1, b]))
  return total, [d_logits, d_baselines], seen


@pytest.mark.parametrize(
  'changes',
  [
    {},
    {'use_log_softmax': True},
    {
      'log_epsilon': 0.2,
      'reward_min': -0.5,
      'reward_max': 2.0,
      'discounting': 0.8,
      'baseline_cost': 1.3,
      'entropy_cost': 0.5,
    },
    {'reward_clipping': 'none'},
  ],
)
def test_the_loss_of_ga3c_is_that_of_the_definition(changes):
  batch = make_batch()
  options = GA3CLossOptions(**changes)
  loss, metrics, gradients = batch.loss(ga3c_loss, options)
  expected_loss, expected_gradients, seen = ga3c_reference(batch, options)
  np.testing.assert_allclose(loss, expected_loss, rtol=1e-4)
  for actual, expected in zip(gradients, expected_gradients, strict=True):
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=2e-5)
  probabilities = np.array(seen)[:, 0]
  assert probabilities.min() < options.log_epsilon < probabilities.max()
  assert metrics['num_transitions'] == len(seen)
  assert (
    metrics['num_episodes'] == (batch.env_outputs.step_type[1:] == LAST).sum()
  )
  np.testing.assert_allclose(metrics['entropy_cost'], options.entropy_cost)


def test_what_is_less_probable_than_epsilon_has_no_policy_gradient():
  batch = make_batch()
  options = GA3CLossOptions(entropy_cost=0.0, log_epsilon=0.999999)
  _, _, (d_logits, d_baselines) = batch.loss(ga3c_loss, options)
  assert not d_logits.any()
  assert d_baselines.any()


def test_the_terminal_reward_counts_in_ga3c_and_a_truncation_bootstraps():
  """GA3C's own code lost both."""
  batch = make_batch()
  options = GA3CLossOptions(reward_clipping='none')
  mean_vs = []
  for t, b, discount in ((2, 0, 0), (4, 1, 1)):
    assert batch.env_outputs.step_type[t, b] == LAST
    assert batch.env_outputs.discount[t, b] == discount
  for part, (t, b) in (
    (None, (0, 0)),
    (batch.env_outputs.reward, (2, 0)),
    (batch.learner_baselines, (4, 1)),
  ):
    if part is not None:
      part[t, b] += 10.0
    mean_vs.append(float(batch.loss(ga3c_loss, options)[1]['mean_vs']))
  assert mean_vs[0] < mean_vs[1] < mean_vs[2]


def test_another_entropy_cost_may_come_with_the_batch():
  batch = make_batch()
  options = GA3CLossOptions(entropy_cost=0.25)
  expected, _, _ = batch.loss(ga3c_loss, options)
  parts = (
    batch.learner_logits,
    batch.learner_baselines,
    batch.env_outputs,
    batch.agent_outputs,
  )
  other = GA3CLossOptions(entropy_cost=0.0)
  actual = ga3c_loss(other, SPACE, *parts, entropy_cost=tf.constant(0.25))
  np.testing.assert_allclose(actual.total, expected, rtol=1e-6)
  assert actual.metrics['entropy_cost'] == 0.25
  assert ga3c_loss(other, SPACE, *parts).total != expected


def test_an_end_in_the_first_column_counted_with_the_unroll_before():
  batch, options = make_batch(), GA3CLossOptions()
  step_type = batch.env_outputs.step_type
  before = batch.loss(ga3c_loss, options)[1]['num_episodes']
  step_type[0] = LAST
  assert batch.loss(ga3c_loss, options)[1]['num_episodes'] == before
  more = (step_type[-1] != LAST).sum()
  step_type[-1] = LAST
  assert batch.loss(ga3c_loss, options)[1]['num_episodes'] == before + more


def test_a_mean_is_the_sum_over_the_number_of_transitions():
  batch = make_batch()
  total, metrics, gradients = batch.loss(advantage_loss, AdvantageOptions())
  mean, same_metrics, smaller = batch.loss(
    advantage_loss, AdvantageOptions(loss_reduction='mean')
  )
  count = metrics['num_transitions']
  assert count > 1
  np.testing.assert_allclose(mean * count, total, rtol=1e-5)
  assert metrics == same_metrics
  for one, other in zip(gradients, smaller, strict=True):
    np.testing.assert_allclose(one, other * count, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('reduction', ['sum', 'mean'])
def test_a_batch_without_a_transition_costs_a3c_nothing(reduction):
  batch = make_batch()
  batch.env_outputs.step_type[:] = LAST
  loss, _, gradients = batch.loss(
    advantage_loss, AdvantageOptions(loss_reduction=reduction)
  )
  assert loss == 0
  for gradient in gradients:
    assert not gradient.any()


def test_the_corrections_differ():
  batch = make_batch()
  results = {
    correction: batch.loss(vtrace_loss, VTraceOptions(correction=correction))[1]
    for correction in objectives.CORRECTIONS
  }
  policy_losses = [float(m['pg_loss']) for m in results.values()]
  assert len(set(policy_losses)) == len(objectives.CORRECTIONS)
  uncorrected = results['none']['baseline_loss']
  assert results['vtrace']['baseline_loss'] != uncorrected
  assert results['one_step_is']['baseline_loss'] == uncorrected
  assert results['epsilon']['baseline_loss'] == uncorrected


def test_on_policy_all_corrections_but_epsilon_agree():
  batch = make_batch()
  logits = batch.learner_logits
  logits[:-1] = batch.agent_outputs.policy_logits[1:]
  options = VTraceOptions()
  loss, metrics, gradients = batch.loss(vtrace_loss, options)
  np.testing.assert_allclose(metrics['mean_rho'], 1.0, rtol=1e-5)
  np.testing.assert_allclose(metrics['max_rho'], 1.0, rtol=1e-5)
  assert metrics['clipped_rho_fraction'] == 0
  for correction in ('one_step_is', 'none'):
    other_loss, _, other_gradients = batch.loss(
      vtrace_loss, dataclasses.replace(options, correction=correction)
    )
    np.testing.assert_allclose(loss, other_loss, rtol=1e-5)
    np.testing.assert_allclose(gradients[0], other_gradients[0], atol=1e-5)


def test_unclipped_importance_weights():
  batch = make_batch()
  unclipped_loss, metrics, _ = batch.loss(
    vtrace_loss,
    VTraceOptions(clip_rho_threshold=None, clip_pg_rho_threshold=None),
  )
  expected, _, _ = reference(
    batch,
    VTraceOptions(clip_rho_threshold=None, clip_pg_rho_threshold=None),
  )
  np.testing.assert_allclose(unclipped_loss, expected, rtol=1e-4)
  assert metrics['clipped_rho_fraction'] == 0
  one_step, bounded = (
    batch.loss(
      vtrace_loss,
      VTraceOptions(correction='one_step_is', clip_pg_rho_threshold=threshold),
    )[0]
    for threshold in (None, 1e9)
  )
  np.testing.assert_allclose(one_step, bounded, rtol=1e-6)


def test_the_loss_is_a_sum_over_the_batch():
  batch = make_batch()
  loss, metrics, _ = batch.loss(vtrace_loss, VTraceOptions())
  twice = Batch(
    *(
      tf.nest.map_structure(
        lambda x: None if x is None else np.concatenate([x, x], axis=1),
        getattr(batch, field.name),
      )
      for field in dataclasses.fields(batch)
    )
  )
  loss_of_twice, metrics_of_twice, _ = twice.loss(vtrace_loss, VTraceOptions())
  np.testing.assert_allclose(loss_of_twice, 2 * loss, rtol=1e-5)
  for name in ('entropy', 'mean_rho', 'max_rho', 'mean_vs'):
    np.testing.assert_allclose(metrics_of_twice[name], metrics[name], rtol=1e-5)


def test_what_happens_between_episodes_does_not_matter():
  batch = make_batch()
  options = VTraceOptions()
  loss, metrics, gradients = batch.loss(vtrace_loss, options)
  last = batch.env_outputs.step_type[:-1] == LAST
  # The action ignored in the last column of an episode, its logits, and what
  # the learner would have done there.
  batch.agent_outputs.action[1:][last] = NUM_ACTIONS - 1
  batch.agent_outputs.policy_logits[1:][last] = [9.0, -9.0, 9.0, -90.0]
  batch.learner_logits[:-1][last] = [-90.0, 9.0, -9.0, 9.0]
  batch.env_outputs.reward[1:][last] = 1e6
  batch.env_outputs.discount[1:][last] = 0.0
  changed_loss, changed_metrics, changed_gradients = batch.loss(
    vtrace_loss, options
  )
  assert changed_loss == loss
  assert changed_metrics == metrics
  np.testing.assert_array_equal(gradients[0], changed_gradients[0])
  assert (gradients[0][:-1][last] == 0).all()
  assert (gradients[1][:-1][last] == 0).all()


@pytest.mark.parametrize('correction', objectives.CORRECTIONS)
def test_an_infinite_rho_between_episodes_spoils_nothing(correction):
  batch = make_batch()
  options = VTraceOptions(
    correction=correction, clip_rho_threshold=0, clip_pg_rho_threshold=0
  )
  loss, metrics, gradients = batch.loss(vtrace_loss, options)
  last = batch.env_outputs.step_type[:-1] == LAST
  batch.agent_outputs.action[1:][last] = 0
  batch.agent_outputs.policy_logits[1:][last] = [-200.0, 0.0, 0.0, 0.0]
  batch.learner_logits[:-1][last] = [9.0, 0.0, 0.0, 0.0]
  changed_loss, changed_metrics, changed_gradients = batch.loss(
    vtrace_loss, options
  )
  assert changed_loss == loss
  assert changed_metrics == metrics
  for one, other in zip(gradients, changed_gradients, strict=True):
    np.testing.assert_array_equal(one, other)


def test_a_truncation_bootstraps_from_the_final_observation():
  batch = make_batch()
  options = VTraceOptions()
  _, before, _ = batch.loss(vtrace_loss, options)
  t, b = 4, 1
  assert batch.env_outputs.step_type[t, b] == LAST
  assert batch.env_outputs.discount[t, b] == 1
  batch.learner_baselines[t, b] += 1.0
  assert batch.loss(vtrace_loss, options)[1]['mean_vs'] > before['mean_vs']


def test_a_termination_does_not_bootstrap():
  batch = make_batch()
  options = VTraceOptions()
  _, before, _ = batch.loss(vtrace_loss, options)
  t, b = 2, 0
  assert batch.env_outputs.step_type[t, b] == LAST
  assert batch.env_outputs.discount[t, b] == 0
  batch.learner_baselines[t, b] += 1.0
  _, after, _ = batch.loss(vtrace_loss, options)
  assert after == before


def test_rewards_reach_the_loss_clipped_and_leave_the_batch_raw():
  batch = make_batch()
  raw = batch.env_outputs.reward.copy()
  clipped_loss, _, _ = batch.loss(vtrace_loss, VTraceOptions())
  none_loss, _, _ = batch.loss(
    vtrace_loss, VTraceOptions(reward_clipping='none')
  )
  assert clipped_loss != none_loss
  np.testing.assert_array_equal(batch.env_outputs.reward, raw)
  batch.env_outputs = batch.env_outputs._replace(reward=np.clip(raw, -1, 1))
  assert batch.loss(vtrace_loss, VTraceOptions(reward_clipping='none'))[0] == (
    clipped_loss
  )


def test_a_batch_without_a_transition_costs_nothing():
  batch = make_batch()
  batch.env_outputs = batch.env_outputs._replace(
    step_type=np.full_like(batch.env_outputs.step_type, LAST)
  )
  loss, metrics, gradients = batch.loss(vtrace_loss, VTraceOptions())
  assert loss == 0
  for name, metric in metrics.items():
    assert metric == 0, name
  for gradient in gradients:
    assert (gradient == 0).all()


def test_the_last_column_only_bootstraps():
  batch = make_batch()
  _, _, (d_logits, d_baselines) = batch.loss(vtrace_loss, VTraceOptions())
  assert (d_logits[-1] == 0).all()
  assert (d_baselines[-1] == 0).all()


def test_a_graph_of_unknown_shapes_gives_the_same_loss():
  batch = make_batch()
  options = VTraceOptions()
  expected, _, _ = batch.loss(vtrace_loss, options)

  def spec(x):
    return tf.TensorSpec([None, None, *x.shape[2:]], x.dtype)

  env_outputs = batch.env_outputs._replace(observation=(), info=())
  arguments = (
    batch.learner_logits,
    batch.learner_baselines,
    env_outputs,
    batch.agent_outputs,
  )

  @tf.function(input_signature=tf.nest.map_structure(spec, arguments))
  def traced(*arguments):
    return vtrace_loss(options, SPACE, *arguments)

  loss = traced(*tf.nest.map_structure(tf.constant, arguments))
  np.testing.assert_allclose(loss.total, expected, rtol=1e-5)
  np.testing.assert_allclose(loss.metrics['total_loss'], expected, rtol=1e-5)


def test_half_precision_outputs_of_a_network_are_accepted():
  batch = make_batch()
  loss = vtrace_loss(
    VTraceOptions(),
    SPACE,
    tf.cast(batch.learner_logits, tf.bfloat16),
    tf.cast(batch.learner_baselines, tf.bfloat16),
    batch.env_outputs,
    batch.agent_outputs,
  )
  assert loss.total.dtype == tf.float32


# Options.


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('correction', 'v_trace'),
    ('reward_clipping', 'abs'),
    ('discounting', 1.5),
    ('lambda_', -0.1),
    ('clip_rho_threshold', -1.0),
    ('clip_pg_rho_threshold', -1.0),
    ('clip_pg_rho_threshold', float('nan')),
  ],
)
def test_a_wrong_option_raises_and_is_named(name, value):
  with pytest.raises(ValueError, match=f'^--{name}={value} '):
    VTraceOptions(**{name: value})


@pytest.mark.parametrize('correction', objectives.CORRECTIONS)
def test_a_threshold_of_zero_means_no_clipping(correction):
  batch = make_batch()
  zero, infinite = (
    batch.loss(
      vtrace_loss,
      VTraceOptions(
        correction=correction,
        clip_rho_threshold=threshold,
        clip_pg_rho_threshold=threshold,
      ),
    )
    for threshold in (0, 1e9)
  )
  assert zero[0] == infinite[0]
  assert zero[1]['clipped_rho_fraction'] == 0


# Other actions than one of several.


LOSSES = [
  (vtrace_loss, VTraceOptions(entropy_cost=0.3)),
  (advantage_loss, AdvantageOptions(entropy_cost=0.3, gae_lambda=0.9)),
  (ga3c_loss, GA3CLossOptions(entropy_cost=0.3)),
]


def loss_of(function, options, space, batch):
  return function(
    options,
    space,
    tf.constant(batch.learner_logits, tf.float32),
    tf.constant(batch.learner_baselines, tf.float32),
    batch.env_outputs,
    batch.agent_outputs,
  )


@pytest.mark.parametrize(('function', 'options'), LOSSES)
def test_one_choice_of_several_is_a_discrete_action(function, options):
  batch = make_batch()
  expected = loss_of(function, options, SPACE, batch)
  outputs = batch.agent_outputs
  batch.agent_outputs = outputs._replace(action=outputs.action[..., None])
  space = action_spaces.MultiDiscrete((NUM_ACTIONS,))
  actual = loss_of(function, options, space, batch)
  np.testing.assert_allclose(actual.total, expected.total, rtol=1e-5)
  for name, value in expected.metrics.items():
    np.testing.assert_allclose(actual.metrics[name], value, rtol=1e-5)


@pytest.mark.parametrize(('function', 'options'), LOSSES)
def test_choices_beside_each_other_multiply_their_probabilities(
  function, options
):
  # A second choice that is the same in both policies changes no rho, and adds
  # its own entropy and nothing else where it is uniform.
  batch = make_batch()
  before = loss_of(function, options, SPACE, batch)
  outputs = batch.agent_outputs
  both = np.stack([outputs.action, outputs.action % 2], -1)
  batch.agent_outputs = outputs._replace(
    action=both, policy_logits=with_zeros(outputs.policy_logits, 2)
  )
  batch.learner_logits = with_zeros(batch.learner_logits, 2)
  space = action_spaces.MultiDiscrete((NUM_ACTIONS, 2))
  after = loss_of(function, options, space, batch)
  for name in ('mean_rho', 'mean_vs', 'baseline_loss'):
    np.testing.assert_allclose(
      after.metrics[name], before.metrics[name], rtol=1e-5
    )
  np.testing.assert_allclose(
    after.metrics['entropy'], before.metrics['entropy'] + np.log(2), rtol=1e-5
  )


def with_zeros(logits, count):
  zeros = np.zeros((*logits.shape[:-1], count), np.float32)
  return np.concatenate([logits, zeros], -1)


@pytest.mark.parametrize('squash', [False, True])
@pytest.mark.parametrize(('function', 'options'), LOSSES)
def test_numbers_are_learned_from_by_their_densities(function, options, squash):
  random = np.random.RandomState(3)
  batch = make_batch()
  shape = batch.env_outputs.step_type.shape
  target, behaviour = 0.5 * random.normal(size=(2, *shape, 4))
  taken = random.normal(size=(*shape, 2))
  batch.learner_logits = target
  batch.agent_outputs = batch.agent_outputs._replace(
    action=taken.astype(np.float32),
    policy_logits=behaviour.astype(np.float32),
  )
  space = action_spaces.Box((-1.0, 0.0), (1.0, 5.0), squash)
  loss = loss_of(function, options, space, batch)

  def log_density(parameters, x):
    mean, log_std = np.split(parameters, 2, -1)
    logs = -0.5 * ((x - mean) / np.exp(log_std)) ** 2 - log_std
    logs -= 0.5 * np.log(2 * np.pi)
    return (logs - (np.log(1 - np.tanh(x) ** 2) if squash else 0)).sum(-1)

  mask = batch.env_outputs.step_type[:-1] != LAST
  log_probs = log_density(target[:-1], taken[1:])
  log_rhos = log_probs - log_density(behaviour[1:], taken[1:])
  assert (log_rhos[mask] > 0).any()
  assert (log_rhos[mask] < 0).any()
  np.testing.assert_allclose(
    loss.metrics['mean_rho'], np.exp(log_rhos)[mask].mean(), rtol=1e-4
  )
  if not squash:
    entropy = 1 + np.log(2 * np.pi) + target[:-1, :, 2:].sum(-1)
    np.testing.assert_allclose(
      loss.metrics['entropy'], entropy[mask].mean(), rtol=1e-4
    )
  if function is vtrace_loss:
    transitions = losses.align(
      batch.env_outputs, batch.agent_outputs, options.discounting
    )
    targets = vtrace.from_importance_weights(
      log_rhos=log_rhos,
      discounts=transitions.discounts,
      rewards=np.clip(transitions.rewards, -1, 1),
      values=batch.learner_baselines[:-1],
      bootstrap_value=batch.learner_baselines[-1],
      mask=mask,
    )
    expected = -(log_probs * targets.pg_advantages.numpy())[mask].sum()
    np.testing.assert_allclose(loss.metrics['pg_loss'], expected, rtol=1e-4)


def test_rewards_are_scaled_before_they_are_clipped():
  batch = make_batch()
  for function, options in LOSSES:
    smaller = dataclasses.replace(options, reward_scale=0.01)
    actual = loss_of(function, smaller, SPACE, batch)
    rewards = batch.env_outputs.reward
    batch.env_outputs = batch.env_outputs._replace(
      reward=(0.01 * rewards).astype(np.float32)
    )
    expected = loss_of(function, options, SPACE, batch)
    np.testing.assert_allclose(actual.total, expected.total, rtol=1e-5)
    batch.env_outputs = batch.env_outputs._replace(reward=rewards)
    assert loss_of(function, options, SPACE, batch).total != expected.total
