"""The fallback's ledger: what is cancelled, interrupted or rung for."""

import threading

import pytest
import tensorflow as tf

from dynamic_batching import fallback_ledger, structures
from tests.waiting import DEADLINE_S


@pytest.fixture
def answers():
  """Of all calls, in the order in which they were answered."""
  return []


@pytest.fixture
def make_call(answers):
  """Makes calls of so many rows."""

  def make(rows=1):
    def reply(values, error):
      answers.append((call, error))

    call = fallback_ledger.Call([tf.zeros([rows], tf.int32)], reply)
    return call

  return make


class Clock:
  """Stands for the module `time`; it is set by hand."""

  now = 0.0

  def monotonic(self):
    return self.now


@pytest.fixture
def clock(monkeypatch):
  clock = Clock()
  monkeypatch.setattr(fallback_ledger, 'time', clock)
  return clock


def make_ledger(**options):
  options = {'timeout_ms': None, **options}
  return fallback_ledger.Ledger(structures.Options(**options))


def waiting(ledger):
  statistics = ledger.statistics()
  return statistics.waiting_calls, statistics.waiting_rows


def wait_interrupted(ledger, meanwhile=lambda: None):
  """Has a consumer wait, who is interrupted after `meanwhile`."""

  def interrupt(seconds):
    meanwhile()
    raise KeyboardInterrupt

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(ledger._changed, 'wait', interrupt)
    with pytest.raises(KeyboardInterrupt):
      ledger.wait()


def test_a_call_that_is_cancelled_while_it_waits_is_in_no_batch(make_call):
  ledger = make_ledger(minimum_batch_size=4)
  calls = [make_call(2), make_call(3), make_call(1)]
  ledger.enqueue(calls[0])
  ledger.cancel(calls[0])
  assert waiting(ledger) == (0, 0)
  for call in calls[1:]:
    ledger.enqueue(call)
  assert waiting(ledger) == (2, 4)
  assert ledger.wait()[1] == calls[1:]


def test_a_call_that_is_cancelled_while_it_is_served_gets_no_answer(
  make_call, answers
):
  ledger = make_ledger(minimum_batch_size=2)
  calls = [make_call(), make_call()]
  for call in calls:
    ledger.enqueue(call)
  number, _ = ledger.wait()
  ledger.cancel(calls[0])
  assert waiting(ledger) == (0, 0)
  error = tf.errors.UnknownError(None, None, 'broke')
  # The batch has all of its rows.
  fallback_ledger.reply_with_error(ledger.finish(number, 2), error)
  assert answers == [(calls[1], error)]


def test_who_was_interrupted_takes_no_batch(make_call):
  ledger = make_ledger()
  wait_interrupted(ledger)
  call = make_call()
  ledger.enqueue(call)
  assert waiting(ledger) == (1, 1)
  assert ledger.wait()[1] == [call]


def test_the_batch_of_who_was_interrupted_comes_next_and_whole(make_call):
  ledger = make_ledger(minimum_batch_size=2, maximum_batch_size=2)
  calls = [make_call(), make_call(), make_call()]

  def enqueue():
    for call in calls:
      ledger.enqueue(call)
    assert waiting(ledger) == (1, 1)

  wait_interrupted(ledger, enqueue)
  assert waiting(ledger) == (3, 3)
  assert ledger.wait()[1] == calls[:2]
  assert waiting(ledger) == (1, 1)


def test_after_the_end_the_batch_of_who_was_interrupted_does_not_come_back(
  make_call, answers
):
  ledger = make_ledger()
  call = make_call()

  def enqueue_and_close():
    ledger.enqueue(call)
    ledger.close()

  wait_interrupted(ledger, enqueue_and_close)
  assert waiting(ledger) == (0, 0)
  ((answered, error),) = answers
  assert answered is call
  assert isinstance(error, tf.errors.CancelledError)


def test_who_listens_is_rung_when_a_call_that_was_there_first_is_due(
  make_call, clock
):
  ledger = make_ledger(minimum_batch_size=2, timeout_ms=20)
  rung = threading.Event()
  for _ in range(2):
    call = make_call()
    ledger.enqueue(call)
    ledger.listen(rung.set)
    assert not rung.is_set()
    clock.now += 1.0
    assert rung.wait(DEADLINE_S)
    rung.clear()
    assert ledger.take(rung.set)[1] == [call]


def test_who_listens_is_rung_however_close_the_deadline_is(
  make_call, monkeypatch
):
  class Close:
    """Passes the deadline after some looks at it."""

    def __init__(self, looks):
      self.looks = looks

    def monotonic(self):
      self.looks -= 1
      return 0.0 if self.looks >= 0 else 1.0

  for looks in range(1, 8):
    monkeypatch.setattr(fallback_ledger, 'time', Close(looks))
    ledger = make_ledger(minimum_batch_size=2, timeout_ms=20)
    ledger.enqueue(make_call())
    rung = threading.Event()
    ledger.listen(rung.set)
    assert rung.wait(DEADLINE_S), looks


def test_what_a_batch_leaves_behind_is_rung_for_when_it_is_due(
  make_call, clock
):
  ledger = make_ledger(
    minimum_batch_size=2, maximum_batch_size=2, timeout_ms=20
  )
  rung = [threading.Event(), threading.Event()]
  rings = [event.set for event in rung]
  calls = [make_call(2), make_call()]
  for ring in rings:
    ledger.listen(ring)
  for call in calls:
    ledger.enqueue(call)
  rung[1].clear()
  assert ledger.take(rings[0])[1] == calls[:1]
  assert not rung[1].is_set()
  clock.now += 1.0
  assert rung[1].wait(DEADLINE_S)
  assert ledger.take(rings[1])[1] == calls[1:]


def test_who_has_taken_a_batch_is_rung_no_more(make_call):
  ledger = make_ledger()
  rings = []

  def ring():
    rings.append(None)

  ledger.listen(ring)
  ledger.enqueue(make_call())
  assert len(rings) == 1
  assert ledger.take(ring) is not None
  ledger.enqueue(make_call())
  ledger.close()
  assert len(rings) == 1
