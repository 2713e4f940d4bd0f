"""An actor's link, over a real server: nothing is sent wrongly or for ever."""

import threading

import numpy as np
import pytest

from scalable_agent import action_spaces, structures, unroll_queue
from scalable_agent.transport import (
  learner_link,
  protocol,
  rpc,
  unroll_codec,
  unroll_link,
  weights,
)
from tests import acting, clockwork, learning, strangers
from tests.ports import free_port
from tests.transport.test_unroll_codec import assert_same
from tests.waiting import DEADLINE_S, in_thread, wait_until

LENGTH = 2  # T
COLUMNS = 3
CAPACITY = 2


def make_acting(**options):
  return acting.Acting(
    acting.ImageEnvironment(COLUMNS, episode_steps=3),
    unroll_length=LENGTH,
    **({'frame_stack': 4} | options),
  )


class Learner:
  """A learner without learning, which may be replaced behind its address.

  Attributes:
    address: where it answers.
    one: with its agent.
    server: that answers.
    service, queue: of the present life.
  """

  def __init__(self):
    self.one = make_acting()
    self.address = f'127.0.0.1:{free_port()}'
    self._services = [None]
    self.restart()
    self.server = learning.serve(self.address, self._services)

  def restart(self, version=0, one=None, **changes):
    """Another process takes the place: it knows no actor."""
    self.queue = unroll_queue.UnrollQueue(COLUMNS, CAPACITY)
    self.service = learning.make_service(
      one or self.one, self.queue, version=version, **changes
    )
    self._services[0] = self.service

  def get(self):
    """Returns the next unroll that has arrived."""
    assert self.queue.ready
    return self.queue.get()


@pytest.fixture(scope='module')
def the_learner():
  return Learner()


@pytest.fixture
def learner(the_learner):
  the_learner.restart()
  return the_learner


@pytest.fixture(scope='module')
def actor():
  """The actor's own agent, with other weights than the learner's."""
  return make_acting()


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
  monkeypatch.setattr(learner_link, '_RETRY', 0.01)


@pytest.fixture
def stopping():
  return threading.Event()


@pytest.fixture
def make_link(learner, stopping):
  def make(address=None, task=0, options=learning.OPTIONS, timeout=DEADLINE_S):
    return unroll_link.UnrollLink(
      address or learner.address, task, options, timeout, stopping
    )

  return make


@pytest.fixture
def link(make_link, actor):
  """One that has registered and begun."""
  link = make_link()
  link.register()
  link.begin(actor.layout, COLUMNS, actor.agent.variables)
  return link


def of_version(unroll, version):
  return unroll._replace(policy_version=np.full([COLUMNS], version, np.int64))


class TestWithALearner:
  def test_it_is_welcomed(self, make_link):
    links = [make_link(task=3) for _ in range(2)]
    for starts, link in enumerate(links):
      assert link.register() == learner_link.Welcome(100, starts)

  def test_the_weights_become_the_learners(self, link, learner, actor):
    expected = [v.numpy() for v in learner.one.agent.variables]
    for version in (0, 0, 1, 7):
      if version:
        expected = [x + 1 for x in expected]
        snapshot = weights.Snapshot(version, expected)
        learner.service.publish(snapshot, 0)
      assert link.update_weights() == version
      assert_same([v.numpy() for v in actor.agent.variables], expected)

  def test_unrolls_arrive_bit_for_bit(self, link, learner, actor):
    for count in range(1, 8):
      unroll = actor.unroll()
      link.send(unroll)
      assert_same(learner.get(), unroll)
      assert link.sent_unrolls == count
    assert link.reconnects == 0

  def test_what_is_too_long_for_a_message_arrives_in_pieces(
    self, make_link, learner, actor, monkeypatch
  ):
    # Two of three columns fit, and a part of the weights.
    size = actor.layout.num_bytes(2, whole=True) + protocol.UNROLL.size
    monkeypatch.setattr(rpc, 'MAX_BYTES', size)
    learner.restart(version=5)
    link = make_link()
    link.register()
    # `begin` is longer here, as the agent is so small.
    monkeypatch.setattr(rpc, 'MAX_BYTES', 10 * size)
    monkeypatch.setattr(unroll_link, 'check_size', lambda layout: 2)
    link.begin(actor.layout, COLUMNS, actor.agent.variables)
    monkeypatch.setattr(rpc, 'MAX_BYTES', size)
    assert link.update_weights() == 5
    assert_same(
      [v.numpy() for v in actor.agent.variables],
      [v.numpy() for v in learner.one.agent.variables],
    )
    for _ in range(3):
      unroll = actor.unroll()
      link.send(unroll)
      assert len(learner.queue) == 2
      assert_same(learner.get(), unroll)

  def test_it_waits_until_there_is_room(self, link, learner, actor):
    unrolls = actor.unrolls(CAPACITY + 1)
    for unroll in unrolls[:CAPACITY]:
      link.send(unroll)
    send = in_thread(link.send, unrolls[CAPACITY])
    waits = [0]
    ready = learner.service._ready

    def count(request):
      waits[0] += 1
      return ready(request)

    learner.service._ready = count
    wait_until(lambda: waits[0] > 5)
    assert not send.done()
    assert len(learner.queue) == CAPACITY
    assert_same(learner.get(), unrolls[0])
    send.result(DEADLINE_S)
    for unroll in unrolls[1:]:
      assert_same(learner.get(), unroll)

  @pytest.mark.parametrize('method', ['send', 'update_weights'])
  def test_it_hears_that_training_is_over(self, link, learner, actor, method):
    learner.service.finish()
    arguments = [actor.unroll()] if method == 'send' else []
    with pytest.raises(learner_link.Over):
      getattr(link, method)(*arguments)
    assert learner.service.all_told(everybody=False)

  def test_it_hears_while_it_waits_that_training_is_over(
    self, link, learner, actor
  ):
    for unroll in actor.unrolls(CAPACITY):
      link.send(unroll)
    send = in_thread(link.send, actor.unroll())
    learner.service.finish()
    with pytest.raises(learner_link.Over):
      send.result(DEADLINE_S)

  def test_a_stream_out_of_step_begins_anew(self, link, learner, actor):
    link.send(actor.unroll())
    learner.get()
    learner.service._sessions[0].decoders.clear()
    unroll = actor.unroll()
    link.send(unroll)
    assert_same(learner.get(), unroll)
    assert link.reconnects == 0


class TestRefused:
  def test_other_options(self, make_link):
    link = make_link(options=learning.OPTIONS | {'unroll_length': 9})
    with pytest.raises(
      learner_link.LinkError,
      match='refuses actor 0: --unroll_length is 2 at the learner and 9 at',
    ):
      link.register()

  def test_another_task(self, make_link):
    with pytest.raises(learner_link.LinkError, match='--task=6 is none of'):
      make_link(task=6).register()

  @pytest.mark.parametrize(
    ('options', 'message'),
    [
      ({'frame_stack': 2}, 'unrolls: the learner has'),
      ({'lstm': True}, 'unrolls: the learner has'),
    ],
  )
  def test_another_agent(self, make_link, options, message):
    other = make_acting(**options)
    link = make_link()
    link.register()
    with pytest.raises(learner_link.LinkError, match=message):
      link.begin(other.layout, COLUMNS, other.agent.variables)

  def test_other_weights(self, make_link, actor):
    link = make_link()
    link.register()
    with pytest.raises(learner_link.LinkError, match='weights: the learner'):
      link.begin(actor.layout, COLUMNS, actor.agent.variables[:-1])

  def test_a_second_process_with_the_same_task_takes_over(
    self, link, make_link, learner, actor
  ):
    link.send(actor.unroll())
    learner.get()
    second = make_link()
    assert second.register().starts == 1
    second.begin(actor.layout, COLUMNS, actor.agent.variables)
    with pytest.raises(
      learner_link.LinkError,
      match='another process with --task=0 has taken its place',
    ):
      link.send(actor.unroll())
    unroll = actor.unroll()
    second.send(unroll)
    assert_same(learner.get(), unroll)
    assert len(learner.queue) == 0

  def test_an_unroll_of_the_future(self, link, actor):
    with pytest.raises(learner_link.LinkError, match='policy version'):
      link.send(of_version(actor.unroll(), 1))

  def test_a_learner_that_never_takes_a_whole_unroll(
    self, link, learner, actor
  ):
    learner.service._unroll = lambda request: protocol.RESTART
    with pytest.raises(learner_link.LinkError, match='a whole unroll'):
      link.send(actor.unroll())


class TestNobodyThere:
  def test_is_an_error_after_the_timeout(self, make_link):
    link = make_link(f'127.0.0.1:{free_port()}', timeout=0.05)
    with pytest.raises(
      learner_link.LinkError,
      match=r'no learner at --learner_address=127\S+ for '
      r'--reconnect_timeout=0\.05 seconds: .* refused',
    ):
      link.register()

  def test_is_waited_for(self, make_link, learner, actor, capsys):
    address = f'127.0.0.1:{free_port()}'
    link = make_link(address)
    registered = in_thread(link.register)
    wait_until(lambda: 'waits for the learner' in capsys.readouterr().out)
    server = learning.serve(address, learner._services)
    assert registered.result(DEADLINE_S).starts == 0
    assert server.refusals == 0

  @pytest.mark.parametrize(
    'listener', [strangers.silent_listener, strangers.http_server]
  )
  def test_another_program_is_told_at_once(
    self, make_link, listener, monkeypatch
  ):
    monkeypatch.setattr(learner_link, '_FIRST_TIMEOUT', 0.3)
    with (
      listener() as address,
      pytest.raises(
        learner_link.LinkError, match=f'{address} takes connections but does'
      ),
    ):
      make_link(address).register()


class Flaky:
  """An rpc.Client whose calls fail where a test says so.

  Attributes:
    calls: methods called so far, of all clients.
    failing: method -> 'before' or 'after' the learner has heard of it.
  """

  calls: list[str]
  failing: dict[str, str]

  def __init__(self, address, timeout):
    self._client = CLIENT(address, timeout)
    self.timeout = timeout

  def call(self, method, request=b''):
    self.calls.append(method)
    when = self.failing.pop(method, '')
    if when == 'before':
      raise rpc.Unreachable('lost')
    answer = self._client.call(method, request)
    if when == 'after':
      raise rpc.Unreachable('lost')
    return answer


CLIENT = rpc.Client


@pytest.fixture
def flaky(monkeypatch):
  Flaky.calls, Flaky.failing = [], {}
  monkeypatch.setattr(rpc, 'Client', Flaky)
  return Flaky


class TestAfterAFailure:
  def test_a_learner_that_comes_back_gets_whole_unrolls_and_gives_weights(
    self, link, learner, actor
  ):
    assert link.update_weights() == 0
    for unroll in actor.unrolls(3):
      link.send(unroll)
      learner.get()
    # It goes on where an older checkpoint was, with other weights.
    learner.restart(
      version=0,
      values=[np.zeros_like(v) for v in actor.agent.variables],
    )
    link.send(of_version(actor.unroll(), 0))  # Is lost.
    assert (link.reconnects, link.sent_unrolls) == (1, 3)
    assert len(learner.queue) == 0
    assert link.update_weights() == 0
    assert not any(v.numpy().any() for v in actor.agent.variables)
    for _ in range(2):
      unroll = actor.unroll()
      link.send(unroll)
      assert_same(learner.get(), unroll)
    assert (link.reconnects, link.sent_unrolls) == (1, 5)

  def test_weights_are_those_of_the_learner_that_came_back(
    self, link, learner, actor
  ):
    learner.service.publish(
      weights.Snapshot(9, [v.numpy() for v in actor.agent.variables]), 0
    )
    assert link.update_weights() == 9
    learner.restart(version=4)
    assert link.update_weights() == 4
    assert link.reconnects == 1
    assert_same(
      [v.numpy() for v in actor.agent.variables],
      [v.numpy() for v in learner.one.agent.variables],
    )

  def test_a_learner_that_comes_back_as_another_is_refused(
    self, link, learner, actor
  ):
    learner.restart(options={'lstm': True})
    with pytest.raises(learner_link.LinkError, match='--lstm is True'):
      link.send(actor.unroll())

  def test_a_learner_with_another_network_is_refused(
    self, link, learner, actor
  ):
    learner.restart(one=make_acting(lstm=True))
    with pytest.raises(learner_link.LinkError, match='another version there'):
      link.update_weights()

  def test_a_learner_that_stops_is_left_and_found_again(
    self, link, learner, actor
  ):
    learner.queue.close()
    link.send(actor.unroll())  # Is lost.
    assert (link.reconnects, link.sent_unrolls) == (1, 0)
    learner.restart()
    link.send(actor.unroll())  # Is lost: there is a session of the old one.
    unroll = actor.unroll()
    link.send(unroll)
    assert_same(learner.get(), unroll)

  @pytest.mark.parametrize('when', ['before', 'after'])
  @pytest.mark.parametrize(
    'method', ['register', 'begin', 'weights', 'ready', 'unroll']
  )
  def test_a_call_that_is_lost_spoils_nothing(
    self, flaky, make_link, learner, actor, method, when
  ):
    link = make_link()
    link.register()
    link.begin(actor.layout, COLUMNS, actor.agent.variables)
    link.update_weights()
    link.send(actor.unroll())
    learner.get()
    # A second learner loses a call of each kind, one of them on the way back.
    learner.restart(version=2)
    flaky.failing[method] = when
    arrived, sent = [], []
    for _ in range(3):
      version = link.update_weights()
      unroll = of_version(actor.unroll(), version)
      count = link.sent_unrolls
      link.send(unroll)
      if link.sent_unrolls > count:
        sent.append(unroll)
      while learner.queue.ready:
        arrived.append(learner.get())
    assert not flaky.failing
    assert version == 2
    if (method, when) == ('unroll', 'after'):
      # It came, though the actor cannot know.
      assert len(arrived) == len(sent) + 1
      arrived = arrived[1:]
    assert len(sent) >= 2
    assert_same(arrived, sent)

  def test_an_absent_learner_is_an_error_after_the_timeout(
    self, make_link, actor, flaky, monkeypatch
  ):
    link = make_link(timeout=0.05)
    link.register()
    link.begin(actor.layout, COLUMNS, actor.agent.variables)

    def lost(self, method, request=b''):
      raise rpc.Unreachable('gone')

    monkeypatch.setattr(Flaky, 'call', lost)
    with pytest.raises(learner_link.LinkError, match=r'no learner at .*: gone'):
      link.send(actor.unroll())


class TestStopping:
  @pytest.mark.parametrize('when', ['before', 'while'])
  def test_ends_the_wait_for_a_learner(self, make_link, stopping, when, capsys):
    link = make_link(f'127.0.0.1:{free_port()}')
    if when == 'before':
      stopping.set()
    registered = in_thread(link.register)
    if when == 'while':
      wait_until(lambda: 'waits for the learner' in capsys.readouterr().out)
      assert not registered.done()
      stopping.set()
    with pytest.raises(learner_link.Stopped):
      registered.result(DEADLINE_S)

  def test_ends_the_wait_for_room(self, link, learner, actor, stopping):
    for unroll in actor.unrolls(CAPACITY):
      link.send(unroll)
    send = in_thread(link.send, actor.unroll())
    waits = threading.Event()
    ready = learner.service._ready

    def asked(request):
      waits.set()
      return ready(request)

    learner.service._ready = asked
    assert waits.wait(DEADLINE_S)
    stopping.set()
    with pytest.raises(learner_link.Stopped):
      send.result(DEADLINE_S)
    assert len(learner.queue) == CAPACITY

  @pytest.mark.parametrize('method', ['send', 'update_weights', 'begin'])
  def test_ends_everything_that_begins_later(
    self, link, actor, stopping, method
  ):
    stopping.set()
    arguments = {
      'send': [actor.unroll()],
      'begin': [actor.layout, COLUMNS, actor.agent.variables],
    }
    with pytest.raises(learner_link.Stopped):
      getattr(link, method)(*arguments.get(method, []))

  def test_ends_what_would_fail_for_ever(
    self, make_link, actor, stopping, flaky, monkeypatch
  ):
    """Registering goes well, and what follows never does."""
    link = make_link()
    link.register()
    call, lost = Flaky.call, [0]

    def half(self, method, request=b''):
      if method == 'register':
        return call(self, method, request)
      lost[0] += 1
      raise rpc.Unreachable('lost')

    monkeypatch.setattr(Flaky, 'call', half)
    begun = in_thread(link.begin, actor.layout, COLUMNS, actor.agent.variables)
    wait_until(lambda: lost[0] > 2)
    assert not begun.done()
    stopping.set()
    with pytest.raises(learner_link.Stopped):
      begun.result(DEADLINE_S)

  def test_ends_the_pause_before_registering_again(
    self, link, learner, actor, stopping, monkeypatch
  ):
    monkeypatch.setattr(learner_link, '_RETRY', 1000.0)
    learner.restart()
    before = learner.server.refusals
    paused = in_thread(link.send, actor.unroll())
    wait_until(lambda: learner.server.refusals > before)
    stopping.set()
    with pytest.raises(learner_link.Stopped):
      paused.result(DEADLINE_S)


class TestReportFailure:
  def test_reaches_the_learner(self, link, learner):
    for count, message in enumerate(['it broke', 'x' * 10**7, '\ud800', '']):
      link.report_failure(message)
      assert learner.service.gauges()['actors/failures'] == count + 1

  def test_is_silent_without_a_session(self, make_link, learner):
    make_link().report_failure('it broke')
    assert learner.service.gauges()['actors/failures'] == 0

  def test_never_raises(self, link, learner, flaky, make_link):
    learner.restart()
    link.report_failure('the session is unknown')
    other = make_link()
    other.register()
    flaky.failing['failed'] = 'before'
    other.report_failure('lost')
    assert learner.service.gauges()['actors/failures'] == 0


class TestCheckSize:
  def test_is_the_number_of_trajectories_that_fit(self, actor):
    fit = unroll_link.check_size(actor.layout)
    limit = rpc.MAX_BYTES - protocol.UNROLL.size
    assert actor.layout.num_bytes(fit, whole=True) <= limit
    assert actor.layout.num_bytes(fit + 1, whole=True) > limit

  def test_shows_its_arithmetic(self, actor):
    spec = structures.EnvironmentSpec(
      structures.TensorSpec((210, 160, 3), np.dtype(np.uint8)),
      action_spaces.Discrete(5),
      1,
    )
    layout = unroll_codec.Layout(spec, actor.agent.initial_state(1), 100)
    observation = 101 * 210 * 160 * 3
    small = 101 * (5 * 4 + 7 * 4) + actor.layout.bytes_of('0/frames')
    with pytest.raises(learner_link.LinkError) as error:
      unroll_link.check_size(layout)
    assert str(error.value) == (
      f'--unroll_length=100: one trajectory takes {20 + observation + small:,} '
      'bytes, of which 1/observation 101 x 210 x 160 x 3 x 1 = '
      f'{observation:,}, and gRPC takes at most '
      f'{rpc.MAX_BYTES - protocol.UNROLL.size:,} in one message. Lower '
      '--unroll_length, --width or --height.'
    )

  def test_refuses_to_begin(self, make_link, actor):
    one = acting.Acting(clockwork.ClockworkEnvironment(COLUMNS))
    layout = unroll_codec.Layout(
      clockwork.ClockworkEnvironment(COLUMNS).spec,
      one.agent.initial_state(1),
      10**6,
    )
    link = make_link()
    link.register()
    with pytest.raises(learner_link.LinkError, match='one trajectory takes'):
      link.begin(layout, COLUMNS, one.agent.variables)
