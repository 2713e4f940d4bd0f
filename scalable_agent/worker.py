"""A worker of A3C: it learns with a copy of the learner's weights."""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from scalable_agent import gradients, networks, structures


class Worker:
  """Learns from batches of its own with a copy of the learner's weights.

  As in A3C (Mnih et al. 2016, algorithm S3): gradients are those of the copy,
  and they are applied to the learner's variables.

  Attributes:
    agent: the copy.
    optimizers: that apply its gradients.
  """

  def __init__(
    self,
    agent: networks.Agent,
    optimizers: tuple[Any, ...],
    shared: networks.Agent,
    update: Callable[[list[structures.ActorOutput]], dict[str, tf.Tensor]],
  ):
    """Made by `Learner.make_worker`."""
    self.agent = agent
    self.optimizers = optimizers
    self._update = update
    # Partial, as of a method TensorFlow takes the tracings of all objects
    # together, and warns of so many.
    self._synchronise = tf.function(
      functools.partial(_copy, agent, shared), autograph=False
    )

  def synchronise(self) -> None:
    """Copies the learner's weights.

    Each variable for itself: while other threads update, some are older.
    """
    self._synchronise()

  def update(self, batch: structures.ActorOutput) -> dict[str, tf.Tensor]:
    """Has the learner learn from a batch: see `Learner.update`."""
    return self._update([gradients.needed(batch)])


def _copy(agent: networks.Agent, shared: networks.Agent) -> None:
  for own, value in zip(agent.variables, shared.variables, strict=True):
    own.assign(value)
