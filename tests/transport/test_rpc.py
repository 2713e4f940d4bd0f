"""Calls between processes: every byte arrives, and nothing stops a server."""

import contextlib
import json
import logging as std_logging
import socket

import grpc
import pytest

from scalable_agent.transport import protocol, rpc
from tests import strangers
from tests.ports import free_port
from tests.waiting import DEADLINE_S, in_thread, wait_until

SECONDS = 20.0
STRING = strangers.DT_STRING


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
      'fail': lambda request: 1 / len(request),
      'quote': lambda request: protocol.from_json(request)['missing'],
      'nothing': lambda request: None,
      'long': lambda request: bytes(rpc.MAX_BYTES + 10_000),
    }

  def _note(self, request):
    self.calls.append(request)
    return b''

  def _refuse(self, request):
    # What a stranger may send, in a message to log and to send back.
    raise rpc.Refused(f'no, {json.loads(request)}')


@pytest.fixture(scope='module')
def handlers():
  return Handlers()


@pytest.fixture(scope='module')
def address():
  return f'127.0.0.1:{free_port()}'


@pytest.fixture(scope='module')
def server(handlers, address):
  return rpc.Server(address, handlers.as_dict())


@pytest.fixture
def client(server, address):
  return rpc.Client(address, SECONDS)


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


def assert_answers(address):
  """A new client gets its answer."""
  assert rpc.Client(address, SECONDS).call('echo', b'still here') == (
    b'still here'
  )


class TestCall:
  @pytest.mark.parametrize(
    'request_',
    [
      b'',
      b'\0',
      b'a\0\0\0',
      b'+',
      b'-',
      bytes(range(256)) * 3,
      b'\xff\xfe\0',
    ],
  )
  def test_every_byte_arrives(self, client, request_):
    assert client.call('echo', request_) == request_

  def test_the_longest_message_arrives_both_ways(self, client):
    request = bytes(range(256)) * (rpc.MAX_BYTES // 256)
    request += bytes(rpc.MAX_BYTES - len(request))
    assert client.call('echo', request) == request

  def test_a_longer_request_is_not_sent(self, client, handlers):
    handlers.calls.clear()
    with pytest.raises(ValueError, match=f'at most {rpc.MAX_BYTES}'):
      client.call('note', bytes(rpc.MAX_BYTES + 1))
    client.call('note', b'next')
    assert handlers.calls == [b'next']

  def test_a_request_may_be_left_out(self, client):
    assert client.call('echo') == b''

  def test_many_clients_may_call_at_once(self, server, address):
    def calls(index):
      one = rpc.Client(address, SECONDS)
      for i in range(20):
        request = bytes([index, i]) * 1000
        assert one.call('echo', request) == request
        if i % 5 == 0:
          one = rpc.Client(address, SECONDS)

    for future in [in_thread(calls, i) for i in range(8)]:
      future.result(DEADLINE_S)

  def test_the_end_of_one_client_is_not_that_of_another(self, server, address):
    first, second = (rpc.Client(address, SECONDS) for _ in range(2))
    for one in (first, second):
      one.call('echo')
    del one, first
    assert second.call('echo', b'x') == b'x'


class TestRefusals:
  def test_a_handlers_refusal_reaches_the_caller(self, client):
    with pytest.raises(rpc.Refused, match=r'^no, 5$'):
      client.call('refuse', b'5')

  def test_a_handlers_failure_reaches_the_caller(self, client):
    with pytest.raises(rpc.Refused, match='ZeroDivisionError: division by'):
      client.call('fail')
    with pytest.raises(rpc.Refused, match='TypeError'):
      client.call('nothing')
    assert client.call('echo', b'x') == b'x'

  def test_an_answer_that_is_too_long_is_an_error(self, client):
    with pytest.raises(rpc.Refused, match='larger than max'):
      client.call('long')
    assert client.call('echo', b'x') == b'x'

  def test_what_no_handler_answers_is_no_answer(self, client):
    # A server whose interpreter is about to end answers like this, too.
    with pytest.raises(rpc.Unreachable, match='no_such_method') as error:
      client.call('no_such_method')
    assert error.value.strange
    assert client.call('echo', b'x') == b'x'

  def test_what_is_quoted_cannot_hurt(self, client):
    with pytest.raises(rpc.Refused, match=r'no, a\?b'):
      client.call('refuse', b'"a\\ud800b"')
    with pytest.raises(rpc.Refused) as error:
      client.call('refuse', json.dumps('x' * 10**6).encode())
    assert len(str(error.value)) < 5000

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

  def test_are_counted_and_only_the_first_are_logged(self, log):
    address = f'127.0.0.1:{free_port()}'
    server = rpc.Server(address, Handlers().as_dict())

    def calls():
      client = rpc.Client(address, SECONDS)
      for i in range(30):
        with pytest.raises(rpc.Refused):
          client.call('fail' if i % 2 else 'refuse', b'1' if not i % 2 else b'')

    for future in [in_thread(calls) for _ in range(5)]:
      future.result(DEADLINE_S)
    assert server.refusals == 150
    refusals = [x for x in log if 'refused: no, 1' in x]
    failures = [x for x in log if 'ZeroDivisionError' in x]
    assert refusals
    assert failures
    assert len(refusals) + len(failures) == rpc._MAX_LOGGED
    assert log[-1] == 'Further refusals are counted, not logged.'


class TestStrangers:
  @pytest.mark.parametrize(
    'tensors',
    [
      [],
      [strangers.tensor(strangers.DT_FLOAT, [], content=bytes(4))],
      [strangers.tensor(strangers.DT_RESOURCE, [], content=b'x')],
      [strangers.tensor(strangers.DT_VARIANT, [], content=b'x')],
      [strangers.tensor(999, [], [b'x'])],
      [strangers.tensor(STRING, [-1], [b'x'])],
      [strangers.tensor(STRING, [2**62, 8], [b'x'])],
      [strangers.tensor(STRING, [], content=b'\xff' * 9 + b'\1abc')],
      [b'\xff' * 20],
    ],
  )
  def test_wrong_arguments_are_an_error(self, client, address, tensors):
    code = strangers.call(address, 'note', *tensors)
    assert code in (
      grpc.StatusCode.INVALID_ARGUMENT,
      grpc.StatusCode.INTERNAL,
    )
    assert client.call('echo', b'x') == b'x'

  @pytest.mark.parametrize('shape', [[1], [2], [0], [1, 1]])
  def test_a_wrong_shape_is_refused(
    self, server, client, handlers, address, shape
  ):
    handlers.calls.clear()
    before = server.refusals
    strings = [b'x'] if 0 not in shape else []
    message = strangers.tensor(STRING, shape, strings)
    assert strangers.call(address, 'note', message) == grpc.StatusCode.OK
    assert server.refusals == before + 1
    assert handlers.calls == []
    assert client.call('echo', b'x') == b'x'

  @pytest.mark.parametrize('request_', [b'', b'\xff' * 50, b'\x0a\xff'])
  def test_a_message_of_no_call_is_an_error(self, client, address, request_):
    assert strangers.call_raw(address, request_) != grpc.StatusCode.OK
    assert client.call('echo', b'x') == b'x'

  def test_garbage_and_half_open_connections_keep_nobody_out(
    self, server, address
  ):
    host, port = address.split(':')
    garbage = [b'', b'\0' * 100, b'GET / HTTP/1.1\r\n\r\n', b'\xff' * 10_000]
    # What a true connection begins with, and then nothing.
    garbage.append(b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
    half_open = []
    for i in range(1000):
      connection = socket.create_connection((host, int(port)))
      with contextlib.suppress(OSError):  # The server may have closed it.
        connection.sendall(garbage[i % len(garbage)])
      if i % 5 == 4 and len(half_open) < 100:
        half_open.append(connection)
      else:
        connection.close()
    assert_answers(address)
    for connection in half_open:
      connection.close()
    assert_answers(address)


class TestUnreachable:
  def test_nobody_listens(self):
    client = rpc.Client(f'127.0.0.1:{free_port()}', timeout=1000)
    with pytest.raises(rpc.Unreachable, match='refused') as error:
      client.call('echo')
    assert not error.value.strange

  def test_the_host_does_not_exist(self):
    with pytest.raises(rpc.Unreachable) as error:
      rpc.Client('no-such-host.invalid:1', timeout=1000).call('echo')
    assert not error.value.strange

  @pytest.mark.parametrize(
    'listener', [strangers.silent_listener, strangers.http_server]
  )
  def test_something_else_listens(self, listener):
    with listener() as address:
      client = rpc.Client(address, timeout=0.5)
      for _ in range(2):
        with pytest.raises(rpc.Unreachable, match=address) as error:
          client.call('echo')
        assert error.value.strange

  def test_a_tunnel_without_a_server_behind_it_is_not_strange(self):
    with socket.create_server(('127.0.0.1', 0)) as tunnel:
      client = rpc.Client(f'127.0.0.1:{tunnel.getsockname()[1]}', 1.0)
      call = in_thread(client.call, 'echo')
      tunnel.accept()[0].close()
      with pytest.raises(rpc.Unreachable) as error:
        call.result(DEADLINE_S)
    assert not error.value.strange


SERVER = """
import sys, threading
from scalable_agent.transport import rpc

event = threading.Event()

def wait(request):
  print('waiting', flush=True)
  event.wait()
  return request

server = rpc.Server(
  sys.argv[1], {'echo': lambda r: r + sys.argv[2].encode(), 'wait': wait})
print('ready', flush=True)
for line in sys.stdin:
  event.set()
"""


class TestAServerInAProcessOfItsOwn:
  def test_is_found_again_after_a_restart(self):
    address = f'127.0.0.1:{free_port()}'
    client = rpc.Client(address, timeout=SECONDS)
    with strangers.python(SERVER, address, 'one') as process:
      assert process.stdout.readline() == 'ready\n'
      assert client.call('echo', b'x') == b'xone'
      call = in_thread(client.call, 'wait')
      assert process.stdout.readline() == 'waiting\n'
    # It was killed while it answered.
    with pytest.raises(rpc.Unreachable) as error:
      call.result(DEADLINE_S)
    assert not error.value.strange
    with pytest.raises(rpc.Unreachable) as error:
      client.call('echo')
    assert not error.value.strange
    with strangers.python(SERVER, address, 'two') as process:
      assert process.stdout.readline() == 'ready\n'
      assert client.call('echo', b'x') == b'xtwo'

  def test_answers_nobody_while_handlers_in_all_its_threads_wait(self):
    """Which is why no handler may wait; afterwards it answers again."""
    address = f'127.0.0.1:{free_port()}'
    with strangers.python(SERVER, address, '') as process:
      assert process.stdout.readline() == 'ready\n'
      waiters = []

      def is_blocked():
        try:
          rpc.Client(address, 0.3).call('echo')
        except rpc.Unreachable as error:
          return not error.strange
        return False

      def block_one_more():
        waiters.append(in_thread(rpc.Client(address, SECONDS).call, 'wait'))
        return is_blocked()

      wait_until(block_one_more)
      process.stdin.write('go\n')
      process.stdin.flush()
      for waiter in waiters:
        assert waiter.result(DEADLINE_S) == b''
      assert_answers(address)
