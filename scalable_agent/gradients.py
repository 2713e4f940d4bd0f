"""Gradients: what an agent makes of a batch, for a learner to apply.

Whoever computes them needs no optimizer: a learner, one of its workers, or an
actor process that sends them.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tree

from scalable_agent import networks, objectives, structures


class Gradients(NamedTuple):
  """What an agent makes of a batch.

  Attributes:
    parts: of the whole loss, or of its policy's part and its baseline's: the
      clipped gradients by index of their variable. Variables that a part does
      not depend on have none.
    moments: of the observations, for `networks.Agent.observe`.
    metrics: [] float32 each, by name: those of the loss, and `gradient_norm`,
      before clipping, which is not finite where a gradient is not.
  """

  parts: Any
  moments: Any
  metrics: Any


def compute(
  agent: networks.Agent,
  batch: structures.ActorOutput,
  loss: Callable[..., objectives.Loss],
  clip: Callable[[Sequence[Any]], tuple[list[Any], tf.Tensor]],
  num_parts: int,
  lags: Mapping[str, tf.Tensor],
  all_reduce: Callable[..., tuple[list[Any], dict[str, tf.Tensor]]],
) -> Gradients:
  """Returns the gradients on a batch, for a tf.function.

  Args:
    agent: whose weights they are of.
    batch: of `needed`, as tensors of [T + 1, B, ...].
    loss: of `objectives`, but for its options.
    clip: `optimizers.clip_gradients`, but for its other arguments.
    num_parts: 1, or 2 for one of each part of the loss.
    lags: more metrics.
    all_reduce: `replicas.Replicas.all_reduce`, or what does nothing.
  """
  variables = agent.trainable_variables
  with tf.GradientTape(
    watch_accessed_variables=False, persistent=num_parts > 1
  ) as tape:
    tape.watch(variables)
    (logits, baselines), _ = agent.unroll(
      batch.env_outputs, batch.agent_outputs.action, batch.agent_state
    )
    value = loss(
      agent.action_space,
      logits,
      baselines,
      batch.env_outputs,
      batch.agent_outputs,
    )
    total = value.total
  minimised = [total] if num_parts == 1 else [value.policy, value.baseline]
  gradients = [g for one in minimised for g in tape.gradient(one, variables)]
  sums, metrics = all_reduce(
    [*gradients, *agent.moments(batch.env_outputs)], {**value.metrics, **lags}
  )
  gradients, moments = sums[: len(gradients)], sums[len(gradients) :]
  gradients, norm = clip(gradients)
  parts: list[dict[int, Any]] = [{} for _ in minimised]
  for index, gradient in enumerate(gradients):
    if gradient is not None:
      part, variable = divmod(index, len(variables))
      parts[part][variable] = gradient
  return Gradients(parts, moments, metrics | {'gradient_norm': norm})


def needed(batch: structures.ActorOutput) -> structures.ActorOutput:
  """Returns what is read of a batch: nothing else is copied into tensors."""
  return batch._replace(
    env_outputs=batch.env_outputs._replace(info=()),
    agent_outputs=batch.agent_outputs._replace(baseline=()),
    level=(),
  )


class GradientFunction:
  """Gradients of an agent alone, for a learner elsewhere to apply."""

  def __init__(
    self,
    agent: networks.Agent,
    loss: Callable[..., objectives.Loss],
    clip: Callable[[Sequence[Any]], tuple[list[Any], tf.Tensor]],
    num_parts: int = 1,
  ):
    """Initialises; arguments are those of `compute`."""
    self._agent = agent
    self._function = tf.function(
      functools.partial(_compute_alone, agent, loss, clip, num_parts),
      autograph=False,
      reduce_retracing=True,
    )

  def __call__(self, batch: structures.ActorOutput) -> Gradients:
    """Returns the gradients on a batch.

    Args:
      batch: ActorOutput of [T + 1, B, ...], numpy arrays or tensors.

    Returns:
      Gradients of tensors, none of them sparse, without lags.
    """
    return self._function(_alone(batch))

  def specs(
    self, spec: structures.EnvironmentSpec, unroll_length: int, columns: int = 1
  ) -> Gradients:
    """Returns what a call returns, as tf.TensorSpecs; computes nothing.

    Args:
      spec: of the environment.
      unroll_length: T.
      columns: B, on which nothing of it depends; a call with as many has been
        traced then.
    """
    steps = (unroll_length + 1, columns)

    def in_time(one):
      return tf.TensorSpec((*steps, *one.shape), tf.as_dtype(one.dtype))

    batch = structures.ActorOutput(
      agent_state=tree.map_structure(
        lambda x: tf.TensorSpec((columns, *x.shape[1:]), x.dtype),
        self._agent.initial_state(1),
      ),
      env_outputs=tree.map_structure(
        in_time, structures.step_output_spec(spec)
      ),
      agent_outputs=tree.map_structure(
        in_time, structures.agent_output_spec(spec.action_space)
      ),
      policy_version=(),
      level=(),
    )
    concrete = self._function.get_concrete_function(_alone(batch))
    return concrete.structured_outputs


def _alone(batch: structures.ActorOutput) -> structures.ActorOutput:
  return needed(batch)._replace(policy_version=())


def _compute_alone(agent, loss, clip, num_parts, batch) -> Gradients:
  gradients = compute(
    agent,
    tree.map_structure(tf.convert_to_tensor, batch),
    loss,
    clip,
    num_parts,
    {},
    lambda gradients, metrics: (list(gradients), dict(metrics)),
  )
  # Sparse ones have no fixed length.
  return tree.map_structure(tf.convert_to_tensor, gradients)


def are_finite(gradients: Gradients) -> tf.Tensor:
  """Returns whether all numbers are that change anything, [] bool.

  So must be the squares of gradients, which optimizers take. For those of
  strangers: of one's own, the norm tells.
  """
  numbers = [
    tf.linalg.global_norm(
      [g for part in gradients.parts for g in part.values()]
    ),
    *gradients.moments,
    gradients.metrics['gradient_norm'],
  ]
  return tf.reduce_all([tf.reduce_all(tf.math.is_finite(x)) for x in numbers])


def num_transitions(step_type: np.ndarray) -> int:
  """Returns how many transitions an unroll has, [T + 1, E] step types."""
  return int((step_type[:-1] != structures.LAST).sum())
