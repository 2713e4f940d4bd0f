"""The unroll queue: columns in turns, back-pressure, closing, restoring."""

import concurrent.futures
import itertools

import numpy as np
import pytest
import tree

from scalable_agent import queues, structures, unroll_queue
from tests.waiting import DEADLINE_S, in_thread, wait_until

LENGTH = 4  # T + 1


def make_unroll(first_column, num_columns):
  """An unroll in which every number tells its column and time."""
  columns = np.arange(first_column, first_column + num_columns)
  timed = columns + 1000 * np.arange(LENGTH)[:, None]  # [T + 1, E]
  image = np.broadcast_to(timed[..., None, None], (*timed.shape, 2, 3))
  return structures.ActorOutput(
    agent_state={'core': (columns[:, None] * np.ones([1, 5]), columns)},
    env_outputs=structures.StepOutput(
      step_type=timed,
      reward=timed,
      discount=timed,
      observation=image,
      info=structures.EpisodeInfo(timed, timed),
    ),
    agent_outputs=structures.AgentOutput(
      action=timed,
      policy_logits=np.repeat(timed[..., None], 6, 2),
      baseline=timed,
    ),
    policy_version=columns,
    level=columns,
  )


def assert_holds_columns(batch, columns):
  """Asserts that every tensor has exactly these columns, in this order."""
  expected = [make_unroll(column, 1) for column in columns]

  def check(path, actual, *parts):
    axis = 1 if path[0] in ('env_outputs', 'agent_outputs') else 0
    np.testing.assert_array_equal(actual, np.concatenate(parts, axis))

  tree.map_structure_with_path(check, batch, *expected)


@pytest.mark.parametrize(
  ('batch_size', 'num_columns'),
  [(4, 4), (1, 5), (2, 6), (6, 2), (3, 5), (5, 3), (7, 2)],
)
def test_columns_come_out_in_the_order_they_went_in(batch_size, num_columns):
  queue = unroll_queue.UnrollQueue(batch_size, capacity=100)
  num_unrolls = 14
  for i in range(num_unrolls):
    queue.put(make_unroll(i * num_columns, num_columns))
  columns = itertools.count()
  for _ in range(num_unrolls * num_columns // batch_size):
    assert queue.ready
    batch = queue.get()
    assert_holds_columns(batch, list(itertools.islice(columns, batch_size)))
  assert not queue.ready


def test_unrolls_of_several_sizes_mix():
  queue = unroll_queue.UnrollQueue(batch_size=4, capacity=10)
  for first, size in ((0, 3), (3, 1), (4, 6), (10, 2)):
    queue.put(make_unroll(first, size))
  for start in (0, 4, 8):
    assert_holds_columns(queue.get(), range(start, start + 4))


def test_a_whole_unroll_is_handed_on_without_a_copy():
  queue = unroll_queue.UnrollQueue(batch_size=3, capacity=1)
  unroll = make_unroll(0, 3)
  queue.put(unroll)
  assert queue.get() is unroll


def test_put_blocks_at_capacity_until_get_makes_room():
  queue = unroll_queue.UnrollQueue(batch_size=2, capacity=2)
  queue.put(make_unroll(0, 2))
  queue.put(make_unroll(2, 2))
  blocked = in_thread(queue.put, make_unroll(4, 2))
  with pytest.raises(concurrent.futures.TimeoutError):
    blocked.result(timeout=0.2)
  assert queue.capacity == 2
  assert len(queue) == 3
  assert_holds_columns(queue.get(), [0, 1])
  blocked.result(timeout=DEADLINE_S)
  assert_holds_columns(queue.get(), [2, 3])
  assert_holds_columns(queue.get(), [4, 5])


def test_get_waits_for_the_last_column():
  queue = unroll_queue.UnrollQueue(batch_size=5, capacity=1)
  batch = in_thread(queue.get)
  for i in range(2):
    queue.put(make_unroll(2 * i, 2))
  wait_until(lambda: len(queue) == 0)
  assert not batch.done()
  queue.put(make_unroll(4, 2))
  assert_holds_columns(batch.result(timeout=DEADLINE_S), range(5))


def test_a_batch_larger_than_the_capacity_gets_filled():
  queue = unroll_queue.UnrollQueue(batch_size=8, capacity=1)
  batch = in_thread(queue.get)
  for i in range(4):
    queue.put(make_unroll(2 * i, 2))
  assert_holds_columns(batch.result(timeout=DEADLINE_S), range(8))


@pytest.mark.parametrize('batch_size', [2, 3, 5, 12])
def test_columns_of_each_actor_stay_in_order_and_none_is_lost(batch_size):
  num_actors, unrolls = 4, 25
  queue = unroll_queue.UnrollQueue(batch_size, capacity=2)

  def act(actor):
    for i in range(unrolls):
      queue.put(make_unroll(100_000 * actor + 3 * i, 3), actor)

  actors = [in_thread(act, i) for i in range(num_actors)]
  seen = {i: [] for i in range(num_actors)}
  for _ in range(num_actors * unrolls * 3 // batch_size):
    batch = queue.get()
    assert_holds_columns(batch, batch.level)
    for column in batch.level.tolist():
      seen[column // 100_000].append(column % 100_000)
  for actor in actors:
    actor.result(timeout=DEADLINE_S)
  assert all(s == list(range(3 * unrolls)) for s in seen.values())


def put_of_actors(queue, sizes):
  """Puts an unroll of each actor; its columns are 100 * actor and more."""
  for actor, size in enumerate(sizes):
    queue.put(make_unroll(100 * actor, size), actor)


class TestMixing:
  def test_every_batch_has_columns_of_all_actors_in_turns(self):
    queue = unroll_queue.UnrollQueue(batch_size=8, capacity=4)
    put_of_actors(queue, [8, 8, 8, 8])
    for start in (0, 2, 4, 6):
      columns = [100 * actor + start + i for actor in range(4) for i in (0, 1)]
      assert_holds_columns(queue.get(), columns)

  def test_the_oldest_give_one_more_where_it_does_not_come_out_even(self):
    queue = unroll_queue.UnrollQueue(batch_size=8, capacity=3)
    put_of_actors(queue, [8, 8, 8])
    assert_holds_columns(queue.get(), [0, 1, 2, 100, 101, 102, 200, 201])
    assert_holds_columns(queue.get(), [3, 4, 5, 103, 104, 105, 202, 203])
    assert_holds_columns(queue.get(), [6, 7, 106, 107, 204, 205, 206, 207])

  def test_who_has_little_is_stood_in_for(self):
    queue = unroll_queue.UnrollQueue(batch_size=8, capacity=3)
    put_of_actors(queue, [1, 8, 2])
    assert_holds_columns(queue.get(), [0, *range(100, 105), 200, 201])

  def test_the_next_unroll_of_an_actor_follows_the_one_before(self):
    queue = unroll_queue.UnrollQueue(batch_size=6, capacity=4)
    for first, actor in ((0, 0), (10, 0), (100, 1), (20, 0)):
      queue.put(make_unroll(first, 2), actor)
    assert_holds_columns(queue.get(), [0, 1, 10, 11, 100, 101])
    assert len(queue) == 1

  def test_of_more_actors_than_columns_the_oldest_unrolls_are_finished(self):
    queue = unroll_queue.UnrollQueue(batch_size=2, capacity=3)
    put_of_actors(queue, [2, 2, 2])
    assert_holds_columns(queue.get(), [0, 100])
    queue.put(make_unroll(10, 2), actor=0)
    assert_holds_columns(queue.get(), [1, 101])
    assert_holds_columns(queue.get(), [200, 10])

  def test_what_is_put_into_a_full_queue_is_mixed_already(self):
    queue = unroll_queue.UnrollQueue(batch_size=6, capacity=1)
    putters = [
      in_thread(queue.put, make_unroll(100 * actor, 6), actor)
      for actor in range(3)
    ]
    wait_until(lambda: len(queue) == 3)
    assert sum(putter.done() for putter in putters) <= 1
    assert sorted(queue.get().level) == [0, 1, 100, 101, 200, 201]
    for putter in putters:
      putter.result(timeout=DEADLINE_S)

  def test_an_unroll_that_was_begun_leaves_its_place(self):
    queue = unroll_queue.UnrollQueue(batch_size=2, capacity=2)
    put_of_actors(queue, [4, 4])
    blocked = in_thread(queue.put, make_unroll(10, 4), 0)
    wait_until(lambda: len(queue) == 3)
    queue.get()
    blocked.result(timeout=DEADLINE_S)
    assert len(queue) == 1

  def test_whose_unroll_was_begun_goes_on_though_others_fill_the_queue(self):
    queue = unroll_queue.UnrollQueue(batch_size=2, capacity=1)
    putters = []
    for actor in range(3):
      unroll = make_unroll(100 * actor, 4)
      putters.append(in_thread(queue.put, unroll, actor))
      wait_until(lambda: len(queue) == len(putters))
    assert_holds_columns(queue.get(), [0, 100])
    for putter in putters:
      putter.result(timeout=DEADLINE_S)
    assert len(queue) == 1

  def test_every_column_keeps_its_policy_version(self):
    queue = unroll_queue.UnrollQueue(batch_size=4, capacity=2)
    for actor, version in ((0, 3), (1, 8)):
      unroll = make_unroll(100 * actor, 4)
      version = np.full([4], version)
      queue.put(unroll._replace(policy_version=version), actor)
    for _ in range(2):
      np.testing.assert_array_equal(queue.get().policy_version, [3, 3, 8, 8])


class TestTimeout:
  def test_without_a_batch_there_is_none_and_nothing_is_lost(self):
    queue = unroll_queue.UnrollQueue(batch_size=5, capacity=2)
    assert queue.get(timeout=0) is None
    for start in (0, 2):
      queue.put(make_unroll(start, 2))
      assert queue.get(timeout=0) is None
    queue.put(make_unroll(4, 3))
    assert_holds_columns(queue.get(timeout=0), range(5))
    assert queue.get(timeout=0) is None
    queue.put(make_unroll(7, 3))
    assert_holds_columns(queue.get(timeout=DEADLINE_S), range(5, 10))

  def test_the_columns_of_a_batch_in_the_making_hold_nobody_back(self):
    queue = unroll_queue.UnrollQueue(batch_size=5, capacity=1)
    for start in (0, 2):
      in_thread(queue.put, make_unroll(start, 2)).result(timeout=DEADLINE_S)
      assert queue.get(timeout=0) is None
    assert len(queue) == 0
    queue.put(make_unroll(4, 2))
    assert_holds_columns(queue.get(timeout=0), range(5))


class TestClose:
  def test_wakes_a_getter(self):
    queue = unroll_queue.UnrollQueue(batch_size=3, capacity=1)
    getter = in_thread(queue.get)
    queue.put(make_unroll(0, 2))  # It waits for the third column.
    wait_until(lambda: len(queue) == 0)
    queue.close()
    with pytest.raises(queues.Closed, match='is closed'):
      getter.result(timeout=DEADLINE_S)

  def test_wakes_putters(self):
    queue = unroll_queue.UnrollQueue(batch_size=3, capacity=1)
    queue.put(make_unroll(0, 2))
    putters = [in_thread(queue.put, make_unroll(0, 2)) for _ in range(3)]
    queue.close()
    for putter in putters:
      with pytest.raises(queues.Closed, match='is closed'):
        putter.result(timeout=DEADLINE_S)

  def test_refuses_what_comes_later(self):
    queue = unroll_queue.UnrollQueue(batch_size=3, capacity=2)
    queue.put(make_unroll(0, 2))
    queue.close()
    queue.close()
    with pytest.raises(queues.Closed):
      queue.put(make_unroll(0, 2))
    with pytest.raises(queues.Closed):
      queue.get()


class TestRestore:
  @pytest.mark.parametrize(('batch_size', 'gets'), [(2, 1), (2, 2), (3, 3)])
  def test_goes_on_with_the_next_column(self, batch_size, gets):
    queue = unroll_queue.UnrollQueue(batch_size, capacity=3)
    for i in range(3):
      queue.put(make_unroll(4 * i, 4))
    for _ in range(gets):
      queue.get()
    other = unroll_queue.UnrollQueue(batch_size, capacity=3)
    other.restore(queue.snapshot())
    queue.put(make_unroll(12, 4))
    other.put(make_unroll(12, 4))
    for one in queue, other:
      column = gets * batch_size
      while one.ready:
        columns = range(column, column + batch_size)
        assert_holds_columns(one.get(), columns)
        column += batch_size
      assert 16 - column < batch_size

  def test_a_snapshot_changes_nothing(self):
    queue = unroll_queue.UnrollQueue(batch_size=3, capacity=3)
    queue.put(make_unroll(0, 4))
    queue.get()
    for _ in range(2):
      (rest,) = queue.snapshot()
      assert_holds_columns(rest, [3])

  def test_too_few_restored_columns_do_not_block_put(self):
    queue = unroll_queue.UnrollQueue(batch_size=3, capacity=1)
    queue.restore([make_unroll(0, 1), make_unroll(1, 1)])
    assert not queue.ready
    put = in_thread(queue.put, make_unroll(2, 4))
    put.result(timeout=DEADLINE_S)
    assert queue.ready
    assert_holds_columns(queue.get(), range(3))
    assert_holds_columns(queue.get(), range(3, 6))


def test_ready_counts_all_columns():
  queue = unroll_queue.UnrollQueue(batch_size=3, capacity=3)
  assert not queue.ready
  queue.put(make_unroll(0, 2))
  assert not queue.ready
  queue.put(make_unroll(2, 2))
  assert queue.ready
  queue.get()
  assert not queue.ready  # One column is left.
  queue.put(make_unroll(4, 2))
  assert queue.ready


def test_it_tells_how_full_it_was_found():
  queue = unroll_queue.UnrollQueue(batch_size=2, capacity=2)
  assert queue.fill() == 0
  putters = [in_thread(queue.put, make_unroll(start, 2)) for start in (0, 2, 4)]
  wait_until(lambda: len(queue) == 3)
  for _ in range(3):
    queue.get()
  assert queue.get(timeout=0) is None
  # Found at 3, 2, 1 and 0 of 2, and never fuller than full.
  assert queue.fill() == pytest.approx((1 + 1 + 0.5 + 0) / 4)
  for putter in putters:
    putter.result(timeout=DEADLINE_S)
  assert queue.fill() == 0
