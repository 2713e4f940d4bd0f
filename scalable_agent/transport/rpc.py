"""Calls between processes: bytes in, bytes out, over TensorFlow's gRPC.

Everything travels as one string tensor, because TensorFlow writes the elements
of other tensors one by one, as integers of variable length: slower, and up to
twice as many bytes for uint8.
Nothing that comes in is ever run or unpickled.
"""

import contextlib
import itertools
import os
import re
import resource
import socket
import stat
import threading
import traceback
from collections.abc import Callable, Collection, Mapping
from typing import Any

import tensorflow as tf
from absl import logging

from scalable_agent.distribution import addresses

# gRPC's limit on a message, less what TensorFlow puts around the bytes.
MAX_BYTES = 4 * 2**20 - 2**10

_OK = b'+'
_REFUSED = b'-'
_STRING = tf.TensorSpec([], tf.string)
# Refusals that a server writes into its log; a stranger must not fill the disk.
_MAX_LOGGED = 100
# Characters of one of them: it may quote what a stranger has sent.
_MAX_REFUSAL = 4000
# Seconds to connect, and without a sign of the other host's kernel.
_TCP_TIMEOUT = 3.0
_SILENCE = 20.0
# How a client of HTTP/2 begins, and the frame that both sides send first.
_PREFACE = b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'
_SETTINGS = b'\0\0\0\4\0\0\0\0\0'
# Clients of one name are one to TensorFlow: the end of one is that of all. The
# default is the address.
_NAMES = map('client_{}'.format, itertools.count())


class Refused(Exception):
  """The other side was reached and said no; the message is its answer."""


class Unreachable(Exception):
  """The other side did not answer.

  Attributes:
    strange: whether something is there that is no server of this kind.
  """

  def __init__(self, message: str, strange: bool = False):
    super().__init__(message)
    self.strange = strange


class Server:
  """Answers calls until the process ends: the library offers no way to stop.

  Handlers run in as many threads as there are cores, so none may wait: a few
  that do would keep all others from being answered. Nor may they call a
  tf.function: it would wait for one of these very threads, all of them for
  ever when that many calls do so at once.

  Attributes:
    refusals: number of calls that were not answered as asked.
  """

  def __init__(
    self, address: str, handlers: Mapping[str, Callable[[bytes], bytes]]
  ):
    """Starts to listen.

    Args:
      address: host:port to listen on; check that it is free before, see
        `addresses.check_free`: gRPC would share a port with another server.
      handlers: by name of the method. They get the request and return the
        answer, at most MAX_BYTES, or raise Refused; whatever else they raise
        is logged, and the caller gets a Refused, too.
    """
    self.refusals = 0
    self._lock = threading.Lock()
    # Connections of strangers must not use up what checkpoints need.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
      resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    self._server = tf.distribute.experimental.rpc.Server.create('grpc', address)
    for name, handler in handlers.items():
      self._server.register(name, self._as_function(name, handler))
    self._server.start()

  def _as_function(self, name: str, handler: Callable[[bytes], bytes]):
    def answer(request: Any) -> bytes:
      try:
        # The library checks the type of what comes in, but not its shape.
        if not isinstance(request, bytes):
          raise Refused('expected one string')
        return _OK + handler(request)
      except Refused as refused:
        return self._refuse(str(refused), f'{name} refused: {refused}')
      except Exception as error:
        return self._refuse(
          f'{type(error).__name__}: {error}',
          f'{name} failed: {traceback.format_exc()}',
        )

    # Without autograph: it would translate the handler.
    @tf.function(input_signature=[_STRING], autograph=False)
    def function(request):
      answered = tf.numpy_function(answer, [request], tf.string)
      answered.set_shape([])
      return answered

    return function

  def _refuse(self, answer: str, entry: str) -> bytes:
    """Returns the bytes of a refusal, with an entry in the log."""
    with self._lock:
      self.refusals += 1
      count = self.refusals
    if count <= _MAX_LOGGED:
      logging.warning('%s', printable(entry))
    if count == _MAX_LOGGED:
      logging.warning('Further refusals are counted, not logged.')
    return _REFUSED + printable(answer).encode()


def printable(text: str) -> str:
  """Returns a text without what has no UTF-8, and not too long."""
  if len(text) > _MAX_REFUSAL:
    text = f'{text[:_MAX_REFUSAL]}...'
  return text.encode(errors='replace').decode()


class Client:
  """Calls one server; not thread-safe. Connects, and reconnects, by itself.

  Attributes:
    timeout: seconds to wait for an answer.
  """

  def __init__(self, address: str, timeout: float):
    """Initialises; does not connect yet.

    Args:
      address: host:port.
      timeout: seconds to wait for an answer.
    """
    self._address = address
    self.timeout = timeout
    self._client: Any = None

  def call(self, method: str, request: bytes = b'') -> bytes:
    """Returns the answer to a request.

    Raises:
      Refused: the server said no.
      Unreachable: there was no answer. Whether the call took effect is unknown.
      ValueError: the request is longer than MAX_BYTES.
    """
    if len(request) > MAX_BYTES:
      raise ValueError(
        f'a request of {len(request)} bytes; gRPC takes at most {MAX_BYTES}'
      )
    if self._client is None:
      self._connect()
    result = self._client.call(
      method,
      args=[tf.constant(request)],
      output_specs=_STRING,
      timeout_in_ms=int(self.timeout * 1000),
    )
    if not result.is_ok():
      code, message = result.get_error()
      text = message.numpy().decode(errors='replace')
      if int(code) == tf.errors.RESOURCE_EXHAUSTED:
        raise Refused(f'an answer of more than {MAX_BYTES} bytes: {text}')
      # Not the answer of a handler, which refuses in its own way: the server is
      # gone, or about to go.
      raise self._unreachable(text)
    answer = result.get_value().numpy()
    if not answer.startswith(_OK):
      raise Refused(answer[1:].decode(errors='replace'))
    return answer[1:]

  def _connect(self) -> None:
    # While nobody listens, gRPC would wait for longer and longer between two
    # attempts, and say nothing of the reason.
    place = addresses.split(self._address)
    try:
      greeting = _greet(place)
      infos = socket.getaddrinfo(*place, type=socket.SOCK_STREAM)
    except OSError as error:
      raise Unreachable(f'{self._address}: {error}') from error
    if greeting is None or greeting[3:4] not in (_SETTINGS[3:4], b''):
      raise Unreachable(
        f'{self._address}: what listens there does not speak gRPC', strange=True
      )
    if not greeting:
      # A tunnel with nobody at its other end.
      raise Unreachable(f'{self._address}: the connection was closed')
    try:
      self._client = tf.distribute.experimental.rpc.Client.create(
        'grpc',
        self._address,
        name=next(_NAMES),
        timeout_in_ms=int(self.timeout * 1000),
      )
    except tf.errors.OpError as error:
      raise self._unreachable(error.message) from error
    _limit_silence({info[4][:2] for info in infos})

  def _unreachable(self, text: str) -> Unreachable:
    # A channel of its own for the next attempt, without this one's delays.
    self._client = None
    # Without the name of TensorFlow's node before it, and gRPC's form of it.
    reason = re.sub(r'^\{\{.*?\}\}\s*', '', text).partition('\n')[0]
    return Unreachable(
      f'{self._address}: {reason}', strange='not registered' in reason
    )


def _greet(place: tuple[str, int]) -> bytes | None:
  """Returns what answers the first bytes of HTTP/2: a frame of settings.

  Returns:
    The first bytes; none if the connection was closed, None if nothing came.
  """
  with socket.create_connection(place, _TCP_TIMEOUT) as connection:
    try:
      connection.sendall(_PREFACE + _SETTINGS)
      return connection.recv(len(_SETTINGS))
    except ConnectionError:
      return b''
    except TimeoutError:
      return None


def _limit_silence(peers: Collection[tuple]) -> None:
  """Has connections end whose other end does not acknowledge what was sent.

  A call does not end at its deadline while a part of its request waits for room
  in the socket: where the host is gone without a word, that takes the kernel a
  quarter of an hour, and after a cut as long again as the cut was. gRPC's
  servers end such connections after 20 s, its clients only if told to, which
  TensorFlow offers no way to.

  Args:
    peers: address and port of the other ends.
  """
  descriptors = '/proc/self/fd'
  if not hasattr(socket, 'TCP_USER_TIMEOUT') or not os.path.isdir(descriptors):
    return  # Not Linux.
  for descriptor in map(int, os.listdir(descriptors)):
    # Some are closed by now, or sockets without a peer.
    with contextlib.suppress(OSError):
      if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        continue
      with socket.socket(fileno=os.dup(descriptor)) as connection:
        if connection.family not in (socket.AF_INET, socket.AF_INET6):
          continue
        address, port, *_ = connection.getpeername()
        # gRPC's sockets are of IPv6, with IPv4 inside.
        if (address.removeprefix('::ffff:'), port) in peers:
          connection.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(_SILENCE * 1000)
          )
