"""V-trace against its definition, written out in numpy."""

import numpy as np
import pytest
import tensorflow as tf

from scalable_agent import vtrace

NUM_STEPS = 9
NUM_COLUMNS = 5
NUM_ACTIONS = 4


def by_definition(
  log_rhos,
  discounts,
  rewards,
  values,
  bootstrap_value,
  clip_rho_threshold=1.0,
  clip_pg_rho_threshold=1.0,
  lambda_=1.0,
):
  """Equation 1 and section 4.2 of the paper: sums of products, no recursion."""
  rhos = np.exp(np.asarray(log_rhos, np.float64))
  clipped_rhos, clipped_pg_rhos = (
    rhos if threshold is None else np.minimum(threshold, rhos)
    for threshold in (clip_rho_threshold, clip_pg_rho_threshold)
  )
  cs = lambda_ * np.minimum(1.0, rhos)
  num_steps = len(rewards)
  v = np.concatenate([values, bootstrap_value[None]]).astype(np.float64)
  vs = v.copy()
  for s in range(num_steps):
    for t in range(s, num_steps):
      delta = clipped_rhos[t] * (rewards[t] + discounts[t] * v[t + 1] - v[t])
      weight = np.prod(discounts[s:t], axis=0) * np.prod(cs[s:t], axis=0)
      vs[s] = vs[s] + weight * delta
  pg_advantages = clipped_pg_rhos * (
    rewards + discounts * vs[1:] - np.asarray(values, np.float64)
  )
  return vs[:-1], pg_advantages


def episode_by_episode(function, inputs, bootstrap_value, mask):
  """Cuts every column where the mask is 0 and runs each piece alone.

  A cut at t means that column t is the last of its piece: its value is what
  the piece bootstraps from, and it has no transition of its own.
  """
  vs = np.array(inputs['values'], np.float64)
  pg_advantages = np.zeros_like(vs)
  pieces = 0
  for b in range(vs.shape[1]):
    cuts = [*np.flatnonzero(mask[:, b] == 0), len(mask)]
    start = 0
    for cut in cuts:
      bootstrap = (
        bootstrap_value[b : b + 1]
        if cut == len(mask)
        else inputs['values'][cut, b : b + 1]
      )
      if cut > start:
        piece = {k: x[start:cut, b : b + 1] for k, x in inputs.items()}
        piece_vs, piece_pg_advantages = function(
          **piece, bootstrap_value=bootstrap
        )
        vs[start:cut, b : b + 1] = piece_vs
        pg_advantages[start:cut, b : b + 1] = piece_pg_advantages
        pieces += 1
      start = cut + 1
  assert pieces > vs.shape[1], 'The mask cuts nothing.'
  return vs, pg_advantages


def make_inputs(num_steps=NUM_STEPS, num_columns=NUM_COLUMNS, seed=3):
  """Random inputs of [T, B], and a bootstrap value of [B]."""
  random = np.random.RandomState(seed)
  shape = (num_steps, num_columns)
  inputs = {
    'log_rhos': random.uniform(-2.5, 2.5, shape),
    'discounts': random.choice([0.0, 0.9, 0.99], shape, p=[0.1, 0.5, 0.4]),
    'rewards': random.normal(size=shape),
    'values': 2.0 * random.normal(size=shape),
  }
  inputs = {k: x.astype(np.float32) for k, x in inputs.items()}
  return inputs, random.normal(size=num_columns).astype(np.float32)


def make_mask(num_steps=NUM_STEPS, num_columns=NUM_COLUMNS):
  """Cuts in several columns; at the start and the end of a sequence too."""
  mask = np.ones([num_steps, num_columns], np.float32)
  mask[0, 0] = mask[4, 0] = mask[num_steps - 1, 1] = 0
  mask[3, 2] = mask[6, 2] = 0
  return mask


def assert_close(actual, expected):
  np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5)


def assert_reaches_every_branch(inputs, *thresholds):
  rhos = np.exp(inputs['log_rhos'])
  for threshold in (1.0, *thresholds):
    if threshold is not None:
      assert 0 < np.mean(rhos > threshold) < 1
  assert (inputs['discounts'][1:-1] == 0).any()
  assert (inputs['discounts'][1:-1] > 0).any()


@pytest.mark.parametrize('num_columns', [1, 2])
def test_log_probs_are_those_of_the_actions_taken(num_columns):
  random = np.random.RandomState(num_columns)
  logits = 10 * random.normal(size=(7, num_columns, 3)).astype(np.float32)
  actions = random.randint(3, size=(7, num_columns))
  exp = np.exp(logits.astype(np.float64))
  probabilities = exp / exp.sum(-1, keepdims=True)
  expected = np.zeros(actions.shape)
  for index, action in np.ndenumerate(actions):
    expected[index] = np.log(probabilities[index][action])
  actual = vtrace.log_probs_from_logits_and_actions(logits, actions)
  assert_close(actual, expected)


def test_log_probs_stay_finite_where_probabilities_underflow():
  actual = vtrace.log_probs_from_logits_and_actions([[[0.0, 1000.0]]], [[0]])
  assert_close(actual, [[-1000.0]])


@pytest.mark.parametrize('num_columns', [1, NUM_COLUMNS])
@pytest.mark.parametrize(
  ('clip_rho_threshold', 'clip_pg_rho_threshold', 'lambda_'),
  [
    (1.0, 1.0, 1.0),
    (3.7, 2.2, 1.0),
    (0.5, 0.7, 1.0),
    (None, None, 1.0),
    (None, 1.0, 0.9),
    (1.0, None, 0.0),
    (2.0, 1.0, 0.5),
  ],
)
def test_importance_weights_give_the_definition(
  num_columns, clip_rho_threshold, clip_pg_rho_threshold, lambda_
):
  inputs, bootstrap_value = make_inputs(num_columns=num_columns)
  assert_reaches_every_branch(inputs, clip_rho_threshold, clip_pg_rho_threshold)
  options = {
    'bootstrap_value': bootstrap_value,
    'clip_rho_threshold': clip_rho_threshold,
    'clip_pg_rho_threshold': clip_pg_rho_threshold,
    'lambda_': lambda_,
  }
  actual = vtrace.from_importance_weights(**inputs, **options)
  vs, pg_advantages = by_definition(**inputs, **options)
  assert_close(actual.vs, vs)
  assert_close(actual.pg_advantages, pg_advantages)


def test_every_option_changes_the_result():
  inputs, bootstrap_value = make_inputs()
  default = vtrace.from_importance_weights(
    **inputs, bootstrap_value=bootstrap_value
  )
  for option, vs_changes in (
    ({'clip_rho_threshold': 2.0}, True),
    ({'clip_rho_threshold': None}, True),
    ({'clip_pg_rho_threshold': 2.0}, False),
    ({'clip_pg_rho_threshold': None}, False),
    ({'lambda_': 0.5}, True),
  ):
    other = vtrace.from_importance_weights(
      **inputs, bootstrap_value=bootstrap_value, **option
    )
    assert np.allclose(other.vs, default.vs) != vs_changes, option
    assert not np.allclose(other.pg_advantages, default.pg_advantages), option


@pytest.mark.parametrize('num_columns', [1, 2])
def test_logits_give_what_their_importance_weights_give(num_columns):
  random = np.random.RandomState(3)
  inputs, bootstrap_value = make_inputs(num_columns=num_columns)
  del inputs['log_rhos']
  shape = (NUM_STEPS, num_columns, NUM_ACTIONS)
  behaviour_logits = random.normal(size=shape).astype(np.float32)
  target_logits = random.normal(size=shape).astype(np.float32)
  actions = random.randint(NUM_ACTIONS, size=shape[:2])
  thresholds = {'clip_rho_threshold': None, 'clip_pg_rho_threshold': 1.5}

  actual = vtrace.from_logits(
    behaviour_policy_logits=behaviour_logits,
    target_policy_logits=target_logits,
    actions=actions,
    bootstrap_value=bootstrap_value,
    **inputs,
    **thresholds,
  )

  def log_probs(logits):
    log_policy = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return np.take_along_axis(log_policy, actions[..., None], -1)[..., 0]

  log_rhos = log_probs(target_logits) - log_probs(behaviour_logits)
  assert 0 < np.mean(np.exp(log_rhos) > 1.5) < 1
  vs, pg_advantages = by_definition(
    log_rhos, bootstrap_value=bootstrap_value, **inputs, **thresholds
  )
  assert_close(actual.log_rhos, log_rhos)
  assert_close(actual.target_action_log_probs, log_probs(target_logits))
  assert_close(actual.behaviour_action_log_probs, log_probs(behaviour_logits))
  assert_close(actual.vs, vs)
  assert_close(actual.pg_advantages, pg_advantages)


def test_logits_pass_mask_lambda_and_thresholds_on():
  inputs, bootstrap_value = make_inputs()
  del inputs['log_rhos']
  random = np.random.RandomState(4)
  shape = (NUM_STEPS, NUM_COLUMNS, NUM_ACTIONS)
  options = {
    'bootstrap_value': bootstrap_value,
    'clip_rho_threshold': 2.0,
    'clip_pg_rho_threshold': 0.5,
    'lambda_': 0.7,
    'mask': make_mask(),
  }
  from_logits = vtrace.from_logits(
    behaviour_policy_logits=random.normal(size=shape),
    target_policy_logits=random.normal(size=shape),
    actions=random.randint(NUM_ACTIONS, size=shape[:2]),
    **inputs,
    **options,
  )
  from_weights = vtrace.from_importance_weights(
    from_logits.log_rhos, **inputs, **options
  )
  assert_close(from_logits.vs, from_weights.vs)
  assert_close(from_logits.pg_advantages, from_weights.pg_advantages)


def test_higher_rank_inputs_are_accepted():
  random = np.random.RandomState(5)
  log_rhos = random.normal(size=(3, 2, 1)).astype(np.float32)
  discounts = random.uniform(size=(3, 2, 1)).astype(np.float32)
  rewards = random.normal(size=(3, 2, 42)).astype(np.float32)
  values = random.normal(size=(3, 2, 42)).astype(np.float32)
  bootstrap_value = random.normal(size=(2, 42)).astype(np.float32)
  mask = np.array([[1, 1], [1, 0], [1, 1]])

  @tf.function
  def traced():
    return vtrace.from_importance_weights(
      log_rhos, discounts, rewards, values, bootstrap_value, mask=mask
    )

  actual = traced()
  assert actual.vs.shape == (3, 2, 42)
  for i in range(42):
    expected = vtrace.from_importance_weights(
      log_rhos[..., 0],
      discounts[..., 0],
      rewards[..., i],
      values[..., i],
      bootstrap_value[..., i],
      mask=mask,
    )
    assert_close(actual.vs[..., i], expected.vs)
    assert_close(actual.pg_advantages[..., i], expected.pg_advantages)


@pytest.mark.parametrize(
  ('name', 'shape'),
  [
    ('discounts', (3, 2)),
    ('rewards', (3, 2)),
    ('values', (3, 2)),
    ('bootstrap_value', (2,)),
    ('log_rhos', (3, 2)),
    ('mask', (3, 2, 4)),
    ('clip_rho_threshold', (1,)),
    ('clip_pg_rho_threshold', (1,)),
  ],
)
def test_inconsistent_ranks_raise(name, shape):
  arguments = {
    'log_rhos': np.zeros([3, 2, 4]),
    'discounts': np.zeros([3, 2, 4]),
    'rewards': np.zeros([3, 2, 4]),
    'values': np.zeros([3, 2, 4]),
    'bootstrap_value': np.zeros([2, 4]),
  }
  vtrace.from_importance_weights(**arguments)
  with pytest.raises(ValueError, match='rank'):
    vtrace.from_importance_weights(**{**arguments, name: np.ones(shape)})


def test_log_probs_of_another_rank_raise():
  with pytest.raises(ValueError, match='rank'):
    vtrace.log_probs_from_logits_and_actions(np.zeros([3, 2]), np.zeros([3, 2]))
  with pytest.raises(ValueError, match='rank'):
    vtrace.log_probs_from_logits_and_actions(np.zeros([3, 2, 4]), np.zeros([3]))


def test_on_policy_targets_are_n_step_returns():
  inputs, bootstrap_value = make_inputs()
  inputs['log_rhos'] = np.zeros_like(inputs['log_rhos'])
  actual = vtrace.from_importance_weights(
    **inputs, bootstrap_value=bootstrap_value
  )
  for s in range(NUM_STEPS):
    discount, n_step_return = 1.0, 0.0
    for t in range(s, NUM_STEPS):
      n_step_return = n_step_return + discount * inputs['rewards'][t]
      discount = discount * inputs['discounts'][t]
    n_step_return = n_step_return + discount * bootstrap_value
    assert_close(actual.vs[s], n_step_return)
    assert_close(actual.pg_advantages[s], n_step_return - inputs['values'][s])


def test_on_policy_targets_with_lambda_are_lambda_returns():
  lambda_ = 0.8
  inputs, bootstrap_value = make_inputs()
  inputs['log_rhos'] = np.zeros_like(inputs['log_rhos'])
  actual = vtrace.from_importance_weights(
    **inputs, bootstrap_value=bootstrap_value, lambda_=lambda_
  )
  v = np.concatenate([inputs['values'], bootstrap_value[None]])
  for s in range(NUM_STEPS):
    # Sutton and Barto 2018, equation 12.3: a mixture of n-step returns.
    discount, rewards, lambda_return = 1.0, 0.0, 0.0
    horizon = NUM_STEPS - s
    for n in range(1, horizon + 1):
      rewards = rewards + discount * inputs['rewards'][s + n - 1]
      discount = discount * inputs['discounts'][s + n - 1]
      weight = lambda_ ** (n - 1) * (1.0 if n == horizon else 1 - lambda_)
      lambda_return = lambda_return + weight * (rewards + discount * v[s + n])
    assert_close(actual.vs[s], lambda_return)


def test_nothing_passes_a_discount_of_zero():
  inputs, bootstrap_value = make_inputs(num_columns=1)
  inputs['discounts'][:] = 0.9
  inputs['discounts'][4] = 0.0
  before = vtrace.from_importance_weights(
    **inputs, bootstrap_value=bootstrap_value
  )
  for name in ('log_rhos', 'rewards', 'values'):
    inputs[name][5:] += 1.0
  after = vtrace.from_importance_weights(
    **inputs, bootstrap_value=bootstrap_value + 1.0
  )
  np.testing.assert_array_equal(before.vs[:5], after.vs[:5])
  np.testing.assert_array_equal(
    before.pg_advantages[:5], after.pg_advantages[:5]
  )
  assert (before.vs[5:].numpy() != after.vs[5:].numpy()).all()


@pytest.mark.parametrize('dtype', [np.bool_, np.float32, np.int32])
@pytest.mark.parametrize(('threshold', 'lambda_'), [(1.0, 1.0), (None, 0.9)])
def test_a_mask_equals_running_each_piece_alone(dtype, threshold, lambda_):
  inputs, bootstrap_value = make_inputs()
  assert_reaches_every_branch(inputs)
  mask = make_mask()
  # Truncations too: the discount before some cut is not 0.
  assert (inputs['discounts'][:-1][mask[1:] == 0] > 0).any()
  inputs['discounts'][3, 0] = 0.0  # Column 4, the last of a piece, terminates.
  assert mask[4, 0] == 0
  options = {
    'clip_rho_threshold': threshold,
    'clip_pg_rho_threshold': threshold,
    'lambda_': lambda_,
  }
  actual = vtrace.from_importance_weights(
    **inputs,
    bootstrap_value=bootstrap_value,
    mask=mask.astype(dtype),
    **options,
  )
  for function in (by_definition, vtrace.from_importance_weights):
    vs, pg_advantages = episode_by_episode(
      lambda function=function, **kwargs: function(**kwargs, **options),
      inputs,
      bootstrap_value,
      mask,
    )
    assert_close(actual.vs, vs)
    assert_close(actual.pg_advantages, pg_advantages)


def test_masked_places_may_hold_anything():
  inputs, bootstrap_value = make_inputs()
  mask = make_mask()
  expected = vtrace.from_importance_weights(
    **inputs, bootstrap_value=bootstrap_value, mask=mask
  )
  inputs['log_rhos'][mask == 0] = 1000.0  # Overflows to a rho of infinity.
  inputs['rewards'][mask == 0] = np.nan
  inputs['discounts'][mask == 0] = np.inf
  actual = vtrace.from_importance_weights(
    **inputs,
    bootstrap_value=bootstrap_value,
    mask=mask,
    clip_rho_threshold=1.0,
    clip_pg_rho_threshold=1.0,
  )
  np.testing.assert_array_equal(actual.vs, expected.vs)
  np.testing.assert_array_equal(actual.pg_advantages, expected.pg_advantages)


def test_a_mask_of_ones_is_no_mask():
  inputs, bootstrap_value = make_inputs()
  ones = np.ones_like(inputs['values'])
  with_mask, without_mask = (
    vtrace.from_importance_weights(
      **inputs, bootstrap_value=bootstrap_value, mask=mask
    )
    for mask in (ones, None)
  )
  np.testing.assert_array_equal(with_mask.vs, without_mask.vs)
  np.testing.assert_array_equal(
    with_mask.pg_advantages, without_mask.pg_advantages
  )


def test_no_gradient_flows_through_the_targets():
  inputs, bootstrap_value = make_inputs()
  del inputs['log_rhos']
  random = np.random.RandomState(6)
  shape = (NUM_STEPS, NUM_COLUMNS, NUM_ACTIONS)
  logits = tf.Variable(random.normal(size=shape).astype(np.float32))
  values = tf.Variable(inputs.pop('values'))
  bootstrap = tf.Variable(bootstrap_value)
  with tf.GradientTape(persistent=True) as tape:
    returns = vtrace.from_logits(
      behaviour_policy_logits=random.normal(size=shape),
      target_policy_logits=logits,
      actions=random.randint(NUM_ACTIONS, size=shape[:2]),
      values=values,
      bootstrap_value=bootstrap,
      **inputs,
    )
  sources = [logits, values, bootstrap]
  assert tape.gradient(returns.vs, sources) == [None] * 3
  assert tape.gradient(returns.pg_advantages, sources) == [None] * 3
  assert tape.gradient(returns.target_action_log_probs, logits) is not None


@pytest.mark.parametrize('num_steps', [1, 2, 5, 8, 9])
def test_unknown_shapes_in_a_graph_change_nothing(num_steps):
  inputs, bootstrap_value = make_inputs(num_steps=num_steps)
  unknown = tf.TensorSpec([None, None], tf.float32)

  @tf.function(
    input_signature=[unknown] * 4 + [tf.TensorSpec([None], tf.float32)]
  )
  def traced(log_rhos, discounts, rewards, values, bootstrap_value):
    return vtrace.from_importance_weights(
      log_rhos, discounts, rewards, values, bootstrap_value
    )

  actual = traced(*inputs.values(), bootstrap_value)
  vs, pg_advantages = by_definition(**inputs, bootstrap_value=bootstrap_value)
  assert_close(actual.vs, vs)
  assert_close(actual.pg_advantages, pg_advantages)


@pytest.mark.parametrize('length', [1, 2, 3, 4, 7, 8, 100])
@pytest.mark.parametrize('where', ['eager', 'graph', 'unknown', 'xla'])
def test_discounted_sums_solve_their_recursion(length, where):
  random = np.random.RandomState(length)
  inputs = random.normal(size=(length, 2)).astype(np.float32)
  discounts = random.uniform(size=(length, 2)).astype(np.float32)
  function = {
    'eager': vtrace.discounted_sums,
    'graph': tf.function(vtrace.discounted_sums),
    'unknown': tf.function(
      vtrace.discounted_sums,
      input_signature=[tf.TensorSpec([None, None], tf.float32)] * 2,
    ),
    'xla': tf.function(vtrace.discounted_sums, jit_compile=True),
  }[where]
  actual = function(tf.constant(inputs), tf.constant(discounts))
  assert actual.shape == (length, 2)
  following = np.zeros(2)
  for t in reversed(range(length)):
    following = inputs[t] + discounts[t] * following
    assert_close(actual[t], following)
