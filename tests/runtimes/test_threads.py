"""A group of threads: the first failure stops all and is the one raised."""

import threading
import traceback

import pytest

from scalable_agent.runtimes import threads
from tests.waiting import wait_until

DEADLINE_S = 30


class WorkError(Exception):
  pass


class OtherError(Exception):
  pass


def fail_in_a_place_with_a_name():
  raise WorkError('broke')


def raise_(error):
  raise error


def run_group(*functions, body=None, join_timeout=DEADLINE_S):
  """Runs functions in a group; each gets it and an event set when it stops."""
  stopped = threading.Event()
  calls = []
  with threads.ThreadGroup(join_timeout) as group:
    group.on_stop(lambda: calls.append('stop'))
    group.on_stop(stopped.set)
    for index, function in enumerate(functions):
      group.start(f'thread_{index}', lambda f=function: f(group, stopped))
    if body:
      body(group, stopped)
    else:
      assert group.wait_for_stop(DEADLINE_S)
  assert calls == ['stop']


def waits(group, stopped):
  assert stopped.wait(DEADLINE_S)


def fails(group, stopped):
  fail_in_a_place_with_a_name()


def test_the_failure_of_a_thread_is_raised_with_its_traceback():
  with pytest.raises(WorkError, match='broke') as raised:
    run_group(waits, fails, waits)
  lines = traceback.format_exception(raised.value)
  assert 'fail_in_a_place_with_a_name' in ''.join(lines)


@pytest.mark.parametrize('kind', [SystemExit, KeyboardInterrupt])
def test_a_thread_does_not_end_the_process_as_if_all_were_well(kind):
  with pytest.raises(
    RuntimeError, match=r'\(0\) in thread thread_1$'
  ) as raised:
    run_group(waits, lambda *_: raise_(kind(0)))
  assert isinstance(raised.value.__cause__, kind)


def test_any_number_of_seconds_can_be_waited_for():
  def waits_long(group, _):
    assert group.wait_for_stop(1e10)

  run_group(waits_long, body=lambda group, _: group.stop())


def test_what_the_others_raise_afterwards_is_dropped():
  def is_a_consequence(group, stopped):
    assert stopped.wait(DEADLINE_S)
    raise OtherError

  with pytest.raises(WorkError):
    run_group(is_a_consequence, fails, is_a_consequence)


def test_what_the_owner_raises_afterwards_is_a_consequence():
  def body(group, stopped):
    assert stopped.wait(DEADLINE_S)
    raise OtherError

  with pytest.raises(WorkError):
    run_group(fails, body=body)


def test_a_return_does_not_stop_the_group():
  def body(group, stopped):
    returned.wait(DEADLINE_S)
    assert not group.wait_for_stop(0.05)
    assert not group.stopping

  returned = threading.Event()
  run_group(lambda group, stopped: returned.set(), body=body)


def test_a_failure_that_comes_after_the_stop_is_dropped():
  def body(group, stopped):
    group.stop()
    assert group.stopping

  def is_a_consequence(group, stopped):
    assert stopped.wait(DEADLINE_S)
    raise OtherError

  run_group(is_a_consequence, body=body)


def test_the_callbacks_run_once_however_many_stop():
  barrier = threading.Barrier(5)

  def stops(group, stopped):
    barrier.wait(DEADLINE_S)
    group.stop()

  run_group(*[stops] * 5)


def test_of_many_failures_one_is_raised():
  barrier = threading.Barrier(4)

  def fail_together(group, stopped):
    barrier.wait(DEADLINE_S)
    fail_in_a_place_with_a_name()

  with pytest.raises(WorkError):
    run_group(*[fail_together] * 4)


def test_a_thread_may_start_another_until_the_group_stops():
  done = []

  def starts(group, stopped):
    group.start('second', lambda: done.append('second'))
    wait_until(lambda: done)
    group.stop()
    group.start('third', lambda: done.append('third'))

  run_group(starts)
  assert done == ['second']


def test_threads_that_have_ended_are_forgotten():
  with threads.ThreadGroup(DEADLINE_S) as group:
    for index in range(20):
      group.start(f'short_{index}', lambda: None)
      wait_until(lambda: not group.running)
    assert len(group._threads) == 1


def test_what_the_owner_raises_stops_the_threads():
  ended = threading.Event()

  def waits_and_ends(group, stopped):
    assert stopped.wait(DEADLINE_S)
    ended.set()

  with pytest.raises(OtherError):
    run_group(waits_and_ends, body=lambda *_: raise_(OtherError()))
  assert ended.is_set()


def test_an_interruption_by_the_user_is_raised_as_such():
  with pytest.raises(KeyboardInterrupt):
    run_group(waits, body=lambda *_: raise_(KeyboardInterrupt()))


def test_a_thread_that_does_not_end_is_named():
  released = threading.Event()
  with pytest.raises(TimeoutError, match=r'within 0\.05 s: thread_1$'):
    run_group(
      waits,
      lambda *_: released.wait(DEADLINE_S),
      body=lambda group, _: group.stop(),
      join_timeout=0.05,
    )
  released.set()


def test_all_threads_have_one_deadline(monkeypatch):
  now, timeouts = [1000.0], []
  join = threading.Thread.join

  def slow_join(thread, timeout):
    timeouts.append(timeout)
    now[0] += 20
    join(thread, DEADLINE_S)

  monkeypatch.setattr(threads.time, 'monotonic', lambda: now[0])
  monkeypatch.setattr(threading.Thread, 'join', slow_join)
  run_group(*[waits] * 4, body=lambda group, _: group.stop(), join_timeout=50.0)
  assert timeouts == [50, 30, 10, 0]


def test_a_thread_that_does_not_end_does_not_hide_the_failure():
  released = threading.Event()
  with pytest.raises(WorkError):
    run_group(fails, lambda *_: released.wait(DEADLINE_S), join_timeout=0.05)
  released.set()


def test_a_callback_that_fails_does_not_keep_the_others_from_waking():
  ended = threading.Event()

  def leave_group():
    with threads.ThreadGroup(DEADLINE_S) as group:
      group.on_stop(lambda: raise_(OtherError()))
      group.on_stop(ended.set)
      group.start('waits', lambda: ended.wait(DEADLINE_S))

  with pytest.raises(OtherError):
    leave_group()
  assert ended.is_set()


class TestGate:
  def test_any_number_may_work_at_once(self):
    gate, together = threads.Gate(), threading.Barrier(3)

    def work(group, stopped):
      del group, stopped
      with gate.working():
        together.wait(DEADLINE_S)

    run_group(work, work, body=lambda *_: work(None, None))

  def test_who_is_alone_waits_for_those_at_work_and_lets_nobody_begin(self):
    gate, entered, leave = threads.Gate(), threading.Event(), threading.Event()
    events = []

    def work_long(group, stopped):
      del group, stopped
      with gate.working():
        entered.set()
        assert leave.wait(DEADLINE_S)
        events.append('worked')

    def be_alone(group, stopped):
      del group, stopped
      assert entered.wait(DEADLINE_S)
      with gate.alone():
        events.append('alone')
        assert gate._working == 0

    def work_later(group, stopped):
      del group, stopped
      wait_until(lambda: gate._waiting)
      leave.set()
      with gate.working():
        events.append('worked later')

    def all_done(group, stopped):
      del stopped
      wait_until(lambda: not group.running)

    run_group(work_long, be_alone, work_later, body=all_done)
    assert events == ['worked', 'alone', 'worked later']

  def test_a_failure_alone_opens_it_again(self):
    gate = threads.Gate()
    with pytest.raises(WorkError), gate.alone():
      raise WorkError
    with pytest.raises(WorkError), gate.working():
      raise WorkError
    with gate.alone():
      pass
