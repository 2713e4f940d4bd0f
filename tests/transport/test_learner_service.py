"""What a learner answers: to honest actors, to late ones and to strangers."""

import json
import threading

import numpy as np
import pytest

from scalable_agent import structures, unroll_queue
from scalable_agent.transport import (
  admission,
  protocol,
  rpc,
  sessions,
  weights,
)
from tests import acting, learning
from tests.transport.test_unroll_codec import assert_same
from tests.waiting import DEADLINE_S, in_thread

LENGTH = 2  # T
COLUMNS = 3


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
  return unroll_queue.UnrollQueue(COLUMNS, capacity=2)


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
  return lambda task=0: learning.ByHand(service, one, task)


@pytest.fixture
def actor(make_actor):
  return make_actor().start(COLUMNS)


def sent(actor, unroll):
  """Asks for room and sends."""
  assert actor.ready() == (0, False)
  assert actor.send(unroll) == protocol.TAKEN


class TestRegister:
  def test_welcomes_with_the_frames_and_the_starts(self, make_actor):
    for task in (0, 5):
      for starts in range(3):
        answer = make_actor(task).register()
        assert (answer['frames'], answer['starts']) == (100, starts)

  def test_sessions_cannot_be_guessed_and_differ(self, make_actor):
    sessions = [make_actor(i % 6).register()['session'] for i in range(50)]
    assert len(set(sessions)) == 50
    assert max(sessions) > 2**50

  @pytest.mark.parametrize(
    ('changes', 'message'),
    [
      ({'protocol': 99}, 'learner has protocol 1, actor 0 99.*same version'),
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
  def test_names_what_differs(self, make_actor, changes, message):
    with pytest.raises(rpc.Refused, match=message):
      make_actor().register(**changes)

  def test_an_option_that_only_the_actor_has_is_no_difference(self, make_actor):
    make_actor().register(options=learning.OPTIONS | {'seed': 3})

  def test_an_actor_goes_to_its_own_learner(self, make_service, one):
    service = make_service(index=1, num_learners=3)
    for task in (1, 4):
      learning.ByHand(service, one, task).register()
    for task in (0, 2, 3, 5):
      with pytest.raises(
        rpc.Refused, match=f'{task} belongs to learner {task % 3}, not 1'
      ):
        learning.ByHand(service, one, task).register()

  @pytest.mark.parametrize('method', ['register', 'begin', 'failed'])
  @pytest.mark.parametrize(
    'request_', [b'', b'[]', b'5', b'{', b'\xff\xff', b'[' * 10**5]
  )
  def test_what_is_no_message_is_refused(self, actor, method, request_):
    with pytest.raises(rpc.Refused, match='not a message of an actor'):
      actor.call(method, request_)

  def test_registering_over_and_over_takes_no_memory(self, service, make_actor):
    for _ in range(300):
      make_actor().register()
    assert len(service._sessions) == 1


class TestBegin:
  @pytest.fixture
  def actor(self, make_actor):
    actor = make_actor()
    actor.register()
    return actor

  def test_names_the_array_that_differs(self, actor, one):
    layout = one.layout.describe()
    index = one.layout.names.index('2/policy_logits')
    layout[index] = ['2/policy_logits', [7], 'float32']
    with pytest.raises(
      rpc.Refused,
      match=r'unrolls: the learner has 2/policy_logits \[5\] float32, the '
      r'actor 2/policy_logits \[7\] float32.*--network another version',
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

  @pytest.mark.parametrize('columns', [0, -1, 2**16 + 1, 10**100, '3', None])
  def test_wants_a_possible_number_of_columns(self, actor, columns):
    with pytest.raises(rpc.Refused, match=r'--envs_per_actor=.* cannot be'):
      actor.begin(columns)

  def test_nothing_is_taken_before(self, actor, unrolls, queue):
    with pytest.raises(rpc.Refused, match='has not begun'):
      actor.ready()
    with pytest.raises(rpc.Refused, match='no stream 0'):
      actor.send(unrolls[0])
    assert len(queue) == 0


class TestWeights:
  # Four pieces.
  SIZE = 3 * 2**20

  def _values(self, version):
    return [np.full([self.SIZE], version, np.float32)]

  def _bytes(self, version):
    return self._values(version)[0].tobytes()

  @pytest.fixture
  def service(self, make_service):
    return make_service(values=self._values(3), version=3)

  def test_come_only_if_they_are_newer(self, service, actor):
    version, count, over, _ = actor.weights(has=-1)
    assert (version, count, over) == (3, 4, False)
    assert actor.weights(has=3) == (3, 0, False, b'')
    service.publish(weights.Snapshot(4, self._values(4)), 0)
    assert actor.weights(has=3)[:3] == (4, 4, False)

  def test_come_in_pieces_that_fit(self, actor):
    pieces = [
      actor.weights(has=-1, version=3 if i else -1, index=i)[3]
      for i in range(4)
    ]
    limit = rpc.MAX_BYTES - protocol.WEIGHTS_ANSWER.size
    assert [len(p) for p in pieces[:3]] == [limit] * 3
    assert b''.join(pieces) == self._bytes(3)

  def test_are_of_one_version_while_others_are_published(
    self, service, make_actor
  ):
    actors = [make_actor(i).start() for i in range(2)]
    pieces = [[], []]
    for i in range(4):
      service.publish(weights.Snapshot(4 + i, self._values(4 + i)), 0)
      for actor, parts in zip(actors, pieces, strict=True):
        version, count, _, piece = actor.weights(
          has=3, version=4 if i else -1, index=i
        )
        assert (version, count) == (4, 4)
        parts.append(piece)
    assert [b''.join(p) for p in pieces] == [self._bytes(4)] * 2
    assert actors[0].weights(has=4)[:2] == (7, 4)

  def test_are_serialised_once_for_all_actors(self, service, make_actor):
    class Counted:
      count = 0

      def __array__(self, dtype=None, copy=None):
        self.count += 1
        return np.zeros([4], np.float32)

    counted = [Counted() for _ in range(2)]
    for version, value in enumerate(counted):
      service.publish(weights.Snapshot(10 + version, [value]), 0)
      for task in range(6):
        answer = make_actor(task).start().weights()
        assert answer == (10 + version, 1, False, bytes(16))
    assert [value.count for value in counted] == [1, 1]

  @pytest.mark.parametrize(
    ('version', 'index'), [(-1, 4), (-1, 2**32 - 1), (-2, 0), (2, 1), (9, 1)]
  )
  def test_other_pieces_do_not_exist(self, actor, version, index):
    actor.weights()
    with pytest.raises(rpc.Refused, match=f'no piece {index} of'):
      actor.weights(version=version, index=index)

  def test_are_forgotten_once_an_actor_has_them(self, service, actor):
    for i in range(4):
      actor.weights(version=3 if i else -1, index=i)
    with pytest.raises(rpc.Refused, match='no piece 1'):
      actor.weights(version=3, index=1)

  def test_say_when_training_is_over(self, service, actor):
    service.finish()
    assert actor.weights(has=1) == (1, 0, True, b'')

  @pytest.mark.parametrize('request_', [b'', bytes(7)])
  @pytest.mark.parametrize('method', ['weights', 'ready', 'unroll'])
  def test_a_header_cut_off_is_refused(self, actor, method, request_):
    with pytest.raises(rpc.Refused, match='not a message'):
      actor.call(method, request_)


class TestReady:
  def test_there_is_room_for_as_many_as_the_capacity(self, make_actor):
    actors = [make_actor(i).start() for i in range(4)]
    waits = [actor.ready()[0] for actor in actors]
    assert [wait == 0 for wait in waits] == [True, True, False, False]

  def test_a_promise_lapses_if_nothing_comes(self, make_actor, clock):
    actors = [make_actor(i).start() for i in range(3)]
    for actor in actors[:2]:
      assert actor.ready()[0] == 0
    clock.now += admission._LEASE - 0.01
    assert actors[2].ready()[0] > 0
    clock.now += 0.01
    assert actors[2].ready()[0] == 0

  def test_who_asks_again_does_not_take_two_places(self, make_actor):
    actors = [make_actor(i).start() for i in range(2)]
    for _ in range(5):
      assert actors[0].ready()[0] == 0
    assert actors[1].ready()[0] == 0

  def test_the_place_of_who_has_failed_is_free(self, make_actor):
    actors = [make_actor(i).start() for i in range(3)]
    for actor in actors[:2]:
      actor.ready()
    message = {'session': actors[0].session, 'message': ''}
    actors[0].call('failed', json.dumps(message).encode())
    assert actors[2].ready()[0] == 0

  def test_the_queue_never_holds_more_than_its_capacity(
    self, make_service, one, unrolls, clock
  ):
    """Of actors that send while the promise holds, in any order."""
    capacity = 3
    queue = unroll_queue.UnrollQueue(COLUMNS, capacity)
    service = make_service(queue=queue)
    actors = [learning.ByHand(service, one, i).start() for i in range(6)]
    rng = np.random.default_rng(0)
    promised: dict[int, float] = {}
    longest, told_to_wait, taken = 0, 0, 0
    for _ in range(800):
      clock.now += float(rng.uniform(0, 0.02))
      task = int(rng.integers(6))
      if task in promised:
        in_time = clock.now - promised.pop(task) < admission._LEASE
        if in_time:
          assert actors[task].send(unrolls[0]) == protocol.TAKEN
          actors[task].restart()
      elif actors[task].ready()[0] == 0:
        promised[task] = clock.now
      else:
        told_to_wait += 1
      assert len(queue) <= capacity
      longest = max(longest, len(queue))
      if queue.ready and rng.uniform() < 0.25:
        queue.get()
        taken += 1
    assert longest == capacity
    assert told_to_wait > 50
    assert taken > 50

  def test_late_ones_are_still_taken_and_not_more_than_one_of_each(
    self, make_actor, clock, queue, unrolls
  ):
    """An unroll on its way for longer than the promise holds is not lost."""
    actors = [make_actor(i).start() for i in range(6)]
    for actor in actors:
      assert actor.ready()[0] == 0
      clock.now += admission._LEASE
    for actor in actors:
      assert actor.send(unrolls[0]) == protocol.TAKEN
      with pytest.raises(rpc.Refused, match='not told to send'):
        actor.send(unrolls[1])
    assert len(queue) == queue.capacity + 4

  def test_times_to_wait_are_bounded_and_grow_with_those_who_wait(
    self, make_service, one, unrolls, clock
  ):
    queue = unroll_queue.UnrollQueue(COLUMNS, capacity=1)
    service = make_service(queue=queue, num_actors=40)
    actors = [learning.ByHand(service, one, i).start() for i in range(40)]
    for _ in range(50):  # The learner takes one every 20 ms.
      sent(actors[0], unrolls[0])
      actors[0].restart()
      queue.get()
      clock.now += 0.02
    sent(actors[0], unrolls[0])
    waits = [actor.ready()[0] for actor in actors[1:]]
    assert waits == sorted(waits)
    assert waits[0] == pytest.approx(20 / admission._ASKS, abs=1.01)
    assert waits[-1] > 10 * waits[0]
    assert max(waits) <= 1000 * admission._LONGEST_WAIT
    clock.now += 10  # Nobody else waits any more.
    assert actors[1].ready()[0] == waits[0]

  @pytest.mark.parametrize(
    ('seconds', 'bound'),
    [
      (0.0, admission._SHORTEST_WAIT),
      (1e-6, admission._SHORTEST_WAIT),
      (3600.0, admission._LONGEST_WAIT),
    ],
  )
  def test_times_to_wait_are_bounded_at_any_pace(
    self, make_actor, clock, queue, unrolls, seconds, bound
  ):
    actors = [make_actor(i).start() for i in range(2)]
    for _ in range(40):
      sent(actors[0], unrolls[0])
      actors[0].restart()
      queue.get()
      clock.now += seconds
    for _ in range(2):
      sent(actors[0], unrolls[0])
      actors[0].restart()
    assert actors[1].ready()[0] == round(1000 * bound)

  def test_says_when_training_is_over(self, service, actor):
    service.finish()
    assert actor.ready()[1]


class TestUnroll:
  def test_arrives_bit_for_bit_and_is_recorded(
    self, make_service, one, queue, unrolls
  ):
    recorded = []
    service = make_service(record_unroll=recorded.append)
    actor = learning.ByHand(service, one).start()
    for unroll in unrolls:
      sent(actor, unroll)
      assert_same(queue.get(), unroll)
    assert_same(recorded, unrolls)

  def test_batches_mix_the_columns_of_actors(self, make_service, one, unrolls):
    queue = unroll_queue.UnrollQueue(2, capacity=2)
    service = make_service(queue=queue)
    for task, unroll in enumerate(unrolls[:2]):
      sent(learning.ByHand(service, one, task).start(), unroll)
    for column in range(COLUMNS):
      first, second = (
        structures.slice_columns(unroll, column, column + 1)
        for unroll in unrolls[:2]
      )
      batch = queue.get()
      assert_same(structures.slice_columns(batch, 0, 1), first)
      assert_same(structures.slice_columns(batch, 1, 2), second)

  def test_arrives_in_as_many_streams_as_the_columns_need(
    self, make_service, one, queue, unrolls, monkeypatch
  ):
    # Two columns fit into a message.
    size = one.layout.num_bytes(2, whole=True) + protocol.UNROLL.size
    monkeypatch.setattr(rpc, 'MAX_BYTES', size)
    actor = learning.ByHand(make_service(), one).start(COLUMNS)
    for unroll in unrolls[:2]:
      assert actor.ready()[0] == 0
      for stream, columns in enumerate([(0, 2), (2, 3)]):
        piece = structures.slice_columns(unroll, *columns)
        assert actor.send(piece, stream) == protocol.TAKEN
      assert_same(queue.get(), unroll)
    for stream in (2, COLUMNS, 2**32 - 1):
      with pytest.raises(rpc.Refused, match=f'no stream {stream}'):
        actor.send_bytes(b'', stream)

  def test_streams_are_few_however_many_columns(self, service, make_actor, one):
    """As the learner keeps the latest frames of each."""
    fit = one.layout.columns_per_message(rpc.MAX_BYTES - protocol.UNROLL.size)
    actor = make_actor().start(columns=2**16)
    streams = -(-(2**16) // fit)
    assert streams < 200
    with pytest.raises(rpc.Refused, match='no stream'):
      actor.send_bytes(b'', streams)
    with pytest.raises(rpc.Refused, match='sent no unroll'):
      actor.send_bytes(b'', streams - 1)

  def test_nobody_may_send_without_being_told(self, actor, unrolls, queue):
    with pytest.raises(rpc.Refused, match='actor 0 was not told to send'):
      actor.send(unrolls[0])
    assert len(queue) == 0

  def test_nobody_may_send_more_than_was_said(self, make_actor, unrolls, queue):
    actor = make_actor().start(columns=COLUMNS - 1)
    actor.ready()
    with pytest.raises(rpc.Refused, match='was not told to send'):
      actor.send(unrolls[0])
    assert len(queue) == 0

  @pytest.mark.parametrize('version', [-1, 1, 2**62])
  def test_the_version_must_have_existed(self, actor, unrolls, queue, version):
    future = unrolls[0]._replace(
      policy_version=np.full([COLUMNS], version, np.int64)
    )
    actor.ready()
    with pytest.raises(rpc.Refused, match='policy version'):
      actor.send(future)
    assert len(queue) == 0

  @pytest.mark.parametrize(('level', 'right'), [(0, False), (1, True)])
  def test_the_level_must_be_the_actors(
    self, make_service, one, unrolls, queue, level, right
  ):
    service = make_service(deal=(0, 1))
    actor = learning.ByHand(service, one, task=3).start()
    unroll = unrolls[0]._replace(level=np.full([COLUMNS], level, np.int32))
    actor.ready()
    if right:
      assert actor.send(unroll) == protocol.TAKEN
    else:
      with pytest.raises(rpc.Refused, match='actor 3 plays another level'):
        actor.send(unroll)
    assert len(queue) == right

  def test_what_is_no_unroll_is_refused_and_changes_nothing(
    self, actor, unrolls, queue
  ):
    sent(actor, unrolls[0])
    assert actor.ready() == (0, False)
    with pytest.raises(rpc.Refused, match='actor 0 sent no unroll: 5 bytes'):
      actor.send_bytes(b'12345')
    assert actor.send(unrolls[1]) == protocol.TAKEN
    assert len(queue) == 2

  def test_a_gap_in_the_stream_is_mended_by_a_restart(
    self, actor, one, unrolls, queue
  ):
    sent(actor, unrolls[0])
    assert_same(queue.get(), unrolls[0])
    assert actor.ready() == (0, False)
    assert actor.send_bytes(one.layout.write(unrolls[2], 2)) == protocol.RESTART
    assert len(queue) == 0
    actor.restart()
    assert actor.send(unrolls[2]) == protocol.TAKEN
    assert_same(queue.get(), unrolls[2])

  def test_a_learner_that_stops_says_so(self, actor, queue, unrolls, service):
    actor.ready()
    queue.close()
    with pytest.raises(rpc.Refused, match=protocol.STOPPING):
      actor.send(unrolls[0])
    assert protocol.STOPPING in protocol.COME_BACK

  def test_is_taken_after_the_end_and_no_longer_needed(
    self, actor, queue, unrolls, service
  ):
    actor.ready()
    service.finish()
    queue.close()
    assert actor.send(unrolls[0]) == protocol.TAKEN


class TestSessions:
  def _calls(self, actor):
    yield lambda: actor.begin()
    yield lambda: actor.weights()
    yield lambda: actor.ready()
    yield lambda: actor.send_bytes(b'')
    yield lambda: actor.call(
      'failed', json.dumps({'session': actor.session}).encode()
    )

  def test_a_process_that_was_replaced_hears_so(self, make_actor):
    first, second = make_actor(1).start(), make_actor(1).start()
    for call in self._calls(first):
      with pytest.raises(
        rpc.Refused, match='another process with --task=1 has taken its place'
      ):
        call()
    assert second.ready() == (0, False)

  def test_an_unknown_one_is_to_register_again(self, actor, service):
    actor.session += 1
    for call in self._calls(actor):
      with pytest.raises(rpc.Refused, match=protocol.UNKNOWN):
        call()
    assert protocol.UNKNOWN in protocol.COME_BACK

  @pytest.mark.parametrize('session', [None, '', [], {}, 0.5, 'x' * 10])
  def test_what_is_no_session_is_refused(self, actor, session):
    for method in ('begin', 'failed'):
      with pytest.raises(rpc.Refused, match='without a session'):
        actor.call(method, json.dumps({'session': session}).encode())

  @pytest.mark.parametrize('session', [-1, 10**1000])
  def test_any_other_number_is_unknown(self, actor, session):
    with pytest.raises(rpc.Refused, match=protocol.UNKNOWN):
      actor.call('failed', json.dumps({'session': session}).encode())

  def test_a_restarted_actor_begins_its_streams_anew(
    self, make_actor, queue, unrolls
  ):
    first = make_actor().start()
    sent(first, unrolls[0])
    queue.get()
    second = make_actor().start()
    sent(second, unrolls[5])
    assert_same(queue.get(), unrolls[5])


class TestGauges:
  def test_count_what_came_and_went(
    self, service, make_actor, clock, one, unrolls
  ):
    actors = [make_actor(i).start() for i in range(2)]
    make_actor(2).register()  # It has not begun.
    for unroll in unrolls[:2]:
      sent(actors[0], unroll)
    *_, piece = actors[1].weights()
    lengths = [one.layout.num_bytes(COLUMNS, whole) for whole in (True, False)]
    assert service.gauges() == {
      'actors': 2,
      'actors/failures': 0,
      'actors/agent_steps': 2 * LENGTH * COLUMNS,
      'actors/unroll_bytes': sum(lengths) + 2 * protocol.UNROLL.size,
      'actors/weight_bytes': len(piece),
    }
    clock.now += sessions._SILENCE
    assert service.gauges()['actors'] == 0
    actors[1].weights()
    assert service.gauges()['actors'] == 1

  def test_a_failure_is_counted_and_the_actor_runs_no_more(
    self, service, make_actor
  ):
    actors = [make_actor(i).start() for i in range(2)]
    message = {'session': actors[0].session, 'message': 'it broke'}
    actors[0].call('failed', json.dumps(message).encode())
    gauges = service.gauges()
    assert (gauges['actors/failures'], gauges['actors']) == (1, 1)

  def test_what_is_refused_is_not_counted(self, service, actor, unrolls):
    before = service.gauges()
    with pytest.raises(rpc.Refused):
      actor.send(unrolls[0])
    assert service.gauges() == before


class TestSilence:
  def test_is_infinite_before_the_first_actor(self, service):
    assert service.silence() == float('inf')

  def test_is_since_the_last_word_of_any_actor(
    self, service, make_actor, clock
  ):
    first, second = make_actor(0).start(), make_actor(1).start()
    clock.now += 40
    first.ready()
    clock.now += 2
    assert service.silence() == 2
    second.call('failed', protocol.to_json(session=second.session))
    assert service.silence() == 0


class TestAllTold:
  def test_waits_for_those_at_work(self, service, make_actor):
    actors = [make_actor(i).start() for i in range(2)]
    service.finish()
    assert not service.all_told(everybody=False)
    actors[0].ready()
    assert not service.all_told(everybody=False)
    actors[1].weights()
    assert service.all_told(everybody=False)
    assert not service.all_told(everybody=True)

  @pytest.mark.parametrize('everybody', [False, True])
  def test_waits_for_those_that_are_about_to_begin(
    self, make_service, one, everybody
  ):
    service = make_service(num_actors=1)
    service.finish()
    actor = learning.ByHand(service, one)
    actor.register()
    assert not service.all_told(everybody)
    actor.begin()
    assert not service.all_told(everybody)
    actor.weights()
    assert service.all_told(everybody)

  def test_does_not_wait_for_the_silent(self, service, actor, clock):
    service.finish()
    clock.now += sessions._SILENCE
    assert service.all_told(everybody=False)

  def test_does_not_wait_for_who_has_failed(self, service, actor):
    service.finish()
    message = json.dumps({'session': actor.session}).encode()
    actor.call('failed', message)
    assert service.all_told(everybody=False)

  def test_everybody_is_this_learners_share(self, make_service, one):
    service = make_service(num_actors=5, num_learners=2, index=1)
    service.finish()
    for task in (1, 3):
      assert not service.all_told(everybody=True)
      learning.ByHand(service, one, task).start().weights()
    assert service.all_told(everybody=True)

  def test_nobody_is_soon_told(self, service):
    assert service.all_told(everybody=False)
    assert not service.all_told(everybody=True)


def test_calls_from_many_threads_lose_and_double_nothing(one, unrolls):
  num_actors, count, capacity = 6, 12, 2
  queue = unroll_queue.UnrollQueue(COLUMNS, capacity)
  recorded = []
  service = learning.make_service(
    one,
    queue,
    values=[np.arange(10.0)],
    version=10**6,
    record_unroll=recorded.append,
  )

  def play(task):
    actor = learning.ByHand(service, one, task).start()
    for i in range(count):
      unroll = unrolls[i % len(unrolls)]._replace(
        policy_version=np.full([COLUMNS], 1000 * task + i, np.int64)
      )
      if i == len(unrolls):
        actor.restart()  # The unrolls begin anew.
      while True:
        wait, over = actor.ready()
        assert not over
        if not wait:
          break
        threading.Event().wait(wait / 1000)
      assert actor.send(unroll) == protocol.TAKEN
      version, _, _, piece = actor.weights(has=-1)
      assert piece == np.full([10], version, np.float64).tobytes()

  done = threading.Event()

  def publish():
    version = 10**6
    while not done.wait(0.001):
      version += 1
      values = [np.full([10], version, np.float64)]
      service.publish(weights.Snapshot(version, values), 0)

  service.publish(weights.Snapshot(10**6, [np.full([10], 1e6)]), 0)
  publisher = in_thread(publish)
  actors = [in_thread(play, task) for task in range(num_actors)]
  seen: list[list[int]] = [[] for _ in range(num_actors)]
  longest = 0
  for _ in range(num_actors * count):
    longest = max(longest, len(queue))
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
  assert longest <= capacity
  assert len(queue) == 0
  assert len(recorded) == num_actors * count
  gauges = service.gauges()
  total = num_actors * count
  assert gauges['actors/agent_steps'] == total * LENGTH * COLUMNS
  assert gauges['actors/weight_bytes'] == total * 80
  whole = one.layout.num_bytes(COLUMNS, whole=True)
  rest = one.layout.num_bytes(COLUMNS, whole=False)
  assert gauges['actors/unroll_bytes'] == num_actors * (
    2 * whole + (count - 2) * rest + count * protocol.UNROLL.size
  )
