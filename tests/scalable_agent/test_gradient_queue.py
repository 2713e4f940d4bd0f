"""The queue of gradients: the oldest first, and none after its end."""

import pytest

from scalable_agent import gradient_queue, queues
from tests.waiting import DEADLINE_S, in_thread


def make_computed(version):
  return gradient_queue.Computed((), version, ())


def test_the_oldest_come_first():
  queue = gradient_queue.GradientQueue(2)
  for version in range(3):
    queue.put(make_computed(version))
  assert len(queue) == 3
  assert [queue.get().policy_version for _ in range(3)] == [0, 1, 2]
  # Found at 3, 2 and 1 of 2, and never fuller than full.
  assert queue.fill() == pytest.approx((1 + 1 + 0.5) / 3)
  assert queue.fill() == 0


def test_who_waits_is_woken_by_gradients_or_by_the_end():
  queue = gradient_queue.GradientQueue(2)
  waiting = in_thread(queue.get)
  assert not waiting.done()
  queue.put(make_computed(5))
  assert waiting.result(DEADLINE_S).policy_version == 5
  waiting = in_thread(queue.get)
  queue.close()
  with pytest.raises(queues.Closed):
    waiting.result(DEADLINE_S)


def test_after_the_end_nothing_is_taken_or_given():
  queue = gradient_queue.GradientQueue(2)
  queue.put(make_computed(0))
  queue.close()
  for call in (queue.get, lambda: queue.put(make_computed(1))):
    with pytest.raises(queues.Closed):
      call()
