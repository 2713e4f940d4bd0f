"""The batcher in pure Python, for where the native ops cannot be built.

The semantics are those of `cc/batch_ledger.h`, with two limits: inside a
`tf.function` a cancelled call is computed nevertheless, and errors arrive there
as InvalidArgumentError or else UnknownError, with the right message.
"""

import collections
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
    self._consumers: collections.deque[Reply] = collections.deque()
    self._serving: dict[int, list[_Call]] = {}
    self._tickets: graph_calls.Tickets = {}
    self._ids = itertools.count()
    self._waiting_rows = 0
    self._served_calls = 0
    self._wait_ms = 0.0
    self._batch_sizes: collections.Counter[int] = collections.Counter()

  # The interface shared with the native ops.

  def compute(self, inputs: list[tf.Tensor]) -> list[tf.Tensor]:
    if not tf.executing_eagerly():
      types = [spec.dtype for spec in self._output_specs]
      return graph_calls.Wait(
        self._tickets, self._enqueue, inputs, types
      ).values
    return _wait(lambda reply: self._enqueue(inputs, reply), self._cancel_call)

  def get_inputs(self) -> tuple[list[tf.Tensor], tf.Tensor]:
    if not tf.executing_eagerly():
      types = [spec.dtype for spec in self._input_specs]
      flat = graph_calls.Wait(
        self._tickets,
        lambda _, reply: self._await_batch(reply),
        [],
        [*types, tf.int64],
      ).values
    else:
      flat = _wait(self._await_batch, self._cancel_consumer)
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
    computation_id = int(computation_id)
    with self._changed:
      calls = self._serving_calls(computation_id)
    fallback_checks.check_outputs(outputs, sum(call.rows for call in calls))
    with self._changed:
      self._serving_calls(computation_id)
      del self._serving[computation_id]
    error = fallback_checks.type_error(outputs, self._output_specs)
    start = 0
    for call in calls:
      rows = slice(start, start + call.rows)
      start += call.rows
      if call.cancelled:
        continue
      if error:
        call.reply(None, error)
      else:
        one = len(calls) == 1
        call.reply(outputs if one else [x[rows] for x in outputs], None)

  def set_error(
    self, computation_id: tf.Tensor, code: int, message: str
  ) -> None:
    if not tf.executing_eagerly():
      graph_calls.Run(
        lambda i: self.set_error(i, code, message), [computation_id]
      )
      return
    with self._changed:
      calls = self._serving_calls(int(computation_id))
      del self._serving[int(computation_id)]
    error = graph_calls.error_type(code)(None, None, message)
    for call in calls:
      if not call.cancelled:
        call.reply(None, error)

  def close(self) -> None:
    if not tf.executing_eagerly():
      graph_calls.Run(self.close, [])
      return
    with self._changed:
      self._closed = True
      calls = list(itertools.chain(self._calls, *self._serving.values()))
      consumers = list(self._consumers)
      self._calls.clear()
      self._consumers.clear()
      self._serving.clear()
      self._waiting_rows = 0
      self._changed.notify_all()
    for call in calls:
      if not call.cancelled:
        call.reply(None, fallback_checks.closed_error())
    for consumer in consumers:
      consumer(None, fallback_checks.closed_error())

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

  # The ledger.

  def _enqueue(self, inputs: list[tf.Tensor], reply: Reply) -> _Call:
    fallback_checks.check_inputs(
      inputs, self._input_specs, self._options.maximum_batch_size
    )
    call = _Call(inputs, reply)
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
      matches = self._match()
    self._deliver(matches)
    return call

  def _await_batch(self, reply: Reply) -> Reply:
    with self._changed:
      if self._closed:
        raise fallback_checks.closed_error()
      self._consumers.append(reply)
      matches = self._match()
    self._deliver(matches)
    return reply

  def _cancel_call(self, call: _Call) -> None:
    with self._changed:
      call.cancelled = True
      if call in self._calls:
        self._calls.remove(call)
        self._waiting_rows -= call.rows

  def _cancel_consumer(self, reply: Reply) -> None:
    with self._changed:
      if reply in self._consumers:
        self._consumers.remove(reply)

  def _serving_calls(self, computation_id: int) -> list[_Call]:
    if self._closed:
      raise fallback_checks.closed_error()
    if computation_id not in self._serving:
      raise fallback_checks.invalid_error(
        f'Invalid computation id. Id: {computation_id}'
      )
    return self._serving[computation_id]

  def _deadline(self) -> float:
    if self._options.timeout_ms is None:
      return float('inf')
    return self._calls[0].arrival + self._options.timeout_ms / 1000

  def _ready(self) -> bool:
    return bool(self._calls) and (
      self._waiting_rows >= self._options.minimum_batch_size
      or time.monotonic() >= self._deadline()
    )

  def _match(self) -> list[tuple[Reply, int, list[_Call]]]:
    matches = []
    while self._consumers and self._ready():
      computation_id = next(self._ids)
      self._serving[computation_id] = calls = self._take_batch()
      matches.append((self._consumers.popleft(), computation_id, calls))
    if (
      self._options.timeout_ms
      and self._consumers
      and self._calls
      and not self._watching
    ):
      self._watching = True
      threading.Thread(
        target=self._watch, name='dynamic_batching_deadline', daemon=True
      ).start()
    return matches

  def _take_batch(self) -> list[_Call]:
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
    return calls

  def _deliver(self, matches: list[tuple[Reply, int, list[_Call]]]) -> None:
    for reply, computation_id, calls in matches:
      inputs = calls[0].inputs
      if len(calls) > 1:
        columns = zip(*(call.inputs for call in calls), strict=True)
        inputs = [tf.concat(column, axis=0) for column in columns]
      for call in calls:
        call.inputs = []
      reply([*inputs, tf.constant(computation_id, tf.int64)], None)

  def _watch(self) -> None:
    """Serves the batches whose deadline passes, in a thread of its own.

    It ends when there is no deadline left: a thread that waited for the next
    one would keep the batcher alive.
    """
    while True:
      with self._changed:
        if not (self._consumers and self._calls):
          self._watching = False
          return
        if not self._ready():
          self._changed.wait(self._deadline() - time.monotonic())
        matches = self._match()
      self._deliver(matches)


def _wait(start: Callable[[Reply], Any], cancel: Callable[[Any], None]) -> Any:
  """Blocks until the reply; KeyboardInterrupt cancels."""
  answers = []
  answered = threading.Lock()
  answered.acquire()

  def reply(values: Any, error: tf.errors.OpError | None) -> None:
    answers.append((values, error))
    answered.release()

  pending = start(reply)
  try:
    answered.acquire()
  except BaseException:
    cancel(pending)
    raise
  values, error = answers[0]
  if error is not None:
    raise type(error)(None, None, error.message)
  return values
