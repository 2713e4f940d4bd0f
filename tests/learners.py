"""Learners of the clockwork, and the updates they make, written by hand."""

import dataclasses
import functools

import numpy as np
import tensorflow as tf

from scalable_agent import (
  actor,
  learner,
  networks,
  objectives,
  optimizers,
  policies,
)
from scalable_agent.options import OptimizerOptions, VTraceOptions
from scalable_agent.structures import LAST
from tests import clockwork

NUM_ENVS = 3
LENGTH = 7
FRAMES_PER_STEP = 4
LOSS_OPTIONS = VTraceOptions(discounting=0.9, entropy_cost=0.01)


def make_environment():
  return clockwork.ClockworkEnvironment(
    NUM_ENVS, num_actions=4, frames_per_step=FRAMES_PER_STEP
  )


def make_agent(lstm=False):
  tf.random.set_seed(2)
  return networks.Agent(make_environment().spec, lstm=lstm, frame_stack=2)


def make_optimizer():
  return optimizers.make_optimizer(
    OptimizerOptions(optimizer='rmsprop', epsilon=0.01)
  )


def constant(frames):
  del frames
  return tf.constant(0.001)


def make_learner(
  agent,
  schedule=constant,
  clip=0.0,
  updates_per_batch=1,
  reward_clipping='abs_one',
  given=None,
  jit_compile=False,
):
  return learner.Learner(
    agent,
    given or [make_optimizer()],
    schedule,
    functools.partial(
      objectives.vtrace_loss,
      dataclasses.replace(LOSS_OPTIONS, reward_clipping=reward_clipping),
    ),
    functools.partial(optimizers.clip_gradients, clip_gradient_norm=clip),
    frames_per_step=FRAMES_PER_STEP,
    updates_per_batch=updates_per_batch,
    jit_compile=jit_compile,
  )


def make_batches(agent, count, version=lambda: 0):
  """Unrolls of the agent on the clockwork; rewards scaled to a few units."""
  one = actor.Actor(
    make_environment(),
    policies.Direct(policies.make_step(agent, policies.Seeds(3))),
    agent.initial_state(NUM_ENVS),
    LENGTH,
    policy_version=version,
  )
  batches = []
  for _ in range(count):
    batch = one.unroll()
    env_outputs = batch.env_outputs._replace(
      observation=batch.env_outputs.observation / 100,
      reward=np.sin(batch.env_outputs.reward),
    )
    batches.append(batch._replace(env_outputs=env_outputs))
  return batches


def num_transitions(batch):
  return int((batch.env_outputs.step_type[:-1] != LAST).sum())


def weights(agent):
  return [v.numpy() for v in agent.trainable_variables]


def assert_all_close(one, two, rtol=1e-5, atol=1e-7):
  for a, b in zip(one, two, strict=True):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def gradients_by_hand(agent, batch, part='total'):
  """The gradients of a part of the loss, eagerly."""
  with tf.GradientTape() as tape:
    (logits, baselines), _ = agent.unroll(
      batch.env_outputs, batch.agent_outputs.action, batch.agent_state
    )
    loss = objectives.vtrace_loss(
      LOSS_OPTIONS,
      agent.action_space,
      logits,
      baselines,
      batch.env_outputs,
      batch.agent_outputs,
    )
    minimised = getattr(loss, part)
  return tape.gradient(minimised, agent.trainable_variables)


def update_by_hand(agent, optimizer, batch, learning_rate, clip=0.0):
  """One step of gradient descent, eagerly; returns the gradients' norm."""
  gradients = gradients_by_hand(agent, batch)
  norm = np.sqrt(sum(np.sum(np.square(g)) for g in gradients))
  if clip and norm > clip:
    gradients = [g * (clip / norm) for g in gradients]
  optimizer.learning_rate.assign(learning_rate)
  optimizer.apply(gradients, agent.trainable_variables)
  return norm


def all_values(one):
  variables = [*one.agent.variables, one.frames, one.updates]
  slots = [v.value for v in one.optimizers[0].variables]
  return [v.numpy() for v in [*variables, *slots]]
