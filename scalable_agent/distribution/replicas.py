"""Replicas of a `tf.distribute` strategy that share one learner batch.

A replica is a device that computes with variables of its own; a process has one
or several, and all processes together form one strategy. Every replica gets a
part of the batch's columns, and because losses are sums, the sum of the
replicas' gradients is the gradient of the whole batch.

Whatever is exchanged waits for all the others. All processes must make the same
calls in the same order, each from one thread at a time.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tree

from scalable_agent import structures

SUMS = (
  'total_loss',
  'pg_loss',
  'baseline_loss',
  'entropy_loss',
  'num_transitions',
)


class Replicas:
  """The replicas of one strategy, as one of its processes sees them.

  Attributes:
    count: replicas of all processes.
    local_count: replicas of this process, the same number in each.
  """

  def __init__(self, strategy: tf.distribute.Strategy):
    """Initialises; exchanges nothing.

    Args:
      strategy: the default one, a MirroredStrategy or a
        MultiWorkerMirroredStrategy.
    """
    self._strategy = strategy
    self.count = strategy.num_replicas_in_sync
    # The default strategy has no list of devices.
    self.local_count = (
      len(strategy.extended.worker_devices) if self.count > 1 else 1
    )
    # One function each, or every call would be traced anew.
    self._sum_of_numbers = tf.function(self._sum_numbers, autograph=False)

  @property
  def num_processes(self) -> int:
    """Number of processes, this one included."""
    return self.count // self.local_count

  def scope(self):
    """Returns the strategy's scope."""
    return self._strategy.scope()

  def split(
    self, batch: structures.ActorOutput
  ) -> list[structures.ActorOutput]:
    """Cuts this process's columns into equal parts, one per local replica.

    Args:
      batch: ActorOutput of [T + 1, B, ...], without `None`s.

    Returns:
      `local_count` ActorOutputs of [T + 1, B / local_count, ...].

    Raises:
      ValueError: the columns cannot be shared out evenly.
    """
    if self.local_count == 1:
      return [batch]
    columns = batch.policy_version.shape[0]
    if columns % self.local_count:
      raise ValueError(
        f'a batch of {columns} columns cannot be shared out evenly among the '
        f'{self.local_count} replicas (devices) of this process. Make '
        '--batch_size a multiple of all replicas.'
      )
    size = columns // self.local_count
    return [
      structures.slice_columns(batch, start, start + size)
      for start in range(0, columns, size)
    ]

  def run(self, function: Callable, *shards: Sequence[Any]) -> list[Any]:
    """Runs `function` once per local replica; call it inside a tf.function.

    Args:
      function: of one element of each of `shards`, in replica context; returns
        a nest of tensors.
      *shards: lists with one element per local replica.

    Returns:
      What `function` returned on each local replica.
    """

    def run_one():
      index = self._index() % self.local_count
      return function(*(parts[index] for parts in shards))

    nest = self._strategy.run(run_one)
    return [
      tree.map_structure(
        lambda x, i=i: self._strategy.experimental_local_results(x)[i], nest
      )
      for i in range(self.local_count)
    ]

  def all_reduce(
    self, gradients: Sequence[Any], metrics: Mapping[str, tf.Tensor]
  ) -> tuple[list[Any], dict[str, tf.Tensor]]:
    """Adds gradients over all replicas and combines their metrics.

    In replica context. All of it crosses the network as one tensor, so that
    either everything arrives or nothing.

    Args:
      gradients: tensors, tf.IndexedSlices or None.
      metrics: see `combine`; [] float32 each.

    Returns:
      The sums in the same order, and the metrics of the whole batch.
    """
    if self.count == 1:
      return list(gradients), dict(metrics)
    row = tf.stack([metrics[name] for name in metrics])[tf.newaxis]
    # Gathers: rows of zeros but for one's own add up to the rows of all.
    index = self._index()
    rows = tf.pad(row, [[index, self.count - 1 - index], [0, 0]])
    present = [g for g in gradients if g is not None]
    *sums, rows = self._sum([*present, rows])
    iterator = iter(sums)
    values = dict(zip(metrics, tf.unstack(rows, axis=1), strict=True))
    return (
      [g if g is None else next(iterator) for g in gradients],
      combine(values),
    )

  def sum(self, number: int) -> int:
    """Returns the sum of the numbers of all processes; all must call it.

    Raises:
      tf.errors.OpError: a process is gone, see `Learner.update`.
    """
    if self.num_processes == 1:
      return number
    return int(self._sum_of_numbers(tf.constant(number, tf.int64)))

  def _sum_numbers(self, number: tf.Tensor) -> tf.Tensor:
    # An argument is on no device, and a sum needs one.
    return self.run(lambda: self._sum([tf.identity(number)])[0])[0]

  def broadcast(self, variables: Sequence[tf.Variable]) -> None:
    """Makes variables equal, to the bit, to those of the first process.

    All processes must call it with the same variables.

    Raises:
      tf.errors.OpError: a process is gone; no variable has changed.
    """
    if self.num_processes == 1:
      return

    @tf.function(autograph=False)
    def broadcast():
      with self.scope():
        for variable, value in zip(
          variables, self.run(lambda: self._of_first(variables))[0], strict=True
        ):
          variable.assign(value)

    broadcast()

  def _of_first(self, variables):
    words = _to_words(variables)
    # Whole numbers: a float loses its bits in a sum if it is a negative zero,
    # subnormal or no number.
    (words,) = self._sum(
      [words if self._index() == 0 else tf.zeros_like(words)]
    )
    return _from_words(words, variables)

  def _index(self) -> int:
    """Number of the current replica among all, known when it is traced."""
    context = tf.distribute.get_replica_context()
    return int(tf.get_static_value(context.replica_id_in_sync_group))

  def _sum(self, tensors: list[Any]) -> list[Any]:
    return tf.distribute.get_replica_context().all_reduce(
      tf.distribute.ReduceOp.SUM, tensors
    )


def combine(metrics: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
  """Computes the metrics of a batch from those of its parts.

  Args:
    metrics: of `objectives.Loss`, and any others, [N] float32 each, of N
      parts with equally many columns. What is in SUMS is added up; the maximum
      is taken of 'max_...'; the mean, over the columns, of '...policy_lag'; and
      means over transitions of all others.

  Returns:
    The same names, [] float32 each.
  """
  counts = metrics['num_transitions']

  def mean(x):
    return tf.math.divide_no_nan(
      tf.reduce_sum(counts * x), tf.reduce_sum(counts)
    )

  def variance(variances, means):
    # That inside the parts plus that between them.
    return mean(variances + tf.square(means - mean(means)))

  combined = {}
  for name, x in metrics.items():
    if name in SUMS:
      combined[name] = tf.reduce_sum(x)
    elif name.startswith('max_'):
      combined[name] = tf.reduce_max(x)
    elif name == 'policy_lag':
      combined[name] = tf.reduce_mean(x)
    else:
      combined[name] = mean(x)
  errors = metrics['mean_vs'] - metrics['mean_baseline']
  return combined | {
    'vs_variance': variance(metrics['vs_variance'], metrics['mean_vs']),
    'error_variance': variance(metrics['error_variance'], errors),
  }


def _to_words(tensors: Sequence[Any]) -> tf.Tensor:
  """Returns the bytes of all tensors, one after the other, [N] int64."""
  parts = [tf.reshape(tf.bitcast(x, tf.uint8), [-1]) for x in tensors]
  size = sum(_num_bytes(x) for x in tensors)
  padding = tf.zeros([-size % tf.int64.size], tf.uint8)
  flat = tf.concat([*parts, padding], 0)
  return tf.bitcast(tf.reshape(flat, [-1, tf.int64.size]), tf.int64)


def _from_words(words: tf.Tensor, like: Sequence[Any]) -> list[tf.Tensor]:
  """Returns what `_to_words` got; shapes and dtypes are those of `like`."""
  flat = tf.reshape(tf.bitcast(words, tf.uint8), [-1])
  tensors, start = [], 0
  for x in like:
    stop = start + _num_bytes(x)
    # One byte is a whole element and has no axis of its own.
    last = [x.dtype.size] if x.dtype.size > 1 else []
    part = tf.reshape(flat[start:stop], [*x.shape, *last])
    tensors.append(tf.bitcast(part, x.dtype))
    start = stop
  return tensors


def _num_bytes(x: Any) -> int:
  return x.shape.num_elements() * x.dtype.size
