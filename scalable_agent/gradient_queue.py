"""A queue in which gradients wait until the learner applies them."""

import collections
from typing import NamedTuple

from scalable_agent import gradients, queues, structures


class Computed(NamedTuple):
  """What an actor has made of an unroll.

  Attributes:
    gradients: of numpy arrays.
    policy_version: learner updates that their weights had seen.
    unroll: that they are of, with no more than reports need.
  """

  gradients: gradients.Gradients
  policy_version: int
  unroll: structures.ActorOutput


class GradientQueue(queues.ClosableQueue):
  """Gradients in, the oldest first out.

  `put` blocks while `capacity` of them wait, which is what slows actors down to
  the pace of the learner.
  """

  def __init__(self, capacity: int):
    """Initialises an empty queue.

    Args:
      capacity: sets of gradients that may wait.
    """
    super().__init__(capacity)
    self._waiting: collections.deque[Computed] = collections.deque()
    self._num_put = self._num_got = 0

  def __len__(self) -> int:
    with self._condition:
      return len(self._waiting)

  def put(self, computed: Computed) -> None:
    """Adds gradients, and waits until there is room; raises queues.Closed.

    They may be applied at once: in the order in which they came.
    """
    with self._condition:
      self._check_open()
      self._waiting.append(computed)
      self._condition.notify_all()
      self._num_put += 1
      last = self._num_put - self._capacity
      self._condition.wait_for(lambda: self._closed or self._num_got >= last)
      self._check_open()

  def get(self) -> Computed:
    """Returns the oldest gradients; blocks until there are some.

    Raises:
      queues.Closed: the queue is closed.
    """
    with self._condition:
      self._note_fill(len(self._waiting))
      self._condition.wait_for(lambda: self._closed or self._waiting)
      self._check_open()
      self._num_got += 1
      self._condition.notify_all()
      return self._waiting.popleft()
