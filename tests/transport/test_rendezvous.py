"""Learners that meet, and those that come too late or not at all."""

import contextlib
import socket

import pytest

from scalable_agent.distribution import rendezvous
from tests import waiting


def free_places(number, host='localhost'):
  with contextlib.ExitStack() as stack:
    servers = [
      stack.enter_context(socket.create_server(('', 0))) for _ in range(number)
    ]
    return [f'{host}:{server.getsockname()[1]}' for server in servers]


def meet_in_thread(places, index, timeout=waiting.DEADLINE_S):
  return waiting.in_thread(rendezvous.meet, places, index, timeout)


def connect(place):
  """Returns a connection to learner 0 as soon as it listens."""
  connections = []

  def tried():
    with contextlib.suppress(OSError):
      host, port = place.rsplit(':', 1)
      connections.append(
        socket.create_connection((host, int(port)), waiting.DEADLINE_S)
      )
    return connections

  waiting.wait_until(tried)
  return connections[0]


@pytest.mark.parametrize('order', [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_all_go_when_the_last_one_came(order):
  places = free_places(3)
  early = [meet_in_thread(places, index) for index in order[:2]]
  assert not any(future.done() for future in early)
  last = meet_in_thread(places, order[2])
  for future in (*early, last):
    future.result(waiting.DEADLINE_S)


def test_a_port_is_free_again_afterwards():
  places = free_places(2)
  for _ in range(2):
    futures = [meet_in_thread(places, index) for index in range(2)]
    for future in futures:
      future.result(waiting.DEADLINE_S)


def test_one_that_leaves_is_waited_for_again():
  places = free_places(3)
  host = meet_in_thread(places, 0)
  with connect(places[0]) as leaver:
    leaver.sendall(rendezvous._greeting(places, 1, {}))
  other = meet_in_thread(places, 2)
  back = meet_in_thread(places, 1)
  for future in host, other, back:
    future.result(waiting.DEADLINE_S)


def test_strangers_do_no_harm():
  places = free_places(2)
  host = meet_in_thread(places, 0)
  with connect(places[0]) as stranger, connect(places[0]) as silent:
    stranger.sendall(b'GET / HTTP/1.1\r\n\r\n')
    assert stranger.recv(100).startswith(b'no ')
    meet_in_thread(places, 1).result(waiting.DEADLINE_S)
    host.result(waiting.DEADLINE_S)
    assert silent.recv(100) == b''


@pytest.mark.parametrize('missing', [0, 1])
def test_one_that_does_not_come_is_named(missing, capsys):
  places = free_places(2)
  with pytest.raises(
    TimeoutError, match=rf'learner {missing} .?{places[missing]}.* Start'
  ):
    rendezvous.meet(places, 1 - missing, 0.05)


def test_the_user_is_told_once_who_is_waited_for(capsys, monkeypatch):
  monkeypatch.setattr(rendezvous, '_QUIET_SECONDS', 0.0)
  places = free_places(3)
  for index, others in (
    (0, f'learner 1 ({places[1]}), learner 2 ({places[2]})'),
    (1, f'learner 0 ({places[0]})'),
  ):
    with pytest.raises(TimeoutError):
      rendezvous.meet(places, index, 0.05)
    assert capsys.readouterr().out == f'Waiting for {others}.\n'


def test_learners_of_other_addresses_are_refused():
  places = free_places(2)
  host = meet_in_thread(places, 0)
  with pytest.raises(
    ValueError, match=rf'^Learner 0 \({places[0]}\) refuses .*elsewhere:1'
  ):
    rendezvous.meet([places[0], 'elsewhere:1'], 1, waiting.DEADLINE_S)
  meet_in_thread(places, 1).result(waiting.DEADLINE_S)
  host.result(waiting.DEADLINE_S)


def test_learners_of_other_options_are_refused_by_their_difference():
  places = free_places(2)
  options = {'learning_rate': 0.1, 'lstm': False}
  host = waiting.in_thread(
    rendezvous.meet, places, 0, waiting.DEADLINE_S, options
  )
  with pytest.raises(
    ValueError, match=r'refuses learner 1: --lstm is False there and True here;'
  ):
    rendezvous.meet(places, 1, waiting.DEADLINE_S, options | {'lstm': True})
  rendezvous.meet(places, 1, waiting.DEADLINE_S, options)
  host.result(waiting.DEADLINE_S)


def test_a_task_that_is_there_twice_is_refused():
  places = free_places(3)
  host = meet_in_thread(places, 0)
  with connect(places[0]) as first:
    first.sendall(rendezvous._greeting(places, 1, {}))
    with pytest.raises(ValueError, match='refuses learner 1'):
      rendezvous.meet(places, 1, waiting.DEADLINE_S)
    meet_in_thread(places, 2).result(waiting.DEADLINE_S)
    host.result(waiting.DEADLINE_S)
    assert first.recv(100) == b'go\n'


def test_a_learner_that_comes_after_the_start_is_told_so():
  places = free_places(2)
  port = int(places[0].rpartition(':')[2])
  with socket.create_server(('', port)) as grpc:
    late = meet_in_thread(places, 1)
    connection, _ = grpc.accept()
    with connection:
      connection.sendall(b'\0\0\x06\x04')  # The start of HTTP/2's SETTINGS.
      with pytest.raises(ValueError, match=r'trains already.*start them again'):
        late.result(waiting.DEADLINE_S)


def test_a_port_that_is_taken_is_named():
  with socket.create_server(('', 0)) as server:
    place = f'localhost:{server.getsockname()[1]}'
    with pytest.raises(ValueError, match=rf'at {place}: Address already in us'):
      rendezvous.meet([place, 'localhost:1'], 0, 1.0)
