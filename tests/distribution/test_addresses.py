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
    for refuse in (addresses.split, addresses.check):
      with pytest.raises(ValueError, match=r'^TF_CONFIG: .* Write host:port'):
        refuse(address, 'TF_CONFIG')


class TestUnix:
  @pytest.mark.parametrize('path', ['/a', '/run/user/1/learner', '/a:1', '/ü'])
  def test_a_path_is_an_address(self, path):
    address = f'unix:{path}'
    addresses.check(address)
    assert addresses.is_unix(address)
    assert addresses.path_of(address) == path
    assert addresses.is_local(address)

  def test_a_host_is_none(self):
    assert not addresses.is_unix('unix.example:1')

  @pytest.mark.parametrize(
    'address',
    ['unix:', 'unix:a', 'unix:./a', f'unix:/{"a" * 100}', f'unix:/{"ü" * 50}'],
  )
  def test_a_path_that_no_socket_can_have_is_refused(self, address):
    with pytest.raises(
      ValueError, match=r'^here: .* at most 100 bytes long\.$'
    ):
      addresses.check(address, 'here')

  def test_the_longest_path_is_one_of_a_socket(self, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = f'/{"a" * 99}'
    addresses.check(f'unix:{path}')
    with socket.socket(socket.AF_UNIX) as one:
      # There is none: but it could have been the name of one.
      assert one.connect_ex(path) != 0


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
      (['a:1', 'unix:/a'], '^here: unix:/a is for a single learner, .*TCP'),
      (['a:1', 'b'], "^here: 'b' is no address"),
      (['b'], "^here: 'b' is no address"),
      (['unix:a'], "^here: 'unix:a' is no address"),
    ],
  )
  def test_clashes_are_refused(self, learners, message):
    with pytest.raises(ValueError, match=message):
      addresses.collectives_of(learners, 'here')

  @pytest.mark.parametrize('address', ['0.0.0.0:1', '[::]:1', 'unix:/a', 'a:1'])
  def test_a_single_learner_has_nobody_to_reach(self, address):
    assert addresses.collectives_of([address], 'x') == ()


class TestCheckFree:
  def test_a_free_port_passes_and_stays_free(self, listener):
    port = listener.getsockname()[1]
    listener.close()
    addresses.check_free(f'127.0.0.1:{port}')
    addresses.check_free(f'localhost:{port}')

  def test_ipv6_stands_in_brackets(self, monkeypatch):
    bound = []
    monkeypatch.setattr(addresses, '_bind', lambda *place: bound.append(place))
    addresses.check_free('[::1]:8000')
    ((family, _, place),) = bound
    assert family == socket.AF_INET6
    assert place[:2] == ('::1', 8000)

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

  @pytest.mark.parametrize('host', ['no-such-host.invalid', 'a..b'])
  def test_an_unknown_host_is_named(self, host):
    with pytest.raises(
      ValueError,
      match=rf'^here: the host of {host}:80 cannot be found .* give the IP',
    ):
      addresses.check_free(f'{host}:80', 'here')

  def test_a_path_that_is_free_stays_free(self, tmp_path):
    addresses.check_free(f'unix:{tmp_path}/socket')
    assert not (tmp_path / 'socket').exists()

  def test_a_path_of_a_socket_that_nobody_listens_at_is_free(self, tmp_path):
    path = tmp_path / 'socket'
    with socket.socket(socket.AF_UNIX) as dead:
      dead.bind(str(path))
    addresses.check_free(f'unix:{path}')
    assert path.exists()

  def test_a_path_where_another_process_listens_is_refused(self, tmp_path):
    path = tmp_path / 'socket'
    with socket.socket(socket.AF_UNIX) as one:
      one.bind(str(path))
      one.listen()
      with pytest.raises(
        ValueError, match=rf'^here: cannot listen at unix:{path}: another pro'
      ):
        addresses.check_free(f'unix:{path}', 'here')

  def test_a_path_of_something_else_is_refused(self, tmp_path):
    path = tmp_path / 'file'
    path.write_text('mine')
    with pytest.raises(ValueError, match='there is a file of this name'):
      addresses.check_free(f'unix:{path}')
    assert path.read_text() == 'mine'

  def test_a_path_in_no_folder_is_refused(self, tmp_path):
    with pytest.raises(ValueError, match=f'{tmp_path}/none is no folder that'):
      addresses.check_free(f'unix:{tmp_path}/none/socket')

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
  ('address', 'local'),
  [
    ('localhost:1', True),
    ('127.0.0.2:1', True),
    ('[::1]:1', True),
    ('unix:/a', True),
    ('0.0.0.0:1', False),
    ('[::]:1', False),
    ('192.0.2.1:1', False),
    ('node-1:1', False),
    ('localhost.example:1', False),
  ],
)
def test_local_is_where_only_this_machine_can_connect(address, local):
  assert addresses.is_local(address) == local


OPEN = 'What is sent to and from {} is not encrypted: whoever can listen'


@pytest.mark.parametrize(
  ('address', 'ips', 'plain', 'encrypted'),
  [
    ('localhost:1', ['127.0.0.1'], None, None),
    ('127.0.0.2:1', ['127.0.0.2'], None, None),
    ('[::1]:1', ['::1'], None, None),
    ('unix:/a', [], None, None),
    ('0.0.0.0:1', ['0.0.0.0'], OPEN, None),
    ('node-1:1', ['192.0.2.1'], OPEN, None),
    ('node-1:1', ['127.0.1.1', '192.0.2.1'], OPEN, None),
    ('node-1:1', [], OPEN, None),
    (
      'node-1:1',
      ['127.0.1.1'],
      *['On this host, node-1 is 127.0.1.1, whe'] * 2,
    ),
  ],
)
def test_whoever_listens_is_warned_of_who_can_connect(
  monkeypatch, address, ips, plain, encrypted
):
  logged = []
  monkeypatch.setattr(addresses, '_look_up', lambda host: set(ips))
  monkeypatch.setattr(
    logging,
    'log_first_n',
    lambda level, text, n, *args: logged.append(text % args),
  )
  for warning, with_tls in ((plain, False), (encrypted, True)):
    logged.clear()
    addresses.warn_of_reach(address, with_tls)
    assert len(logged) == (warning is not None)
    assert not logged or logged[0].startswith(warning.format(address))
