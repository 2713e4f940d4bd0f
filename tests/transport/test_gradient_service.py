"""Gradients on their way to the learner: whole ones, late ones and nonsense."""

import numpy as np
import pytest
import tree

from scalable_agent import gradient_queue
from scalable_agent.transport import protocol, rpc, sessions
from tests import acting, differentiating, learning
from tests.transport.test_unroll_codec import assert_same
from tests.waiting import DEADLINE_S, in_thread, wait_until

LENGTH = 2  # T
COLUMNS = 3
CAPACITY = 2


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


class Queue(gradient_queue.GradientQueue):
  """One that tells who is about to put something.

  Attributes:
    puts: calls of `put` so far.
  """

  puts = 0

  def put(self, computed):
    self.puts += 1
    super().put(computed)


@pytest.fixture
def queue():
  queue = Queue(CAPACITY)
  yield queue
  queue.close()


@pytest.fixture
def clock():
  return learning.Clock()


@pytest.fixture
def service(one, layout, queue, clock):
  return differentiating.make_service(one, layout, queue, clock=clock)


@pytest.fixture
def make_actor(service, one, layout):
  def make(task=0, of=service):
    return learning.ByHand(
      of, layout, one.agent.variables, task, differentiating.OPTIONS
    )

  return make


@pytest.fixture
def actor(make_actor):
  return make_actor().start()


def send(actor, data, version=0):
  return actor.send_bytes(data, version, 'gradients')


def fill(actor, data):
  """Sends as many as there is room for; returns a call that waits for more."""
  for _ in range(CAPACITY):
    assert send(actor, data) == b''
  queue = actor_queue(actor)
  sent = in_thread(send, actor, data)
  wait_until(lambda: queue.puts == CAPACITY + 1)
  assert not sent.done()
  return sent


def actor_queue(actor):
  """Returns the queue behind the handlers that an actor calls."""
  return actor._handlers['gradients'].__self__._queue


class TestTaken:
  def test_they_arrive_bit_for_bit_with_what_reports_need(
    self, actor, queue, data, computed, unroll
  ):
    assert send(actor, data) == b''
    got = queue.get()
    assert got.policy_version == 0
    assert_same(got.gradients, computed)
    for name in ('step_type', 'info'):
      assert_same(
        getattr(got.unroll.env_outputs, name),
        getattr(unroll.env_outputs, name),
      )
    assert_same(got.unroll.agent_outputs.action, unroll.agent_outputs.action)
    assert got.unroll.level.tolist() == [0] * COLUMNS

  def test_nothing_that_reports_do_not_need_travels(
    self, queue, actor, data, layout, computed
  ):
    send(actor, data)
    got = queue.get().unroll
    for unsent in (
      got.env_outputs.observation,
      got.env_outputs.reward,
      got.env_outputs.discount,
      got.agent_outputs.policy_logits,
      got.agent_outputs.baseline,
      got.agent_state,
    ):
      assert unsent == ()
    # Step type, return, step; action.
    size = sum(np.asarray(x).nbytes for x in tree.flatten(computed))
    assert layout.num_bytes(COLUMNS) == len(data)
    assert len(data) == size + COLUMNS * (LENGTH + 1) * (3 * 4 + 4)

  def test_their_version_is_what_was_said(
    self, one, layout, queue, data, make_actor
  ):
    service = differentiating.make_service(one, layout, queue, version=7)
    actor = make_actor(of=service).start()
    for version in (0, 5, 7):
      send(actor, data, version)
      assert queue.get().policy_version == version

  def test_their_level_is_the_actors(
    self, one, layout, queue, data, make_actor
  ):
    service = differentiating.make_service(one, layout, queue, deal=(0, 1, 2))
    for task in (2, 1):
      send(make_actor(task, service).start(), data)
      assert queue.get().unroll.level.tolist() == [task] * COLUMNS

  def test_their_bytes_and_steps_are_counted(self, actor, service, data):
    send(actor, data)
    gauges = service.gauges()
    size = protocol.VERSIONED.size
    assert gauges['actors/gradient_bytes'] == len(data) + size
    assert gauges['actors/agent_steps'] == LENGTH * COLUMNS
    assert gauges['actors/weight_bytes'] == 0

  def test_numbers_that_are_none_are_for_the_learner_to_count(
    self, actor, queue, layout, computed, unroll
  ):
    given = tree.map_structure(lambda x: x * np.float32('nan'), computed)
    count = computed.metrics['num_transitions']
    given.metrics['num_transitions'] = count
    assert send(actor, layout.write(given, unroll)) == b''
    assert_same(queue.get().gradients, given)


class TestRoom:
  def test_is_waited_for(self, actor, queue, data):
    sent = fill(actor, data)
    assert not sent.done()
    assert len(queue) == CAPACITY + 1
    queue.get()
    assert sent.result(DEADLINE_S) == b''
    assert len(queue) == CAPACITY

  def test_who_waits_for_it_is_heard_of(
    self, actor, make_actor, service, clock, data
  ):
    sent = fill(actor, data)
    clock.now += 2 * sessions._SILENCE
    assert service.silence() == 0
    assert service.gauges()['actors'] == 1
    # And keeps nobody from an answer.
    assert make_actor(1).start().weights(has=0) == (0, b'')
    assert not sent.done()

  @pytest.mark.parametrize('over', [False, True])
  def test_there_is_none_any_more_once_the_learner_stops(
    self, actor, service, queue, data, over
  ):
    sent = fill(actor, data)
    if over:
      service.finish()
    queue.close()
    with pytest.raises(rpc.Over if over else rpc.Again):
      sent.result(DEADLINE_S)
    assert service.all_told(everybody=False) == over


class TestRefused:
  def test_from_strangers(self, make_actor, data):
    with pytest.raises(rpc.Again, match=protocol.UNKNOWN):
      send(make_actor(), data)

  @pytest.mark.parametrize('request_', [b'', bytes(7), bytes(15)])
  def test_without_a_header(self, actor, request_):
    with pytest.raises(rpc.Refused, match='not a message of an actor'):
      actor.call('gradients', request_)

  def test_before_it_has_begun(self, make_actor, data, queue):
    actor = make_actor()
    actor.register()
    with pytest.raises(rpc.Refused, match='actor 0 has not begun'):
      send(actor, data)
    assert len(queue) == 0

  def test_unrolls(self, actor):
    assert 'unroll' not in actor._handlers

  @pytest.mark.parametrize('version', [-1, 1, 2**62])
  def test_of_a_version_that_never_was(self, actor, queue, data, version):
    with pytest.raises(
      rpc.Refused, match='actor 0 sent no gradient: a policy version'
    ):
      send(actor, data, version)
    assert len(queue) == 0

  @pytest.mark.parametrize('change', [-4, -1, 1, 4, 10**6])
  def test_of_another_length(self, actor, queue, data, change):
    other = data[:change] if change < 0 else data + bytes(change)
    with pytest.raises(
      rpc.Refused, match=f'{len(other)} bytes instead of {len(data)}$'
    ):
      send(actor, other)
    assert len(queue) == 0
    assert send(actor, data) == b''

  @pytest.mark.parametrize('columns', [1, COLUMNS - 1, COLUMNS + 1, 2**16])
  def test_of_other_columns_than_it_has_begun_with(
    self, actor, queue, data, columns
  ):
    actor.begin(columns=columns)
    with pytest.raises(rpc.Refused, match='instead of'):
      send(actor, data)
    assert len(queue) == 0

  @pytest.mark.parametrize(
    ('field', 'value', 'message'),
    [
      ('step_type', 3, 'a step type that does not exist'),
      ('step_type', -1, 'a step type that does not exist'),
      ('episode_return', np.nan, 'episode_return is not finite'),
      ('action', 5, 'actions must be in 0 to 4, not 5'),
      ('action', -1, 'actions must be in 0 to 4, not -1'),
      ('num_transitions', 10**6, 'transitions in an unroll of'),
      ('num_transitions', np.nan, 'nan transitions in an unroll of'),
    ],
  )
  def test_of_an_unroll_that_no_actor_makes(
    self, actor, queue, layout, computed, unroll, field, value, message
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
      send(actor, layout.write(given, unroll))
    assert len(queue) == 0

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
      make_actor().register(options={'discounting': 0.5})

  def test_a_learner_that_stops_says_so(self, actor, queue, data):
    queue.close()
    with pytest.raises(rpc.Again, match=protocol.STOPPING):
      send(actor, data)

  def test_after_the_end_it_is_over(self, actor, service, queue, data):
    service.finish()
    queue.close()
    with pytest.raises(rpc.Over):
      send(actor, data)
    assert service.all_told(everybody=False)
