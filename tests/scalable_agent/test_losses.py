"""Losses against their definitions, and against a clock for the alignment."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from scalable_agent import losses, structures, vtrace

FIRST, MID, LAST = structures.FIRST, structures.MID, structures.LAST

NUM_STEPS = 8
NUM_ACTIONS = 4

# [B, T + 1]: a termination, a truncation, both in one column, an episode that
# ends in column 0 and in column T, one without an end, a lost life.
STEP_TYPES = (
  (FIRST, MID, LAST, FIRST, MID, MID, MID, MID, MID),
  (MID, MID, MID, MID, LAST, FIRST, MID, MID, MID),
  (MID, LAST, FIRST, MID, MID, LAST, FIRST, LAST, FIRST),
  (LAST, FIRST, MID, MID, MID, MID, MID, MID, LAST),
  (MID, MID, MID, MID, MID, MID, MID, MID, MID),
  (MID, MID, MID, MID, MID, MID, MID, MID, MID),
)
TERMINATIONS = ((0, 2), (2, 1), (3, 0), (3, 8), (5, 4))  # (b, t)
NUM_COLUMNS = len(STEP_TYPES)


@dataclasses.dataclass
class Batch:
  """What `compute_loss` receives, in numpy."""

  learner_logits: np.ndarray
  learner_baselines: np.ndarray
  env_outputs: structures.StepOutput
  agent_outputs: structures.AgentOutput

  def loss(self, options):
    """Returns loss, metrics and gradients with respect to what was learned."""
    logits = tf.constant(self.learner_logits, tf.float32)
    baselines = tf.constant(self.learner_baselines, tf.float32)
    with tf.GradientTape() as tape:
      tape.watch([logits, baselines])
      loss, metrics = losses.compute_loss(
        options, logits, baselines, self.env_outputs, self.agent_outputs
      )
    gradients = tape.gradient(loss, [logits, baselines])
    return loss, metrics, [np.asarray(g) for g in gradients]


def episode_ends():
  """Returns step types and discounts, [T + 1, B], of STEP_TYPES."""
  step_type = np.array(STEP_TYPES, np.int32).T
  discount = np.ones(step_type.shape, np.float32)
  for b, t in TERMINATIONS:
    discount[t, b] = 0.0
  return step_type, discount


def make_batch(seed=0):
  random = np.random.RandomState(seed)
  step_type, discount = episode_ends()
  shape = step_type.shape
  reward = 2 * random.normal(size=shape).astype(np.float32)
  learner_logits = random.normal(size=(*shape, NUM_ACTIONS))
  # Some actions have a probability around and below the epsilon of 1e-6.
  learner_logits[::3, :, 0] -= 14.0
  return Batch(
    learner_logits=learner_logits.astype(np.float32),
    learner_baselines=random.normal(size=shape).astype(np.float32),
    env_outputs=structures.StepOutput(
      step_type=step_type,
      reward=np.where(step_type == FIRST, np.float32(0), reward),
      discount=discount,
      observation=None,
      info=None,
    ),
    agent_outputs=structures.AgentOutput(
      action=random.randint(NUM_ACTIONS, size=shape).astype(np.int32),
      policy_logits=random.normal(size=(*shape, NUM_ACTIONS)).astype(
        np.float32
      ),
      baseline=1e6 * np.ones(shape, np.float32),  # Of no use to the learner.
    ),
  )


def log_softmax(logits):
  logits = logits.astype(np.float64)
  return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def reference(batch, options):
  """The loss and its gradients, one transition of the design's table at a time.

  Only V-trace itself, which has tests of its own, is not written out: an
  episode's piece of one column is given to it alone.
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
      corrected = options.correction == 'vtrace'
      returns = vtrace.from_importance_weights(
        log_rhos=(log_rhos if corrected else 0 * log_rhos)[:, None],
        discounts=np.array(discounts)[:, None],
        rewards=np.array(rewards)[:, None],
        values=v[steps, b][:, None],
        bootstrap_value=v[end, b : b + 1],
        clip_rho_threshold=options.clip_rho_threshold if corrected else None,
        clip_pg_rho_threshold=(
          options.clip_pg_rho_threshold if corrected else None
        ),
        lambda_=options.lambda_,
      )
      for i, (t, a) in enumerate(zip(steps, actions, strict=True)):
        target = float(returns.vs[i, 0])
        advantage = float(returns.pg_advantages[i, 0])
        if options.correction == 'one_step_is':
          advantage *= min(np.exp(log_rhos[i]), options.clip_pg_rho_threshold)
        p, log_p = policy[t, b], log_policy[t, b]
        one_hot = np.eye(NUM_ACTIONS)[a]
        epsilon = 1e-6 if options.correction == 'epsilon' else 0.0
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
      np.array(rhos) > (options.clip_rho_threshold or np.inf)
    ),
    'mean_vs': vs.mean(),
    'mean_baseline': baselines.mean(),
    'vs_variance': vs.var(),
    'error_variance': (vs - baselines).var(),
    'num_transitions': len(rhos),
  }
  return total, metrics, [d_logits, d_baselines]


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
  logits = random.normal(size=(3, 2, NUM_ACTIONS)).astype(np.float32)
  actions = random.randint(NUM_ACTIONS, size=(3, 2))
  advantages = random.normal(size=(3, 2)).astype(np.float32)
  expected = 0.0
  for (t, b), action in np.ndenumerate(actions):
    expected -= log_softmax(logits)[t, b, action] * advantages[t, b]
  actual = losses.compute_policy_gradient_loss(
    logits, actions, advantages, np.ones([3, 2], bool)
  )
  np.testing.assert_allclose(actual, expected, rtol=1e-5)
  no_mask = losses.compute_policy_gradient_loss(logits, actions, advantages)
  assert no_mask == actual


def test_no_gradient_flows_through_the_advantages_of_the_policy():
  advantages = tf.Variable([[2.0]])
  with tf.GradientTape() as tape:
    loss = losses.compute_policy_gradient_loss(
      tf.constant([[[0.0, 1.0]]]), tf.constant([[1]]), advantages
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


def test_entropy_loss_is_minus_a_sum_of_nats():
  logits = np.zeros([3, 2, NUM_ACTIONS], np.float32)
  logits[0, 0] = [1000.0, 0.0, 0.0, 0.0]  # Deterministic: no entropy, no NaN.
  mask = np.ones([3, 2], bool)
  mask[1, 0] = False
  np.testing.assert_allclose(
    losses.compute_entropy_loss(logits, mask),
    -4 * np.log(NUM_ACTIONS),
    rtol=1e-6,
  )
  np.testing.assert_allclose(
    losses.compute_entropy_loss(logits), -5 * np.log(NUM_ACTIONS), rtol=1e-6
  )


def test_the_entropy_bonus_flattens_the_policy():
  logits = tf.Variable([[[2.0, 0.0, 0.0]]])
  with tf.GradientTape() as tape:
    loss = losses.compute_entropy_loss(logits)
  gradient = tape.gradient(loss, logits)[0, 0]
  assert gradient[0] > 0  # Descent lowers the largest logit.
  assert (gradient[1:].numpy() < 0).all()


def test_losses_ignore_infinities_in_masked_places():
  mask = np.array([[True, False]])
  logits = np.zeros([1, 2, 2], np.float32)
  values = np.array([[1.0, np.inf]], np.float32)
  loss = losses.compute_policy_gradient_loss(
    logits, np.zeros([1, 2], np.int32), values, mask
  )
  np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)
  assert losses.compute_baseline_loss(values, mask) == 0.5


def test_log_epsilon_bounds_the_loss_and_fades_the_gradient():
  logits = tf.Variable([[[0.0, -100.0]]])
  results = {}
  for epsilon in (0.0, 1e-6):
    with tf.GradientTape() as tape:
      loss = losses.compute_policy_gradient_loss(
        logits, [[1]], tf.constant([[1.0]]), log_epsilon=epsilon
      )
    results[epsilon] = loss, tape.gradient(loss, logits)[0, 0, 0]
  np.testing.assert_allclose(results[0.0], [100.0, 1.0], rtol=1e-5)
  np.testing.assert_allclose(
    results[1e-6], [-np.log(1e-6), 0.0], rtol=1e-5, atol=1e-6
  )


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


def test_below_lambda_one_advantages_are_not_those_of_gae():
  """The second TD error has its full weight, as LossOptions says."""
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


@pytest.mark.parametrize('correction', losses.CORRECTIONS)
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
  options = losses.LossOptions(correction=correction, **changes)
  loss, metrics, gradients = batch.loss(options)
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


def test_the_corrections_differ():
  batch = make_batch()
  results = {
    correction: batch.loss(losses.LossOptions(correction=correction))[1]
    for correction in losses.CORRECTIONS
  }
  policy_losses = [float(m['pg_loss']) for m in results.values()]
  assert len(set(policy_losses)) == len(losses.CORRECTIONS)
  uncorrected = results['none']['baseline_loss']
  assert results['vtrace']['baseline_loss'] != uncorrected
  assert results['one_step_is']['baseline_loss'] == uncorrected
  assert results['epsilon']['baseline_loss'] == uncorrected


def test_on_policy_all_corrections_but_epsilon_agree():
  batch = make_batch()
  logits = batch.learner_logits
  logits[:-1] = batch.agent_outputs.policy_logits[1:]
  options = losses.LossOptions()
  loss, metrics, gradients = batch.loss(options)
  np.testing.assert_allclose(metrics['mean_rho'], 1.0, rtol=1e-5)
  np.testing.assert_allclose(metrics['max_rho'], 1.0, rtol=1e-5)
  for correction in ('one_step_is', 'none'):
    other_loss, _, other_gradients = batch.loss(
      dataclasses.replace(options, correction=correction)
    )
    np.testing.assert_allclose(loss, other_loss, rtol=1e-5)
    np.testing.assert_allclose(gradients[0], other_gradients[0], atol=1e-5)


def test_unclipped_importance_weights():
  batch = make_batch()
  vtrace_loss, metrics, _ = batch.loss(
    losses.LossOptions(clip_rho_threshold=None, clip_pg_rho_threshold=None)
  )
  expected, _, _ = reference(
    batch,
    losses.LossOptions(clip_rho_threshold=None, clip_pg_rho_threshold=None),
  )
  np.testing.assert_allclose(vtrace_loss, expected, rtol=1e-4)
  assert metrics['clipped_rho_fraction'] == 0
  one_step, bounded = (
    batch.loss(
      losses.LossOptions(
        correction='one_step_is', clip_pg_rho_threshold=threshold
      )
    )[0]
    for threshold in (None, 1e9)
  )
  np.testing.assert_allclose(one_step, bounded, rtol=1e-6)


def test_the_loss_is_a_sum_over_the_batch():
  batch = make_batch()
  loss, metrics, _ = batch.loss(losses.LossOptions())
  twice = Batch(
    *(
      tf.nest.map_structure(
        lambda x: None if x is None else np.concatenate([x, x], axis=1),
        getattr(batch, field.name),
      )
      for field in dataclasses.fields(batch)
    )
  )
  loss_of_twice, metrics_of_twice, _ = twice.loss(losses.LossOptions())
  np.testing.assert_allclose(loss_of_twice, 2 * loss, rtol=1e-5)
  for name in ('entropy', 'mean_rho', 'max_rho', 'mean_vs'):
    np.testing.assert_allclose(metrics_of_twice[name], metrics[name], rtol=1e-5)


def test_what_happens_between_episodes_does_not_matter():
  batch = make_batch()
  options = losses.LossOptions()
  loss, metrics, gradients = batch.loss(options)
  last = batch.env_outputs.step_type[:-1] == LAST
  # The action ignored in the last column of an episode, its logits, and what
  # the learner would have done there.
  batch.agent_outputs.action[1:][last] = NUM_ACTIONS - 1
  batch.agent_outputs.policy_logits[1:][last] = [9.0, -9.0, 9.0, -90.0]
  batch.learner_logits[:-1][last] = [-90.0, 9.0, -9.0, 9.0]
  batch.env_outputs.reward[1:][last] = 1e6
  batch.env_outputs.discount[1:][last] = 0.0
  changed_loss, changed_metrics, changed_gradients = batch.loss(options)
  assert changed_loss == loss
  assert changed_metrics == metrics
  np.testing.assert_array_equal(gradients[0], changed_gradients[0])
  assert (gradients[0][:-1][last] == 0).all()
  assert (gradients[1][:-1][last] == 0).all()


def test_a_truncation_bootstraps_from_the_final_observation():
  batch = make_batch()
  options = losses.LossOptions()
  _, before, _ = batch.loss(options)
  t, b = 4, 1
  assert batch.env_outputs.step_type[t, b] == LAST
  assert batch.env_outputs.discount[t, b] == 1
  batch.learner_baselines[t, b] += 1.0
  assert batch.loss(options)[1]['mean_vs'] > before['mean_vs']


def test_a_termination_does_not_bootstrap():
  batch = make_batch()
  options = losses.LossOptions()
  _, before, _ = batch.loss(options)
  t, b = 2, 0
  assert batch.env_outputs.step_type[t, b] == LAST
  assert batch.env_outputs.discount[t, b] == 0
  batch.learner_baselines[t, b] += 1.0
  _, after, _ = batch.loss(options)
  assert after == before


def test_rewards_reach_the_loss_clipped_and_leave_the_batch_raw():
  batch = make_batch()
  raw = batch.env_outputs.reward.copy()
  clipped_loss, _, _ = batch.loss(losses.LossOptions())
  none_loss, _, _ = batch.loss(losses.LossOptions(reward_clipping='none'))
  assert clipped_loss != none_loss
  np.testing.assert_array_equal(batch.env_outputs.reward, raw)
  batch.env_outputs = batch.env_outputs._replace(reward=np.clip(raw, -1, 1))
  assert batch.loss(losses.LossOptions(reward_clipping='none'))[0] == (
    clipped_loss
  )


def test_a_batch_without_a_transition_costs_nothing():
  batch = make_batch()
  batch.env_outputs = batch.env_outputs._replace(
    step_type=np.full_like(batch.env_outputs.step_type, LAST)
  )
  loss, metrics, gradients = batch.loss(losses.LossOptions())
  assert loss == 0
  for name, metric in metrics.items():
    assert metric == 0, name
  for gradient in gradients:
    assert (gradient == 0).all()


def test_the_last_column_only_bootstraps():
  batch = make_batch()
  _, _, (d_logits, d_baselines) = batch.loss(losses.LossOptions())
  assert (d_logits[-1] == 0).all()
  assert (d_baselines[-1] == 0).all()


def test_a_graph_of_unknown_shapes_gives_the_same_loss():
  batch = make_batch()
  options = losses.LossOptions()
  expected, _, _ = batch.loss(options)

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
    return losses.compute_loss(options, *arguments)

  loss, metrics = traced(*tf.nest.map_structure(tf.constant, arguments))
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  np.testing.assert_allclose(metrics['total_loss'], expected, rtol=1e-5)


def test_half_precision_outputs_of_a_network_are_accepted():
  batch = make_batch()
  loss, _ = losses.compute_loss(
    losses.LossOptions(),
    tf.cast(batch.learner_logits, tf.bfloat16),
    tf.cast(batch.learner_baselines, tf.bfloat16),
    batch.env_outputs,
    batch.agent_outputs,
  )
  assert loss.dtype == tf.float32


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
    losses.LossOptions(**{name: value})


@pytest.mark.parametrize('correction', losses.CORRECTIONS)
def test_a_threshold_of_zero_means_no_clipping(correction):
  batch = make_batch()
  zero, infinite = (
    batch.loss(
      losses.LossOptions(
        correction=correction,
        clip_rho_threshold=threshold,
        clip_pg_rho_threshold=threshold,
      )
    )
    for threshold in (0, 1e9)
  )
  assert zero[0] == infinite[0]
  assert zero[1]['clipped_rho_fraction'] == 0
