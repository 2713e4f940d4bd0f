"""Learners that meet, and those that come too late or not at all."""

import contextlib
import secrets
import types

import pytest

from scalable_agent.distribution import addresses
from scalable_agent.distribution.cluster import Cluster
from scalable_agent.transport import protocol, rendezvous, rpc
from scalable_agent.transport.credentials import NONE, Credentials
from tests import learning, strangers
from tests.ports import free_port
from tests.waiting import DEADLINE_S, in_thread, wait_until

TOKEN = Credentials(token='a secret')


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
  monkeypatch.setattr(rendezvous, '_RETRY_SECONDS', 0.01)
  monkeypatch.setattr(rendezvous, '_ANSWER_SECONDS', 0.05)


def make_places(number):
  return [f'localhost:{free_port()}' for _ in range(number)]


def make_cluster(places, task, listen_address=''):
  return Cluster(
    learners=tuple(places),
    collectives=addresses.collectives_of(places, 'test'),
    job_name='learner',
    task=task,
    num_actors=2,
    listen_address=listen_address,
  )


def meet(
  places, task, timeout=DEADLINE_S, options=None, own=NONE, listen_address=''
):
  cluster = make_cluster(places, task, listen_address)
  rendezvous.meet(cluster, timeout, options or {}, own)


def meet_in_thread(*arguments, **options):
  return in_thread(lambda: meet(*arguments, **options))


class ByHand:
  """Another learner than 0, which asks when a test says so."""

  def __init__(self, places, task, own=NONE, at=None):
    self._place = at or places[0]
    self._own = own
    self._request = protocol.to_json(
      learners=places, task=task, options={}, name=secrets.token_hex(8)
    )

  def ask(self, method='meet', request=None):
    """Asks once learner 0 is there; returns its answer."""
    answers = []

    def is_answered():
      client = rpc.Client(self._place, self._own)
      with contextlib.closing(client), contextlib.suppress(rpc.Unreachable):
        answers.append(client.call(method, request or self._request, 5.0))
      return answers

    wait_until(is_answered)
    return answers[0]


@pytest.mark.parametrize('order', [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_all_go_when_the_last_one_came(order):
  places = make_places(3)
  early = [meet_in_thread(places, index) for index in order[:2]]
  assert not any(future.done() for future in early)
  last = meet_in_thread(places, order[2])
  for future in (*early, last):
    future.result(DEADLINE_S)


def test_nobody_goes_before():
  places = make_places(3)
  host = meet_in_thread(places, 0)
  one, two = (ByHand(places, task) for task in (1, 2))
  for _ in range(3):
    assert one.ask() == b'wait'
  assert not host.done()
  assert two.ask() == b'go'
  assert not host.done()  # Learner 1 does not know yet.
  assert one.ask() == b'go'
  host.result(DEADLINE_S)


def test_who_waits_for_an_answer_gets_it_when_the_last_one_came(monkeypatch):
  monkeypatch.setattr(rendezvous, '_ANSWER_SECONDS', float(DEADLINE_S))
  places = make_places(3)
  host = meet_in_thread(places, 0)
  asked = in_thread(ByHand(places, 1).ask)
  assert ByHand(places, 2).ask() == b'go'
  assert asked.result(DEADLINE_S) == b'go'
  host.result(DEADLINE_S)


def test_a_port_is_free_again_afterwards():
  places = make_places(2)
  for _ in range(2):
    futures = [meet_in_thread(places, index) for index in range(2)]
    for future in futures:
      future.result(DEADLINE_S)


def test_learner_0_listens_where_it_is_told_to():
  places = make_places(2)
  (elsewhere,) = make_places(1)
  host = meet_in_thread(places, 0, listen_address=elsewhere)
  assert ByHand(places, 1, at=elsewhere).ask() == b'go'
  host.result(DEADLINE_S)


class TestOneThatLeaves:
  """It does not ask any more."""

  @pytest.fixture
  def clock(self, monkeypatch):
    clock = learning.Clock()
    monkeypatch.setattr(
      rendezvous, 'time', types.SimpleNamespace(monotonic=clock)
    )
    return clock

  @pytest.fixture
  def ask(self):
    places = make_places(3)
    host = rendezvous._Host(make_cluster(places, 0), {})

    def ask(task, name='one'):
      request = protocol.to_json(
        learners=places, task=task, options={}, name=name
      )
      return host.answer(request)

    return ask

  def test_is_waited_for_again(self, clock, ask):
    assert ask(1) == b'wait'
    clock.now += rendezvous._LEASE_SECONDS
    assert ask(2) == b'wait'
    assert ask(1) == b'go'
    assert ask(2) == b'go'

  def test_is_there_as_long_as_it_may_ask_again(self, clock, ask):
    assert ask(1) == b'wait'
    clock.now += rendezvous._LEASE_SECONDS - 0.01
    assert ask(2) == b'go'
    # Who was there when all were is let go, however late it asks.
    clock.now += 1000
    assert ask(1) == b'go'

  def test_may_be_replaced_then_and_not_before(self, clock, ask):
    assert ask(1) == b'wait'
    clock.now += rendezvous._LEASE_SECONDS - 0.01
    assert ask(1, 'another') == b'wait'
    clock.now += 0.01
    # The other one has not taken its place before.
    assert ask(2) == b'wait'
    assert ask(1, 'another') == b'go'


def test_a_learner_0_that_leaves_is_waited_for_again():
  places = make_places(3)
  other = meet_in_thread(places, 1)
  with pytest.raises(TimeoutError, match='learner 2'):
    meet(places, 0, 0.2)
  assert not other.done()
  futures = [meet_in_thread(places, task) for task in (0, 2)]
  for future in (other, *futures):
    future.result(DEADLINE_S)


def test_one_that_starts_again_waits_until_its_first_start_is_gone(
  monkeypatch,
):
  places = make_places(3)
  host = meet_in_thread(places, 0)
  first, second = ByHand(places, 1), ByHand(places, 1)
  assert first.ask() == b'wait'
  assert second.ask() == b'wait'
  meet_in_thread(places, 2)
  # The first one's place, as long as it asks.
  assert first.ask() == b'go'
  host.result(DEADLINE_S)

  host = meet_in_thread(places, 0)
  assert first.ask() == b'wait'
  monkeypatch.setattr(rendezvous, '_LEASE_SECONDS', 0.5)
  others = [meet_in_thread(places, 1), meet_in_thread(places, 2)]
  for future in (host, *others):
    future.result(DEADLINE_S)


@pytest.mark.parametrize('missing', [0, 1])
def test_one_that_does_not_come_is_named(missing):
  places = make_places(2)
  with pytest.raises(
    TimeoutError, match=rf'learner {missing} .?{places[missing]}.* Start'
  ):
    meet(places, 1 - missing, 0.05)


def test_the_user_is_told_once_who_is_waited_for(capsys, monkeypatch):
  monkeypatch.setattr(rendezvous, '_QUIET_SECONDS', 0.0)
  places = make_places(3)
  with pytest.raises(TimeoutError):
    meet(places, 0, 0.3)
  assert capsys.readouterr().out == (
    f'Waiting for learner 1 ({places[1]}), learner 2 ({places[2]}).\n'
  )
  with pytest.raises(TimeoutError):
    meet(places, 1, 0.3)
  said = capsys.readouterr().out
  assert said.startswith(f'Waiting for learner 0 ({places[0]}).')
  assert said.count('\n') == 1


def test_learners_of_other_addresses_are_refused():
  places = make_places(2)
  host = meet_in_thread(places, 0)
  with pytest.raises(
    ValueError, match=rf'^Learner 0 \({places[0]}\) refuses .*elsewhere:1'
  ):
    meet([places[0], 'elsewhere:1'], 1)
  meet(places, 1)
  host.result(DEADLINE_S)


def test_learners_of_other_options_are_refused_by_their_difference():
  places = make_places(2)
  options = {'learning_rate': 0.1, 'lstm': False}
  host = meet_in_thread(places, 0, options=options)
  with pytest.raises(
    ValueError, match=r'refuses learner 1: --lstm is False there and True here;'
  ):
    meet(places, 1, options=options | {'lstm': True})
  meet(places, 1, options=options)
  host.result(DEADLINE_S)


class TestToken:
  def test_all_have_it(self):
    places = make_places(2)
    host = meet_in_thread(places, 0, own=TOKEN)
    meet(places, 1, own=TOKEN)
    host.result(DEADLINE_S)

  @pytest.mark.parametrize('own', [NONE, Credentials(token='another')])
  def test_who_has_another_is_refused_and_told_of_the_option(self, own):
    places = make_places(2)
    host = meet_in_thread(places, 0, own=TOKEN)
    with pytest.raises(ValueError, match=r'token .* same --cluster_token_file'):
      meet(places, 1, own=own)
    assert not host.done()
    meet(places, 1, own=TOKEN)
    host.result(DEADLINE_S)


def test_an_actor_that_comes_meanwhile_is_to_come_again():
  places = make_places(2)
  host = meet_in_thread(places, 0)
  with pytest.raises(rpc.Again, match='the learner waits for other learners'):
    ByHand(places, 1).ask('register')
  assert not host.done()
  meet(places, 1)
  host.result(DEADLINE_S)


@pytest.mark.parametrize(
  'request_',
  [
    b'x',
    b'[]',
    b'{}',
    b'{"task": 1}',
    b'{"task": "1", "learners": []}',
    b'{"task": [1], "learners": null, "options": {}}',
    b'[' * 10**5,
  ],
)
def test_strangers_do_no_harm(request_):
  places = make_places(2)
  host = meet_in_thread(places, 0)
  with pytest.raises(rpc.Refused, match=r'expects others|not a message'):
    ByHand(places, 1).ask(request=request_)
  meet(places, 1)
  host.result(DEADLINE_S)


@pytest.mark.parametrize('task', [0, -1, 2, 10**30, 1.0, None, True])
def test_who_is_none_of_the_others_is_refused(task):
  places = make_places(2)
  host = meet_in_thread(places, 0)
  if task is True:  # To Python, it is 1.
    assert ByHand(places, task).ask() == b'go'
  else:
    with pytest.raises(rpc.Refused, match='expects others'):
      ByHand(places, task).ask()
    meet(places, 1)
  host.result(DEADLINE_S)


class TestLate:
  def test_a_learner_that_comes_after_the_start_is_told_so(self):
    places = make_places(2)
    server = rpc.Server(places[0], {'register': lambda request: b''})
    try:
      with pytest.raises(ValueError, match=r'trains already.*start them again'):
        meet(places, 1)
    finally:
      server.stop(0)

  def test_as_is_one_that_finds_another_program(self):
    with strangers.http_server() as address:
      places = [address.replace('127.0.0.1', 'localhost'), *make_places(1)]
      with pytest.raises(ValueError, match='another program has its'):
        meet(places, 1)


@pytest.mark.parametrize('option', ['learner_address', 'listen_address'])
def test_a_port_that_is_taken_is_named(option):
  places = make_places(2)
  elsewhere = ''
  if option == 'listen_address':
    elsewhere, places[0] = places[0], f'192.0.2.1:{free_port()}'
  taken = elsewhere or places[0]
  server = rpc.Server(taken, {})
  try:
    with pytest.raises(
      ValueError, match=rf'^--{option}: cannot listen at {taken}: '
    ):
      meet(places, 0, listen_address=elsewhere)
  finally:
    server.stop(0)
