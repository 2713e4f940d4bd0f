"""The learner: batch in, gradients, new variables and metrics out."""

from typing import Any

import tensorflow as tf
import tree

from scalable_agent import losses, networks, optimizers, structures


class Learner:
  """Owns the optimizer, the frame counter and the update function.

  Attributes:
    agent: the networks.Agent whose variables it updates.
    optimizer: Keras optimizer, built.
    frames: int64 variable, environment frames learned from so far.
    updates: int64 variable, batches learned from so far; the policy version.
  """

  def __init__(
    self,
    agent: networks.Agent,
    optimizer: Any,
    schedule: Any,
    loss_options: losses.LossOptions,
    clip_gradient_norm: float,
    frames_per_step: int,
    updates_per_batch: int = 1,
  ):
    """Builds the optimizer's slots.

    Args:
      agent: with all its variables created.
      optimizer: of `optimizers.make_optimizer`.
      schedule: frames -> learning rate, of `optimizers.learning_rate_schedule`.
      loss_options: what the loss needs to know.
      clip_gradient_norm: global norm; 0 = no clipping.
      frames_per_step: frames that one agent step counts for.
      updates_per_batch: optimizer steps on each batch.
    """
    self.agent = agent
    self.optimizer = optimizer
    self.optimizer.build(agent.trainable_variables)
    self.frames = tf.Variable(0, dtype=tf.int64, name='frames')
    self.updates = tf.Variable(0, dtype=tf.int64, name='updates')
    self._schedule = schedule
    self._loss_options = loss_options
    self._clip_gradient_norm = clip_gradient_norm
    self._frames_per_step = frames_per_step
    self._updates_per_batch = updates_per_batch
    # Without autograph for the same reason as in `policies.make_step`.
    self._update = tf.function(self._update_on_batch, autograph=False)

  def checkpoint_items(self) -> dict[str, Any]:
    """Everything that must survive a restart, by name."""
    return {
      'agent': self.agent,
      'optimizer': self.optimizer,
      'frames': self.frames,
      'updates': self.updates,
    }

  def update(self, batch: structures.ActorOutput) -> dict[str, tf.Tensor]:
    """Learns from one batch.

    Args:
      batch: ActorOutput of [T + 1, B, ...], numpy arrays or tensors.

    Returns:
      Scalar metrics of the last optimizer step, and `frames`, `updates`,
      `learning_rate`, `gradient_norm`, `policy_lag` and `max_policy_lag` (mean
      and maximum over the batch's columns, in updates).
    """
    # What the update does not read is not copied into tensors.
    return self._update(
      batch.agent_state,
      batch.env_outputs._replace(info=()),
      batch.agent_outputs._replace(baseline=()),
      batch.policy_version,
    )

  def _update_on_batch(
    self, agent_state, env_outputs, agent_outputs, policy_version
  ):
    # Arrays that enter as tensors of unknown identity are converted once here
    # and shared by all updates on this batch.
    env_outputs, agent_outputs, agent_state = tree.map_structure(
      tf.convert_to_tensor, (env_outputs, agent_outputs, agent_state)
    )
    lag = tf.cast(self.updates - policy_version, tf.float32)  # [B]
    learning_rate = self._schedule(self.frames)
    self.optimizer.learning_rate.assign(learning_rate)
    metrics = {}
    for _ in range(self._updates_per_batch):
      metrics = self._gradient_step(agent_state, env_outputs, agent_outputs)
    steps = tf.cast(metrics['num_transitions'], tf.int64)
    return metrics | {
      'frames': self.frames.assign_add(steps * self._frames_per_step),
      'updates': self.updates.assign_add(1),
      'learning_rate': learning_rate,
      'policy_lag': tf.reduce_mean(lag),
      'max_policy_lag': tf.reduce_max(lag),
    }

  def _gradient_step(self, agent_state, env_outputs, agent_outputs):
    variables = self.agent.trainable_variables
    with tf.GradientTape(watch_accessed_variables=False) as tape:
      tape.watch(variables)
      (logits, baselines), _ = self.agent.unroll(
        env_outputs, agent_outputs.action, agent_state
      )
      loss, metrics = losses.compute_loss(
        self._loss_options, logits, baselines, env_outputs, agent_outputs
      )
    gradients = tape.gradient(loss, variables)
    gradients, norm = optimizers.clip_gradients(
      gradients, self._clip_gradient_norm
    )
    self.optimizer.apply(gradients, variables)
    return metrics | {'gradient_norm': norm}
