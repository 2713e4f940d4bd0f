import pytest

from scalable_agent.transport import rpc, sessions


class Clock:
  now = 1000.0

  def __call__(self):
    return self.now


@pytest.fixture
def clock():
  return Clock()


@pytest.fixture
def known(clock):
  return sessions.Sessions(clock=clock)


def call(known, actor):
  with known.call(actor.session) as found:
    assert found is actor


def began(known, task):
  actor = known.register(task)
  known.begin(actor)
  return actor


class TestOneTask:
  def test_who_begins_takes_the_place_of_the_one_at_work(self, known):
    first, second = began(known, 3), began(known, 3)
    call(known, second)
    with pytest.raises(rpc.Refused, match='another process with --task=3 has'):
      call(known, first)

  def test_a_registration_alone_ends_nobody(self, known):
    # It may come late, of a process that was killed.
    at_work = began(known, 3)
    known.register(3)
    call(known, at_work)

  def test_whose_registration_was_late_may_begin_nonetheless(self, known):
    at_work, late = began(known, 3), known.register(3)
    call(known, late)
    known.begin(late)
    call(known, late)
    with pytest.raises(rpc.Refused):
      call(known, at_work)

  def test_who_registered_before_the_one_at_work_registers_again(self, known):
    early = known.register(3)
    at_work = began(known, 3)
    with pytest.raises(rpc.Again):
      call(known, early)
    with pytest.raises(rpc.Again):
      known.begin(early)
    call(known, at_work)

  def test_to_begin_twice_changes_nothing(self, known):
    actor = began(known, 3)
    known.begin(actor)
    call(known, actor)

  def test_registrations_are_counted(self, known):
    assert [known.register(task).starts for task in (3, 3, 1, 3)] == [
      0,
      1,
      0,
      2,
    ]


def test_tasks_do_not_meet(known):
  actors = [began(known, task) for task in (0, 1)]
  early = known.register(0)
  began(known, 1)
  for actor in (actors[0], early):
    call(known, actor)


def test_registering_over_and_over_takes_no_memory(known, monkeypatch):
  monkeypatch.setattr(sessions, '_REMEMBERED', 5)
  at_work = began(known, 0)
  newcomers = [known.register(i % 3) for i in range(100)]
  assert len(known) == 6
  call(known, at_work)
  call(known, newcomers[-1])
  with pytest.raises(rpc.Again):
    call(known, newcomers[0])


def test_one_that_has_not_begun_is_told_too(known, clock):
  began(known, 0).told = True
  newcomer = known.register(1)
  assert not known.all_told(0)
  assert known.running() == 0
  newcomer.told = True
  assert known.all_told(2)
  assert not known.all_told(3)
  late = known.register(1)
  assert not late.told
  assert not known.all_told(0)
  clock.now += sessions._SILENCE
  assert known.all_told(0)


def test_silence_is_since_the_last_word_of_any(known, clock):
  assert known.silence() == float('inf')
  known.register(0)
  clock.now += 5
  assert known.silence() == 5
  actor = began(known, 1)
  clock.now += 2
  with known.call(actor.session):
    clock.now += 100
    assert known.silence() == 0
  clock.now += 1
  assert known.silence() == 1
