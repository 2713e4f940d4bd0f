"""Gradients on their way to the learner: whole ones, late ones and nonsense."""

import json
import threading

import numpy as np
import pytest
import tree

import scalable_agent
from scalable_agent import gradient_queue
from scalable_agent.transport import (
  gradient_codec,
  learner_link,
  protocol,
  rpc,
  sessions,
  weights,
)
from tests import acting, differentiating, learning

LENGTH = 2  # T
COLUMNS = 3


@pytest.fixture(scope='module')
def one():
  return acting.Acting(
    acting.ImageEnvironment(COLUMNS, episode_steps=3), unroll_length=LENGTH
  )


@pytest.fixture(scope='module')
def layout_and_function(one):
  return differentiating.make_layout(one, COLUMNS)


@pytest.fixture(scope='module')
def layout(layout_and_function):
  return layout_and_function[0]


@pytest.fixture(scope='module')
def unroll(one):
  return one.unrolls(3)[-1]


@pytest.fixture(scope='module')
def computed(layout_and_function, unroll):
  return tree.map_structure(np.asarray, layout_and_function[1](unroll))


@pytest.fixture(scope='module')
def data(layout, computed, unroll):
  return layout.write(computed, unroll)


@pytest.fixture
def queue():
  return gradient_queue.GradientQueue(2)


@pytest.fixture
def clock():
  return learning.Clock()


@pytest.fixture
def service(one, layout, queue, clock):
  return differentiating.make_service(one, layout, queue, clock=clock)


class ByHand:
  """An actor that calls the handlers of a service itself."""

  def __init__(self, service, one, layout, task=0):
    self._handlers = service.handlers()
    self._one = one
    self._layout = layout
    self.task = task
    self.session = 1

  def call(self, method, request):
    return self._handlers[method](request)

  def register(self, **options):
    message = {
      'protocol': protocol.VERSION,
      'version': scalable_agent.__version__,
      'task': self.task,
      'options': differentiating.OPTIONS | options,
    }
    answer = self.call('register', json.dumps(message).encode())
    self.session = json.loads(answer)['session']

  def begin(self, columns=COLUMNS, **changes):
    message = {
      'session': self.session,
      'layout': self._layout.describe(),
      'weights': weights.describe(self._one.agent.variables),
      'columns': columns,
    } | changes
    self.call('begin', json.dumps(message).encode())

  def start(self):
    self.register()
    self.begin()
    return self

  def ready(self):
    answer = self.call('ready', protocol.SESSION.pack(self.session))
    return protocol.READY_ANSWER.unpack(answer)[0] == 0

  def send(self, piece, index=0, version=0):
    header = protocol.GRADIENTS.pack(self.session, version, index)
    return self.call('gradients', header + piece)


@pytest.fixture
def make_actor(service, one, layout):
  return lambda task=0: ByHand(service, one, layout, task)


@pytest.fixture
def actor(make_actor):
  """One that may send."""
  actor = make_actor().start()
  assert actor.ready()
  return actor


def assert_nothing_is_held(service, queue):
  assert len(queue) == 0
  assert service._sessions[0].received == []


class TestTaken:
  def test_they_arrive_bit_for_bit_with_what_reports_need(
    self, actor, queue, data, computed, unroll
  ):
    assert actor.send(data) == protocol.TAKEN
    got = queue.get()
    assert got.policy_version == 0
    for given, sent in zip(
      tree.flatten(got.gradients), tree.flatten(computed), strict=True
    ):
      np.testing.assert_array_equal(given, sent)
    for name in ('step_type', 'info'):
      tree.map_structure(
        np.testing.assert_array_equal,
        getattr(got.unroll.env_outputs, name),
        getattr(unroll.env_outputs, name),
      )
    np.testing.assert_array_equal(
      got.unroll.agent_outputs.action, unroll.agent_outputs.action
    )
    assert got.unroll.level.tolist() == [0] * COLUMNS

  @pytest.mark.parametrize('count', [1, 2, 3])
  def test_they_come_in_pieces_that_fit(
    self, actor, service, queue, data, monkeypatch, count
  ):
    # One piece, and two, are full to the last byte.
    most = len(data) // count if count < 3 else len(data) // 2 - 1
    monkeypatch.setattr(gradient_codec, 'MAX_BYTES', most)
    pieces = weights.split(data, most)
    assert len(pieces) == count
    for index, piece in enumerate(pieces):
      assert len(queue) == 0
      actor.send(piece, index)
    assert len(queue) == 1
    assert service._sessions[0].received == []

  def test_the_longest_piece_fits_into_a_message(self):
    size = protocol.GRADIENTS.size + gradient_codec.MAX_BYTES
    assert size == rpc.MAX_BYTES

  def test_their_level_is_the_actors(self, one, layout, queue, data):
    service = differentiating.make_service(one, layout, queue, deal=(0, 1, 2))
    for task in (2, 1):
      actor = ByHand(service, one, layout, task).start()
      assert actor.ready()
      actor.send(data)
      assert queue.get().unroll.level.tolist() == [task] * COLUMNS

  def test_their_bytes_and_steps_are_counted(self, actor, service, data):
    actor.send(data)
    gauges = service.gauges()
    size = protocol.GRADIENTS.size
    assert gauges['actors/gradient_bytes'] == len(data) + size
    assert gauges['actors/agent_steps'] == LENGTH * COLUMNS

  def test_a_link_sends_them_and_fetches_weights(
    self, one, layout, queue, unroll, computed, monkeypatch
  ):
    wire = differentiating.Wire(monkeypatch)
    monkeypatch.setattr(gradient_codec, 'MAX_BYTES', 1000)
    service = differentiating.make_service(one, layout, queue, version=7)
    wire.listen('here', service.handlers())
    link = differentiating.make_link('here', threading.Event())
    link.register()
    link.begin(layout, COLUMNS, one.agent.variables)
    assert link.update_weights() == 7
    version = np.full_like(unroll.policy_version, 5)
    link.send(computed, unroll._replace(policy_version=version))
    assert link.sent_unrolls == 1
    got = queue.get()
    assert got.policy_version == 5
    for given, sent in zip(
      tree.flatten(got.gradients), tree.flatten(computed), strict=True
    ):
      np.testing.assert_array_equal(given, sent)
    # A learner that comes back knows no session.
    wire.listen(
      'here', differentiating.make_service(one, layout, queue).handlers()
    )
    monkeypatch.setattr(learner_link, '_RETRY', 0.001)
    link.send(computed, unroll)  # Is lost.
    assert (link.sent_unrolls, link.reconnects, len(queue)) == (1, 1, 0)
    assert link.update_weights() == 0
    link.send(computed, unroll)
    assert len(queue) == 1


class TestRefused:
  def test_from_strangers(self, make_actor, data):
    with pytest.raises(rpc.Refused, match=protocol.UNKNOWN):
      make_actor().send(data)

  @pytest.mark.parametrize('request_', [b'', bytes(7)])
  def test_without_a_header(self, actor, request_):
    with pytest.raises(rpc.Refused, match='not a message of an actor'):
      actor.call('gradients', request_)

  def test_before_it_has_begun_or_was_told_to(self, make_actor, data, queue):
    actor = make_actor()
    actor.register()
    with pytest.raises(rpc.Refused, match='has not begun'):
      actor.ready()
    for begin in (lambda: None, actor.begin):
      begin()
      with pytest.raises(rpc.Refused, match='actor 0 was not told to send'):
        actor.send(data)
    assert len(queue) == 0

  def test_a_second_set_for_one_answer(self, actor, data, queue):
    actor.send(data)
    with pytest.raises(rpc.Refused, match='was not told to send'):
      actor.send(data)
    assert len(queue) == 1

  @pytest.mark.parametrize('version', [-1, 1, 2**62])
  def test_of_a_version_that_never_was(
    self, actor, service, queue, data, version
  ):
    with pytest.raises(rpc.Refused, match='policy version'):
      actor.send(data, version=version)
    assert_nothing_is_held(service, queue)

  @pytest.mark.parametrize('change', [-4, -1, 1, 4, 10**6])
  def test_of_another_length(self, actor, service, queue, data, change):
    other = data[:change] if change < 0 else data + bytes(change)
    with pytest.raises(rpc.Refused, match=r'bytes in piece 0 instead of \d+$'):
      actor.send(other)
    assert_nothing_is_held(service, queue)
    # It may still send what it was told to.
    assert actor.send(data) == protocol.TAKEN

  @pytest.mark.parametrize('index', [1, 3, 2**32 - 1])
  def test_a_piece_out_of_order(
    self, actor, service, queue, data, monkeypatch, index
  ):
    monkeypatch.setattr(gradient_codec, 'MAX_BYTES', 1000)
    pieces = weights.split(data, 1000)
    if index > 1:
      actor.send(pieces[0])
    with pytest.raises(rpc.Refused, match=f'piece {index} of .* came when'):
      actor.send(pieces[1], index)
    assert_nothing_is_held(service, queue)

  def test_pieces_of_two_versions(
    self, actor, one, service, queue, data, monkeypatch
  ):
    monkeypatch.setattr(gradient_codec, 'MAX_BYTES', 1000)
    pieces = weights.split(data, 1000)
    service.publish(weights.Snapshot(1, ()), 0)
    actor.send(pieces[0], version=0)
    with pytest.raises(rpc.Refused, match='version 1 came when piece 1 of'):
      actor.send(pieces[1], 1, version=1)
    assert_nothing_is_held(service, queue)

  def test_a_set_that_was_under_way_when_the_actor_began_anew(
    self, actor, service, queue, data, monkeypatch
  ):
    monkeypatch.setattr(gradient_codec, 'MAX_BYTES', 1000)
    actor.send(data[:1000])
    actor.begin()
    with pytest.raises(
      rpc.Refused, match=r'piece 1 of .* came when piece 0 of'
    ):
      actor.send(data[1000:2000], 1)
    assert_nothing_is_held(service, queue)

  def test_any_number_of_first_pieces_takes_the_room_of_one(
    self, actor, service, data, monkeypatch
  ):
    monkeypatch.setattr(gradient_codec, 'MAX_BYTES', 1000)
    for _ in range(100):
      actor.send(data[:1000])
    assert len(service._sessions[0].received) == 1

  @pytest.mark.parametrize('columns', [1, COLUMNS - 1, COLUMNS + 1, 2**16])
  def test_of_other_columns_than_it_has_begun_with(
    self, actor, service, queue, data, columns
  ):
    actor.begin(columns)
    with pytest.raises(rpc.Refused, match=r'instead of|was not told'):
      actor.send(data)
    assert_nothing_is_held(service, queue)

  @pytest.mark.parametrize(
    ('field', 'value', 'message'),
    [
      ('step_type', 3, 'a step type that does not exist'),
      ('step_type', -1, 'a step type that does not exist'),
      ('episode_return', np.nan, 'an episode return that is not finite'),
      ('action', 5, 'actions must be in 0 to 4, not 5'),
      ('action', -1, 'actions must be in 0 to 4, not -1'),
      ('num_transitions', 10**6, 'transitions in an unroll of'),
      ('num_transitions', np.nan, 'nan transitions in an unroll of'),
    ],
  )
  def test_of_an_unroll_that_no_actor_makes(
    self,
    actor,
    service,
    queue,
    layout,
    computed,
    unroll,
    field,
    value,
    message,
  ):
    given = tree.map_structure(np.array, computed)
    unroll = tree.map_structure(np.array, unroll)
    arrays = {
      'step_type': unroll.env_outputs.step_type,
      'episode_return': unroll.env_outputs.info.episode_return,
      'action': unroll.agent_outputs.action,
    }
    if field in arrays:
      arrays[field][1, 0] = value
    else:
      given.metrics[field] = np.float32(value)
    with pytest.raises(rpc.Refused, match=f'actor 0 sent no .*{message}'):
      actor.send(layout.write(given, unroll))
    assert_nothing_is_held(service, queue)

  def test_numbers_that_are_none_are_for_the_learner_to_count(
    self, actor, queue, layout, computed, unroll
  ):
    given = tree.map_structure(lambda x: x * np.float32('nan'), computed)
    count = computed.metrics['num_transitions']
    given.metrics['num_transitions'] = count
    assert actor.send(layout.write(given, unroll)) == protocol.TAKEN

  def test_another_loss_or_network_at_the_start(self, make_actor, layout):
    actor = make_actor()
    actor.register()
    # Of the gradients, and of the unroll that they are of.
    for index in (0, -1):
      theirs = layout.describe()
      theirs[index] = [theirs[index][0], [99], 'float32']
      with pytest.raises(rpc.Refused, match=r'gradients: the learner has \S+ '):
        actor.begin(layout=theirs)
    with pytest.raises(rpc.Refused, match=r'gradients: .* the actor no'):
      actor.begin(layout=None)

  def test_another_discounting_names_both(self, make_actor):
    with pytest.raises(
      rpc.Refused,
      match=r'--discounting is 0\.9 at the learner and 0\.5 at actor 0',
    ):
      make_actor().register(discounting=0.5)

  def test_a_learner_that_stops_says_so(self, actor, queue, data):
    queue.close()
    with pytest.raises(rpc.Refused, match=protocol.STOPPING):
      actor.send(data)

  def test_after_the_end_they_are_taken_and_dropped(
    self, actor, service, queue, data
  ):
    service.finish()
    queue.close()
    assert actor.send(data) == protocol.TAKEN
    assert len(queue) == 0


class TestRoom:
  def test_is_that_of_the_queue(self, make_actor, queue, data):
    actors = [make_actor(task).start() for task in range(4)]
    assert [one.ready() for one in actors] == [True, True, False, False]
    for one in actors[:2]:
      one.send(data)
    assert not actors[2].ready()
    queue.get()
    assert actors[2].ready()

  def test_is_kept_for_whoever_is_sending_pieces(
    self, make_actor, clock, data, monkeypatch
  ):
    monkeypatch.setattr(gradient_codec, 'MAX_BYTES', 1000)
    actors = [make_actor(task).start() for task in range(3)]
    assert all(one.ready() for one in actors[:2])
    for index in range(2):
      clock.now += 0.9
      for one in actors[:2]:
        one.send(data[1000 * index : 1000 * (index + 1)], index)
      assert not actors[2].ready()

  def test_of_one_that_failed_is_given_back(
    self, make_actor, service, data, monkeypatch
  ):
    monkeypatch.setattr(gradient_codec, 'MAX_BYTES', 1000)
    actors = [make_actor(task).start() for task in range(3)]
    one = actors[0]
    assert [each.ready() for each in actors] == [True, True, False]
    one.send(data[:1000])
    one.call('failed', protocol.to_json(session=one.session, message='broke'))
    assert service._sessions[0].received == []
    assert service.gauges()['actors/failures'] == 1
    assert actors[2].ready()

  def test_silence_counts_from_the_last_piece(self, actor, service, clock):
    clock.now += sessions._SILENCE - 1
    assert service.gauges()['actors'] == 1
    clock.now += 1
    assert service.gauges()['actors'] == 0
