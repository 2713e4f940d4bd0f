"""An update of A3C and A2C against NumPy: their published formulas, in loops.

The agent is linear, so that its gradients can be written down as well.
"""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from scalable_agent import learner, objectives, optimizers, structures
from scalable_agent.options import AdvantageOptions, OptimizerOptions
from scalable_agent.structures import LAST
from tests import loss_batches

NUM_FEATURES = 3
LEARNING_RATE = 0.01


class Linear:
  """Policy and baseline are linear in the observation."""

  action_space = loss_batches.SPACE

  def __init__(self, seed=1):
    random = np.random.RandomState(seed)
    shapes = [(NUM_FEATURES, loss_batches.NUM_ACTIONS), (NUM_FEATURES,)]
    self.trainable_variables = tuple(
      tf.Variable(random.normal(size=s).astype(np.float32)) for s in shapes
    )
    self.variables = self.trainable_variables

  def unroll(self, env_outputs, last_actions, state):
    del last_actions
    policy, baseline = self.trainable_variables
    observations = tf.convert_to_tensor(env_outputs.observation)
    values = tf.linalg.matvec(observations, baseline)
    return (tf.matmul(observations, policy), values), state

  def moments(self, env_outputs):
    del env_outputs
    return []

  def observe(self, moments):
    del moments


def make_batch():
  """Every kind of end of an episode, and rewards on both sides of the clip."""
  batch = loss_batches.make_batch()
  shape = batch.env_outputs.step_type.shape
  random = np.random.RandomState(5)
  observation = random.normal(size=(*shape, NUM_FEATURES)).astype(np.float32)
  return structures.ActorOutput(
    agent_state=(),
    env_outputs=batch.env_outputs._replace(observation=observation),
    agent_outputs=batch.agent_outputs,
    policy_version=np.zeros([shape[1]], np.int64),
    level=np.zeros([shape[1]], np.int32),
  )


def advantages_and_returns(options, batch, values):
  """A3C's R (Mnih et al. 2016, algorithm S3) and GAE, from the definitions."""
  outputs = batch.env_outputs
  length, columns = outputs.reward[1:].shape
  rewards = np.clip(outputs.reward[1:].astype(np.float64), -1, 1)
  discounts = options.discounting * outputs.discount[1:].astype(np.float64)
  is_real = outputs.step_type[:-1] != LAST
  returns, advantages = np.zeros([2, length, columns])
  for b in range(columns):
    for t in range(length):
      if not is_real[t, b]:
        continue
      # From t to the end of the unroll, or of the episode.
      factor, trace = 1.0, 1.0
      for k in range(t, length):
        delta = rewards[k, b] + discounts[k, b] * values[k + 1, b]
        returns[t, b] += factor * rewards[k, b]
        advantages[t, b] += trace * (delta - values[k, b])
        factor *= discounts[k, b]
        trace *= discounts[k, b] * options.gae_lambda
        if k + 1 == length or not is_real[k + 1, b]:
          returns[t, b] += factor * values[k + 1, b]
          break
  return advantages, returns, is_real


def gradients_in_numpy(options, batch, weights):
  """Of the whole loss, with respect to the weights."""
  policy, baseline = (w.astype(np.float64) for w in weights)
  observations = batch.env_outputs.observation.astype(np.float64)
  values = observations @ baseline
  advantages, returns, is_real = advantages_and_returns(options, batch, values)
  log_pi = loss_batches.log_softmax(observations[:-1] @ policy)
  pi = np.exp(log_pi)
  chosen = np.eye(loss_batches.NUM_ACTIONS)[batch.agent_outputs.action[1:]]
  entropy = -(pi * log_pi).sum(-1, keepdims=True)
  # Of -log pi(a) A, and of minus the entropy.
  of_logits = -(chosen - pi) * advantages[..., None]
  of_logits += options.entropy_cost * pi * (log_pi + entropy)
  of_values = -options.baseline_cost * (returns - values[:-1])
  scale = 1 / is_real.sum() if options.loss_reduction == 'mean' else 1.0
  of_logits *= scale * is_real[..., None]
  of_values *= scale * is_real
  return [
    np.einsum('tbf,tba->fa', observations[:-1], of_logits),
    np.einsum('tbf,tb->f', observations[:-1], of_values),
  ]


def clip_in_numpy(gradients, most, by):
  """Returns clipped gradients, and how many were."""
  norms = [np.sqrt(np.sum(g**2)) for g in gradients]
  if by == 'global_norm':
    norms = [np.sqrt(np.sum(np.square(norms)))] * len(norms)
  elif by == 'average_norm':
    norms = [n / g.size for n, g in zip(norms, gradients, strict=True)]
  scales = [min(1.0, most / n) for n in norms]
  clipped = [g * s for g, s in zip(gradients, scales, strict=True)]
  return clipped, sum(s < 1 for s in scales)


def step_in_numpy(options, gradient):
  """What the first step of the optimizer takes off a weight."""
  if options.optimizer == 'rmsprop':
    # Mean squares begin at one; epsilon is inside the root.
    square = options.decay + (1 - options.decay) * gradient**2
    return LEARNING_RATE * gradient / np.sqrt(square + options.epsilon)
  # Adam, whose first moments, corrected for their start, are the gradient and
  # its square; Keras adds epsilon to the root before that correction.
  root = np.sqrt(1 - 0.999)
  return (
    LEARNING_RATE * gradient * root / (root * abs(gradient) + options.epsilon)
  )


A3C = AdvantageOptions(discounting=0.9, entropy_cost=0.05)
GAE = dataclasses.replace(A3C, gae_lambda=0.8, loss_reduction='mean')
RMSPROP = OptimizerOptions(
  optimizer='rmsprop', epsilon=0.1, clip_gradient_norm=2.0
)
ADAM = OptimizerOptions(
  optimizer='adam',
  epsilon=1e-3,
  clip_gradient_norm=0.02,
  clip_gradient_by='average_norm',
)
PER_TENSOR = dataclasses.replace(
  RMSPROP, clip_gradient_norm=0.1, clip_gradient_by='tensor_norm'
)


@pytest.mark.parametrize('asynchronous', [True, False], ids=['a3c', 'a2c'])
@pytest.mark.parametrize(
  ('options', 'optimizer'),
  [(A3C, RMSPROP), (GAE, ADAM), (GAE, PER_TENSOR)],
  ids=['n_step', 'gae', 'per_tensor'],
)
def test_all_weights_after_an_update_are_those_of_the_formulas(
  asynchronous, options, optimizer
):
  batch, agent = make_batch(), Linear()
  one = learner.Learner(
    agent,
    [optimizers.make_optimizer(optimizer)],
    lambda frames: tf.constant(LEARNING_RATE),
    functools.partial(objectives.advantage_loss, options),
    functools.partial(
      optimizers.clip_gradients,
      clip_gradient_norm=optimizer.clip_gradient_norm,
      clip_gradient_by=optimizer.clip_gradient_by,
    ),
    frames_per_step=1,
  )
  before = [w.numpy() for w in agent.variables]
  if asynchronous:
    worker = one.make_worker(Linear(seed=2))
    worker.synchronise()
    values = worker.update(batch)
  else:
    values = one.update(batch)
  gradients = gradients_in_numpy(options, batch, before)
  norm = np.sqrt(sum(np.sum(g**2) for g in gradients))
  np.testing.assert_allclose(values['gradient_norm'], norm, rtol=1e-4)
  clipped, count = clip_in_numpy(
    gradients, optimizer.clip_gradient_norm, optimizer.clip_gradient_by
  )
  assert count >= 1
  for new, old, gradient in zip(agent.variables, before, clipped, strict=True):
    step = step_in_numpy(optimizer, gradient)
    assert np.abs(step).min() > 1e-6
    np.testing.assert_allclose(old - new, step, rtol=1e-3, atol=2e-6)


def test_the_batch_reaches_every_branch():
  outputs = make_batch().env_outputs
  rewards, ends = outputs.reward[1:], outputs.step_type[1:-1] == LAST
  assert (rewards > 1).any()
  assert (rewards < -1).any()
  assert (np.abs(rewards) < 1).sum() > 10
  # Terminations, lost lives and truncations in the middle.
  discount = outputs.discount[1:-1]
  assert (ends & (discount == 0)).any()
  assert (ends & (discount == 1)).any()
  assert (~ends & (discount == 0)).any()
