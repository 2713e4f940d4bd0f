"""What a learner answers: to honest actors, to late ones and to strangers."""

import math
import threading

import numpy as np
import pytest

from scalable_agent import structures, unroll_queue
from scalable_agent.transport import protocol, rpc, sessions, weights
from tests import acting, learning
from tests.transport.test_unroll_codec import assert_same
from tests.waiting import DEADLINE_S, in_thread, wait_until

LENGTH = 2  # T
COLUMNS = 3
CAPACITY = 2


@pytest.fixture(scope='module')
def one():
  return acting.Acting(
    acting.ImageEnvironment(COLUMNS, episode_steps=3),
    frame_stack=4,
    unroll_length=LENGTH,
  )


@pytest.fixture(scope='module')
def unrolls(one):
  return one.unrolls(8)


@pytest.fixture
def clock():
  return learning.Clock()


@pytest.fixture
def queue():
  queue = unroll_queue.UnrollQueue(COLUMNS, CAPACITY)
  yield queue
  queue.close()  # Whoever still waits ends with the test.


@pytest.fixture
def make_service(one, queue, clock):
  def make(**kwargs):
    return learning.make_service(
      one, **({'queue': queue, 'clock': clock} | kwargs)
    )

  return make


@pytest.fixture
def service(make_service):
  return make_service()


@pytest.fixture
def make_actor(one, service):
  def make(task=0, of=service, **options):
    return learning.ByHand(of, one.layout, one.agent.variables, task, **options)

  return make


@pytest.fixture
def actor(make_actor):
  return make_actor().start()


def fill(actor, unrolls):
  """Sends as many as there is room for."""
  for unroll in unrolls[:CAPACITY]:
    assert actor.send(unroll) == b''


class TestRegister:
  def test_welcomes_with_the_frames_and_the_starts(self, make_actor):
    for task in (0, 5):
      for starts in range(3):
        answer = make_actor(task).register()
        del answer['session']
        assert answer == {
          'frames': 100,
          'starts': starts,
          'options': {},
          'inference': 'actor',
        }

  def test_sessions_cannot_be_guessed_and_differ(self, make_actor):
    known = [make_actor(i % 6).register()['session'] for i in range(50)]
    assert len(set(known)) == 50
    assert max(known) > 2**50

  @pytest.mark.parametrize(
    ('changes', 'message'),
    [
      ({'protocol': 99}, 'learner has protocol 2, actor 0 99.*same version'),
      ({'protocol': 1}, 'learner has protocol 2, actor 0 1.*same version'),
      ({'protocol': None}, 'actor 0 None'),
      ({'version': '0.0'}, r'version \S+, actor 0 0\.0\. Install the same'),
      ({'options': None}, 'without options'),
      ({'options': [1]}, 'without options'),
      (
        {'options': learning.OPTIONS | {'lstm': True}},
        '--lstm is False at the learner and True at actor 0.*same options',
      ),
      (
        {'options': {}},
        '--level_name is clockwork .* None .*; --unroll_length is 2 .*; --lstm',
      ),
      ({'task': -1}, '--task=-1 is none of the --num_actors=6.*0 to 5'),
      ({'task': 6}, '--task=6 is none'),
      ({'task': 10**400}, 'is none'),
      ({'task': '0'}, 'is none'),
      ({'task': 0.0}, 'is none'),
      ({'task': None}, 'is none'),
      ({'task': [0]}, 'is none'),
      ({'task': float('nan')}, 'is none'),
    ],
  )
  def test_names_what_differs(self, service, make_actor, changes, message):
    with pytest.raises(rpc.Refused, match=message):
      make_actor().register(**changes)
    assert len(service._sessions) == 0

  def test_the_version_is_told_before_anything_else(self, make_actor):
    """As of others, options may have other names."""
    with pytest.raises(rpc.Refused, match='protocol'):
      make_actor().register(protocol=1, version='0', options=None, task=None)

  def test_an_option_that_only_the_actor_has_is_no_difference(self, make_actor):
    make_actor().register(options=learning.OPTIONS | {'seed': 3})

  def test_what_an_actor_leaves_open_is_the_learners(
    self, make_service, make_actor
  ):
    options = learning.OPTIONS | {'precision': 'bfloat16', 'inference': 'actor'}
    service = make_service(options=options)
    left_open = {'precision': 'auto', 'inference': 'auto', 'lstm': False}
    answer = make_actor(of=service).register(options=options | left_open)
    assert answer['options'] == {'precision': 'bfloat16', 'inference': 'actor'}

  def test_what_the_learner_leaves_open_is_no_wildcard(
    self, make_service, make_actor
  ):
    service = make_service(options=learning.OPTIONS | {'precision': 'auto'})
    with pytest.raises(rpc.Refused, match='--precision is auto at the learner'):
      make_actor(of=service).register(
        options=learning.OPTIONS | {'precision': 'float32'}
      )

  def test_an_actor_goes_to_its_own_learner(self, make_service, make_actor):
    service = make_service(index=1, num_learners=3)
    assert service.num_expected == 2
    for task in (1, 4):
      make_actor(task, service).register()
    for task in (0, 2, 3, 5):
      with pytest.raises(
        rpc.Refused, match=f'{task} belongs to learner {task % 3}, not 1'
      ):
        make_actor(task, service).register()

  @pytest.mark.parametrize('method', ['register', 'begin', 'failed'])
  @pytest.mark.parametrize(
    'request_', [b'', b'[]', b'5', b'{', b'\xff\xff', b'[' * 10**5]
  )
  def test_what_is_no_message_is_refused(self, actor, method, request_):
    with pytest.raises(rpc.Refused, match='not a message of an actor'):
      actor.call(method, request_)

  def test_registering_over_and_over_takes_no_memory(
    self, service, make_actor, monkeypatch
  ):
    monkeypatch.setattr(sessions, '_REMEMBERED', 10)
    for _ in range(300):
      make_actor().start()
    known = service._sessions
    assert len(known) == 1
    assert len(known._replaced) == 10
    # Those that never begin.
    for _ in range(300):
      make_actor().register()
    assert len(known) == 11


class TestBegin:
  @pytest.fixture
  def actor(self, make_actor):
    actor = make_actor()
    actor.register()
    return actor

  def test_is_welcomed(self, actor):
    assert actor.begin() == {}

  def test_names_the_array_that_differs(self, actor, one):
    layout = one.layout.describe()
    (index,) = (i for i, e in enumerate(layout) if 'policy_logits' in e[0])
    layout[index] = [layout[index][0], [7], 'float32']
    name = layout[index][0]
    with pytest.raises(
      rpc.Refused,
      match=rf'unrolls: the learner has {name} \[5\] float32, the actor {name} '
      r'\[7\] float32.*--network another version',
    ):
      actor.begin(layout=layout)

  def test_names_the_weights_that_differ(self, actor, one):
    theirs = weights.describe(one.agent.variables)
    with pytest.raises(
      rpc.Refused,
      match=f'weights: the learner has {len(theirs)}, the actor '
      f'{len(theirs) - 1}',
    ):
      actor.begin(weights=theirs[:-1])

  @pytest.mark.parametrize('what', ['layout', 'weights'])
  @pytest.mark.parametrize(
    'value', [None, 5, {}, 'x', [], [[]], [None] * 11, [[['a'] * 3] * 3] * 11]
  )
  def test_any_other_description_is_a_difference(self, actor, what, value):
    with pytest.raises(rpc.Refused, match='the learner has'):
      actor.begin(**{what: value})

  @pytest.mark.parametrize(
    'columns', [0, -1, 2**16 + 1, 10**100, '3', None, 1.0, [3]]
  )
  def test_wants_a_possible_number_of_columns(self, actor, columns):
    with pytest.raises(rpc.Refused, match=r'--envs_per_actor=.* cannot be'):
      actor.begin(columns=columns)

  def test_wants_unrolls_that_fit_into_messages(self, actor, one, monkeypatch):
    monkeypatch.setattr(rpc, 'MAX_BYTES', one.layout.num_bytes(7) + 1024)
    actor.begin(columns=7)
    with pytest.raises(rpc.Refused, match='--envs_per_actor=8: an unroll take'):
      actor.begin(columns=8)

  def test_nothing_is_taken_before(self, actor, unrolls, queue):
    with pytest.raises(rpc.Refused, match='actor 0 has not begun'):
      actor.send(unrolls[0])
    assert len(queue) == 0

  def test_may_come_twice_and_the_last_one_counts(
    self, actor, unrolls, queue, service
  ):
    actor.begin(columns=1)
    actor.begin(columns=COLUMNS)
    assert service.gauges()['actors'] == 1
    actor.send(unrolls[0])
    assert_same(queue.get(), unrolls[0])
    actor.begin(columns=1)
    with pytest.raises(rpc.Refused, match='bytes instead of'):
      actor.send(unrolls[0])

  def test_one_that_was_refused_changes_nothing(self, actor, unrolls, queue):
    actor.begin()
    with pytest.raises(rpc.Refused):
      actor.begin(columns=0)
    actor.send(unrolls[0])
    assert_same(queue.get(), unrolls[0])


class TestWeights:
  SIZE = 1000

  def _values(self, version):
    return [np.full([self.SIZE], version, np.float32)]

  def _bytes(self, version):
    return self._values(version)[0].tobytes()

  @pytest.fixture
  def service(self, make_service):
    return make_service(values=self._values(3), version=3)

  def test_come_only_if_they_are_others(self, service, actor):
    assert actor.weights(has=-1) == (3, self._bytes(3))
    assert actor.weights(has=3) == (3, b'')
    service.publish(weights.Snapshot(4, self._values(4)), 0)
    assert actor.weights(has=3) == (4, self._bytes(4))
    # Of an actor that knew another life of this learner.
    assert actor.weights(has=9) == (4, self._bytes(4))

  def test_come_before_an_actor_has_begun(self, make_actor):
    actor = make_actor()
    actor.register()
    assert actor.weights() == (3, self._bytes(3))

  def test_are_serialised_once_for_all_actors(self, service, make_actor):
    counted = [learning.Counted() for _ in range(2)]
    for version, value in enumerate(counted):
      service.publish(weights.Snapshot(10 + version, [value]), 0)
      for task in range(6):
        answer = make_actor(task).start().weights()
        assert answer == (10 + version, bytes(16))
    assert [value.count for value in counted] == [1, 1]

  def test_say_when_training_is_over(self, service, actor):
    service.finish()
    with pytest.raises(rpc.Over, match='training is over'):
      actor.weights(has=1)

  @pytest.mark.parametrize('length', [0, 7, 15])
  @pytest.mark.parametrize('method', ['weights', 'unroll'])
  def test_a_header_cut_off_is_refused(self, actor, method, length):
    with pytest.raises(
      rpc.Refused, match=f'not a message of an actor: {length} bytes have no'
    ):
      actor.call(method, bytes(length))


class TestUnroll:
  def test_arrives_bit_for_bit_and_is_recorded(
    self, make_service, make_actor, queue, unrolls
  ):
    recorded = []
    service = make_service(record_unroll=recorded.append)
    actor = make_actor(of=service).start()
    for unroll in unrolls:
      assert actor.send(unroll) == b''
      assert_same(queue.get(), unroll)
    assert_same(recorded, unrolls)

  def test_has_the_version_that_was_said(
    self, make_service, make_actor, queue, unrolls
  ):
    actor = make_actor(of=make_service(version=7)).start()
    for version in (0, 5, 7):
      actor.send(unrolls[0], version)
      assert queue.get().policy_version.tolist() == [version] * COLUMNS

  def test_has_the_level_of_the_actor(
    self, make_service, make_actor, queue, unrolls
  ):
    """Of those of learner 1 of 2, with the levels 4, 5 and 5 in turns."""
    service = make_service(
      num_actors=12, index=1, num_learners=2, deal=(4, 5, 5)
    )
    for task, level in [(1, 4), (3, 5), (5, 5), (7, 4), (9, 5)]:
      make_actor(task, service).start().send(unrolls[0])
      assert queue.get().level.tolist() == [level] * COLUMNS

  def test_batches_mix_the_columns_of_actors(
    self, make_service, make_actor, unrolls
  ):
    queue = unroll_queue.UnrollQueue(2, capacity=2)
    service = make_service(queue=queue)
    for task, unroll in enumerate(unrolls[:2]):
      make_actor(task, service).start().send(unroll)
    for column in range(COLUMNS):
      first, second = (
        structures.slice_columns(unroll, column, column + 1)
        for unroll in unrolls[:2]
      )
      batch = queue.get()
      assert_same(structures.slice_columns(batch, 0, 1), first)
      assert_same(structures.slice_columns(batch, 1, 2), second)

  def test_is_answered_once_there_is_room(self, actor, queue, unrolls):
    fill(actor, unrolls)
    sent = in_thread(actor.send, unrolls[CAPACITY])
    wait_until(lambda: len(queue) == CAPACITY + 1)
    assert not sent.done()
    assert_same(queue.get(), unrolls[0])
    assert sent.result(DEADLINE_S) == b''
    for unroll in unrolls[1 : CAPACITY + 1]:
      assert_same(queue.get(), unroll)

  def test_who_waits_keeps_nobody_else_from_an_answer(
    self, actor, make_actor, queue, unrolls
  ):
    fill(actor, unrolls)
    sent = in_thread(actor.send, unrolls[CAPACITY])
    wait_until(lambda: len(queue) == CAPACITY + 1)
    other = make_actor(1).start()
    assert other.weights()[0] == 0
    assert other.weights(has=0) == (0, b'')
    assert not sent.done()

  @pytest.mark.parametrize('version', [-1, 1, 2**62, -(2**63)])
  def test_the_version_must_have_existed(self, actor, unrolls, queue, version):
    with pytest.raises(
      rpc.Refused, match='actor 0 sent no unroll: a policy version that does'
    ):
      actor.send(unrolls[0], version)
    assert len(queue) == 0

  def test_what_is_no_unroll_is_refused_and_changes_nothing(
    self, make_service, make_actor, unrolls, queue
  ):
    recorded = []
    service = make_service(record_unroll=recorded.append)
    actor = make_actor(of=service).start()
    with pytest.raises(rpc.Refused, match='actor 0 sent no unroll: 5 bytes'):
      actor.send_bytes(b'12345')
    assert len(queue) == 0
    assert recorded == []
    actor.send(unrolls[1])
    assert_same(queue.get(), unrolls[1])

  def test_a_learner_that_stops_says_so(self, actor, queue, unrolls):
    queue.close()
    with pytest.raises(rpc.Again, match=protocol.STOPPING):
      actor.send(unrolls[0])

  def test_and_to_those_that_wait(self, actor, queue, unrolls):
    fill(actor, unrolls)
    sent = in_thread(actor.send, unrolls[CAPACITY])
    wait_until(lambda: len(queue) == CAPACITY + 1)
    queue.close()
    with pytest.raises(rpc.Again, match=protocol.STOPPING):
      sent.result(DEADLINE_S)

  def test_after_the_end_it_is_over(self, actor, queue, unrolls, service):
    service.finish()
    queue.close()
    with pytest.raises(rpc.Over, match='training is over'):
      actor.send(unrolls[0])
    assert service.all_told(everybody=False)

  def test_those_that_wait_hear_of_the_end(
    self, actor, queue, unrolls, service
  ):
    fill(actor, unrolls)
    sent = in_thread(actor.send, unrolls[CAPACITY])
    wait_until(lambda: len(queue) == CAPACITY + 1)
    service.finish()
    queue.close()
    with pytest.raises(rpc.Over):
      sent.result(DEADLINE_S)
    assert service.all_told(everybody=False)


class TestSessions:
  def _calls(self, actor):
    yield lambda: actor.begin()
    yield lambda: actor.weights()
    yield lambda: actor.send_bytes(b'')
    yield lambda: actor.fail()

  def test_a_process_that_was_replaced_hears_so(
    self, make_actor, queue, unrolls
  ):
    processes = [make_actor(1).start() for _ in range(3)]
    for replaced in processes[:2]:
      for call in self._calls(replaced):
        with pytest.raises(
          rpc.Refused,
          match='another process with --task=1 has taken its place',
        ):
          call()
    processes[-1].send(unrolls[0])
    assert len(queue) == 1

  def test_an_unknown_one_is_to_register_again(self, actor):
    actor.session += 1
    for call in self._calls(actor):
      with pytest.raises(rpc.Again, match=protocol.UNKNOWN):
        call()

  def test_of_very_many_that_were_replaced_the_first_are_unknown(
    self, make_actor, monkeypatch
  ):
    monkeypatch.setattr(sessions, '_REMEMBERED', 3)
    actors = [make_actor(i % 2) for i in range(6)]
    for actor in actors:
      actor.start()
    # Four were replaced, of both tasks.
    with pytest.raises(rpc.Again, match=protocol.UNKNOWN):
      actors[0].weights()
    for i in range(1, 4):
      with pytest.raises(
        rpc.Refused, match=f'--task={i % 2} has taken its place'
      ):
        actors[i].weights()
    for actor in actors[4:]:
      actor.weights()

  @pytest.mark.parametrize('session', [None, '', [], {}, 0.5, 'x' * 10])
  def test_what_is_no_session_is_refused(self, actor, session):
    for call in (actor.begin, actor.fail):
      with pytest.raises(rpc.Refused, match='without a session'):
        call(session=session)

  @pytest.mark.parametrize('session', [-1, 10**1000])
  def test_any_other_number_is_unknown(self, actor, session):
    with pytest.raises(rpc.Again, match=protocol.UNKNOWN):
      actor.fail(session=session)

  def test_an_actor_calls_once_at_a_time(self, actor, queue, unrolls):
    fill(actor, unrolls)
    sent = in_thread(actor.send, unrolls[CAPACITY])
    wait_until(lambda: len(queue) == CAPACITY + 1)
    for call in self._calls(actor):
      with pytest.raises(rpc.Refused, match=r'^actor 0 calls twice at a time$'):
        call()
    queue.get()
    sent.result(DEADLINE_S)
    actor.weights()

  def test_a_process_takes_the_place_of_one_whose_call_lasts(
    self, actor, make_actor, queue, unrolls
  ):
    fill(actor, unrolls)
    sent = in_thread(actor.send, unrolls[CAPACITY])
    wait_until(lambda: len(queue) == CAPACITY + 1)
    second = make_actor()
    assert second.register()['starts'] == 1
    second.begin()
    queue.get()
    sent.result(DEADLINE_S)
    with pytest.raises(rpc.Refused, match='has taken its place'):
      actor.weights()

  def test_a_call_that_was_refused_does_not_last(self, actor, unrolls, queue):
    for _ in range(3):
      with pytest.raises(rpc.Refused, match='sent no unroll'):
        actor.send_bytes(b'')
    actor.send(unrolls[0])


class TestGauges:
  def test_count_what_came_and_went(
    self, service, make_actor, clock, one, unrolls
  ):
    actors = [make_actor(i).start() for i in range(2)]
    make_actor(2).register()  # It has not begun.
    for unroll in unrolls[:2]:
      actors[0].send(unroll)
    _, data = actors[1].weights()
    actors[1].weights(has=0)
    size = one.layout.num_bytes(COLUMNS) + protocol.VERSIONED.size
    assert service.gauges() == {
      'actors': 2,
      'actors/failures': 0,
      'actors/agent_steps': 2 * LENGTH * COLUMNS,
      'actors/unroll_bytes': 2 * size,
      'actors/weight_bytes': len(data),
    }
    clock.now += sessions._SILENCE
    assert service.gauges()['actors'] == 0
    actors[1].weights()
    assert service.gauges()['actors'] == 1

  def test_a_failure_is_counted_and_the_actor_runs_no_more(
    self, service, make_actor
  ):
    actors = [make_actor(i).start() for i in range(2)]
    actors[0].fail(message='it broke')
    gauges = service.gauges()
    assert (gauges['actors/failures'], gauges['actors']) == (1, 1)

  @pytest.mark.parametrize('message', [None, 5, [], 'x' * 10**6, '\ud800\0'])
  def test_whatever_it_says_of_it(self, service, actor, message):
    actor.fail(message=message)
    assert service.gauges()['actors/failures'] == 1

  def test_one_that_failed_may_not_send(self, actor, unrolls, queue):
    actor.fail(message='it broke')
    with pytest.raises(rpc.Refused, match='has not begun'):
      actor.send(unrolls[0])

  def test_what_is_refused_is_not_counted(self, service, actor, unrolls):
    before = service.gauges()
    for refused in (
      lambda: actor.send_bytes(b''),
      lambda: actor.send(unrolls[0], 1),
    ):
      with pytest.raises(rpc.Refused):
        refused()
    assert service.gauges() == before

  def test_one_whose_call_lasts_runs(
    self, service, actor, clock, queue, unrolls
  ):
    fill(actor, unrolls)
    sent = in_thread(actor.send, unrolls[CAPACITY])
    wait_until(lambda: len(queue) == CAPACITY + 1)
    clock.now += 10 * sessions._SILENCE
    assert service.gauges()['actors'] == 1
    assert service.silence() == 0
    queue.get()
    sent.result(DEADLINE_S)
    # And was heard of when it ended.
    assert service.silence() == 0
    clock.now += 3
    assert service.silence() == 3


class TestSilence:
  def test_is_infinite_before_the_first_actor(self, service):
    assert service.silence() == math.inf

  def test_is_since_the_last_word_of_any_actor(
    self, service, make_actor, clock
  ):
    first, second = make_actor(0).start(), make_actor(1).start()
    clock.now += 40
    first.weights()
    clock.now += 2
    assert service.silence() == 2
    second.fail()
    assert service.silence() == 0

  def test_a_stranger_is_no_actor(self, service, actor, clock):
    clock.now += 5
    actor.session += 1
    with pytest.raises(rpc.Again):
      actor.weights()
    assert service.silence() == 5


class TestAllTold:
  def _hear(self, actor):
    with pytest.raises(rpc.Over):
      actor.weights()

  def test_waits_for_those_at_work(self, service, make_actor):
    actors = [make_actor(i).start() for i in range(2)]
    service.finish()
    assert not service.all_told(everybody=False)
    self._hear(actors[0])
    assert not service.all_told(everybody=False)
    self._hear(actors[1])
    assert service.all_told(everybody=False)
    assert not service.all_told(everybody=True)

  @pytest.mark.parametrize('everybody', [False, True])
  def test_waits_for_those_that_are_about_to_begin(
    self, make_service, make_actor, everybody
  ):
    service = make_service(num_actors=1)
    actor = make_actor(of=service)
    actor.register()
    service.finish()
    assert not service.all_told(everybody)
    with pytest.raises(rpc.Over):
      actor.begin()
    assert service.all_told(everybody)

  @pytest.mark.parametrize('everybody', [False, True])
  def test_those_that_come_later_hear_it_at_once(
    self, make_service, make_actor, everybody
  ):
    service = make_service(num_actors=1)
    service.finish()
    assert service.all_told(everybody) != everybody
    with pytest.raises(rpc.Over):
      make_actor(of=service).register()
    assert service.all_told(everybody)

  def test_a_process_that_takes_a_place_has_to_hear_it_itself(
    self, service, make_actor
  ):
    make_actor().start()
    second = make_actor().start()
    service.finish()
    assert not service.all_told(everybody=False)
    self._hear(second)
    assert service.all_told(everybody=False)

  def test_does_not_wait_for_the_silent(self, service, actor, clock):
    service.finish()
    clock.now += sessions._SILENCE
    assert service.all_told(everybody=False)

  def test_does_not_wait_for_who_has_failed(self, service, actor):
    service.finish()
    actor.fail()
    assert service.all_told(everybody=False)

  def test_everybody_is_this_learners_share(self, make_service, make_actor):
    service = make_service(num_actors=5, num_learners=2, index=1)
    service.finish()
    for task in (1, 3):
      assert not service.all_told(everybody=True)
      with pytest.raises(rpc.Over):
        make_actor(task, service).register()
    assert service.all_told(everybody=True)

  def test_nobody_is_soon_told(self, service):
    assert service.all_told(everybody=False)
    assert not service.all_told(everybody=True)


def test_calls_from_many_threads_lose_and_double_nothing(one, unrolls):
  num_actors, count = 6, 12
  queue = unroll_queue.UnrollQueue(COLUMNS, CAPACITY)
  recorded = []
  service = learning.make_service(
    one,
    queue,
    values=[np.full([10], 1e6)],
    version=10**6,
    record_unroll=recorded.append,
  )

  def play(task):
    actor = learning.ByHand(
      service, one.layout, one.agent.variables, task
    ).start()
    for i in range(count):
      assert actor.send(unrolls[i % len(unrolls)], 1000 * task + i) == b''
      version, data = actor.weights(has=-1)
      assert data == np.full([10], version, np.float64).tobytes()

  done = threading.Event()

  def publish():
    version = 10**6
    while not done.wait(0.001):
      version += 1
      values = [np.full([10], version, np.float64)]
      service.publish(weights.Snapshot(version, values), 0)

  publisher = in_thread(publish)
  actors = [in_thread(play, task) for task in range(num_actors)]
  seen: list[list[int]] = [[] for _ in range(num_actors)]
  for _ in range(num_actors * count):
    # What waits for room is in the queue, too.
    assert len(queue) <= CAPACITY + num_actors
    batch = in_thread(queue.get).result(DEADLINE_S)
    for column in range(COLUMNS):
      got = structures.slice_columns(batch, column, column + 1)
      task, i = divmod(int(got.policy_version[0]), 1000)
      nth = len(seen[task]) % COLUMNS
      seen[task].append(i)
      expected = structures.slice_columns(
        unrolls[i % len(unrolls)], nth, nth + 1
      )
      assert_same(got.env_outputs, expected.env_outputs)
      assert_same(got.agent_state, expected.agent_state)
  for actor in actors:
    actor.result(DEADLINE_S)
  done.set()
  publisher.result(DEADLINE_S)
  assert (
    seen == [[i for i in range(count) for _ in range(COLUMNS)]] * num_actors
  )
  assert len(queue) == 0
  assert len(recorded) == num_actors * count
  gauges = service.gauges()
  total = num_actors * count
  size = one.layout.num_bytes(COLUMNS) + protocol.VERSIONED.size
  assert gauges['actors/agent_steps'] == total * LENGTH * COLUMNS
  assert gauges['actors/weight_bytes'] == total * 80
  assert gauges['actors/unroll_bytes'] == total * size
