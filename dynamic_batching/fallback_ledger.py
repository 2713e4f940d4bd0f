"""The bookkeeping of the fallback, as `cc/batch_ledger.h`."""

import collections
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from dynamic_batching import fallback_checks
from dynamic_batching.structures import Options, Statistics

# Called once, without the lock, with the answer or the error. The callers of a
# batch share the error, so whoever raises it makes a copy.
Reply = Callable[[Any, tf.errors.OpError | None], None]

# Tells somebody who waits elsewhere to come and look; called without the lock.
Ring = Callable[[], None]


class Call:
  """Some rows that wait, or that are being served."""

  def __init__(self, inputs: list[tf.Tensor], reply: Reply):
    self.inputs = inputs
    self.rows = int(inputs[0].shape[0])
    self.signature = [(x.dtype, x.shape[1:]) for x in inputs]
    self.reply = reply
    self.arrival = time.monotonic()
    self.cancelled = False


class _Consumer:
  """One who waits in the ledger; compared by identity."""

  batch: tuple[int, list[Call]] | None = None


class Ledger:
  """Decides which calls form a batch, and when. Thread-safe.

  Consumers either wait here, or listen and come for the batch when they are
  rung.
  """

  def __init__(self, options: Options):
    self._options = options
    self._changed = threading.Condition()
    self._closed = False
    self._watching = False
    self._calls: collections.deque[Call] = collections.deque()
    self._serving: dict[int, list[Call]] = {}
    self._consumers: collections.deque[_Consumer] = collections.deque()
    self._rings: list[Ring] = []
    self._ids = itertools.count()
    self._waiting_rows = 0
    self._served_calls = 0
    self._wait_ms = 0.0
    self._batch_sizes: collections.Counter[int] = collections.Counter()

  def enqueue(self, call: Call) -> None:
    rings = []
    with self._changed:
      if self._closed:
        raise fallback_checks.closed_error()
      if self._calls and self._calls[0].signature != call.signature:
        raise fallback_checks.invalid_error(
          'Shapes of inputs much be equal. Shapes observed: '
          f'{self._calls[0].signature} and {call.signature}'
        )
      self._calls.append(call)
      self._waiting_rows += call.rows
      rings = self._offer()
      if len(self._calls) == 1:
        # There is a deadline now.
        self._changed.notify_all()
    for ring in rings:
      ring()

  def cancel(self, call: Call) -> None:
    with self._changed:
      call.cancelled = True
      if call in self._calls:
        self._calls.remove(call)
        self._waiting_rows -= call.rows

  def wait(self) -> tuple[int, list[Call]]:
    """Waits for a batch and takes it: its id and its calls."""
    consumer = _Consumer()
    rings: list[Ring] = []
    try:
      with self._changed:
        if self._closed:
          raise fallback_checks.closed_error()
        self._consumers.append(consumer)
        try:
          self._match()
          while consumer.batch is None:
            self._changed.wait(self._seconds_left())
            self._match()
        except BaseException:
          if consumer in self._consumers:
            self._consumers.remove(consumer)
          elif consumer.batch is not None:
            rings = self._put_back(*consumer.batch)
          raise
        return consumer.batch
    finally:
      for ring in rings:
        ring()

  def listen(self, ring: Ring) -> None:
    """Has this rung whenever a batch is ready, until one is taken for it."""
    with self._changed:
      if self._closed:
        raise fallback_checks.closed_error()
      self._rings.append(ring)
      self._watch_deadline()
      # Asked last: what is due by now nobody watches any more.
      ready = self._ready()
    if ready:
      ring()

  def take(self, ring: Ring) -> tuple[int, list[Call]] | None:
    """Takes a batch for one who listens, unless somebody else was faster."""
    with self._changed:
      if not self._ready():
        return None
      self._rings.remove(ring)
      return self._take_batch()

  def finish(
    self, computation_id: tf.Tensor | int, rows: int | None = None
  ) -> list[Call]:
    """Hands over a batch that is being served, if it has these rows."""
    number = fallback_checks.scalar('computation_id', computation_id)
    with self._changed:
      if self._closed:
        raise fallback_checks.closed_error()
      if number not in self._serving:
        raise fallback_checks.invalid_error(
          f'Invalid computation id. Id: {number}'
        )
      expected = self._options.padded(
        sum(call.rows for call in self._serving[number])
      )
      if rows is not None and rows != expected:
        raise fallback_checks.invalid_error(
          'Output shape must have the same batch dimension as the input batch '
          f'size. Expected: {expected} Observed: {rows}'
        )
      return self._serving.pop(number)

  def close(self) -> None:
    with self._changed:
      self._closed = True
      calls = list(itertools.chain(self._calls, *self._serving.values()))
      rings = list(self._rings)
      self._calls.clear()
      self._consumers.clear()
      self._rings.clear()
      self._serving.clear()
      self._waiting_rows = 0
      self._changed.notify_all()
    reply_with_error(calls, fallback_checks.closed_error())
    for ring in rings:
      ring()

  def closed(self) -> bool:
    with self._changed:
      return self._closed

  def statistics(self) -> Statistics:
    with self._changed:
      sizes = dict(sorted(self._batch_sizes.items()))
      return Statistics(
        waiting_calls=len(self._calls),
        waiting_rows=self._waiting_rows,
        batches=sum(sizes.values()),
        calls=self._served_calls,
        rows=sum(rows * batches for rows, batches in sizes.items()),
        batch_sizes=sizes,
        mean_wait_ms=self._wait_ms / max(1, self._served_calls),
      )

  def _seconds_left(self) -> float | None:
    """Returns the time until the batch that waits is due; None if never."""
    if not self._calls or self._options.timeout_ms is None:
      return None
    deadline = self._calls[0].arrival + self._options.timeout_ms / 1000
    return deadline - time.monotonic()

  def _ready(self) -> bool:
    if self._closed:
      raise fallback_checks.closed_error()
    if not self._calls:
      return False
    if self._waiting_rows >= self._options.minimum_batch_size:
      return True
    left = self._seconds_left()
    return left is not None and left <= 0

  def _match(self) -> None:
    """Gives those who wait here their batches as soon as they are ready."""
    while self._ready() and self._consumers:
      self._consumers.popleft().batch = self._take_batch()
      self._changed.notify_all()

  def _offer(self) -> list[Ring]:
    """Gives calls that came to whoever waits; returns whom to ring."""
    self._match()
    self._watch_deadline()
    return list(self._rings) if self._ready() else []

  def _put_back(self, computation_id: int, calls: list[Call]) -> list[Ring]:
    """Undoes `_take_batch`, but not its statistics, after an interrupt.

    Returns whom to ring: somebody else has to come for the batch.
    """
    if self._serving.pop(computation_id, None) is None:
      return []
    self._calls.extendleft(reversed(calls))
    self._waiting_rows += sum(call.rows for call in calls)
    return self._offer()

  def _take_batch(self) -> tuple[int, list[Call]]:
    now = time.monotonic()
    calls: list[Call] = []
    rows = 0
    while (
      self._calls
      and rows + self._calls[0].rows <= self._options.maximum_batch_size
    ):
      call = self._calls.popleft()
      rows += call.rows
      self._wait_ms += 1000 * (now - call.arrival)
      calls.append(call)
    self._waiting_rows -= rows
    self._served_calls += len(calls)
    self._batch_sizes[rows] += 1
    computation_id = next(self._ids)
    self._serving[computation_id] = calls
    self._watch_deadline()
    return computation_id, calls

  def _watch_deadline(self) -> None:
    """Has the graphs rung in time; those who wait in Python see to themselves.

    The thread ends when there is nothing to wait for: it would keep the batcher
    alive.
    """
    if (
      self._rings
      and not self._watching
      and self._seconds_left() is not None
      and not self._ready()
    ):
      self._watching = True
      threading.Thread(
        target=self._watch, name='dynamic_batching_deadline', daemon=True
      ).start()

  def _watch(self) -> None:
    with self._changed:
      try:
        while self._rings and self._calls and not self._ready():
          self._changed.wait(self._seconds_left())
        rings = list(self._rings) if self._calls else []
      except tf.errors.CancelledError:
        return
      finally:
        self._watching = False
    for ring in rings:
      ring()


def reply_with_error(calls: list[Call], error: tf.errors.OpError) -> None:
  for call in calls:
    if not call.cancelled:
      call.reply(None, error)
