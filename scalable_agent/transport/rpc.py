"""Calls between processes: bytes in, bytes out, over gRPC.

The gRPC that `tf.distribute` speaks as well, but without TensorFlow's messages
around the bytes. Nothing that comes in is ever run or unpickled, and nothing is
read of a call that does not show the token.
"""

import contextlib
import ctypes
import functools
import os
import resource
import socket
import ssl
import threading
import traceback
from collections.abc import Callable, Mapping
from concurrent import futures
from typing import Any

import grpc
from absl import logging

from scalable_agent.distribution import addresses
from scalable_agent.transport.credentials import NONE, Credentials

# Of a message. gRPC keeps what has come of one, not what one claims to be.
MAX_BYTES = 256 * 2**20

_SERVICE = 'scalable_agent.Learner'
# Refusals that a server writes into its log; a stranger must not fill the disk.
_MAX_LOGGED = 100
# Characters of one of them: it may quote what a stranger has sent.
_MAX_REFUSAL = 2000
# Descriptors that strangers leave to checkpoints and reports.
_SPARE_DESCRIPTORS = 256
_MAX_DESCRIPTORS = 2**16
# Calls at a time of one connection.
_MAX_CALLS = 16
# Seconds after which a peer that is silent is asked for a sign, and for it.
_KEEPALIVE, _SILENCE = 10, 20
# Seconds for the answer to a question that waits behind what is under way: over
# a slow link with large buffers, long. Any byte is a sign of life meanwhile.
_PING_TIMEOUT = 600
_TCP_TIMEOUT = 3.0
# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_BOTH_ENDS = (
  ('grpc.max_receive_message_length', MAX_BYTES),
  ('grpc.max_send_message_length', MAX_BYTES),
  ('grpc.keepalive_time_ms', _KEEPALIVE * 1000),
  ('grpc.keepalive_timeout_ms', _SILENCE * 1000),
  ('grpc.http2.ping_timeout_ms', _PING_TIMEOUT * 1000),
)
_SERVER_OPTIONS = (
  *_BOTH_ENDS,
  # A second server on the port would get some of the calls of the first.
  ('grpc.so_reuseport', 0),
  ('grpc.max_concurrent_streams', _MAX_CALLS),
  # Of strangers: connections that say nothing.
  ('grpc.server_handshake_timeout_ms', 10_000),
  ('grpc.max_connection_idle_ms', 60_000),
  # Clients ask for signs of life, also in calls that last.
  ('grpc.http2.min_ping_interval_without_data_ms', _KEEPALIVE * 500),
)
_CLIENT_OPTIONS = (
  *_BOTH_ENDS,
  # A connection of its own, and of each attempt: no delays of earlier ones.
  ('grpc.use_local_subchannel_pool', 1),
  ('grpc.http2.max_pings_without_data', 0),
  # Refusals are longer than gRPC's default.
  ('grpc.max_metadata_size', 16 * _MAX_REFUSAL),
)


class Refused(Exception):
  """The other side was reached and said no; the message is its answer."""


class Over(Exception):
  """The other side says that there is nothing more to do."""


class Again(Exception):
  """The other side does not know this one any more, or is about to stop."""


class Closed(Exception):
  """This client was closed."""


class Unreachable(Exception):
  """The other side did not answer.

  Attributes:
    strange: whether something is there that is no server of this kind.
  """

  def __init__(self, message: str, strange: bool = False):
    super().__init__(message)
    self.strange = strange


# What handlers raise to answer, and how it travels.
_CODES = {
  Refused: grpc.StatusCode.FAILED_PRECONDITION,
  Over: grpc.StatusCode.OUT_OF_RANGE,
  Again: grpc.StatusCode.ABORTED,
}
_ANSWERS = {code: kind for kind, code in _CODES.items()}
_OTHER_NAME = 'Hostname Verification Check failed'
# What gRPC says, by a part of it, of those that are not there yet, or that are
# not trusted.
_USUAL = {
  'CERTIFICATE_VERIFY_FAILED': 'its certificate is of another TLS authority',
  _OTHER_NAME: 'its TLS certificate is for another name',
  'WRONG_VERSION_NUMBER': 'the other side does not use TLS, and this one does',
  'Connection refused': 'nobody listens there',
  'No such file or directory': 'nobody listens there',
  'hostname lookup error': 'the name of the host is not known here',
  'Deadline Exceeded': 'no answer in time',
}
# The same of those that are no such server, or that are not trusted.
_STRANGE = (
  'Failed parsing HTTP/2',
  'handshake failed',
  _OTHER_NAME,
)
# What gRPC says where more calls come than `most_calls`, strangers' among them;
# seconds until a client tries again.
_BUSY = 'Concurrent RPC limit exceeded'
_BUSY_SECONDS = 0.05
_NO_TOKEN = grpc.StatusCode.UNAUTHENTICATED


class Server:
  """Answers calls until `stop`.

  Handlers may wait, each in a thread of its own.

  Attributes:
    refusals: number of calls that were not answered as asked, those without
      the token apart.
  """

  def __init__(
    self,
    address: str,
    handlers: Mapping[str, Callable[[bytes], bytes]],
    credentials: Credentials = NONE,
    source: str = '--learner_address',
    most_calls: int = 64,
  ):
    """Starts to listen.

    Args:
      address: host:port, or unix:/path, to listen on.
      handlers: by name of the method. They get the request and return the
        answer, at most MAX_BYTES, or raise Refused, Over or Again; whatever
        else they raise is logged, and the caller gets a Refused, too.
      credentials: of this side; calls without its token are not read.
      source: option or environment variable that the address is from.
      most_calls: that are answered at a time; more come back later.

    Raises:
      ValueError: this process cannot listen there.
    """
    _keep_memory()
    self.refusals = 0
    self._turned_away = 0
    self._credentials = credentials
    self._lock = threading.Lock()
    self._threads = futures.ThreadPoolExecutor(most_calls, 'rpc')
    self._server = grpc.server(
      self._threads,
      interceptors=[_Doorman(credentials, self._turn_away)],
      options=(*_SERVER_OPTIONS, *_bounded_connections()),
      maximum_concurrent_rpcs=most_calls,
    )
    self._server.add_generic_rpc_handlers(
      [
        grpc.method_handlers_generic_handler(
          _SERVICE,
          {
            name: grpc.unary_unary_rpc_method_handler(
              self._answering(name, handler)
            )
            for name, handler in handlers.items()
          },
        )
      ]
    )
    self._bind(address, source)
    self._server.start()

  def _bind(self, address: str, source: str) -> None:
    # Says why not, which gRPC does not.
    addresses.check_free(address, source)
    secret = self._credentials.of_server()
    # Of a socket in the file system, for which only its owner may have rights.
    mask = os.umask(0o177) if addresses.is_unix(address) else None
    try:
      if secret is None:
        self._server.add_insecure_port(address)
      else:
        self._server.add_secure_port(address, secret)
    except RuntimeError as error:
      raise ValueError(
        f'{source}: cannot listen at {address}: {error}'
      ) from error
    finally:
      if mask is not None:
        os.umask(mask)

  def stop(self, grace: float = 1.0) -> None:
    """Takes no more calls, and waits for those under way.

    Args:
      grace: seconds after which they are cut off.
    """
    self._server.stop(grace).wait()
    self._threads.shutdown(wait=False)

  def _answering(self, name: str, handler: Callable[[bytes], bytes]):
    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
      try:
        return handler(request)
      except (Over, Again) as kind:
        code, text = _CODES[type(kind)], str(kind)
      except Refused as refused:
        code, text = _CODES[Refused], str(refused)
        self._note(f'{name} refused: {refused}')
      except Exception as error:
        code, text = _CODES[Refused], f'{type(error).__name__}: {error}'
        self._note(f'{name} failed: {traceback.format_exc()}')
      context.abort(code, printable(text))
      raise AssertionError  # `abort` has raised.

    return answer

  def _turn_away(self, request: Any, context: grpc.ServicerContext) -> bytes:
    """Answers one without the token: no more than that."""
    del request  # Not read.
    # Apart from those of actors, which strangers must not keep out of the log.
    with self._lock:
      self._turned_away += 1
      count = self._turned_away
    _log(f'A call without the token of the run, from {context.peer()}.', count)
    context.abort(_NO_TOKEN, '')
    raise AssertionError

  def _note(self, entry: str) -> None:
    with self._lock:
      self.refusals += 1
      count = self.refusals
    _log(entry, count)


def _log(entry: str, count: int) -> None:
  """Logs the first refusals of a kind."""
  if count <= _MAX_LOGGED:
    logging.warning('%s', printable(entry))
  if count == _MAX_LOGGED:
    logging.warning('Further refusals of this kind are not logged.')


class _Doorman(grpc.ServerInterceptor):
  """Looks at the token before any byte of a request is read."""

  def __init__(self, credentials: Credentials, turn_away: Callable[..., Any]):
    self._credentials = credentials
    # Of a stream of requests, as gRPC reads the one of others by itself.
    self._refusal = grpc.stream_unary_rpc_method_handler(turn_away)

  def intercept_service(self, continuation, handler_call_details):
    if self._credentials.admits(handler_call_details.invocation_metadata):
      return continuation(handler_call_details)
    return self._refusal


def _bounded_connections() -> list[tuple[str, int]]:
  """Returns how many there may be: fewer than this process may open files."""
  _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
  with contextlib.suppress(ValueError, OSError):
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
  soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
  if soft == resource.RLIM_INFINITY:
    soft = _MAX_DESCRIPTORS
  most = max(soft - _SPARE_DESCRIPTORS, _SPARE_DESCRIPTORS)
  return [
    ('grpc.max_allowed_incoming_connections', min(most, _MAX_DESCRIPTORS))
  ]


@functools.cache
def _keep_memory() -> None:
  """Has malloc keep the memory of messages for those that follow.

  It would give it back after each, and the kernel hand it out again page by
  page, which took three quarters of the time of a message of megabytes.
  """
  # AttributeError: of another C library than glibc.
  with contextlib.suppress(OSError, AttributeError):
    library = ctypes.CDLL(None)
    library.mallopt(_M_MMAP_THRESHOLD, 2**25)
    library.mallopt(_M_TRIM_THRESHOLD, 2**25)


def printable(text: str) -> str:
  """Returns a text without what has no UTF-8, and not too long."""
  if len(text) > _MAX_REFUSAL:
    text = f'{text[:_MAX_REFUSAL]}...'
  return text.encode(errors='replace').decode()


class Client:
  """Calls one server; connects, and reconnects, by itself.

  One thread may call at a time, any other may `close` it.
  """

  def __init__(
    self,
    address: str,
    credentials: Credentials = NONE,
    proxy: bool = False,
  ):
    """Initialises; does not connect yet.

    Args:
      address: host:port, or unix:/path.
      credentials: of this side.
      proxy: whether to go over the one that http_proxy names.
    """
    _keep_memory()
    self._address = address
    self._encrypts = bool(credentials.authority)
    self._metadata = credentials.metadata()
    self._closed = False
    self._pause = threading.Event()
    options: list[tuple[str, Any]] = [
      *_CLIENT_OPTIONS,
      ('grpc.enable_http_proxy', int(proxy)),
    ]
    if credentials.name:
      options.append(('grpc.ssl_target_name_override', credentials.name))
    secret = credentials.of_channel()
    self._channel = (
      grpc.insecure_channel(address, options)
      if secret is None
      else grpc.secure_channel(address, secret, options)
    )
    self._methods: dict[str, Any] = {}

  def call(
    self, method: str, request: bytes = b'', timeout: float | None = None
  ) -> bytes:
    """Returns the answer to a request.

    Args:
      method: name of its handler.
      request: at most MAX_BYTES.
      timeout: seconds to wait for the answer; None: as long as the other side
        gives signs of life.

    Raises:
      Refused: the server said no; Over, Again: see there.
      Unreachable: there was no answer. Whether the call took effect is unknown.
      Closed: by `close`.
      ValueError: the request is longer than MAX_BYTES.
    """
    if len(request) > MAX_BYTES:
      raise ValueError(
        f'a request of {len(request)} bytes; at most {MAX_BYTES} are taken'
      )
    if method not in self._methods:
      self._methods[method] = self._channel.unary_unary(f'/{_SERVICE}/{method}')
    while True:
      try:
        return self._methods[method](
          request, timeout=timeout, metadata=self._metadata
        )
      except (ValueError, grpc.RpcError) as error:
        if self._closed:
          raise Closed from error
        if isinstance(error, ValueError):
          raise
        text = error.details() or ''
        if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED or (
          _BUSY not in text
        ):
          raise self._meaning(error.code(), text) from error
      # Nothing of the call was read.
      self._pause.wait(_BUSY_SECONDS)

  def close(self) -> None:
    """Has the call under way, and all later ones, raise Closed."""
    self._closed = True
    self._pause.set()
    self._channel.close()

  def _meaning(self, code: grpc.StatusCode, text: str) -> Exception:
    if code in _ANSWERS:
      return _ANSWERS[code](text)
    if code == _NO_TOKEN:
      return Refused(
        'this process does not show the token of the run. Give all processes '
        'the same --cluster_token_file'
      )
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED and 'larger than max' in text:
      return Refused(f'a message of more than {MAX_BYTES} bytes: {text}')
    reason = _brief(text)
    if 'Socket closed' in text:
      # Of one that ends; or for a reason that gRPC does not say.
      misfit = _misfit(self._address, self._encrypts)
      return Unreachable(f'{self._address}: {misfit or reason}', bool(misfit))
    strange = (
      code == grpc.StatusCode.UNIMPLEMENTED
      or any(part in text for part in _STRANGE)
      or (code == grpc.StatusCode.DEADLINE_EXCEEDED and _accepts(self._address))
    )
    return Unreachable(f'{self._address}: {reason}', strange)


def _brief(text: str) -> str:
  """Returns what gRPC says, in a few words where it is of the usual kinds."""
  for part, meaning in _USUAL.items():
    if part in text:
      return meaning
  return text.rpartition('last error: ')[2].partition('\n')[0] or 'no answer'


def _connect(address: str) -> socket.socket:
  """Returns a connection that waits for _TCP_TIMEOUT at most."""
  if not addresses.is_unix(address):
    return socket.create_connection(addresses.split(address), _TCP_TIMEOUT)
  connection = socket.socket(socket.AF_UNIX)
  connection.settimeout(_TCP_TIMEOUT)
  connection.connect(addresses.path_of(address))
  return connection


def _accepts(address: str) -> bool:
  """Whether anything takes connections at an address."""
  try:
    with _connect(address):
      return True
  except OSError:
    return False


def _misfit(address: str, encrypts: bool) -> str:
  """Returns why TLS of both sides does not fit; '' if that cannot be told.

  Args:
    address: of a server that has closed a connection.
    encrypts: whether this side uses TLS.
  """
  context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
  # Only whether it is there: nothing is sent.
  context.check_hostname = False
  context.verify_mode = ssl.CERT_NONE
  context.set_alpn_protocols(['h2'])
  try:
    with (
      _connect(address) as connection,
      context.wrap_socket(connection) as encrypted,
    ):
      if not encrypts:
        return 'the other side uses TLS, and this one does not'
      # One that asks for a certificate says nothing without.
      if encrypted.recv(1) == b'':
        return (
          'the other side takes only those that show a certificate of its TLS '
          'authority, and this one shows none of it'
        )
  except OSError:
    pass
  return ''
