"""The batcher in pure Python, for where the native ops cannot be built.

The semantics are those of `cc/batch_ledger.h`, with two limits: inside a
`tf.function` a cancelled call is computed nevertheless, and errors arrive there
as InvalidArgumentError or else UnknownError, with the right message.
"""

import collections
import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from dynamic_batching import fallback_checks, graph_calls
from dynamic_batching.structures import Options, Statistics

# Called once, without the lock, with the answer or the error. The callers of a
# batch share the error, so whoever raises it makes a copy.
Reply = Callable[[Any, tf.errors.OpError | None], None]


class _Call:
  """Some rows that wait, or that are being served."""

  def __init__(self, inputs: list[tf.Tensor], reply: Reply):
    self.inputs = inputs
    self.rows = int(inputs[0].shape[0])
    self.signature = [(x.dtype, x.shape[1:]) for x in inputs]
    self.reply = reply
    self.arrival = time.monotonic()
    self.cancelled = False


class PythonBatcher:
  """Drop-in for `ops.NativeBatcher`."""

  implementation = 'fallback'

  def __init__(
    self,
    options: Options,
    input_specs: Sequence[tf.TensorSpec],
    output_specs: Sequence[tf.TensorSpec],
  ):
    self._options = options
    self._input_specs = list(input_specs)
    self._output_specs = list(output_specs)
    self._changed = threading.Condition()
    self._closed = False
    self._watching = False
    self._calls: collections.deque[_Call] = collections.deque()
    self._serving: dict[int, list[_Call]] = {}
    self._ids = itertools.count()
    self._waiting_rows = 0
    self._served_calls = 0
    self._wait_ms = 0.0
    self._batch_sizes: collections.Counter[int] = collections.Counter()
    # The graphs that wait for a batch come for it when they are rung.
    self._rings: list[Callable[[], None]] = []
    self._tickets: graph_calls.Tickets = {}
    # Graphs know the batcher by this resource.
    with tf.device('cpu'):
      self._resource = tf.queue.FIFOQueue(1, [tf.bool], [[]])

  # The interface shared with the native ops.

  def compute(self, inputs: list[tf.Tensor]) -> list[tf.Tensor]:
    if not tf.executing_eagerly():
      types = [spec.dtype for spec in self._output_specs]
      return self._wait_in_graph(self._start_call, inputs, types)
    return self._wait_for_answer(inputs)

  def get_inputs(self) -> tuple[list[tf.Tensor], tf.Tensor]:
    if not tf.executing_eagerly():
      types = [spec.dtype for spec in self._input_specs]
      flat = self._wait_in_graph(self._start_consumer, [], [*types, tf.int64])
    else:
      flat = self._wait_for_batch()
    return flat[:-1], flat[-1]

  def set_outputs(
    self, outputs: list[tf.Tensor], computation_id: tf.Tensor
  ) -> None:
    if not tf.executing_eagerly():
      graph_calls.Run(
        lambda *args: self.set_outputs(list(args[:-1]), args[-1]),
        [*outputs, computation_id],
      )
      return
    rows = fallback_checks.check_outputs(outputs, self._output_specs)
    calls = self._finish(computation_id, rows)
    try:
      sizes = [call.rows for call in calls]
      columns = [
        [x] if len(calls) == 1 else tf.split(x, sizes) for x in outputs
      ]
    except Exception as error:
      _reply_with_error(calls, tf.errors.UnknownError(None, None, str(error)))
      raise
    for call, *values in zip(calls, *columns, strict=True):
      if not call.cancelled:
        call.reply(values, None)

  def set_error(
    self, computation_id: tf.Tensor, code: int, message: str
  ) -> None:
    if not tf.executing_eagerly():
      graph_calls.Run(
        lambda i: self.set_error(i, code, message), [computation_id]
      )
      return
    error = graph_calls.error_type(code)(None, None, message)
    _reply_with_error(self._finish(computation_id), error)

  def close(self) -> None:
    if not tf.executing_eagerly():
      # Unlike what waits, it writes: after all that the graph did before.
      with tf.control_dependencies([self._resource.size()]):
        graph_calls.Run(self.close, [])
      return
    with self._changed:
      self._closed = True
      calls = list(itertools.chain(self._calls, *self._serving.values()))
      rings = list(self._rings)
      self._calls.clear()
      self._rings.clear()
      self._serving.clear()
      self._waiting_rows = 0
      self._changed.notify_all()
    _reply_with_error(calls, fallback_checks.closed_error())
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

  # How calls and consumers wait.

  def _wait_for_answer(self, inputs: list[tf.Tensor]) -> list[tf.Tensor]:
    answers: list[Any] = []
    answered = threading.Lock()
    answered.acquire()

    def reply(values: Any, error: tf.errors.OpError | None) -> None:
      answers.append((values, error))
      answered.release()

    call = self._enqueue(inputs, reply)
    try:
      answered.acquire()
    except BaseException:
      self._cancel(call)
      raise
    return _values(*answers[0])

  def _wait_for_batch(self) -> list[tf.Tensor]:
    with self._changed:
      while not self._ready():
        self._changed.wait(self._seconds_left())
      batch = self._take_batch()
    return self._join(*batch)

  def _wait_in_graph(
    self,
    start: Callable[..., graph_calls.Poll],
    inputs: list[tf.Tensor],
    types: list[tf.DType],
  ) -> list[tf.Tensor]:
    values = graph_calls.Wait(self._tickets, start, inputs, types).values
    with tf.control_dependencies(values):
      graph_calls.add_unordered('QueueSizeV2', [self._resource.queue_ref])
    return values

  def _start_call(
    self, inputs: list[tf.Tensor], ring: Callable[[], None]
  ) -> graph_calls.Poll:
    answers: list[Any] = []

    def reply(values: Any, error: tf.errors.OpError | None) -> None:
      answers.append((values, error))
      ring()

    self._enqueue(inputs, reply)
    return lambda: _values(*answers[0]) if answers else None

  def _start_consumer(
    self, _: list[tf.Tensor], ring: Callable[[], None]
  ) -> graph_calls.Poll:
    def poll() -> list[tf.Tensor] | None:
      with self._changed:
        if not self._ready():
          return None
        self._rings.remove(ring)
        batch = self._take_batch()
      return self._join(*batch)

    with self._changed:
      ready = self._ready()
      self._rings.append(ring)
      self._watch_deadline()
    if ready:
      ring()
    return poll

  # The ledger.

  def _enqueue(self, inputs: list[tf.Tensor], reply: Reply) -> _Call:
    fallback_checks.check_inputs(
      inputs, self._input_specs, self._options.maximum_batch_size
    )
    call = _Call(inputs, reply)
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
      if self._ready():
        rings = list(self._rings)
      if rings or self._ready() or len(self._calls) == 1:
        self._changed.notify_all()
      self._watch_deadline()
    for ring in rings:
      ring()
    return call

  def _cancel(self, call: _Call) -> None:
    with self._changed:
      call.cancelled = True
      if call in self._calls:
        self._calls.remove(call)
        self._waiting_rows -= call.rows

  def _finish(
    self, computation_id: tf.Tensor, rows: int | None = None
  ) -> list[_Call]:
    """Takes a batch that is being served, if it has these rows."""
    number = fallback_checks.scalar('computation_id', computation_id)
    with self._changed:
      if self._closed:
        raise fallback_checks.closed_error()
      if number not in self._serving:
        raise fallback_checks.invalid_error(
          f'Invalid computation id. Id: {number}'
        )
      expected = sum(call.rows for call in self._serving[number])
      if rows is not None and rows != expected:
        raise fallback_checks.invalid_error(
          'Output shape must have the same batch dimension as the input batch '
          f'size. Expected: {expected} Observed: {rows}'
        )
      return self._serving.pop(number)

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

  def _take_batch(self) -> tuple[int, list[_Call]]:
    now = time.monotonic()
    calls: list[_Call] = []
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

  def _join(self, computation_id: int, calls: list[_Call]) -> list[tf.Tensor]:
    try:
      inputs = calls[0].inputs
      if len(calls) > 1:
        columns = zip(*(call.inputs for call in calls), strict=True)
        inputs = [tf.concat(column, axis=0) for column in columns]
      number = tf.constant(computation_id, tf.int64)
    except BaseException as error:
      # Nobody will ever learn the id of this batch.
      with contextlib.suppress(tf.errors.CancelledError):
        failed = self._finish(computation_id)
        _reply_with_error(
          failed, tf.errors.UnknownError(None, None, str(error))
        )
      raise
    for call in calls:
      call.inputs = []
    return [*inputs, number]

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


def _values(values: Any, error: tf.errors.OpError | None) -> list[tf.Tensor]:
  if error is not None:
    raise type(error)(None, None, error.message)
  return values


def _reply_with_error(calls: list[_Call], error: tf.errors.OpError) -> None:
  for call in calls:
    if not call.cancelled:
      call.reply(None, error)
