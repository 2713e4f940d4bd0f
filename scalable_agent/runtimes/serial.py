"""One thread that acts and learns in turns: A2C, and IMPALA's serial mode.

The same seed gives the same run, bit for bit, also where it was interrupted.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from scalable_agent import actor, environments, policies, unroll_queue
from scalable_agent.options import Config
from scalable_agent.runtimes import local_run, training
from scalable_agent.storage import files


class Run(local_run.LocalRun):
  """An actor, and a learner that learns from what it did."""

  def __init__(
    self,
    config: Config,
    levels: Sequence[environments.Level],
    batch_size: int,
    strategy: tf.distribute.Strategy | None = None,
  ):
    """Makes the parts; see the base class.

    Args:
      config: resolved and validated.
      levels: a single one, to play.
      batch_size: trajectories per update.
      strategy: that the learner works under; None = the default one.
    """
    super().__init__(config, levels, 1, strategy, replayable=True)
    # Columns wait here where there are more than a batch takes.
    self._queue = unroll_queue.UnrollQueue(batch_size, capacity=1)
    self._policy: Any = None
    self._actor: Any = None

  def _prepare(self) -> None:
    agent = self._training.agent
    self._policy = policies.Direct(policies.make_step(agent, self._seeds))
    self._actor = actor.Actor(
      self._environments[0],
      self._policy,
      agent.initial_state(self._num_envs),
      self._config.actors.unroll_length,
      policy_version=self._training.updates,
    )
    self._restore_actor()

  def _train(self) -> None:
    try:
      while not self._training.done() and not self._stopped:
        while not self._queue.ready:
          unroll = self._actor.unroll()
          # First what a checkpoint holds: a report may fail.
          self._queue.put(unroll)
          self._metrics.record_unroll(unroll)
        self._training.update(self._queue.get())
        self._training.save_if_due(self._state)
    except (files.WriteError, training.RunError):
      self._training.rescue(self._state())
      raise

  def _state(self) -> dict[str, Any]:
    return {
      **super()._state(),
      'serial': {
        'sizes': self._sizes(),
        'actor': self._actor.snapshot(),
        'queue': self._queue.snapshot(),
      },
    }

  def _restore_actor(self) -> None:
    state = self._restored.get('serial')
    if state is None:
      return
    if list(state['sizes']) != self._sizes():
      logging.warning(
        'Episodes begin anew: --envs_per_actor or --unroll_length has changed.'
      )
      return
    self._actor.restore(state['actor'])
    self._queue.restore(state['queue'])

  def _sizes(self) -> list[int]:
    """What a saved state must share with the run that goes on from it."""
    return [self._num_envs, self._config.actors.unroll_length]

  def _gauges(self) -> dict[str, Any]:
    return {
      'stage_seconds': {
        'environment': self._actor.environment_seconds,
        'inference': self._policy.seconds,
        'learner': self._training.learner_seconds,
      },
    }
