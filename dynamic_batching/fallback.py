"""The batcher in pure Python, for where the native ops cannot be built.

The semantics are those of the native ops, with three limits inside a
`tf.function`: a cancelled call is computed nevertheless, calls may still join
the batch that a graph was told of but has not taken yet, and errors arrive as
InvalidArgumentError or else UnknownError, with the right message.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from dynamic_batching import fallback_checks, fallback_ledger, graph_calls
from dynamic_batching.structures import Options, Statistics


class PythonBatcher:
  """Drop-in for `ops.NativeBatcher`."""

  implementation = 'fallback'
  takes_arrays = False

  def __init__(
    self,
    options: Options,
    input_specs: Sequence[tf.TensorSpec],
    output_specs: Sequence[tf.TensorSpec],
  ):
    self._options = options
    self._input_specs = list(input_specs)
    self._output_specs = list(output_specs)
    self._ledger = fallback_ledger.Ledger(options)
    self._tickets: graph_calls.Tickets = {}
    # Graphs know the batcher by this resource.
    with tf.device('cpu'):
      self._resource = tf.queue.FIFOQueue(1, [tf.bool], [[]])

  # The interface shared with the native ops.

  def compute_in_graph(self, inputs: list[tf.Tensor]) -> list[tf.Tensor]:
    types = [spec.dtype for spec in self._output_specs]
    return self._wait_in_graph(self._start_call, inputs, types)

  def compute(self, inputs: list[tf.Tensor]) -> list[tf.Tensor]:
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
      self._ledger.cancel(call)
      raise
    return _values(*answers[0])

  def get_inputs(self) -> tuple[list[tf.Tensor], tf.Tensor]:
    if not tf.executing_eagerly():
      types = [spec.dtype for spec in self._input_specs]
      flat = self._wait_in_graph(self._start_consumer, [], [*types, tf.int64])
    else:
      flat = self._join(*self._ledger.wait())
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
    calls = self._ledger.finish(computation_id, rows)
    try:
      sizes = [call.rows for call in calls]
      if padding := rows - sum(sizes):
        sizes.append(padding)
      columns = [
        [x] if len(sizes) == 1 else tf.split(x, sizes)[: len(calls)]
        for x in outputs
      ]
    except Exception as error:
      fallback_ledger.reply_with_error(
        calls, tf.errors.UnknownError(None, None, str(error))
      )
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
    fallback_ledger.reply_with_error(self._ledger.finish(computation_id), error)

  def close(self) -> None:
    if not tf.executing_eagerly():
      # Unlike what waits, it writes: after all that the graph did before.
      with tf.control_dependencies([self._resource.size()]):
        graph_calls.Run(self.close, [])
      return
    self._ledger.close()

  def closed(self) -> bool:
    return self._ledger.closed()

  def statistics(self) -> Statistics:
    return self._ledger.statistics()

  # How calls and consumers wait.

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
      batch = self._ledger.take(ring)
      return None if batch is None else self._join(*batch)

    self._ledger.listen(ring)
    return poll

  def _enqueue(
    self, inputs: list[tf.Tensor], reply: fallback_ledger.Reply
  ) -> fallback_ledger.Call:
    fallback_checks.check_inputs(
      inputs, self._input_specs, self._options.maximum_batch_size
    )
    call = fallback_ledger.Call(inputs, reply)
    self._ledger.enqueue(call)
    return call

  def _join(
    self, computation_id: int, calls: list[fallback_ledger.Call]
  ) -> list[tf.Tensor]:
    try:
      inputs = calls[0].inputs
      if len(calls) > 1:
        columns = zip(*(call.inputs for call in calls), strict=True)
        inputs = [tf.concat(column, axis=0) for column in columns]
      rows = sum(call.rows for call in calls)
      if padding := self._options.padded(rows) - rows:
        inputs = [
          tf.concat([x, tf.repeat(x[-1:], padding, axis=0)], axis=0)
          for x in inputs
        ]
      number = tf.constant(computation_id, tf.int64)
    except BaseException as error:
      # Nobody will ever learn the id of this batch.
      with contextlib.suppress(tf.errors.CancelledError):
        failed = self._ledger.finish(computation_id)
        fallback_ledger.reply_with_error(
          failed, tf.errors.UnknownError(None, None, str(error))
        )
      raise
    for call in calls:
      call.inputs = []
    return [*inputs, number]


def _values(values: Any, error: tf.errors.OpError | None) -> list[tf.Tensor]:
  if error is not None:
    raise type(error)(None, None, error.message)
  return values
