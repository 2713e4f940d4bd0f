"""Calls between processes: every byte arrives, and nothing stops a server."""

import contextlib
import json
import logging as std_logging
import os
import platform
import resource
import socket
import stat
import subprocess
import sys
import threading
import time

import grpc
import pytest

from scalable_agent.transport import protocol, rpc
from scalable_agent.transport.credentials import Credentials
from tests import certificates, programs, strangers
from tests.ports import free_port
from tests.waiting import DEADLINE_S, in_thread, wait_until

SECONDS = 20.0
RUN = Credentials(token='0123456789abcdef')
ECHO = '/scalable_agent.Learner/echo'


class Handlers:
  """What the server of these tests answers.

  Attributes:
    calls: requests of `note` so far.
  """

  def __init__(self):
    self.calls = []

  def as_dict(self):
    return {
      'echo': lambda request: request,
      'note': self._note,
      'refuse': self._refuse,
      'over': self._raise(rpc.Over),
      'again': self._raise(rpc.Again),
      'fail': lambda request: 1 / len(request),
      'quote': lambda request: protocol.from_json(request)['missing'],
      'long': lambda request: bytes(rpc.MAX_BYTES + 1),
    }

  def _note(self, request):
    self.calls.append(request)
    return b''

  def _refuse(self, request):
    # What a stranger may send, in a message to log and to send back.
    raise rpc.Refused(f'no, {json.loads(request)}')

  def _raise(self, kind):
    def handle(request):
      raise kind(request.decode())

    return handle


class Gate:
  """A handler that waits until a test opens it.

  Attributes:
    waiting: calls that are in it, or were.
  """

  def __init__(self):
    self.waiting = 0
    self._open = threading.Event()

  def __call__(self, request):
    self.waiting += 1
    assert self._open.wait(DEADLINE_S)
    return request

  def open(self):
    self._open.set()


@contextlib.contextmanager
def serving(handlers=None, address=None, **options):
  """Yields a server and its address, and stops it."""
  address = address or f'127.0.0.1:{free_port()}'
  server = rpc.Server(address, handlers or Handlers().as_dict(), **options)
  try:
    yield server, address
  finally:
    server.stop(0)


@pytest.fixture
def connect():
  """Makes clients, and closes them."""
  with contextlib.ExitStack() as stack:

    def make(address, *arguments, **options):
      client = rpc.Client(address, *arguments, **options)
      stack.callback(client.close)
      return client

    yield make


@pytest.fixture
def gate():
  gate = Gate()
  yield gate
  gate.open()


@pytest.fixture(scope='module')
def handlers():
  return Handlers()


@pytest.fixture(scope='module')
def served(handlers):
  with serving(handlers.as_dict()) as served:
    yield served


@pytest.fixture
def server(served):
  return served[0]


@pytest.fixture
def address(served):
  return served[1]


@pytest.fixture
def client(connect, address):
  return connect(address)


class Log(std_logging.Handler):
  """Keeps what absl logs."""

  def __init__(self):
    super().__init__()
    self.lines = []

  def emit(self, record):
    self.lines.append(record.getMessage())


@pytest.fixture
def log():
  logger, handler = std_logging.getLogger('absl'), Log()
  logger.addHandler(handler)
  yield handler.lines
  logger.removeHandler(handler)


def assert_answers(address, *arguments):
  """A new client gets its answer."""
  client = rpc.Client(address, *arguments)
  try:
    assert client.call('echo', b'still here', SECONDS) == b'still here'
  finally:
    client.close()


class TestCall:
  @pytest.mark.parametrize(
    'request_',
    [b'', b'\0', b'a\0\0\0', bytes(range(256)) * 3, b'\xff\xfe\0'],
  )
  def test_every_byte_arrives(self, client, request_):
    assert client.call('echo', request_) == request_

  def test_the_longest_message_arrives_both_ways(self, client):
    request = bytes(range(256)) * (rpc.MAX_BYTES // 256)
    assert len(request) == rpc.MAX_BYTES
    assert client.call('echo', request) == request

  def test_a_longer_request_is_not_sent(self, client, handlers):
    handlers.calls.clear()
    with pytest.raises(ValueError, match=f'at most {rpc.MAX_BYTES}'):
      client.call('note', bytes(rpc.MAX_BYTES + 1))
    client.call('note', b'next')
    assert handlers.calls == [b'next']

  def test_a_request_may_be_left_out(self, client):
    assert client.call('echo') == b''

  def test_many_clients_may_call_at_once(self, address, connect):
    def calls(index):
      one = connect(address)
      for i in range(20):
        request = bytes([index, i]) * 1000
        assert one.call('echo', request) == request
        if i % 5 == 0:
          one = connect(address)

    for future in [in_thread(calls, i) for i in range(8)]:
      future.result(DEADLINE_S)

  def test_the_end_of_one_client_is_not_that_of_another(self, address, connect):
    first, second = (connect(address) for _ in range(2))
    for one in (first, second):
      one.call('echo')
    first.close()
    assert second.call('echo', b'x') == b'x'


class TestRefusals:
  def test_a_handlers_refusal_reaches_the_caller(self, client):
    with pytest.raises(rpc.Refused, match=r'^no, 5$'):
      client.call('refuse', b'5')

  @pytest.mark.parametrize(
    ('method', 'kind'), [('over', rpc.Over), ('again', rpc.Again)]
  )
  def test_the_end_and_a_new_beginning_reach_the_caller(
    self, server, client, method, kind
  ):
    before = server.refusals
    for text in ('', 'as it is'):
      with pytest.raises(kind, match=f'^{text}$'):
        client.call(method, text.encode())
    # They are answers like others.
    assert server.refusals == before

  def test_a_handlers_failure_reaches_the_caller(self, client):
    with pytest.raises(rpc.Refused, match=r'^ZeroDivisionError: division by'):
      client.call('fail')
    assert client.call('echo', b'x') == b'x'

  def test_an_answer_that_is_too_long_is_an_error(self, client):
    with pytest.raises(
      rpc.Refused, match=rf'^a message of more than {rpc.MAX_BYTES} bytes'
    ):
      client.call('long')
    assert client.call('echo', b'x') == b'x'

  def test_what_no_handler_answers_is_no_answer(self, client):
    with pytest.raises(rpc.Unreachable) as error:
      client.call('no_such_method')
    assert error.value.strange
    assert client.call('echo', b'x') == b'x'

  def test_what_is_quoted_cannot_hurt(self, client):
    with pytest.raises(rpc.Refused, match=r'no, a\?b'):
      client.call('refuse', b'"a\\ud800b"')
    for text in ('\0\n\r', 'ü\u2028\U0001f600', '%s%n'):
      with pytest.raises(rpc.Refused) as error:
        client.call('refuse', json.dumps(text).encode())
      assert str(error.value) == f'no, {text}'

  @pytest.mark.parametrize('character', ['x', 'ü', '\U0001f600', '\ud800'])
  def test_a_long_text_is_cut(self, client, character):
    with pytest.raises(rpc.Refused) as error:
      client.call('refuse', json.dumps(character * 10**6).encode())
    text = str(error.value)
    shown = '?' if character == '\ud800' else character
    assert text == f'no, {shown * (rpc._MAX_REFUSAL - 4)}...'

  @pytest.mark.parametrize(
    ('message', 'reason'),
    [
      (b'[' * 10**6, 'too deep'),
      (b'{"a":' * 10**5, 'too deep'),
      (b'{"a": ' + b'9' * 10**6 + b'}', 'ValueError'),
      (b'\xff', 'UnicodeDecodeError'),
      (b'[1]', 'JSON object'),
      (b'', 'JSONDecodeError'),
      (b'{"a": NaN}', 'KeyError'),
    ],
  )
  def test_no_json_is_more_than_an_error(self, client, message, reason):
    with pytest.raises(rpc.Refused, match=reason):
      client.call('quote', message)
    assert client.call('echo', b'x') == b'x'

  def test_are_counted_and_only_the_first_are_logged(self, log, connect):
    with serving() as (server, address):

      def calls():
        client = connect(address)
        for i in range(30):
          with pytest.raises(rpc.Refused):
            client.call(
              'fail' if i % 2 else 'refuse', b'1' if not i % 2 else b''
            )

      for future in [in_thread(calls) for _ in range(5)]:
        future.result(DEADLINE_S)
      assert server.refusals == 150
    refusals = [x for x in log if 'refused: no, 1' in x]
    failures = [x for x in log if 'ZeroDivisionError' in x]
    assert refusals
    assert failures
    assert len(refusals) + len(failures) == rpc._MAX_LOGGED
    assert log.count('Further refusals of this kind are not logged.') == 1


class TestHandlersThatWait:
  def test_keep_nobody_else_from_an_answer(self, gate, connect):
    handlers = Handlers().as_dict() | {'wait': gate}
    with serving(handlers, most_calls=11) as (_, address):
      calls = [in_thread(connect(address).call, 'wait') for _ in range(10)]
      wait_until(lambda: gate.waiting == 10)
      assert_answers(address)
      assert not any(call.done() for call in calls)
      gate.open()
      for call in calls:
        assert call.result(DEADLINE_S) == b''

  def test_beyond_the_most_calls_others_wait_for_their_turn(
    self, gate, connect
  ):
    handlers = Handlers().as_dict() | {'wait': gate}
    with serving(handlers, most_calls=2) as (_, address):
      calls = [in_thread(connect(address).call, 'wait') for _ in range(2)]
      wait_until(lambda: gate.waiting == 2)
      third = in_thread(connect(address).call, 'echo', b'x')
      hasty = connect(address)
      closed = in_thread(hasty.call, 'echo', b'x')
      hasty.close()
      with pytest.raises(rpc.Closed):
        closed.result(DEADLINE_S)
      assert not third.done()
      gate.open()
      for call in calls:
        call.result(DEADLINE_S)
      assert third.result(DEADLINE_S) == b'x'

  def test_who_has_no_token_keeps_nobody_from_a_turn(self, connect):
    with serving(Handlers().as_dict(), credentials=RUN, most_calls=2) as (
      _,
      address,
    ):
      stop = threading.Event()

      def knock():
        client = connect(address)
        while not stop.is_set():
          with pytest.raises(rpc.Refused):
            client.call('echo')

      strangers_ = [in_thread(knock) for _ in range(4)]
      client = connect(address, RUN)
      for i in range(50):
        assert client.call('echo', bytes([i])) == bytes([i])
      stop.set()
      for stranger in strangers_:
        stranger.result(DEADLINE_S)

  def test_of_one_connection_some_at_a_time_are_answered(self, gate, connect):
    handlers = Handlers().as_dict() | {'wait': gate}
    with (
      serving(handlers, most_calls=64) as (_, address),
      grpc.insecure_channel(address) as channel,
    ):
      channel.unary_unary(ECHO)(b'')  # It knows the server's bounds now.
      wait = channel.unary_unary('/scalable_agent.Learner/wait')
      calls = [wait.future(b'') for _ in range(2 * rpc._MAX_CALLS)]
      wait_until(lambda: gate.waiting == rpc._MAX_CALLS)
      # Others are answered, and meanwhile it gets no more.
      assert_answers(address)
      assert gate.waiting == rpc._MAX_CALLS
      assert not any(call.done() for call in calls)
      gate.open()


@pytest.mark.skipif(
  platform.libc_ver()[0] != 'glibc', reason='of malloc of glibc'
)
def test_memory_of_messages_is_that_of_those_before(connect):
  size = 6 * 2**20
  with serving() as (_, address):
    client = connect(address)

    def exchange():
      # As an actor does, which packs each.
      return client.call('echo', b''.join([b'header', bytes(size)]))

    for _ in range(10):
      exchange()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
      assert len(exchange()) == len(b'header') + size
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
  # Otherwise each page of each copy, of which there are several.
  assert faults / 20 < size / resource.getpagesize()


class TestTimeout:
  @pytest.mark.parametrize('seconds', [0.0, 0.2])
  def test_ends_a_call(self, gate, connect, seconds):
    with serving({'wait': gate}) as (_, address):
      client = connect(address)
      start = time.monotonic()
      with pytest.raises(rpc.Unreachable, match=address):
        client.call('wait', b'', seconds)
      assert seconds <= time.monotonic() - start < SECONDS


class TestClose:
  def test_ends_the_call_under_way_in_another_thread(self, gate, connect):
    with serving({'wait': gate}) as (_, address):
      client = connect(address)
      call = in_thread(client.call, 'wait')
      wait_until(lambda: gate.waiting == 1)
      client.close()
      with pytest.raises(rpc.Closed):
        call.result(DEADLINE_S)

  def test_ends_all_later_calls(self, address, connect):
    client = connect(address)
    client.call('echo')
    for _ in range(2):
      client.close()
      for method in ('echo', 'note'):
        with pytest.raises(rpc.Closed):
          client.call(method)

  def test_before_the_first_call(self, address, connect):
    client = connect(address)
    client.close()
    with pytest.raises(rpc.Closed):
      client.call('echo')

  def test_ends_the_wait_for_a_connection(self, connect):
    with strangers.silent_listener() as address:
      client = connect(address)
      call = in_thread(client.call, 'echo')
      client.close()
      with pytest.raises(rpc.Closed):
        call.result(DEADLINE_S)


class TestStop:
  def test_takes_no_more_calls_and_frees_the_port(self, connect):
    with serving() as (server, address):
      client = connect(address)
      client.call('echo')
      server.stop()
      with pytest.raises(rpc.Unreachable) as error:
        client.call('echo', b'', SECONDS)
      assert not error.value.strange
    with serving(address=address):
      assert_answers(address)
      # The same client finds the server that has taken its place.
      wait_until(lambda: self._is_answered(client))

  def _is_answered(self, client):
    with contextlib.suppress(rpc.Unreachable):
      return client.call('echo', b'x', SECONDS) == b'x'
    return False

  def test_cuts_off_the_calls_under_way(self, gate, connect):
    with serving({'wait': gate}) as (server, address):
      call = in_thread(connect(address).call, 'wait')
      wait_until(lambda: gate.waiting == 1)
      in_thread(server.stop, 0.01).result(DEADLINE_S)
      with pytest.raises(rpc.Unreachable) as error:
        call.result(DEADLINE_S)
      assert not error.value.strange

  def test_waits_for_those_that_end_in_time(self, gate, connect):
    with serving({'wait': gate}) as (server, address):
      call = in_thread(connect(address).call, 'wait', b'x')
      wait_until(lambda: gate.waiting == 1)
      stop = in_thread(server.stop, float(DEADLINE_S))
      gate.open()
      assert call.result(DEADLINE_S) == b'x'
      stop.result(DEADLINE_S)

  def test_may_come_twice(self):
    with serving() as (server, _):
      server.stop()
      server.stop()


@pytest.mark.parametrize(
  ('limit', 'most'),
  [
    (1024, 1024 - 256),
    (300, 256),
    (2**40, 2**16),
    (resource.RLIM_INFINITY, 2**16 - 256),
  ],
)
def test_connections_leave_descriptors_to_what_is_saved(
  monkeypatch, limit, most
):
  raised, taken = [], {}
  make = grpc.server

  def noted(*arguments, options, **others):
    taken.update(options)
    return make(*arguments, options=options, **others)

  monkeypatch.setattr(grpc, 'server', noted)
  monkeypatch.setattr(resource, 'getrlimit', lambda kind: (limit, limit))
  monkeypatch.setattr(resource, 'setrlimit', lambda *args: raised.append(args))
  with serving():
    pass
  assert taken.get('grpc.max_allowed_incoming_connections') == most
  assert raised == [(resource.RLIMIT_NOFILE, (limit, limit))]


class TestBind:
  @pytest.mark.parametrize('host', ['127.0.0.1', 'localhost', '0.0.0.0'])
  @pytest.mark.parametrize('first', ['127.0.0.1', 'localhost', '0.0.0.0'])
  def test_a_second_server_on_a_port_is_refused(self, first, host):
    port = free_port()
    with (
      serving(address=f'{first}:{port}'),
      pytest.raises(
        ValueError,
        match=rf'^--learner_address: cannot listen at {host}:{port}: another '
        'process listens on this port. End it',
      ),
    ):
      rpc.Server(f'{host}:{port}', {})

  @pytest.mark.skipif(
    not os.path.exists('/proc/net/if_inet6'), reason='there is no IPv6'
  )
  @pytest.mark.skipif(
    not os.path.exists('/proc/net/if_inet6'), reason='there is no IPv6'
  )
  @pytest.mark.parametrize(
    ('first', 'second'),
    [
      ('[::]', '[::]'),
      # gRPC listens to IPv4 as well for [::].
      ('[::]', '127.0.0.1'),
      ('[::]', '0.0.0.0'),
      ('[::]', 'localhost'),
      ('127.0.0.1', '[::]'),
      ('0.0.0.0', '[::]'),
    ],
  )
  def test_so_it_is_where_one_takes_all_of_ipv6(self, first, second):
    port = free_port()
    with (
      serving(address=f'{first}:{port}'),
      pytest.raises(ValueError, match='cannot listen at'),
    ):
      rpc.Server(f'{second}:{port}', {})

  def test_names_where_the_address_is_from(self, address):
    with pytest.raises(ValueError, match=r'^TF_CONFIG: cannot listen at '):
      rpc.Server(address, {}, source='TF_CONFIG')

  def test_an_address_of_another_host_is_refused(self):
    # Of the block for documentation: never assigned.
    with pytest.raises(ValueError, match=r'192\.0\.2\.1:80.* of this host has'):
      rpc.Server('192.0.2.1:80', {})


class TestUnixSockets:
  @pytest.fixture
  def path(self, tmp_path):
    return tmp_path / 'socket'

  def test_are_of_their_owner_alone(self, path):
    with serving(address=f'unix:{path}') as (_, address):
      assert stat.S_IMODE(path.stat().st_mode) == 0o600
      assert stat.S_ISSOCK(path.stat().st_mode)
      assert_answers(address)

  def test_a_second_server_is_refused(self, path):
    with serving(address=f'unix:{path}') as (_, address):
      with pytest.raises(
        ValueError, match=f'cannot listen at {address}: another process does'
      ):
        rpc.Server(address, {})
      assert_answers(address)

  def test_what_a_dead_server_left_is_taken_over(self, path):
    with socket.socket(socket.AF_UNIX) as dead:
      dead.bind(str(path))
    assert path.exists()
    with serving(address=f'unix:{path}') as (_, address):
      assert_answers(address)
      assert stat.S_IMODE(path.stat().st_mode) == 0o600

  @pytest.mark.parametrize('kind', ['file', 'folder', 'link'])
  def test_anything_else_of_this_name_is_left_alone(self, path, kind):
    if kind == 'file':
      path.write_text('mine')
    elif kind == 'folder':
      path.mkdir()
    else:
      path.symlink_to(path.parent / 'other')
    with pytest.raises(ValueError, match='there is a file of this name'):
      rpc.Server(f'unix:{path}', {})
    assert path.is_symlink() or kind != 'link'
    assert kind != 'file' or path.read_text() == 'mine'

  def test_the_token_is_asked_for_as_elsewhere(self, path):
    with serving(address=f'unix:{path}', credentials=RUN) as (_, address):
      assert_answers(address, RUN)
      with pytest.raises(rpc.Refused, match='token'):
        rpc.Client(address).call('echo')

  def test_nobody_listens(self, path, connect):
    with pytest.raises(rpc.Unreachable) as error:
      connect(f'unix:{path}').call('echo')
    assert str(error.value) == f'unix:{path}: nobody listens there'
    assert not error.value.strange


class TestToken:
  @pytest.fixture
  def guarded(self, handlers):
    handlers.calls.clear()
    with serving(handlers.as_dict(), credentials=RUN) as guarded:
      yield guarded

  def test_who_has_it_is_answered(self, guarded):
    server, address = guarded
    assert_answers(address, RUN)
    assert server.refusals == 0

  @pytest.mark.parametrize(
    'token', ['', 'x', RUN.token[:-1], RUN.token + 'x', RUN.token.upper()]
  )
  def test_who_has_it_not_is_told_which_option_to_give(
    self, guarded, handlers, connect, token
  ):
    server, address = guarded
    client = connect(address, Credentials(token=token))
    with pytest.raises(
      rpc.Refused, match=r'^this process does not show the token .*_token_file$'
    ):
      client.call('note', b'x')
    assert handlers.calls == []
    # Those of actors are counted apart.
    assert server.refusals == 0
    assert_answers(address, RUN)

  @pytest.mark.parametrize(
    'shown',
    [
      RUN.token,
      f'Basic {RUN.token}',
      f'bearer {RUN.token}',
      f'Bearer  {RUN.token}',
      f'Bearer {RUN.token} x',
      'Bearer',
      'x' * 4000,
    ],
  )
  def test_it_is_shown_in_one_way_only(self, guarded, shown):
    _, address = guarded
    code, _, _ = strangers.call(
      address, ECHO, metadata=(('authorization', shown),)
    )
    assert code == grpc.StatusCode.UNAUTHENTICATED

  @pytest.mark.parametrize(
    'metadata',
    [
      (('authorization-bin', b'\xff'),),
      (('authorization', 'a'), ('authorization', 'b')),
      (('x', f'Bearer {RUN.token}'),),
    ],
  )
  def test_other_metadata_is_not_it(self, guarded, metadata):
    _, address = guarded
    code, _, _ = strangers.call(address, ECHO, metadata=metadata)
    assert code == grpc.StatusCode.UNAUTHENTICATED

  def test_who_has_it_needs_it_nowhere(self, address):
    """A server without a token takes what anyone shows."""
    assert_answers(address, RUN)

  def test_a_stranger_learns_nothing(self, guarded):
    """Not even what there is to be called."""
    _, address = guarded
    answers = {
      strangers.call(address, method, request, metadata)
      for method in (ECHO, '/scalable_agent.Learner/none', '/other/echo', '/')
      for request in (b'', b'x')
      for metadata in ((), (('authorization', 'Bearer x'),))
    }
    assert answers == {(grpc.StatusCode.UNAUTHENTICATED, '', ())}

  def test_it_never_appears_in_the_log(self, guarded, log):
    _, address = guarded
    with pytest.raises(rpc.Refused):
      rpc.Client(address, Credentials(token='another')).call('echo')
    assert log
    assert not any('another' in line or RUN.token in line for line in log)


@pytest.mark.parametrize('kind', ['learner', 'mutual'])
def test_tls_carries_every_byte(tls, connect, kind):
  with serving(credentials=getattr(tls, kind)) as (_, address):
    client = connect(address, tls.with_certificate)
    request = bytes(range(256)) * 5000
    assert client.call('echo', request, SECONDS) == request


class TestTls:
  @pytest.fixture
  def secure(self, tls):
    with serving(credentials=tls.learner) as secure:
      yield secure

  @pytest.mark.parametrize('host', ['127.0.0.1', 'localhost'])
  def test_a_client_knows_the_server_by_its_authority(self, secure, tls, host):
    port = secure[1].rpartition(':')[2]
    assert_answers(f'{host}:{port}', tls.actor)

  def refuses(self, client):
    """Asserts that a client takes what it finds for no server."""
    start = time.monotonic()
    with pytest.raises(rpc.Unreachable) as error:
      client.call('echo', b'', 5.0)
    assert time.monotonic() - start < SECONDS
    return error.value

  def test_another_authority_is_refused(self, secure, tls, connect):
    _, address = secure
    assert self.refuses(connect(address, tls.stranger)).strange
    assert_answers(address, tls.actor)

  def test_a_client_without_it_gets_no_answer(self, secure, tls, connect):
    _, address = secure
    self.refuses(connect(address))
    assert_answers(address, tls.actor)

  def test_a_server_without_it_is_no_answer(self, address, tls, connect):
    assert self.refuses(connect(address, tls.actor)).strange
    assert_answers(address)

  def test_the_name_must_be_that_of_the_certificate(self, tls, connect):
    with serving(credentials=tls.named) as (_, address):
      assert self.refuses(connect(address, tls.actor)).strange
      assert_answers(address, tls.actor._replace(name=certificates.NAME))
      other = tls.actor._replace(name=f'x.{certificates.NAME}')
      assert self.refuses(connect(address, other)).strange

  def test_with_an_authority_a_server_asks_for_a_certificate(
    self, tls, connect
  ):
    with serving(credentials=tls.mutual) as (_, address):
      assert_answers(address, tls.with_certificate)
      for other in (tls.actor, tls.intruder):
        self.refuses(connect(address, other))
      code, _, _ = strangers.call(
        address,
        ECHO,
        credentials=grpc.ssl_channel_credentials(tls.actor.authority),
      )
      assert code == grpc.StatusCode.UNAVAILABLE
      assert_answers(address, tls.with_certificate)

  def test_the_token_is_asked_for_as_well(self, tls, connect):
    with serving(credentials=tls.learner._replace(token=RUN.token)) as (
      _,
      address,
    ):
      assert_answers(address, tls.actor._replace(token=RUN.token))
      with pytest.raises(rpc.Refused, match='does not show the token'):
        connect(address, tls.actor).call('echo', b'', SECONDS)

  def test_a_certificate_that_is_none_is_an_error(self):
    with pytest.raises(ValueError, match=r'^--learner_address: cannot listen'):
      rpc.Server(f'127.0.0.1:{free_port()}', {}, Credentials('', b'no', b'pem'))


class TestProxy:
  @pytest.fixture
  def asked(self, monkeypatch):
    """The hosts that a proxy is asked for, which is in the environment."""
    for name in ('no_proxy', 'no_grpc_proxy', 'NO_PROXY', 'grpc_proxy'):
      monkeypatch.delenv(name, raising=False)
    with strangers.proxy() as (address, asked):
      for name in ('http_proxy', 'https_proxy', 'grpc_proxy'):
        monkeypatch.setenv(name, f'http://{address}')
      yield asked

  def test_is_not_used(self, address, asked):
    assert_answers(address)
    assert asked == []

  def test_is_used_where_it_is_asked_for(self, address, asked, connect):
    with pytest.raises(rpc.Unreachable):
      connect(address, proxy=True).call('echo', b'', SECONDS)
    assert asked[0] == address


class TestStrangers:
  @pytest.mark.parametrize('credentials', [rpc.NONE, RUN])
  def test_garbage_and_half_open_connections_keep_nobody_out(self, credentials):
    with serving(credentials=credentials) as (_, address):
      host, port = address.split(':')
      garbage = [
        b'',
        b'\0' * 100,
        b'GET / HTTP/1.1\r\n\r\n',
        b'\xff' * 10_000,
        b'\x16\x03\x01\x02\0\1\0\1\xfc\3\3' + bytes(500),  # Of TLS.
        # What a true connection begins with, and then nothing.
        strangers.PREFACE,
        strangers.PREFACE + b'\xff' * 1000,
        strangers.PREFACE + strangers.frame(strangers.SETTINGS) * 100,
        strangers.claim(ECHO, 2**32 - 1),
      ]
      half_open = []
      for i in range(500):
        connection = socket.create_connection((host, int(port)))
        with contextlib.suppress(OSError):  # The server may have closed it.
          connection.sendall(garbage[i % len(garbage)])
        if i % 3 == 0 and len(half_open) < 100:
          half_open.append(connection)
        else:
          connection.close()
      assert_answers(address, credentials)
      for connection in half_open:
        connection.close()
      assert_answers(address, credentials)

  @pytest.mark.parametrize(
    'method', ['echo', '/echo', '//', '/scalable_agent.Learner/', '/x' * 99]
  )
  def test_what_there_is_not_is_answered_with_no(self, address, method):
    code, _, _ = strangers.call(address, method)
    assert code in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL)
    assert_answers(address)


SERVER = """
import sys, threading
from scalable_agent.transport import credentials, rpc

event = threading.Event()

def wait(request):
  print('waiting', flush=True)
  event.wait()
  return request

address, name, token = sys.argv[1:]
server = rpc.Server(
  address,
  {'echo': lambda r: r + name.encode(), 'wait': wait},
  credentials.Credentials(token),
)
print('ready', flush=True)
for line in sys.stdin:
  event.set()
"""


@contextlib.contextmanager
def process_of(address, name='', token=''):
  """A server in a process of its own."""
  with strangers.python(SERVER, address, name, token) as process:
    assert process.stdout.readline() == 'ready\n'
    yield process


class TestAServerInAProcessOfItsOwn:
  def test_is_found_again_after_a_restart(self, connect):
    address = f'127.0.0.1:{free_port()}'
    client = connect(address)
    with process_of(address, 'one') as process:
      assert client.call('echo', b'x', SECONDS) == b'xone'
      call = in_thread(client.call, 'wait')
      assert process.stdout.readline() == 'waiting\n'
    # It was killed while it answered.
    with pytest.raises(rpc.Unreachable) as error:
      call.result(DEADLINE_S)
    assert not error.value.strange
    with pytest.raises(rpc.Unreachable) as error:
      client.call('echo', b'', SECONDS)
    assert not error.value.strange
    with process_of(address, 'two'):
      assert connect(address).call('echo', b'x', SECONDS) == b'xtwo'

  # Of a process with TensorFlow: what it holds already is no matter.
  MIB = 2**20
  MOST_MIB = 48

  def grown(self, process, address, credentials, attack):
    """Returns the MiB by which a server grows under an attack."""
    assert_answers(address, credentials)
    before = strangers.memory_of(process)
    attack(address)
    assert_answers(address, credentials)
    return strangers.memory_of(process) - before

  def test_does_not_read_what_comes_without_the_token(self):
    def attack(address):
      for _ in range(3):
        code, _, _ = strangers.call(address, ECHO, bytes(200 * self.MIB))
        assert code == grpc.StatusCode.UNAUTHENTICATED

    address = f'127.0.0.1:{free_port()}'
    with process_of(address, token=RUN.token) as process:
      assert self.grown(process, address, RUN, attack) < self.MOST_MIB

  @pytest.mark.parametrize('claimed', [2**32 - 1, 2**31, 200 * MIB])
  @pytest.mark.parametrize('token', ['', RUN.token])
  def test_keeps_no_room_for_what_a_message_claims_to_be(self, claimed, token):
    bearer = (b'authorization', f'Bearer {token}'.encode())

    def attack(address):
      connections = []
      for _ in range(30):
        host, port = address.split(':')
        connection = socket.create_connection((host, int(port)))
        connections.append(connection)
        message = strangers.claim(ECHO, claimed, 1000, bearer)
        with contextlib.suppress(OSError):
          connection.sendall(message)
      assert_answers(address, Credentials(token))
      for connection in connections:
        connection.close()

    address = f'127.0.0.1:{free_port()}'
    with process_of(address, token=token) as process:
      grown = self.grown(process, address, Credentials(token), attack)
      assert grown < self.MOST_MIB

  def test_takes_no_enormous_metadata(self):
    """Neither at once, nor in pieces that never end."""
    value = 'x' * self.MIB

    def attack(address):
      for _ in range(20):
        code, _, _ = strangers.call(
          address, ECHO, metadata=(('authorization', value),)
        )
        assert code != grpc.StatusCode.OK
      host, port = address.split(':')
      block = strangers.headers(ECHO)
      piece = strangers.headers('/', (b'x', b'y' * 16_000))[:16_384]
      with socket.create_connection((host, int(port))) as connection:
        connection.settimeout(DEADLINE_S)
        with contextlib.suppress(OSError):  # The server closes it, at last.
          connection.sendall(
            strangers.PREFACE
            + strangers.frame(strangers.SETTINGS)
            + strangers.frame(strangers.HEADERS, 0, 1, block)
          )
          for _ in range(5000):
            connection.sendall(
              strangers.frame(strangers.CONTINUATION, 0, 1, piece)
            )

    address = f'127.0.0.1:{free_port()}'
    with process_of(address, token=RUN.token) as process:
      assert self.grown(process, address, RUN, attack) < self.MOST_MIB


CALL = """
import os, sys
from scalable_agent.transport import rpc
from scalable_agent.transport.credentials import Credentials

address, authority = sys.argv[1:]
with open(authority, 'rb') as file:
  client = rpc.Client(address, Credentials(authority=file.read()))
try:
  client.call('echo', b'', 10.0)
except rpc.Unreachable as error:
  print(error.strange, os.environ['GRPC_VERBOSITY'])
client.close()
"""


@pytest.mark.parametrize('verbosity', ['', 'ERROR'])
def test_what_fails_is_said_once(tls, verbosity):
  """By an exception: gRPC writes nothing to standard error."""
  env = {k: v for k, v in os.environ.items() if not k.startswith('GRPC')}
  env |= {'GRPC_VERBOSITY': verbosity} if verbosity else {}
  with strangers.garbage_listener() as address:
    result = subprocess.run(
      [sys.executable, '-c', CALL, address, tls.authority.certificate],
      cwd=programs.ROOT,
      env=env,
      capture_output=True,
      text=True,
      timeout=DEADLINE_S,
      check=False,
    )
  # What the user sets stays.
  assert result.stdout == f'True {verbosity or "NONE"}\n'
  assert verbosity or result.stderr == ''


class TestUnreachable:
  def test_nobody_listens(self, connect):
    address = f'127.0.0.1:{free_port()}'
    with pytest.raises(rpc.Unreachable) as error:
      connect(address).call('echo', b'', SECONDS)
    assert str(error.value) == f'{address}: nobody listens there'
    assert not error.value.strange

  def test_the_host_does_not_exist(self, connect):
    with pytest.raises(rpc.Unreachable) as error:
      connect('no-such-host.invalid:1').call('echo', b'', SECONDS)
    assert str(error.value) == (
      'no-such-host.invalid:1: the name of the host is not known here'
    )
    assert not error.value.strange

  def test_who_says_nothing_has_not_answered_in_time(self, connect):
    with strangers.silent_listener() as address:
      with pytest.raises(rpc.Unreachable) as error:
        connect(address).call('echo', b'', 0.1)
      assert str(error.value) == f'{address}: no answer in time'

  @pytest.mark.parametrize(
    ('listener', 'strange'),
    [
      (strangers.silent_listener, True),
      (strangers.http_server, True),
      (strangers.garbage_listener, True),
      # As a tunnel does that has no server behind it.
      (strangers.closing_listener, False),
    ],
  )
  @pytest.mark.parametrize('timeout', [0.3, 1.0])
  def test_something_else_listens(self, connect, listener, strange, timeout):
    with listener() as address:
      for _ in range(2):
        start = time.monotonic()
        with pytest.raises(rpc.Unreachable, match=address) as error:
          connect(address).call('echo', b'', timeout)
        # At most the time that was given, and some of a busy machine.
        assert time.monotonic() - start < timeout + 5
        assert error.value.strange == strange

  def test_its_message_is_one_line(self, connect):
    with pytest.raises(rpc.Unreachable) as error:
      connect(f'127.0.0.1:{free_port()}').call('echo', b'', SECONDS)
    assert '\n' not in str(error.value)
    assert len(str(error.value)) < 200
