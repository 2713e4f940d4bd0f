"""The learner: batch in, gradients, new variables and metrics out."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tree

from scalable_agent import (
  gradients,
  networks,
  objectives,
  structures,
  worker,
)
from scalable_agent.distribution import agreement, replicas


class Learner:
  """Owns the optimizers, the frame counter and the update function.

  A batch whose gradients are not finite is dropped inside of the update: no
  variable changes, and its frames do not count, as nothing was learned from
  them. Gradients are those of all replicas, the same bits in each, so all drop
  it. No assertion guards the weights, since XLA drops assertions.

  Under a `tf.distribute` strategy, create agent, optimizer and learner in its
  scope, in all processes alike: each variable gets the first process's initial
  value, which is an exchange, and waits for all. An update then learns from the
  columns of all processes as one replica would from all of them. What
  exchanges anything (`update`, `agree`, `broadcast`) must be called by
  all processes in the same order, and by one thread at a time.

  Without a strategy, any number of threads may update at once, without a lock
  (Recht et al. 2011, "Hogwild!"). Each addition to a weight, to frames and to
  updates takes place, none is lost; what is added may have been computed from
  values that others change meanwhile. What is read, computed and written back
  may lose an update that another thread makes meanwhile: RMSProp's mean squares
  and Keras's count of iterations. No variable is ever read half-written, but
  several of them are not read at one moment. See docs/family.md.

  Attributes:
    agent: the networks.Agent whose variables it updates.
    optimizers: Keras optimizers, built.
    frames: int64 variable, environment frames learned from so far, those of all
      replicas. `int` refuses the variables of a strategy: use `.numpy()`.
    updates: int64 variable, batches learned from so far; the policy version.
    episodes: int64 variable, episodes that ended in them; or None.
  """

  def __init__(
    self,
    agent: networks.Agent,
    optimizers: Sequence[Any],
    schedule: Callable[[Any], Any],
    loss: Callable[..., objectives.Loss],
    clip: Callable[[Sequence[Any]], tuple[list[Any], tf.Tensor]],
    frames_per_step: int,
    updates_per_batch: int = 1,
    episodes: tf.Variable | None = None,
    jit_compile: bool = False,
  ):
    """Builds the optimizers' slots, for the strategy in whose scope it is.

    Args:
      agent: with all its variables created.
      optimizers: of `optimizers.make_optimizer`: one of the whole loss, or one
        of its policy's part and one of its baseline's.
      schedule: frames -> learning rate, of `optimizers.learning_rate_schedule`.
      loss: of `objectives`, but for its options.
      clip: `optimizers.clip_gradients`, but for its other arguments.
      frames_per_step: frames that one agent step counts for.
      updates_per_batch: optimizer steps on each batch.
      episodes: int64 variable that counts those learned from, by the metric
        `num_episodes` of `loss`; None: nothing does. Not under a strategy.
      jit_compile: whether XLA compiles updates. Not under a strategy.
    """
    self.agent = agent
    self._jit_compile = jit_compile
    self.optimizers = self._build(optimizers)
    self.frames = tf.Variable(0, dtype=tf.int64, name='frames')
    self.updates = tf.Variable(0, dtype=tf.int64, name='updates')
    self.episodes = episodes
    self._schedule = schedule
    self._loss = loss
    self._clip = clip
    self._frames_per_step = frames_per_step
    self._updates_per_batch = updates_per_batch
    self._replicas = replicas.Replicas(tf.distribute.get_strategy())
    self._update = self._compiled(
      self._learn_from_batch, agent, self.optimizers
    )
    self._apply = self._compiled(self._learn_from_gradients)

  def checkpoint_items(self) -> dict[str, Any]:
    """Everything that must survive a restart, by name."""
    items = {
      'agent': self.agent,
      'frames': self.frames,
      'updates': self.updates,
    }
    if self.episodes is not None:
      items['episodes'] = self.episodes
    names = ('optimizer', 'baseline_optimizer')
    return items | dict(zip(names, self.optimizers, strict=False))

  def update(self, batch: structures.ActorOutput) -> dict[str, tf.Tensor]:
    """Learns from one batch, or from this process's share of it.

    Args:
      batch: ActorOutput of [T + 1, B, ...], numpy arrays or tensors; B is the
        same in all processes.

    Returns:
      Scalar metrics of the last optimizer step, and `frames`, `updates`,
      `learning_rate`, `gradient_norm`, `policy_lag` and `max_policy_lag` (mean
      and maximum over the batch's columns, in updates). All are those of the
      columns of all replicas, and the same in each process. `skipped_steps`
      are those of the optimizer steps that were not taken, as their gradients
      were not finite, [] int32; the first of these ends the work on the batch,
      and if it is the first of all, the batch was dropped.

    Raises:
      ValueError: B is no multiple of the number of this process's replicas.
      tf.errors.UnavailableError: another process is gone; no variable has
        changed, but for the optimizer steps of `updates_per_batch` that were
        complete. It takes moments if the process was killed, 5 to 10 s if it
        hangs or its host is gone: TensorFlow's coordination service listens to
        heartbeats, and ends what waits. Nothing can be exchanged until this
        process, too, is started anew; its variables can be read and saved.
    """
    return self._update(self._replicas.split(gradients.needed(batch)))

  def apply(
    self, given: gradients.Gradients, policy_version: int
  ) -> dict[str, tf.Tensor]:
    """Learns from gradients that were computed elsewhere.

    Not under a strategy. Those that are not finite, or whose moments are not,
    are dropped.

    Args:
      given: of a `gradients.GradientFunction` of such an agent.
      policy_version: updates that its weights had seen.

    Returns:
      See `update`.
    """
    return self._apply(given, tf.constant(policy_version, tf.int64))

  def make_worker(
    self, agent: networks.Agent, optimizers: Sequence[Any] | None = None
  ) -> worker.Worker:
    """Returns a worker with a copy of the weights; not under a strategy.

    Args:
      agent: of the same options as the learner's.
      optimizers: like the learner's, of its own statistics; None: shares the
        learner's.
    """
    chosen = self._build(optimizers) if optimizers else self.optimizers
    update = self._compiled(self._learn_from_batch, agent, chosen)
    return worker.Worker(agent, chosen, self.agent, update)

  def agree(self, step: agreement.Step) -> agreement.Step:
    """Returns what all processes do next: the same answer in each.

    Args:
      step: what this process wants to do.

    Raises:
      tf.errors.OpError: a process is gone, as in `update`.
    """
    return agreement.agree(self._replicas, step)

  def broadcast(self) -> None:
    """Gives all processes what the first one has in its checkpoint items.

    To the bit; call it after the first process alone has restored them.

    Raises:
      tf.errors.OpError: a process is gone, as in `update`; no variable has
        changed.
    """
    # Keras wraps its variables.
    slots = [v.value for one in self.optimizers for v in one.variables]
    self._replicas.broadcast(
      [*self.agent.variables, *slots, self.frames, self.updates]
    )

  def snapshot(self) -> list[tf.Tensor]:
    """Returns the values of `agent.variables`, in that order.

    Later updates do not change them, and nothing is copied until then:
    TensorFlow copies a variable on the first write after it was read. Call it
    between two updates, or it may hold some weights of before and some of after
    one.
    """
    return [v.read_value() for v in self.agent.variables]

  def _build(self, optimizers: Sequence[Any]) -> tuple[Any, ...]:
    for one in optimizers:
      one.build(self.agent.trainable_variables)
    return tuple(optimizers)

  def _compiled(self, function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns a tf.function of a function, of which the first are given."""
    # Without autograph for the same reason as in `policies.make_step`. Partial,
    # as of a method TensorFlow takes the tracings of all objects together, and
    # warns of so many.
    return tf.function(
      functools.partial(function, *arguments),
      autograph=False,
      reduce_retracing=True,
      jit_compile=self._jit_compile or None,
    )

  def _learn_from_batch(self, agent, optimizers, shards):
    with self._replicas.scope():
      learning_rate = self._schedule(self.frames)
      taken = tf.zeros([], tf.int32)
      moments: list[tf.Tensor] = []
      metrics = {}
      for _ in range(self._updates_per_batch):
        results = self._replicas.run(
          functools.partial(self._gradients, agent, len(optimizers)), shards
        )
        _, moments, metrics = results[0]
        finite = tf.math.is_finite(metrics['gradient_norm'])
        # Not even the optimizer's counter may move before all that the others
        # send is there.
        with tf.control_dependencies([metrics['num_transitions']]):
          taken += self._step(
            optimizers,
            [parts for parts, _, _ in results],
            finite,
            learning_rate,
          )
      return self._count(
        moments, metrics, taken, self._updates_per_batch, learning_rate
      )

  def _learn_from_gradients(self, given: gradients.Gradients, policy_version):
    learning_rate = self._schedule(self.frames)
    lag = tf.cast(self.updates - policy_version, tf.float32)
    metrics = given.metrics | {'policy_lag': lag, 'max_policy_lag': lag}
    finite = gradients.are_finite(given)
    taken = self._step(self.optimizers, [given.parts], finite, learning_rate)
    return self._count(given.moments, metrics, taken, 1, learning_rate)

  def _step(self, optimizers, gradients_of_replicas, finite, learning_rate):
    """Takes a step if the gradients are finite.

    Returns:
      1 if it did, else 0, [] int32.
    """

    def apply(parts):
      variables = self.agent.trainable_variables
      for optimizer, part in zip(optimizers, parts, strict=True):
        optimizer.learning_rate.assign(learning_rate)
        optimizer.apply(
          list(part.values()), [variables[index] for index in part]
        )
      return tf.constant(True)

    # Outside of the replicas, as Keras leaves their context, which no branch of
    # theirs may.
    taken = tf.cond(
      finite,
      lambda: self._replicas.run(apply, gradients_of_replicas)[0],
      lambda: tf.constant(False),
    )
    return tf.cast(taken, tf.int32)

  def _count(self, moments, metrics, taken, steps, learning_rate):
    """Counts what was learned from, if anything was; returns the metrics.

    Args:
      moments: of the last Gradients.
      metrics: likewise.
      taken: [] int32, optimizer steps that were taken.
      steps: that were to be.
      learning_rate: of them.
    """
    # Counted when it is certain that the update takes place.
    learned = tf.cast(taken > 0, tf.int64)
    # Not times zero: those of a stranger may be no numbers.
    self.agent.observe(
      [tf.where(taken > 0, x, tf.zeros_like(x)) for x in moments]
    )
    transitions = tf.cast(metrics['num_transitions'], tf.int64)
    frames = self.frames.assign_add(
      learned * transitions * self._frames_per_step
    )
    updates = self.updates.assign_add(learned)
    if self.episodes is not None:
      ended = tf.cast(metrics['num_episodes'], tf.int64)
      self.episodes.assign_add(learned * ended)
    return metrics | {
      'frames': tf.identity(frames),
      'updates': tf.identity(updates),
      'learning_rate': learning_rate,
      'skipped_steps': steps - taken,
    }

  def _gradients(self, agent, num_parts, shard) -> gradients.Gradients:
    """Of the whole batch, that is: the same on each replica."""
    # Arrays that enter as tensors of unknown identity are converted once here.
    shard = tree.map_structure(tf.convert_to_tensor, shard)
    lag = tf.cast(self.updates - shard.policy_version, tf.float32)  # [B]
    lags = {
      'policy_lag': tf.reduce_mean(lag),
      'max_policy_lag': tf.reduce_max(lag),
    }
    return gradients.compute(
      agent,
      shard,
      self._loss,
      self._clip,
      num_parts,
      lags,
      self._replicas.all_reduce,
    )
