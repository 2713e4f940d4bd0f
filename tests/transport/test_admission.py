"""Room in the queue is promised once, to whoever asks first."""

import pytest

from scalable_agent.transport import admission


class Clock:
  now = 100.0

  def __call__(self):
    return self.now


@pytest.fixture
def clock():
  return Clock()


def make(clock, length, capacity=2):
  return admission.Admission(lambda: length[0], capacity, clock)


def test_no_more_are_admitted_than_there_is_room(clock):
  one = make(clock, [0], capacity=2)
  assert [one.ask(sender) == 0 for sender in range(4)] == [1, 1, 0, 0]


def test_what_waits_in_the_queue_takes_room(clock):
  length = [2]
  one = make(clock, length, capacity=2)
  assert one.ask(0) > 0
  length[0] = 1
  assert one.ask(0) == 0
  assert one.ask(1) > 0


def test_the_place_of_one_that_has_sent_all_is_that_in_the_queue(clock):
  length = [0]
  one = make(clock, length, capacity=2)
  assert one.ask(0) == 0
  length[0] = 1
  one.arrived(0, more=True)
  assert one.ask(1) > 0
  one.arrived(0, more=False)
  assert one.ask(1) == 0


def test_one_that_asks_again_has_one_place(clock):
  one = make(clock, [0], capacity=2)
  assert one.ask(0) == one.ask(0) == one.ask(1) == 0


def test_a_place_is_kept_for_a_second_after_the_last_sign_of_life(clock):
  one = make(clock, [0], capacity=1)
  assert one.ask(0) == 0
  clock.now += 0.9
  one.arrived(0, more=True)
  clock.now += 0.9
  assert one.ask(1) > 0
  clock.now += 0.2
  assert one.ask(1) == 0


def test_the_place_of_one_that_leaves_is_free(clock):
  one = make(clock, [0], capacity=1)
  assert one.ask(0) == 0
  one.leave(0)
  assert one.ask(1) == 0


def settle(one, clock, length, interval):
  """Has the queue take an unroll every `interval` seconds."""
  for _ in range(100):
    length[0] = 0
    clock.now += interval
    assert one.ask(0) == 0
    one.arrived(0, more=False)
  length[0] = 1


def test_the_wait_grows_with_the_interval_and_with_those_who_wait(clock):
  length = [0]
  one = make(clock, length, capacity=1)
  settle(one, clock, length, 0.04)
  # A quarter of the time until each has had its turn.
  assert one.ask(1) == pytest.approx(0.01)
  assert one.ask(2) == pytest.approx(0.02)
  assert one.ask(3) == pytest.approx(0.03)
  assert one.ask(3) == pytest.approx(0.03)


def test_one_that_does_not_ask_again_is_forgotten(clock):
  length = [0]
  one = make(clock, length, capacity=1)
  settle(one, clock, length, 0.04)
  one.ask(1)
  clock.now += 3.1
  assert one.ask(2) == pytest.approx(0.01)


@pytest.mark.parametrize(('interval', 'wait'), [(1e-6, 0.002), (60, 1.0)])
def test_the_wait_is_neither_too_short_nor_too_long(clock, interval, wait):
  length = [0]
  one = make(clock, length, capacity=1)
  settle(one, clock, length, interval)
  assert one.ask(1) == pytest.approx(wait)
