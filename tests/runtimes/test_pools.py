"""A pool of threads: the newest leaves first, and some always stay."""

import threading

import pytest

from scalable_agent.runtimes import pools, threads
from tests.waiting import DEADLINE_S, wait_until


class Workers:
  """What the members of a pool do: wait until they are let go."""

  def __init__(self):
    self.members = []
    self.names = []
    self.released = threading.Event()

  def __call__(self, member):
    self.names.append(threading.current_thread().name)
    self.members.append(member)
    assert self.released.wait(DEADLINE_S)


@pytest.fixture
def workers():
  return Workers()


@pytest.fixture
def make_pool(workers):
  """Makes pools of so many members, of which `least` stay."""
  with threads.ThreadGroup(DEADLINE_S) as group:
    group.on_stop(workers.released.set)

    def make(count, least=1):
      pool = pools.Pool(group, 'worker', workers, least)
      for number in range(1, count + 1):
        pool.add()
        wait_until(lambda number=number: len(workers.members) == number)
      return pool

    yield make
    group.stop()


def test_the_newest_leaves_and_its_place_is_taken_by_the_next(
  make_pool, workers
):
  pool = make_pool(3)
  assert workers.names == ['worker_0', 'worker_1', 'worker_2']
  pool.remove()
  assert [member.leaving for member in workers.members] == [False, False, True]
  assert len(pool) == 2
  pool.add()
  wait_until(lambda: len(workers.members) == 4)
  assert [member.index for member in workers.members] == [0, 1, 2, 2]
  assert not workers.members[3].leaving
  assert len(pool) == 3


def test_it_is_settled_once_those_who_were_to_leave_have(make_pool, workers):
  pool = make_pool(3)
  assert pool.settled
  pool.remove()
  assert not pool.settled
  workers.released.set()
  wait_until(lambda: pool.settled)
  assert len(pool) == 2


@pytest.mark.parametrize('least', [1, 2])
def test_no_fewer_stay_than_the_least(make_pool, workers, least):
  pool = make_pool(least + 1, least)
  assert pool.shrinkable
  pool.remove()
  assert not pool.shrinkable
  with pytest.raises(
    ValueError, match=f'^{least} worker threads cannot become fewer'
  ):
    pool.remove()
  assert len(pool) == least
  assert sum(member.leaving for member in workers.members) == 1
