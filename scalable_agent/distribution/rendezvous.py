"""A meeting of all learners, before TensorFlow's own.

The constructor of MultiWorkerMirroredStrategy waits for its peers for an hour,
and deaf to every signal: Ctrl-C and SIGTERM do nothing, and as it keeps the
interpreter's lock, no other thread runs. So the learners meet over plain
sockets first, on the ports that TensorFlow is about to use.

Learner 0 listens; the others connect and say who they are. When all are
connected, it lets all of them go.
"""

import contextlib
import json
import selectors
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

_GO = b'go\n'
_REFUSED = b'no '
_MAX_LINE = 1 << 16
# Seconds of patience before the user is told, and between two attempts.
_QUIET_SECONDS = 1.0
_RETRY_SECONDS = 0.2


def meet(
  places: Sequence[str],
  index: int,
  timeout: float,
  options: Mapping[str, Any] = MappingProxyType({}),
) -> None:
  """Returns when the learners at all `places` are in this function.

  Args:
    places: host:port of each learner, in the same order everywhere.
    index: of this learner.
    timeout: seconds to wait.
    options: by name, JSON-able; all learners must have the same.

  Raises:
    TimeoutError: not all came in time; names those who did not.
    ValueError: the port of learner 0 is taken, or learner 0 knows of other
      places, has other options, or has met its peers before.
  """
  deadline = time.monotonic() + timeout
  if index == 0:
    _Host(places, timeout, options).gather(deadline)
  else:
    _attend(places, index, timeout, deadline, options)


class _Host:
  """Learner 0."""

  def __init__(
    self, places: Sequence[str], timeout: float, options: Mapping[str, Any]
  ):
    self._places = list(places)
    self._options = dict(options)
    self._timeout = timeout
    self._present: dict[int, socket.socket] = {}
    self._received: dict[socket.socket, bytes] = {}
    self._selector = selectors.DefaultSelector()

  def gather(self, deadline: float) -> None:
    told_at = time.monotonic() + _QUIET_SECONDS
    with contextlib.ExitStack() as stack:
      stack.enter_context(self._selector)
      server = stack.enter_context(_listen(self._places[0]))
      self._selector.register(server, selectors.EVENT_READ)
      stack.callback(self._close)
      while missing := self._missing():
        now = time.monotonic()
        if now >= deadline:
          raise TimeoutError(
            f'{missing} did not come within {self._timeout:g} s. Start it with '
            '--job_name=learner and its --task, or lower --num_learners.'
          )
        if now >= told_at:
          print(f'Waiting for {missing}.', flush=True)
          told_at = deadline
        for key, _ in self._selector.select(min(deadline, told_at) - now):
          if key.fileobj is server:
            self._accept(server)
          else:
            self._receive(key.fileobj)
      for connection in self._present.values():
        with contextlib.suppress(OSError):
          connection.sendall(_GO)

  def _missing(self) -> str:
    return ', '.join(
      f'learner {index} ({place})'
      for index, place in enumerate(self._places)
      if index and index not in self._present
    )

  def _accept(self, server: socket.socket) -> None:
    connection, _ = server.accept()
    connection.setblocking(False)
    self._received[connection] = b''
    self._selector.register(connection, selectors.EVENT_READ)

  def _receive(self, connection) -> None:
    try:
      data = connection.recv(_MAX_LINE)
    except BlockingIOError:
      return
    except OSError:
      data = b''
    line = self._received[connection] = self._received[connection] + data
    if not data or len(line) > _MAX_LINE:
      self._drop(connection)
    elif line.endswith(b'\n'):
      self._greet(connection, line)

  def _greet(self, connection, line: bytes) -> None:
    for index in range(1, len(self._places)):
      if line == _greeting(self._places, index, self._options):
        before = self._present.get(index)
        if before is not None and _is_closed(before):
          self._drop(before)
        if index not in self._present:
          self._present[index] = connection
          return
    with contextlib.suppress(OSError):
      connection.sendall(_REFUSED + self._reason(line).encode() + b'\n')
    self._drop(connection)

  def _reason(self, line: bytes) -> str:
    """Returns why a greeting is not one of those that are waited for."""
    try:
      theirs = json.loads(line)['options']
      differ = [
        f'--{name} is {own} there and {theirs.get(name)} here'
        for name, own in self._options.items()
        if theirs.get(name) != own
      ]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
      differ = []
    return '; '.join(differ) or (
      f'it expects others at {",".join(self._places)}, each once'
    )

  def _drop(self, connection) -> None:
    """Forgets one who left, or who is no learner of this run."""
    for index, other in list(self._present.items()):
      if other is connection:
        del self._present[index]
    del self._received[connection]
    self._selector.unregister(connection)
    connection.close()

  def _close(self) -> None:
    for connection in self._received:
      connection.close()


def _is_closed(connection: socket.socket) -> bool:
  """Whether the other side left; its end may not have been read yet."""
  try:
    return not connection.recv(1, socket.MSG_PEEK)
  except BlockingIOError:
    return False
  except OSError:
    return True


def _attend(
  places: Sequence[str],
  index: int,
  timeout: float,
  deadline: float,
  options: Mapping[str, Any],
) -> None:
  """Waits until learner 0 lets this one go."""
  told_at = time.monotonic() + _QUIET_SECONDS
  pause = threading.Event()
  while (now := time.monotonic()) < deadline:
    if now >= told_at:
      print(f'Waiting for learner 0 ({places[0]}).', flush=True)
      told_at = deadline
    answer = _ask(places[0], _greeting(places, index, options), deadline)
    if answer == _GO:
      return
    if answer.startswith(_REFUSED):
      raise ValueError(
        f'Learner 0 ({places[0]}) refuses learner {index}: '
        f'{answer[len(_REFUSED) :].decode(errors="replace").strip()}; this one '
        f'knows {",".join(places)}. Give all learners the same options, and '
        'each its own --task.'
      )
    if answer:
      raise ValueError(
        f'Learner 0 ({places[0]}) trains already, or another program has its '
        'port. A learner cannot join later: stop all learners, then start them '
        'again; they resume from the checkpoint.'
      )
    pause.wait(_RETRY_SECONDS)
  raise TimeoutError(
    f'Not all learners were there within {timeout:g} s, or learner 0 '
    f'({places[0]}) cannot be reached from here. Start the others with '
    '--job_name=learner and their --task.'
  )


def _ask(place: str, greeting: bytes, deadline: float) -> bytes:
  """Returns the answer of learner 0, b'' without one."""
  host, port = place.rsplit(':', 1)
  try:
    with socket.create_connection(
      (host.strip('[]'), int(port)),
      timeout=max(0.001, deadline - time.monotonic()),
    ) as connection:
      connection.sendall(greeting)
      answer = b''
      while not answer.endswith(b'\n') and len(answer) < _MAX_LINE:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        data = connection.recv(_MAX_LINE)
        if not data:
          break
        answer += data
        if answer[:1] not in (_GO[:1], _REFUSED[:1]):
          break  # TensorFlow's server, which waits for more.
      return answer
  except OSError:  # Not there yet, or gone.
    return b''


def _greeting(
  places: Sequence[str], index: int, options: Mapping[str, Any]
) -> bytes:
  greeting = {'learners': list(places), 'task': index, 'options': dict(options)}
  return json.dumps(greeting).encode() + b'\n'


def _listen(place: str) -> socket.socket:
  """Returns a server on all interfaces, like TensorFlow's on the same port."""
  port = int(place.rpartition(':')[2])
  try:
    if socket.has_dualstack_ipv6():
      return socket.create_server(
        ('', port), family=socket.AF_INET6, dualstack_ipv6=True
      )
    return socket.create_server(('', port))
  except OSError as error:
    raise ValueError(
      f'--learner_address: learner 0 cannot wait for the others at {place}: '
      f'{error.strerror}. Choose other ports.'
    ) from error
