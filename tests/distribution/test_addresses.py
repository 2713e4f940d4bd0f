"""Addresses: syntax, clashes, hosts that are not there, ports in use."""

import socket

import pytest
from absl import logging

from scalable_agent.distribution import addresses


@pytest.fixture
def listener():
  """A socket that listens on a port of its own, like gRPC's."""
  with socket.socket() as server:
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    server.bind(('127.0.0.1', 0))
    server.listen()
    yield server


class TestSplit:
  @pytest.mark.parametrize(
    ('address', 'place'),
    [
      ('localhost:8000', ('localhost', 8000)),
      ('node-1.cluster:1', ('node-1.cluster', 1)),
      ('10.0.0.1:64535', ('10.0.0.1', 64535)),
      ('[::1]:8000', ('::1', 8000)),
    ],
  )
  def test_an_address_is_a_host_and_a_port(self, address, place):
    assert addresses.split(address) == place
    assert addresses.join(*place) == address

  @pytest.mark.parametrize(
    'address',
    [
      '',
      'localhost',
      ':8000',
      'localhost:',
      'localhost:http',
      'localhost:0',
      'localhost:64536',
      'localhost:-1',
      '::1:8000',
      '[::1]',
      'grpc://localhost:8000',
      'a b:8000',
    ],
  )
  def test_anything_else_is_answered_with_the_form(self, address):
    with pytest.raises(ValueError, match=r'^TF_CONFIG: .* Write host:port'):
      addresses.split(address, 'TF_CONFIG')


class TestCollectivesOf:
  def test_they_are_1000_ports_above(self):
    assert addresses.collectives_of(['a:8000', '[::1]:1'], 'here') == (
      'a:9000',
      '[::1]:1001',
    )

  @pytest.mark.parametrize(
    ('learners', 'message'),
    [
      (['a:1', 'b:1', 'a:1'], '^here: a:1 occurs twice'),
      (['[::1]:7', '[::1]:7'], r'^here: \[::1\]:7 occurs twice'),
      (['a:1', 'a:1001'], '^here: a:1001 is taken: .* learner 0 .*closer'),
      (['0.0.0.0:1', 'a:1'], '^here: 0.0.0.0:1 is where to listen.*Name'),
      (['a:1', '[::]:1'], r'^here: \[::\]:1 is where to listen'),
    ],
  )
  def test_clashes_are_refused(self, learners, message):
    with pytest.raises(ValueError, match=message):
      addresses.collectives_of(learners, 'here')

  def test_a_single_learner_may_listen_everywhere(self):
    assert addresses.collectives_of(['0.0.0.0:1'], 'x') == ('0.0.0.0:1001',)


class TestCheckResolvable:
  @pytest.mark.parametrize('address', ['localhost:1', '127.0.0.1:1', '[::1]:1'])
  def test_a_known_host_passes(self, address):
    addresses.check_resolvable(address)

  @pytest.mark.parametrize('host', ['no-such-host.invalid', 'a..b'])
  def test_an_unknown_host_is_named(self, host):
    with pytest.raises(
      ValueError,
      match=rf'^--learner_address: the host of {host}:80 cannot be found',
    ):
      addresses.check_resolvable(f'{host}:80')


class TestCheckFree:
  def test_a_free_port_passes_and_stays_free(self, listener):
    port = listener.getsockname()[1]
    listener.close()
    addresses.check_free(f'127.0.0.1:{port}')
    addresses.check_free(f'localhost:{port}')

  @pytest.mark.parametrize('host', ['127.0.0.1', 'localhost', '0.0.0.0'])
  def test_a_port_in_use_is_refused_even_if_it_could_be_shared(
    self, listener, host
  ):
    port = listener.getsockname()[1]
    with pytest.raises(
      ValueError,
      match=rf'^--learner_address: cannot listen at {host}:{port}: another '
      r'process listens on this port\. End it, or choose another port in '
      r'--learner_address or TF_CONFIG\.$',
    ):
      addresses.check_free(f'{host}:{port}')

  def test_connections_that_were_closed_shortly_before_do_not_count(
    self, listener
  ):
    port = listener.getsockname()[1]
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    server.close()  # The first to close keeps the port in TIME_WAIT.
    assert client.recv(1) == b''
    client.close()
    listener.close()
    addresses.check_free(f'127.0.0.1:{port}')

  def test_the_address_of_another_host_is_refused(self):
    # Of the block for documentation: never assigned.
    with pytest.raises(
      ValueError, match=r'^--learner_address: .*192\.0\.2\.1:80.* this host'
    ):
      addresses.check_free('192.0.2.1:80')

  def test_a_port_of_root_is_refused(self, monkeypatch):
    def bind(*args):
      raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(addresses, '_bind', bind)
    with pytest.raises(
      ValueError, match=r'127\.0\.0\.1:80: this user may not .*above 1023'
    ):
      addresses.check_free('127.0.0.1:80')

  def test_a_name_with_an_address_that_is_off_passes(self, monkeypatch):
    def bind(family, kind, place):
      if family == socket.AF_INET6:
        raise OSError(99, 'Cannot assign requested address')

    def getaddrinfo(host, port, type):
      for family, ip in (
        (socket.AF_INET6, '::1'),
        (socket.AF_INET, '127.0.0.1'),
      ):
        yield family, type, 6, '', (ip, port)

    monkeypatch.setattr(addresses, '_bind', bind)
    monkeypatch.setattr(addresses.socket, 'getaddrinfo', getaddrinfo)
    addresses.check_free('localhost:80')


@pytest.mark.parametrize(
  ('address', 'ips', 'warning'),
  [
    ('localhost:1', ['127.0.0.1'], None),
    ('127.0.0.2:1', ['127.0.0.2'], None),
    ('[::1]:1', ['::1'], None),
    ('0.0.0.0:1', ['0.0.0.0'], 'Whoever can reach 0.0.0.0:1 can'),
    ('node-1:1', ['192.0.2.1'], 'Whoever can reach node-1:1 can'),
    ('node-1:1', ['127.0.1.1', '192.0.2.1'], 'Whoever can reach node-1:1 can'),
    ('node-1:1', [], 'Whoever can reach node-1:1 can'),
    ('node-1:1', ['127.0.1.1'], 'On this host, node-1 is 127.0.1.1, where no'),
  ],
)
def test_whoever_listens_is_warned_of_who_can_connect(
  monkeypatch, address, ips, warning
):
  logged = []
  monkeypatch.setattr(addresses, '_look_up', lambda host: set(ips))
  monkeypatch.setattr(
    logging,
    'log_first_n',
    lambda level, text, n, *args: logged.append(text % args),
  )
  addresses.warn_of_reach(address)
  assert len(logged) == (warning is not None)
  assert not logged or logged[0].startswith(warning)
