"""Torsos in bfloat16, and pixels that XLA makes numbers of."""

import numpy as np
import pytest
import tensorflow as tf

from scalable_agent import networks
from scalable_agent.networks import layers
from tests.networks.test_agent import (
  COLOUR,
  IMAGE,
  VECTOR,
  make_agent,
  random_inputs,
  random_state,
)

NETWORKS = ('shallow', 'deep', 'universe')
TIME, BATCH = 5, 3


def unrolled(agent, inputs, state):
  """Returns logits, baseline, and the gradients of a function of them."""
  with tf.GradientTape() as tape:
    (logits, baseline), _ = agent.unroll(*inputs, state)
    loss = tf.reduce_sum(tf.nn.log_softmax(logits)[..., 0])
    loss += tf.reduce_sum(tf.square(baseline - 1.0))
  return logits, baseline, tape.gradient(loss, agent.trainable_variables)


def relative_error(one, other):
  one, other = (np.asarray(tf.cast(x, tf.float64)) for x in (one, other))
  return np.linalg.norm(one - other) / np.linalg.norm(other)


@pytest.mark.parametrize('network', NETWORKS)
def test_bfloat16_rounds_the_torso_and_nothing_else(network):
  spec = IMAGE
  options = {'network': network, 'frame_stack': 4}
  exact = make_agent(spec, precision='float32', **options)
  rounded = make_agent(spec, precision='bfloat16', **options)
  inputs = random_inputs(spec, TIME, BATCH)
  state = random_state(exact, BATCH)
  for variable, same in zip(exact.variables, rounded.variables, strict=True):
    assert same.dtype == variable.dtype != tf.bfloat16
    np.testing.assert_array_equal(variable, same)
  expected = unrolled(exact, inputs, state)
  values = unrolled(rounded, inputs, state)
  for value, other in zip(values[:2], expected[:2], strict=True):
    assert value.dtype == tf.float32
    # A bfloat16 has eight bits: it is near, and it is not the same.
    assert 1e-5 < relative_error(value, other) < 0.05
  for gradient, other in zip(values[2], expected[2], strict=True):
    assert gradient.dtype == tf.float32
    assert relative_error(gradient, other) < 0.2


def test_vectors_are_not_rounded():
  inputs = random_inputs(VECTOR, TIME, BATCH)
  agents = [
    make_agent(VECTOR, precision=precision)
    for precision in ('float32', 'bfloat16')
  ]
  one, other = (
    unrolled(agent, inputs, agent.initial_state(BATCH))[0] for agent in agents
  )
  np.testing.assert_array_equal(one, other)


class Half(tf.Module):
  """A torso that tells what it gets."""

  def __init__(self, observation):
    del observation
    super().__init__()
    self.dtypes = []

  def __call__(self, observation):
    self.dtypes.append(observation.dtype)
    return tf.reduce_mean(tf.cast(observation, tf.float32), [1, 2])


@pytest.mark.parametrize('precision', ['float32', 'bfloat16'])
def test_a_torso_of_ones_own_gets_pixels_in_the_precision(precision):
  agent = networks.Agent(
    IMAGE, network=f'{__name__}:Half', precision=precision, frame_stack=2
  )
  assert set(agent._torso.dtypes) == {tf.as_dtype(precision)}


@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
def test_a_layer_in_bfloat16_has_float32_weights_made_by_its_first_call(
  padding,
):
  x = tf.random.stateless_normal([2, 9, 8, 3], [1, 2])
  tf.random.set_seed(3)
  convolution = layers.Conv2D(5, 3, 2, padding=padding)
  linear = layers.Linear(4)
  half = convolution(tf.cast(x, tf.bfloat16))
  features = linear(tf.cast(tf.reshape(half, [2, -1]), tf.bfloat16))
  assert half.dtype == features.dtype == tf.bfloat16
  for variable in (*convolution.variables, *linear.variables):
    assert variable.dtype == tf.float32
  assert relative_error(half, convolution(x)) < 0.02
  exact = linear(tf.reshape(convolution(x), [2, -1]))
  assert relative_error(features, exact) < 0.03


def test_the_gradient_of_a_bias_is_summed_in_float32():
  # Of 20 x 20 places of 100 frames: a sum of bfloat16 would end at 256.
  convolution = layers.Conv2D(4, 1)
  x = tf.ones([100, 20, 20, 1], tf.bfloat16)
  with tf.GradientTape() as tape:
    total = tf.reduce_sum(tf.cast(convolution(x), tf.float32))
  np.testing.assert_array_equal(
    tape.gradient(total, convolution.b), [40_000.0] * 4
  )


@pytest.mark.parametrize('normalise', [True, False])
@pytest.mark.parametrize('spec', [IMAGE, COLOUR], ids=['grey', 'colour'])
def test_what_xla_makes_of_pixels_is_what_tensorflow_makes(spec, normalise):
  agents = [
    make_agent(
      spec,
      frame_stack=4,
      jit_compile=jit_compile,
      precision='float32',
      normalise_pixels=normalise,
    )
    for jit_compile in ('none', 'pixels')
  ]
  env_outputs, actions = random_inputs(spec, TIME, BATCH)
  for agent in agents:
    agent.observe(agent.moments(env_outputs))
  state = random_state(agents[0], BATCH)
  (one, frames), (other, same) = (
    (agent.unroll(env_outputs, actions, state)[0], state_after)
    for agent in agents
    for state_after in [agent.unroll(env_outputs, actions, state)[1].frames]
  )
  np.testing.assert_allclose(one[0], other[0], rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(one[1], other[1], rtol=1e-4, atol=1e-5)
  for x, y in zip(tf.nest.flatten(frames), tf.nest.flatten(same), strict=True):
    np.testing.assert_array_equal(x, y)


def test_xla_serves_any_number_of_rows_and_steps_of_one_graph():
  agent = make_agent(IMAGE, frame_stack=4)
  step = tf.function(agent.step, autograph=False, reduce_retracing=True)
  for batch in (1, 4, 2):
    env_outputs, actions = random_inputs(IMAGE, 1, batch)
    now = tf.nest.map_structure(lambda x: x[0], (env_outputs, actions))
    output, _ = step(*now, agent.initial_state(batch), tf.constant([1, 2]))
    (logits, _), _ = agent.unroll(
      env_outputs, actions, agent.initial_state(batch)
    )
    np.testing.assert_allclose(
      output.policy_logits, logits[0], rtol=1e-4, atol=1e-5
    )
