"""The queue of gradients: the oldest first, and none after its end."""

import pytest

from scalable_agent import gradient_queue, queues
from tests.waiting import DEADLINE_S, in_thread, wait_until


def make_computed(version):
  return gradient_queue.Computed((), version, ())


class Queue(gradient_queue.GradientQueue):
  """One that tells who has come.

  Attributes:
    puts: calls of `put` so far.
  """

  def __init__(self, capacity):
    super().__init__(capacity)
    self.puts = 0

  def put(self, computed):
    self.puts += 1
    super().put(computed)


def put_in_thread(queue, version):
  """Returns a future of `put`, once it has been called."""
  puts = queue.puts
  future = in_thread(queue.put, make_computed(version))
  wait_until(lambda: queue.puts > puts)
  return future


def test_the_oldest_come_first():
  queue = Queue(3)
  for version in range(3):
    queue.put(make_computed(version))
  assert len(queue) == 3
  assert [queue.get().policy_version for _ in range(3)] == [0, 1, 2]
  assert len(queue) == 0


def test_it_tells_how_full_it_was_found():
  queue = Queue(2)
  assert queue.fill() == 0
  for version in range(2):
    queue.put(make_computed(version))
  for _ in range(2):
    queue.get()
  # Found at 2 and 1 of 2.
  assert queue.fill() == pytest.approx((1 + 0.5) / 2)
  assert queue.fill() == 0


@pytest.mark.parametrize('capacity', [1, 2, 5])
def test_put_blocks_at_capacity_until_get_makes_room(capacity):
  queue = Queue(capacity)
  assert queue.capacity == capacity
  for version in range(capacity):
    in_thread(queue.put, make_computed(version)).result(DEADLINE_S)
  blocked = put_in_thread(queue, capacity)
  assert not blocked.done()
  # It may be applied at once.
  assert len(queue) == capacity + 1
  assert queue.get().policy_version == 0
  blocked.result(DEADLINE_S)
  versions = [queue.get().policy_version for _ in range(capacity)]
  assert versions == list(range(1, capacity + 1))


def test_each_get_lets_the_one_go_that_has_waited_longest():
  queue = Queue(1)
  queue.put(make_computed(0))
  blocked = []
  for version in (1, 2, 3):
    blocked.append(put_in_thread(queue, version))
    wait_until(lambda version=version: len(queue) == version + 1)
  for index in range(3):
    assert queue.get().policy_version == index
    blocked[index].result(DEADLINE_S)
    assert not any(one.done() for one in blocked[index + 1 :])
  assert queue.get().policy_version == 3
  assert len(queue) == 0


def test_of_many_threads_nothing_is_lost_and_each_ones_stay_in_order():
  queue = Queue(2)
  count = 50

  def put(actor):
    for index in range(count):
      queue.put(make_computed(1000 * actor + index))

  actors = [in_thread(put, actor) for actor in range(4)]
  seen = {actor: [] for actor in range(4)}
  for _ in range(4 * count):
    actor, index = divmod(
      in_thread(queue.get).result(DEADLINE_S).policy_version, 1000
    )
    seen[actor].append(index)
  for actor in actors:
    actor.result(DEADLINE_S)
  assert list(seen.values()) == [list(range(count))] * 4


def test_who_waits_is_woken_by_gradients_or_by_the_end():
  queue = Queue(2)
  waiting = in_thread(queue.get)
  assert not waiting.done()
  queue.put(make_computed(5))
  assert waiting.result(DEADLINE_S).policy_version == 5
  waiting = in_thread(queue.get)
  queue.close()
  with pytest.raises(queues.Closed):
    waiting.result(DEADLINE_S)


def test_who_waits_for_room_is_woken_by_the_end():
  queue = Queue(1)
  queue.put(make_computed(0))
  blocked = [put_in_thread(queue, 1) for _ in range(3)]
  queue.close()
  for future in blocked:
    with pytest.raises(queues.Closed, match='is closed'):
      future.result(DEADLINE_S)


def test_after_the_end_nothing_is_taken_or_given():
  queue = Queue(2)
  queue.put(make_computed(0))
  queue.close()
  for call in (queue.get, lambda: queue.put(make_computed(1))):
    with pytest.raises(queues.Closed):
      call()
