"""Lets graphs call asynchronous Python functions without blocking a thread.

TensorFlow has few threads to run the ops of all graphs, and a Python function
that blocked one of them could wait for ever for another graph that needs it.
So the graph waits in a queue op, which holds no thread.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

# Ticket -> [queue that gets one element with the answer, values, error]. Nobody
# claims the ticket of a graph that is cancelled, so its owner has to go first.
Tickets = dict[int, list[Any]]

_numbers = itertools.count()


def error_type(code: int) -> type[tf.errors.OpError]:
  """Returns the exception class of a canonical error code."""
  codes = {}
  for name in dir(tf.errors):
    value = getattr(tf.errors, name)
    # Only subclasses with a constructor of their own stand for one code.
    if (
      isinstance(value, type)
      and issubclass(value, tf.errors.OpError)
      and value is not tf.errors.OpError
      and '__init__' in vars(value)
    ):
      codes[value(None, None, '').error_code] = value
  return codes.get(code, tf.errors.UnknownError)


class Run:
  """Adds a node that calls a function which does not block.

  These are classes because AutoGraph, which would convert the functions that a
  `tf.function` calls, leaves constructors alone.
  """

  def __init__(
    self, function: Callable[..., None], inputs: Sequence[tf.Tensor]
  ):
    """Adds the node.

    Args:
      function: Gets eager tensors.
      inputs: Symbolic tensors.
    """

    def translated(*args: tf.Tensor) -> None:
      with _Translated():
        function(*args)

    tf.py_function(translated, inputs, [])


class Wait:
  """Adds nodes that start a function and wait for its reply.

  Attributes:
    values: The symbolic tensors of the reply.
  """

  def __init__(
    self,
    tickets: Tickets,
    start: Callable[[list[tf.Tensor], Callable[..., None]], Any],
    inputs: Sequence[tf.Tensor],
    types: Sequence[tf.DType],
  ):
    """Adds the nodes.

    Args:
      tickets: Of the owner of `start`.
      start: Gets eager tensors and a reply function, which it has called, now
        or later, with a list of values or with an error.
      inputs: Symbolic tensors.
      types: Types of the values.
    """
    ticket, handle = tf.py_function(
      lambda *args: _begin(tickets, start, list(args)),
      inputs,
      [tf.int64, tf.resource],
    )
    (answered,) = tf.raw_ops.QueueDequeueV2(
      handle=handle, component_types=[tf.bool]
    )
    self.values = tf.py_function(
      lambda *args: _end(tickets, *args), [ticket, answered], list(types)
    )


def _begin(
  tickets: Tickets, start: Callable[..., Any], inputs: list[tf.Tensor]
) -> tuple[int, tf.Tensor]:
  ticket = next(_numbers)
  with tf.device('cpu'):
    queue = tf.queue.FIFOQueue(1, [tf.bool], [[]])
  tickets[ticket] = entry = [queue, None, None]

  def reply(values: Any, error: tf.errors.OpError | None) -> None:
    entry[1:] = [values, error]
    queue.enqueue(True)

  try:
    with _Translated():
      start(inputs, reply)
  except BaseException:
    del tickets[ticket]
    raise
  return ticket, queue.queue_ref


def _end(tickets: Tickets, ticket: tf.Tensor, _: tf.Tensor) -> list[tf.Tensor]:
  _, values, error = tickets.pop(int(ticket))
  with _Translated():
    if error is not None:
      raise error
  return values


class _Translated:
  """Makes errors keep their code where `tf.py_function` knows how."""

  def __enter__(self) -> None:
    pass

  def __exit__(self, _: Any, error: Any, __: Any) -> None:
    if isinstance(error, tf.errors.InvalidArgumentError):
      raise ValueError(error.message) from None
