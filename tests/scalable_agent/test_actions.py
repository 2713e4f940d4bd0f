"""Distributions over actions against their definitions, in float64."""

import math

import numpy as np
import pytest
import tensorflow as tf

from scalable_agent import actions, vtrace
from scalable_agent.action_spaces import Box, Discrete, MultiDiscrete

INF = float('inf')
DISCRETE = Discrete(4)
MULTI = MultiDiscrete((3, 2, 4))
CLIPPED = Box((-1.0, 0.0), (1.0, 5.0))
SQUASHED = Box((-1.0, 0.0), (1.0, 5.0), squash=True)
SPACES = (DISCRETE, MULTI, CLIPPED, SQUASHED)
# Draws of a statistical test.
MANY = 200_000


def make_logits(space, rows=6, seed=1):
  random = np.random.default_rng(seed)
  return random.normal(size=(rows, space.num_parameters)).astype(np.float32)


def probabilities(logits):
  exps = np.exp(logits.astype(np.float64))
  return exps / exps.sum(-1, keepdims=True)


def choices_of(space, logits):
  """The probabilities of each choice of a row of logits."""
  nums = (space.num_actions,) if space == DISCRETE else space.nums
  starts = np.cumsum((0, *nums))
  return [
    probabilities(logits[start : start + n])
    for start, n in zip(starts, nums, strict=False)
  ]


def density(logits, action, squash):
  """Of a diagonal Gaussian, or of tanh of what it draws, number by number."""
  size = len(logits) // 2
  product = 1.0
  for mean, log_std, x in zip(
    logits[:size], logits[size:], action, strict=True
  ):
    std = math.exp(log_std)
    z = (x - mean) / std
    one = math.exp(-0.5 * z * z) / (std * math.sqrt(2 * math.pi))
    product *= one / (1 - math.tanh(x) ** 2) if squash else one
  return product


def draw(space, logits, rows, seed=(1, 2)):
  repeated = np.repeat(logits[None], rows, 0)
  return actions.sample(space, tf.constant(repeated), np.array(seed)).numpy()


@pytest.mark.parametrize('space', SPACES, ids=str)
def test_samples_are_actions_of_the_space(space):
  drawn = draw(space, make_logits(space)[0], 50)
  assert drawn.shape == (50, *space.shape)
  assert drawn.dtype == space.dtype
  space.check(drawn)


@pytest.mark.parametrize('space', SPACES, ids=str)
def test_a_seed_gives_the_same_actions_and_another_others(space):
  logits = make_logits(space)[0]
  first, again = (draw(space, logits, 50) for _ in range(2))
  np.testing.assert_array_equal(first, again)
  assert (first != draw(space, logits, 50, seed=(1, 3))).any()
  assert (first[1:] != first[:-1]).any()  # Rows are drawn apart.


@pytest.mark.parametrize('space', [DISCRETE, MULTI], ids=str)
def test_choices_are_drawn_as_often_as_they_are_probable(space):
  logits = make_logits(space)[0]
  drawn = draw(space, logits, MANY).reshape(MANY, -1)
  for i, expected in enumerate(choices_of(space, logits)):
    frequencies = np.bincount(drawn[:, i], minlength=len(expected)) / MANY
    np.testing.assert_allclose(frequencies, expected, atol=0.01)


def test_choices_are_drawn_independently():
  logits = make_logits(MULTI)[0]
  drawn = draw(MULTI, logits, MANY)
  first, second, _ = choices_of(MULTI, logits)
  for a, b in np.ndindex(3, 2):
    together = ((drawn[:, 0] == a) & (drawn[:, 1] == b)).mean()
    assert abs(together - first[a] * second[b]) < 0.01


@pytest.mark.parametrize('space', [CLIPPED, SQUASHED], ids=str)
def test_numbers_are_drawn_from_a_gaussian(space):
  logits = np.array([0.5, -1.0, 0.2, -0.7], np.float32)
  drawn = draw(space, logits, MANY)
  np.testing.assert_allclose(drawn.mean(0), [0.5, -1.0], atol=0.02)
  stds = np.exp([0.2, -0.7])
  np.testing.assert_allclose(drawn.std(0), stds, rtol=0.02)
  # Nine of ten within 1.645 deviations.
  inside = np.abs(drawn - logits[:2]) < 1.6449 * stds
  np.testing.assert_allclose(inside.mean(0), 0.9, atol=0.01)
  assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.02


@pytest.mark.parametrize('space', SPACES, ids=str)
def test_log_probabilities_are_those_of_the_definition(space):
  logits = make_logits(space)
  taken = actions.sample(space, tf.constant(logits), np.array([1, 2])).numpy()
  actual = actions.log_prob(space, tf.constant(logits), taken)
  for row, action, log_prob in zip(logits, taken, actual, strict=True):
    if isinstance(space, Box):
      expected = density(row, action, space.squash)
    else:
      expected = math.prod(
        p[a]
        for p, a in zip(
          choices_of(space, row), np.atleast_1d(action), strict=True
        )
      )
    np.testing.assert_allclose(log_prob, math.log(expected), rtol=1e-4)


@pytest.mark.parametrize('space', SPACES, ids=str)
def test_entropy_is_minus_the_mean_log_probability_of_what_is_drawn(space):
  logits = make_logits(space)[0]
  drawn = draw(space, logits, MANY)
  repeated = tf.constant(np.repeat(logits[None], MANY, 0))
  expected = -np.mean(actions.log_prob(space, repeated, drawn))
  actual = actions.entropy(space, tf.constant(logits[None]))
  np.testing.assert_allclose(actual, [expected], atol=0.01)


def test_entropies_have_closed_forms():
  uniform = actions.entropy(DISCRETE, tf.zeros([1, 4]))
  np.testing.assert_allclose(uniform, [math.log(4)], rtol=1e-6)
  certain = actions.entropy(DISCRETE, tf.constant([[1000.0, 0, 0, 0]]))
  assert certain == [0.0]  # And no NaN.
  uniform = actions.entropy(MULTI, tf.zeros([1, 9]))
  np.testing.assert_allclose(uniform, [math.log(3 * 2 * 4)], rtol=1e-6)
  gaussian = actions.entropy(CLIPPED, tf.constant([[3.0, -1.0, 0.5, -2.0]]))
  expected = sum(0.5 * math.log(2 * math.pi * math.e) + s for s in (0.5, -2.0))
  np.testing.assert_allclose(gaussian, [expected], rtol=1e-6)


@pytest.mark.parametrize('log_std', [-3.0, 0.0, 1.0])
@pytest.mark.parametrize('mean', [0.0, 2.0, -8.0])
def test_the_entropy_of_a_squashed_number_is_its_integral(mean, log_std):
  std = math.exp(log_std)
  # -integral of p log p over x = tanh(u), in terms of u.
  u = np.linspace(mean - 12 * std, mean + 12 * std, 200_001)
  p = np.exp(-0.5 * ((u - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
  log_slope = 2 * (math.log(2) - u - np.logaddexp(0, -2 * u))
  log_p = -0.5 * ((u - mean) / std) ** 2 - log_std - 0.5 * math.log(2 * math.pi)
  expected = -np.sum(p * (log_p - log_slope)) * (u[1] - u[0])
  space = Box((-1.0,), (1.0,), squash=True)
  actual = actions.entropy(space, tf.constant([[mean, log_std]]))
  np.testing.assert_allclose(actual, [expected], atol=2e-3)


@pytest.mark.parametrize('space', SPACES, ids=str)
def test_kl_is_the_mean_difference_of_log_probabilities(space):
  logits, other = make_logits(space)[0], 0.3 * make_logits(space, seed=2)[0]
  drawn = draw(space, logits, MANY)
  log_ps, log_qs = (
    actions.log_prob(space, tf.constant(np.repeat(x[None], MANY, 0)), drawn)
    for x in (logits, other)
  )
  actual = actions.kl(space, tf.constant(logits), tf.constant(other))
  expected = np.mean(log_ps - log_qs)
  assert expected > 0.05
  np.testing.assert_allclose(actual, expected, rtol=0.05)
  np.testing.assert_allclose(
    actions.kl(space, tf.constant(logits), tf.constant(logits)), 0, atol=1e-6
  )


def test_the_mode_is_the_most_probable_action():
  assert actions.mode(DISCRETE, [[0.0, 3.0, 1.0, 2.0]]).numpy().tolist() == [1]
  logits = [[0.0, 1.0, 2.0, 5.0, 4.0, 0.0, 0.0, 0.1, 0.0]]
  mode = actions.mode(MULTI, logits)
  assert mode.numpy().tolist() == [[2, 0, 2]]
  assert mode.dtype == tf.int32
  for space in (CLIPPED, SQUASHED):
    mode = actions.mode(space, [[0.5, -3.0, 9.0, 9.0]])
    assert mode.numpy().tolist() == [[0.5, -3.0]]


@pytest.mark.parametrize('space', SPACES, ids=str)
def test_time_and_batch_may_both_come_first(space):
  logits = make_logits(space)
  taken = actions.sample(space, tf.constant(logits), np.array([1, 2]))
  flat = actions.log_prob(space, tf.constant(logits), taken)
  shaped = actions.log_prob(
    space,
    tf.reshape(logits, [3, 2, -1]),
    tf.reshape(taken, [3, 2, *space.shape]),
  )
  np.testing.assert_array_equal(shaped, tf.reshape(flat, [3, 2]))
  for function in (actions.entropy, actions.mode):
    flat = function(space, tf.constant(logits))
    shaped = function(space, tf.reshape(logits, [3, 2, -1]))
    np.testing.assert_array_equal(
      shaped, tf.reshape(flat, [3, 2, *flat.shape[1:]])
    )


def test_discrete_log_probabilities_are_those_of_vtrace():
  logits = make_logits(DISCRETE).reshape(3, 2, 4)
  taken = np.array([[0, 1], [2, 3], [1, 1]], np.int32)
  np.testing.assert_array_equal(
    vtrace.log_probs_from_logits_and_actions(logits, taken),
    actions.log_prob(DISCRETE, tf.constant(logits), taken),
  )


@pytest.mark.parametrize('space', [DISCRETE, MULTI], ids=str)
def test_a_floor_bounds_logarithms_and_stops_gradients(space):
  floor = 0.01
  logits = 5 * make_logits(space)
  below = [p < floor for p in choices_of(space, logits[0])]
  assert any(one.any() for one in below)
  taken = np.array([np.argmin(p) for p in choices_of(space, logits[0])])
  taken = taken.astype(np.int32).reshape(1, *space.shape)
  variable = tf.Variable(logits[:1])
  with tf.GradientTape() as tape:
    log_prob = actions.log_prob(space, variable, taken, floor)
  choices = choices_of(space, logits[0])
  expected = sum(math.log(max(p.min(), floor)) for p in choices)
  np.testing.assert_allclose(log_prob, [expected], rtol=1e-5)
  if space == DISCRETE:
    assert not tape.gradient(log_prob, variable).numpy().any()
  entropy = -sum(np.sum(p * np.log(np.maximum(p, floor))) for p in choices)
  actual = actions.entropy(space, tf.constant(logits[:1]), floor)
  np.testing.assert_allclose(actual, [entropy], rtol=1e-5)


def test_actions_become_features():
  one_hot = actions.encode(DISCRETE, tf.constant([2, 0]))
  assert one_hot.numpy().tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]]
  multi = actions.encode(MULTI, tf.constant([[2, 0, 1]]))
  assert multi.numpy().tolist() == [[0, 0, 1, 1, 0, 0, 1, 0, 0]]
  clipped = actions.encode(CLIPPED, tf.constant([[0.5, -7.0]]))
  assert clipped.numpy().tolist() == [[0.5, -1.0]]
  squashed = actions.encode(SQUASHED, tf.constant([[0.5, -7.0]]))
  np.testing.assert_allclose(squashed, np.tanh([[0.5, -7.0]]), rtol=1e-6)
  unbounded = Box((-1.0, -INF), (1.0, INF))
  free = actions.encode(unbounded, tf.constant([[7.0, 7.0]]))
  assert free.numpy().tolist() == [[1.0, 7.0]]


def test_a_least_probability_is_added_to_each_choice():
  logits = make_logits(MULTI)
  mixed = actions.mix_uniform(MULTI, tf.constant(logits), 0.1).numpy()
  for row, other in zip(logits, mixed, strict=True):
    for p, q in zip(
      choices_of(MULTI, row), choices_of(MULTI, other), strict=True
    ):
      np.testing.assert_allclose(q, (p + 0.1) / (1 + 0.1 * len(p)), rtol=1e-5)
  same = tf.constant(make_logits(CLIPPED))
  assert actions.mix_uniform(CLIPPED, same, 0.0) is same
  with pytest.raises(ValueError, match=r'^--min_policy=0\.1 is of'):
    actions.mix_uniform(CLIPPED, same, 0.1)


@pytest.mark.parametrize('sign', [-1, 1])
def test_far_beyond_its_bounds_a_squashed_number_has_a_finite_density(sign):
  logits = tf.constant([[60.0 * sign, 0.0]])
  space = Box((-1.0,), (1.0,), squash=True)
  # Of 1 - tanh(x)^2, 4 exp(-2 |x|) is left.
  expected = -0.5 * math.log(2 * math.pi) - math.log(4) + 120
  log_prob = actions.log_prob(space, logits, logits[:, :1])
  np.testing.assert_allclose(log_prob, [expected], rtol=1e-5)
  assert np.isfinite(actions.entropy(space, logits)).all()
