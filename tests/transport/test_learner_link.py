"""An actor's link, over a real server: nothing is sent wrongly or for ever."""

import functools
import threading

import numpy as np
import pytest

from scalable_agent import actor as actor_lib
from scalable_agent import policies, unroll_queue
from scalable_agent.transport import (
  learner_link,
  protocol,
  rpc,
  step_codec,
  step_service,
  weights,
)
from scalable_agent.transport.credentials import Credentials
from tests import acting, learning, strangers
from tests.ports import free_port
from tests.transport.test_unroll_codec import assert_same
from tests.waiting import DEADLINE_S, in_thread, wait_until

LENGTH = 2  # T
COLUMNS = 3
CAPACITY = 2
TOKEN = Credentials(token='a secret')


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
    services: [the present one].
    server: that answers.
    service, queue: of the present life.
  """

  def __init__(self):
    self.one = make_acting()
    self.address = f'127.0.0.1:{free_port()}'
    self.services = [None]
    self.restart()
    self.server = learning.serve(self.address, self.services)

  def restart(self, version=0, one=None, **changes):
    """Another process takes the place: it knows no actor."""
    self.queue = unroll_queue.UnrollQueue(COLUMNS, CAPACITY)
    self.service = learning.make_service(
      one or self.one, self.queue, version=version, **changes
    )
    self.services[0] = self.service

  def get(self):
    """Returns the next unroll that has arrived."""
    assert self.queue.ready
    return self.queue.get()


@pytest.fixture(scope='module')
def the_learner():
  learner = Learner()
  yield learner
  learner.server.stop(0)


@pytest.fixture
def learner(the_learner):
  the_learner.restart()
  yield the_learner
  the_learner.queue.close()


@pytest.fixture(scope='module')
def actor():
  """The actor's own agent, with other weights than the learner's."""
  return make_acting()


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
  monkeypatch.setattr(learner_link, '_RETRY', 0.01)


@pytest.fixture
def stopping():
  stopping = threading.Event()
  yield stopping
  stopping.set()


@pytest.fixture
def make_link(learner, stopping):
  def make(
    address=None,
    task=0,
    options=learning.OPTIONS,
    timeout=DEADLINE_S,
    **arguments,
  ):
    return learner_link.LearnerLink(
      address or learner.address, task, options, timeout, stopping, **arguments
    )

  return make


def begin(link, one, **changes):
  link.begin(
    'unrolls',
    one.agent.variables,
    **({'layout': one.layout.describe(), 'columns': COLUMNS} | changes),
  )


def send(link, one, unroll):
  return link.send('unroll', functools.partial(one.layout.write, unroll))


@pytest.fixture
def link(make_link, actor):
  """One that has registered and begun, and has weights."""
  link = make_link()
  link.register()
  begin(link, actor)
  link.update_weights()
  return link


class TestWithALearner:
  def test_it_is_welcomed(self, make_link):
    for starts in range(2):
      link = make_link(task=3)
      welcome = learner_link.Welcome(100, starts, 'actor', {})
      assert link.register() == welcome
      assert link.welcome == welcome

  def test_it_gets_the_options_that_it_leaves_open(self, make_link, learner):
    learner.restart(options=learning.OPTIONS | {'precision': 'bfloat16'})
    link = make_link(options=learning.OPTIONS | {'precision': protocol.AUTO})
    assert link.register().options == {'precision': 'bfloat16'}

  def test_the_weights_become_the_learners(self, link, learner, actor):
    expected = [v.numpy() for v in learner.one.agent.variables]
    for version in (0, 0, 1, 7):
      if version:
        expected = [x + 1 for x in expected]
        learner.service.publish(weights.Snapshot(version, expected), 0)
      assert link.update_weights() == version
      assert_same([v.numpy() for v in actor.agent.variables], expected)
    # Those that it had did not travel again.
    size = sum(x.nbytes for x in expected)
    assert learner.service.gauges()['actors/weight_bytes'] == 3 * size

  def test_unrolls_arrive_with_their_version(self, link, learner, actor):
    for version in (0, 3):
      values = [v.numpy() for v in learner.one.agent.variables]
      learner.service.publish(weights.Snapshot(version, values), 0)
      link.update_weights()
      unroll = actor.unroll()
      assert send(link, actor, unroll)
      version = np.full([COLUMNS], version, np.int64)
      assert_same(learner.get(), unroll._replace(policy_version=version))
    assert (link.sent, link.cargo, link.reconnects) == (2, 'unrolls', 0)

  def test_it_waits_until_there_is_room(self, link, learner, actor):
    unrolls = actor.unrolls(CAPACITY + 1)
    for unroll in unrolls[:CAPACITY]:
      send(link, actor, unroll)
    sent = in_thread(send, link, actor, unrolls[CAPACITY])
    wait_until(lambda: len(learner.queue) == CAPACITY + 1)
    assert not sent.done()
    assert_same(learner.get(), unrolls[0])
    assert sent.result(DEADLINE_S)
    for unroll in unrolls[1:]:
      assert_same(learner.get(), unroll)

  @pytest.mark.parametrize('method', ['send', 'ask', 'update_weights'])
  def test_it_hears_that_training_is_over(self, link, learner, actor, method):
    learner.service.finish()
    call = {
      'send': lambda: send(link, actor, actor.unroll()),
      'ask': lambda: link.ask('weights', lambda header: header + bytes(8)),
      'update_weights': link.update_weights,
    }[method]
    with pytest.raises(learner_link.Over):
      call()
    assert learner.service.all_told(everybody=False)

  def test_it_hears_while_it_waits_that_training_is_over(
    self, link, learner, actor
  ):
    for unroll in actor.unrolls(CAPACITY):
      send(link, actor, unroll)
    sent = in_thread(send, link, actor, actor.unroll())
    wait_until(lambda: len(learner.queue) == CAPACITY + 1)
    learner.service.finish()
    learner.queue.close()
    with pytest.raises(learner_link.Over):
      sent.result(DEADLINE_S)

  def test_it_hears_of_the_end_when_it_registers_again(
    self, make_link, learner
  ):
    link = make_link()
    link.register()
    learner.restart()
    learner.service.finish()
    with pytest.raises(learner_link.Over):
      link.update_weights()


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

  @pytest.mark.parametrize('options', [{'frame_stack': 2}, {'lstm': True}])
  def test_another_agent(self, make_link, options):
    link = make_link()
    link.register()
    with pytest.raises(
      learner_link.LinkError, match='unrolls: the learner has'
    ):
      begin(link, make_acting(**options))

  def test_other_weights(self, make_link, actor):
    link = make_link()
    link.register()
    with pytest.raises(learner_link.LinkError, match='weights: the learner'):
      link.begin(
        'unrolls',
        actor.agent.variables[:-1],
        layout=actor.layout.describe(),
        columns=COLUMNS,
      )

  def test_a_second_process_with_the_same_task_takes_over(
    self, link, make_link, learner, actor
  ):
    send(link, actor, actor.unroll())
    learner.get()
    second = make_link()
    assert second.register().starts == 1
    begin(second, actor)
    second.update_weights()
    with pytest.raises(
      learner_link.LinkError,
      match='another process with --task=0 has taken its place',
    ):
      send(link, actor, actor.unroll())
    unroll = actor.unroll()
    send(second, actor, unroll)
    assert_same(learner.get(), unroll)

  def test_an_unroll_before_it_has_weights(self, make_link, actor):
    link = make_link()
    link.register()
    begin(link, actor)
    with pytest.raises(learner_link.LinkError, match='policy version'):
      send(link, actor, actor.unroll())

  @pytest.mark.parametrize('token', ['', 'another'])
  def test_without_the_token(self, make_link, learner, token):
    address = f'127.0.0.1:{free_port()}'
    server = learning.serve(address, learner.services, TOKEN)
    try:
      link = make_link(address, credentials=Credentials(token=token))
      with pytest.raises(
        learner_link.LinkError,
        match='refuses actor 0: this process does not show the token',
      ):
        link.register()
      assert make_link(address, credentials=TOKEN).register().starts == 0
    finally:
      server.stop(0)


class TestNobodyThere:
  def test_is_an_error_after_the_timeout(self, make_link):
    link = make_link(f'127.0.0.1:{free_port()}', timeout=0.05)
    with pytest.raises(
      learner_link.LinkError,
      match=r'no learner at --learner_address=127\S+ for '
      r'--reconnect_timeout=0\.05 seconds: nobody listens there\. Start it',
    ):
      link.register()

  def test_is_waited_for_and_said_once(
    self, make_link, learner, capsys, monkeypatch
  ):
    attempts = []
    make_client = rpc.Client

    def count(*arguments):
      attempts.append(arguments)
      return make_client(*arguments)

    monkeypatch.setattr(rpc, 'Client', count)
    address = f'127.0.0.1:{free_port()}'
    link = make_link(address, task=4)
    registered = in_thread(link.register)
    wait_until(lambda: len(attempts) > 5)
    server = learning.serve(address, learner.services)
    try:
      assert registered.result(DEADLINE_S).starts == 0
    finally:
      server.stop(0)
    waits, connected = capsys.readouterr().out.splitlines()
    assert waits.startswith(f'Actor 4 waits for the learner at {address} (')
    assert connected == f'Actor 4 is connected to the learner at {address}.'
    assert link.reconnects == 0

  @pytest.mark.parametrize(
    'listener',
    [
      strangers.silent_listener,
      strangers.http_server,
      strangers.garbage_listener,
    ],
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

  def test_a_server_of_something_else_is_told_at_once(self, make_link):
    address = f'127.0.0.1:{free_port()}'
    server = rpc.Server(address, {'other': lambda request: b''})
    try:
      with pytest.raises(learner_link.LinkError, match='takes connections but'):
        make_link(address).register()
    finally:
      server.stop(0)

  @pytest.mark.parametrize(
    'answer',
    [
      b'',
      b'\xff',
      b'[]',
      b'{}',
      b'{"session": 1}',
      b'{"session": "x", "frames": 0, "starts": 0, "inference": "", '
      b'"options": {}}',
      b'{"session": 1, "frames": 0, "starts": 0, "inference": "", '
      b'"options": 5}',
    ],
  )
  def test_an_answer_that_no_learner_gives_is_told(self, make_link, answer):
    address = f'127.0.0.1:{free_port()}'
    server = rpc.Server(address, {'register': lambda request: answer})
    try:
      with pytest.raises(
        learner_link.LinkError, match=f'{address} .*does not answer as a lear'
      ):
        make_link(address).register()
    finally:
      server.stop(0)

  def test_a_tunnel_without_a_learner_behind_it_is_waited_at(self, make_link):
    with (
      strangers.closing_listener() as address,
      pytest.raises(learner_link.LinkError, match='no learner at'),
    ):
      make_link(address, timeout=0.05).register()

  @pytest.mark.parametrize('kind', ['stranger', 'named'])
  def test_a_learner_of_another_certificate_is_told_at_once(
    self, make_link, learner, tls, kind
  ):
    address = f'127.0.0.1:{free_port()}'
    own = tls.named if kind == 'named' else tls.learner
    server = learning.serve(address, learner.services, own)
    try:
      other = tls.actor if kind == 'named' else tls.stranger
      with pytest.raises(
        learner_link.LinkError, match='Check the address, and'
      ):
        make_link(address, credentials=other).register()
    finally:
      server.stop(0)


class Flaky:
  """An rpc.Client whose calls fail where a test says so.

  Attributes:
    calls: methods called so far, of all clients.
    failing: method -> 'before' or 'after' the learner has heard of it.
  """

  calls: list[str]
  failing: dict[str, str]

  def __init__(self, *arguments):
    self._client = CLIENT(*arguments)

  def call(self, method, request=b'', timeout=None):
    self.calls.append(method)
    when = self.failing.pop(method, '')
    if when == 'before':
      raise rpc.Unreachable('lost')
    answer = self._client.call(method, request, timeout)
    if when == 'after':
      raise rpc.Unreachable('lost')
    return answer

  def close(self):
    self._client.close()


CLIENT = rpc.Client


@pytest.fixture
def flaky(monkeypatch):
  Flaky.calls, Flaky.failing = [], {}
  monkeypatch.setattr(rpc, 'Client', Flaky)
  return Flaky


class TestAfterAFailure:
  def test_a_learner_that_comes_back_gives_weights_and_takes_unrolls(
    self, link, learner, actor
  ):
    for unroll in actor.unrolls(3):
      send(link, actor, unroll)
      learner.get()
    # It goes on where an older checkpoint was, with other weights.
    learner.restart(
      values=[np.zeros_like(v) for v in actor.agent.variables],
    )
    assert not send(link, actor, actor.unroll())  # Is lost.
    assert (link.reconnects, link.sent) == (1, 3)
    assert len(learner.queue) == 0
    assert link.update_weights() == 0
    assert not any(v.numpy().any() for v in actor.agent.variables)
    for _ in range(2):
      unroll = actor.unroll()
      assert send(link, actor, unroll)
      assert_same(learner.get(), unroll)
    assert (link.reconnects, link.sent) == (1, 5)
    assert link.welcome.starts == 0

  def test_weights_are_those_of_the_learner_that_came_back(
    self, link, learner, actor
  ):
    learner.service.publish(
      weights.Snapshot(9, [v.numpy() for v in actor.agent.variables]), 0
    )
    assert link.update_weights() == 9
    # Even of the version that it has.
    learner.restart(version=9)
    assert link.update_weights() == 9
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
      send(link, actor, actor.unroll())

  def test_a_learner_with_another_network_is_refused(self, link, learner):
    learner.restart(one=make_acting(lstm=True))
    with pytest.raises(learner_link.LinkError, match='another version there'):
      link.update_weights()

  def test_a_learner_that_stops_is_left_and_found_again(
    self, link, learner, actor
  ):
    learner.queue.close()
    assert not send(link, actor, actor.unroll())
    assert (link.reconnects, link.sent) == (1, 0)
    learner.restart()
    assert link.update_weights() == 0
    assert link.reconnects == 2
    unroll = actor.unroll()
    assert send(link, actor, unroll)
    assert_same(learner.get(), unroll)

  @pytest.mark.parametrize('when', ['before', 'after'])
  @pytest.mark.parametrize('method', ['register', 'begin', 'weights', 'unroll'])
  def test_a_call_that_is_lost_spoils_nothing(
    self, flaky, make_link, learner, actor, method, when
  ):
    link = make_link()
    link.register()
    begin(link, actor)
    link.update_weights()
    send(link, actor, actor.unroll())
    learner.get()
    # A second learner loses a call of each kind, one of them on the way back.
    learner.restart(version=2)
    flaky.failing[method] = when
    arrived, sent = [], []
    for _ in range(3):
      version = link.update_weights()
      unroll = actor.unroll()._replace(
        policy_version=np.full([COLUMNS], version, np.int64)
      )
      count = link.sent
      assert send(link, actor, unroll) == (link.sent > count)
      if link.sent > count:
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
    begin(link, actor)

    def lost(self, method, request=b'', timeout=None):
      raise rpc.Unreachable('gone')

    monkeypatch.setattr(Flaky, 'call', lost)
    with pytest.raises(learner_link.LinkError, match=r'no learner at .*: gone'):
      link.update_weights()

  def test_a_strange_answer_later_is_waited_out(
    self, link, learner, flaky, monkeypatch
  ):
    """As of what takes the port for a moment, or a learner that hangs."""
    strange = ['register'] * 3
    call = Flaky.call

    def answer(self, method, request=b'', timeout=None):
      if method in strange:
        strange.remove(method)
        raise rpc.Unreachable('strange', strange=True)
      return call(self, method, request, timeout)

    monkeypatch.setattr(Flaky, 'call', answer)
    learner.restart(version=5)
    assert link.update_weights() == 5
    assert strange == []

  def test_only_the_first_answer_is_waited_for_but_shortly(
    self, make_link, actor, flaky, monkeypatch
  ):
    timeouts = {}
    call = Flaky.call

    def note(self, method, request=b'', timeout=None):
      timeouts[method] = timeout
      return call(self, method, request, timeout)

    monkeypatch.setattr(Flaky, 'call', note)
    link = make_link()
    link.register()
    begin(link, actor)
    link.update_weights()
    send(link, actor, actor.unroll())
    link.report_failure('it broke')
    assert timeouts == {
      'register': learner_link._FIRST_TIMEOUT,
      'begin': None,
      'weights': None,
      'unroll': None,
      'failed': learner_link._LAST_TIMEOUT,
    }


class TestAsk:
  @pytest.fixture
  def restart(self, learner):
    """Has the learner act for its actors, without draws."""
    one = learner.one
    layout = step_codec.Layout(one.spec)
    policy = policies.Direct(policies.make_step(one.agent, policies.Seeds(1)))

    def make_unroller(columns, level):
      return actor_lib.Unroller(
        policy,
        one.agent.initial_state(columns),
        one.spec,
        columns,
        LENGTH,
        level,
      )

    def restart():
      learner.restart(
        kind=step_service.StepService,
        layout=layout,
        make_unroller=make_unroller,
        most_columns=COLUMNS,
      )

    restart()
    # Its methods are others.
    address = f'127.0.0.1:{free_port()}'
    server = learning.serve(address, learner.services)
    restart.layout, restart.address = layout, address
    yield restart
    server.stop(0)

  def ask(self, link, layout, env_output):
    return link.ask('step', functools.partial(layout.write, env_output))

  def test_what_comes_is_the_answer_or_none_after_a_new_link(
    self, make_link, learner, restart
  ):
    layout = restart.layout
    environment = acting.ImageEnvironment(COLUMNS, episode_steps=3)
    link = make_link(restart.address)
    assert link.register().inference == 'learner'
    link.begin('observations', layout=layout.describe(), columns=COLUMNS)

    def play(steps, env_output):
      for _ in range(steps):
        answer = self.ask(link, layout, env_output)
        env_output = environment.step(layout.read_action(answer, COLUMNS))
      return env_output

    env_output = play(LENGTH + 1, environment.reset())
    # One unroll, with the actions that were done.
    np.testing.assert_array_equal(
      learner.get().agent_outputs.action[1:], environment.actions[:LENGTH]
    )
    assert link.sent == LENGTH + 1
    restart()
    assert self.ask(link, layout, env_output) is None
    assert (link.reconnects, link.sent) == (1, LENGTH + 1)
    play(LENGTH + 1, environment.reset())
    assert learner.queue.ready
    assert link.sent == 2 * LENGTH + 2


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

  def test_ends_the_first_call(self, make_link, stopping):
    with learning.slow_learner() as (address, asked):
      registered = in_thread(make_link(address).register)
      assert asked.wait(DEADLINE_S)
      stopping.set()
      with pytest.raises(learner_link.Stopped):
        registered.result(DEADLINE_S)

  def test_ends_the_wait_for_room(self, link, learner, actor, stopping):
    for unroll in actor.unrolls(CAPACITY):
      send(link, actor, unroll)
    sent = in_thread(send, link, actor, actor.unroll())
    wait_until(lambda: len(learner.queue) == CAPACITY + 1)
    stopping.set()
    with pytest.raises(learner_link.Stopped):
      sent.result(DEADLINE_S)

  @pytest.mark.parametrize('method', ['send', 'ask', 'update_weights', 'begin'])
  def test_ends_everything_that_begins_later(
    self, link, actor, stopping, method
  ):
    stopping.set()
    call = {
      'send': lambda: send(link, actor, actor.unroll()),
      'ask': lambda: link.ask('step', lambda header: header),
      'update_weights': link.update_weights,
      'begin': lambda: begin(link, actor),
    }[method]
    with pytest.raises(learner_link.Stopped):
      call()
    link.report_failure('it broke')  # Is not told any more.

  def test_ends_what_would_fail_for_ever(
    self, make_link, actor, stopping, flaky, monkeypatch
  ):
    """Registering goes well, and what follows never does."""
    link = make_link()
    link.register()
    call, lost = Flaky.call, [0]

    def half(self, method, request=b'', timeout=None):
      if method == 'register':
        return call(self, method, request, timeout)
      lost[0] += 1
      raise rpc.Unreachable('lost')

    monkeypatch.setattr(Flaky, 'call', half)
    begun = in_thread(begin, link, actor)
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
    handlers, asked = learner.service.handlers, threading.Event()

    def note():
      asked.set()
      return handlers()

    monkeypatch.setattr(learner.service, 'handlers', note)
    paused = in_thread(send, link, actor, actor.unroll())
    assert asked.wait(DEADLINE_S)
    stopping.set()
    with pytest.raises(learner_link.Stopped):
      paused.result(DEADLINE_S)


class TestReportFailure:
  def test_reaches_the_learner(self, link, learner):
    for count, message in enumerate(['it broke', 'x' * 10**7, '\ud800', '']):
      link.report_failure(message)
      assert learner.service.gauges()['actors/failures'] == count + 1

  def test_however_long_it_is(self, link, learner, monkeypatch):
    monkeypatch.setattr(rpc, 'MAX_BYTES', 2 * learner_link._MAX_FAILURE)
    link.report_failure('x' * rpc.MAX_BYTES)
    assert learner.service.gauges()['actors/failures'] == 1

  def test_is_silent_without_a_session(self, make_link, learner):
    make_link().report_failure('it broke')
    assert learner.service.gauges()['actors/failures'] == 0

  def test_never_raises(self, learner, flaky, make_link, actor):
    link = make_link()
    link.register()
    learner.restart()
    link.report_failure('the session is unknown')
    other = make_link()
    other.register()
    flaky.failing['failed'] = 'before'
    other.report_failure('lost')
    replaced = make_link()
    another = make_link()
    for one in (replaced, another):
      one.register()
      begin(one, actor)
    replaced.report_failure('another one has its place')
    assert learner.service.gauges()['actors/failures'] == 0
