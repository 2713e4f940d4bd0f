"""What graphs wait for: nodes without an order, and calls into Python.

TensorFlow has few threads to run the ops of all graphs, and a Python function
that blocked one of them could wait for ever for another graph that needs it.
So the graph waits in a queue op, which holds no thread.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

# Returns the values of an answer, or None if there is none yet.
Poll = Callable[[], list[tf.Tensor] | None]

# Nobody takes the ticket of a graph that is cancelled, so its owner has to go
# first.
Tickets = dict[int, '_Ticket']

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


def add_unordered(
  name: str, inputs: Sequence[tf.Tensor], **types: list[tf.DType]
) -> list[tf.Tensor]:
  """Adds a node that uses a resource in no order with other such nodes.

  A `tf.function` runs the uses of one resource one by one, unless they are
  marked as reads. Nodes that wait for each other would wait for ever. The mark
  also holds for functions that are called in functions.

  Args:
    name: Of the op. It runs even if nobody needs its outputs.
    inputs: Tensors, the first of them the resource.
    **types: Its attributes.

  Returns:
    The symbolic outputs.
  """
  # Both the graph and the type of an attribute are had publicly only through
  # something that has them.
  attributes = tf.Graph().as_graph_def().node.add().attr
  attributes['_read_only_resource_inputs'].list.i.append(0)
  for key, value in types.items():
    attributes[key].list.type.extend(x.as_datatype_enum for x in value)
  graph = tf.no_op().graph
  with tf.device('cpu'):
    return graph.create_op(name, list(inputs), attrs=dict(attributes)).outputs


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
  """Adds nodes that start a function and wait until there is an answer.

  Attributes:
    values: The symbolic tensors of the answer.
  """

  def __init__(
    self,
    tickets: Tickets,
    start: Callable[[list[tf.Tensor], Callable[[], None]], Poll],
    inputs: Sequence[tf.Tensor],
    types: Sequence[tf.DType],
  ):
    """Adds the nodes.

    Args:
      tickets: Of the owner of `start`.
      start: Gets eager tensors and a function that rings. Returns what is asked
        for the answer after each ring, until it has one or raises; if the graph
        was cancelled, it is not asked again.
      inputs: Symbolic tensors.
      types: Types of the values.
    """
    # Stateful nodes run one by one, so the first must not block. The others
    # have a resource of their own, the queue, and so an order of their own.
    ticket, handle = tf.py_function(
      lambda *args: _begin(tickets, start, list(args)),
      inputs,
      [tf.int64, tf.resource],
    )

    def poll_at_ring(_: tf.Tensor) -> list[tf.Tensor]:
      (rung,) = tf.raw_ops.QueueDequeueV2(
        handle=handle, component_types=[tf.bool]
      )
      answered = tf.py_function(
        lambda ticket, _: _poll(tickets, ticket), [ticket, rung], tf.bool
      )
      return [tf.ensure_shape(answered, [])]

    (answered,) = tf.while_loop(
      tf.logical_not, poll_at_ring, [tf.constant(False)], parallel_iterations=1
    )
    self.values = tf.py_function(
      lambda ticket, *_: _end(tickets, ticket),
      [ticket, answered, handle],
      list(types),
    )


class _Ticket:
  """A graph that waits."""

  def __init__(self) -> None:
    with tf.device('cpu'):
      self.rings = tf.queue.FIFOQueue(-1, [tf.bool], [[]])
    self.poll: Poll
    self.values: Any = None

  def ring(self) -> None:
    # One ring is as good as many, also for those who never hear it.
    if not self.rings.size():
      self.rings.enqueue(True)


def _begin(
  tickets: Tickets, start: Callable[..., Poll], inputs: list[tf.Tensor]
) -> tuple[int, tf.Tensor]:
  number = next(_numbers)
  tickets[number] = ticket = _Ticket()
  with _Forgotten(tickets, number):
    ticket.poll = start(inputs, ticket.ring)
  return number, ticket.rings.queue_ref


def _poll(tickets: Tickets, number: tf.Tensor) -> bool:
  ticket = tickets[int(number)]
  with _Forgotten(tickets, int(number)):
    ticket.values = ticket.poll()
  return ticket.values is not None


def _end(tickets: Tickets, number: tf.Tensor) -> list[tf.Tensor]:
  return tickets.pop(int(number)).values


class _Translated:
  """Makes errors keep their code where `tf.py_function` knows how."""

  def __enter__(self) -> None:
    pass

  def __exit__(self, _: Any, error: Any, __: Any) -> None:
    if isinstance(error, tf.errors.InvalidArgumentError):
      raise ValueError(error.message) from None


class _Forgotten(_Translated):
  """Drops a ticket at an error."""

  def __init__(self, tickets: Tickets, number: int):
    self._tickets = tickets
    self._number = number

  def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
    if error is not None:
      del self._tickets[self._number]
    super().__exit__(kind, error, traceback)
