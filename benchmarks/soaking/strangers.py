"""What strangers, and actors that have lost their mind, send to a learner."""

import json
import math
import random
import re
import socket
import ssl
import struct
from typing import NamedTuple

import numpy as np

import scalable_agent
from benchmarks.soaking import worlds
from scalable_agent import structures
from scalable_agent.action_spaces import Discrete
from scalable_agent.transport import (
  credentials,
  protocol,
  rpc,
  step_codec,
)

METHODS = (
  'register',
  'begin',
  'weights',
  'unroll',
  'step',
  'gradients',
  'failed',
  'nothing',
)
_TIMEOUT = 10.0
_PREFACE = b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'
# Handlers answer with the name of an exception that nobody has foreseen.
_UNFORESEEN = re.compile(r'\w+(Error|Exception|Warning|Interrupt): ')
# Connections that stay open at a time, and sessions that are remembered.
_MOST_OPEN, _MOST_SESSIONS = 50, 50


class Accepted(Exception):
  """The learner took what it should have refused, or broke on it."""


class Learner(NamedTuple):
  """Whom to send to.

  Attributes:
    port: on localhost.
    own: credentials of its actors.
    inference: see --inference.
    num_actors: tasks are below it.
  """

  port: int
  own: credentials.Credentials
  inference: str
  num_actors: int

  @property
  def address(self) -> str:
    return f'localhost:{self.port}'


class Strangers:
  """Each method is one attack, and raises Accepted where it succeeds."""

  def __init__(self, learner: Learner):
    """Initialises; connects to nobody yet."""
    self._learner = learner
    self._open: list[socket.socket] = []
    self._ghosts: dict[int, int] = {}  # Sessions, by task.
    self._dead: list[int] = []
    self._tls = None
    if learner.own.authority:
      self._tls = ssl.create_default_context(
        cadata=learner.own.authority.decode()
      )
      self._tls.set_alpn_protocols(['h2'])

  def close(self) -> None:
    """Closes the connections that were left open."""
    for one in self._open:
      one.close()

  # Of those without a token.

  def random_bytes(self, rng: random.Random) -> None:
    """Sends noise, with or without the beginning of a true connection."""
    beginning = rng.choice([b'', _PREFACE, _PREFACE + _settings()])
    self._send(rng, beginning + rng.randbytes(rng.randrange(5000)))

  def http(self, rng: random.Random) -> None:
    """Asks for a page."""
    self._send(rng, b'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')

  def half_open(self, rng: random.Random) -> None:
    """Begins as a true connection does, and says no more."""
    whole = _PREFACE + _settings()
    self._send(rng, whole[: rng.randrange(len(whole) + 1)], stays=True)

  def huge_frame(self, rng: random.Random) -> None:
    """Claims 4 GiB: in a frame of HTTP/2, or in a message of gRPC."""
    claim = b'\0' + struct.pack('>I', 2**32 - 1) + bytes(100)
    headers = {
      ':path': '/scalable_agent.Learner/step',
      'content-type': 'application/grpc',
      'te': 'trailers',
    }
    if rng.random() < 0.5:
      headers |= dict(self._learner.own.metadata())
    frames = rng.choice(
      [
        b'\xff\xff\xff\x00\x00' + struct.pack('>I', 1) + bytes(1000),
        _frame(1, 4, _header_block(headers), 1) + _frame(0, 0, claim, 1),
      ]
    )
    self._send(rng, _PREFACE + _settings() + frames, stays=rng.random() < 0.3)

  def no_token(self, rng: random.Random) -> None:
    """Calls as an actor does, but for the token."""
    self._calls(rng, '', self._garbage(rng))

  def wrong_token(self, rng: random.Random) -> None:
    """The same with another."""
    token = rng.choice([self._learner.own.token[:-1], 'x', 'x' * 5000])
    self._calls(rng, token, self._garbage(rng))

  # Of those with a token.

  def garbage_calls(self, rng: random.Random) -> None:
    """Calls some method with what is none of its requests."""
    self._calls(rng, self._learner.own.token, self._garbage(rng))

  def replay(self, rng: random.Random) -> None:
    """Goes on with the session of an actor that is dead."""
    if not self._dead:
      return self.garbage_calls(rng)
    session = rng.choice(self._dead[-_MOST_SESSIONS:])
    method = rng.choice(METHODS[1:])
    request = protocol.VERSIONED.pack(session, 0) + rng.randbytes(100)
    if method in ('begin', 'failed'):
      request = protocol.to_json(session=session, message='dead', columns=1)
    return self._calls(rng, self._learner.own.token, request, method)

  def late_registration(self, rng: random.Random) -> None:
    """Registers as a process that is dead by now; it must end no other."""
    client = self._client(self._learner.own.token)
    try:
      self._register(client, rng.randrange(self._learner.num_actors))
    except (rpc.Unreachable, rpc.Again):
      pass  # The learner is not there.
    finally:
      client.close()

  def ghost(self, rng: random.Random, task: int) -> None:
    """Takes the place of a dead actor, and sends what no actor does."""
    client = self._client(self._learner.own.token)
    try:
      session = self._register(client, task)
      for _ in range(3):
        request = self._garbage(rng, session)
        method = rng.choice(['begin', 'unroll', 'gradients', 'step'])
        self._must_refuse(client, method, request)
      if self._learner.inference == 'learner':
        for request in self._impossible_steps(client, session):
          self._must_refuse(client, 'step', request)
      # The one before is dead for certain; this one will be.
      self._dead += filter(None, [self._ghosts.get(task)])
      self._ghosts[task] = session
    except (rpc.Unreachable, rpc.Again):
      pass  # The learner is not there.
    finally:
      client.close()

  # Parts of these.

  def _send(self, rng: random.Random, data: bytes, stays=False) -> None:
    """Sends bytes on a connection of its own, encrypted if the learner's is."""
    connection = None
    try:
      address = 'localhost', self._learner.port
      connection = socket.create_connection(address, _TIMEOUT)
      if self._tls is not None and rng.random() < 0.7:
        connection = self._tls.wrap_socket(
          connection, server_hostname='localhost'
        )
      connection.sendall(data)
      if rng.random() < 0.5 and not stays:
        connection.settimeout(1.0)
        connection.recv(2**16)
    except OSError:
      pass  # The learner has closed it, or is not there.
    if connection is None:
      return
    if not stays:
      connection.close()
      return
    self._open.append(connection)
    if len(self._open) > _MOST_OPEN:
      self._open.pop(0).close()

  def _client(self, token: str) -> rpc.Client:
    own = self._learner.own._replace(token=token)
    return rpc.Client(self._learner.address, own)

  def _calls(
    self, rng: random.Random, token: str, request: bytes, method: str = ''
  ) -> None:
    client = self._client(token)
    try:
      self._must_refuse(client, method or rng.choice(METHODS), request)
    finally:
      client.close()

  def _must_refuse(
    self, client: rpc.Client, method: str, request: bytes
  ) -> None:
    try:
      answer = client.call(method, request, _TIMEOUT)
    except rpc.Refused as refused:
      if not _UNFORESEEN.match(str(refused)):
        return
      said: object = refused
    except (rpc.Unreachable, rpc.Again, rpc.Over):
      return
    else:
      said = answer
    raise Accepted(
      f'{method} of {request[:300]!r} was answered: {str(said)[:300]}'
    )

  def _register(self, client: rpc.Client, task: int) -> int:
    """Returns the session of an actor that leaves all options open."""
    options: dict[str, str] = {}
    while True:
      request = protocol.to_json(
        protocol=protocol.VERSION,
        version=scalable_agent.__version__,
        task=task,
        options=options,
      )
      try:
        answer = client.call('register', request, _TIMEOUT)
      except rpc.Refused as refused:
        names = re.findall(r'--(\w+) is ', str(refused))
        if not set(names) - set(options):
          raise Accepted(f'registration of a ghost: {refused}') from refused
        options |= dict.fromkeys(names, protocol.AUTO)
      else:
        return int(protocol.from_json(answer)['session'])

  def _impossible_steps(self, client: rpc.Client, session: int) -> list[bytes]:
    """Begins as a true actor does; returns steps of no environment."""
    box = worlds.Soak.observation_space
    spec = structures.EnvironmentSpec(
      structures.TensorSpec(box.shape, box.dtype),
      Discrete(int(worlds.Soak.action_space.n)),
      frames_per_step=1,
    )
    layout = step_codec.Layout(spec)
    begin = protocol.to_json(
      session=session, weights=[], layout=layout.describe(), columns=1
    )
    client.call('begin', begin, _TIMEOUT)
    zeros = structures.StepOutput(
      np.zeros([1]),
      np.zeros([1]),
      np.zeros([1]),
      np.zeros([1, *box.shape]),
      structures.EpisodeInfo(np.zeros([1]), np.zeros([1])),
    )
    header = protocol.SESSION.pack(session)
    return [
      header,
      layout.write(zeros, header)[:-1],
      layout.write(zeros, header) + b'\0',
      *(
        layout.write(zeros._replace(**{name: np.full([1], value)}), header)
        for name, value in (
          ('step_type', -1),
          ('step_type', 3),
          ('reward', math.nan),
          ('reward', math.inf),
          ('discount', math.nan),
          ('discount', 2),
        )
      ),
    ]

  def _garbage(self, rng: random.Random, session: int | None = None) -> bytes:
    """Returns a request of no method, of a session or of none that exists."""
    number = rng.getrandbits(62) if session is None else session
    return rng.choice(_REQUESTS)(rng, number)


def _values(rng: random.Random, session: int) -> bytes:
  odd = [None, True, -1, 2**70, 1.5, '', 'x' * 3000, '\ud800', [], {}, [[]]]
  names = ['task', 'options', 'layout', 'weights', 'columns', 'message']
  values = {name: rng.choice(odd) for name in names if rng.random() < 0.7}
  if rng.random() < 0.5:
    values |= {
      'protocol': protocol.VERSION,
      'version': scalable_agent.__version__,
    }
  return json.dumps({'session': session} | values).encode()


# Of a random.Random and a session.
_REQUESTS = (
  _values,
  _values,
  lambda rng, session: b'',
  lambda rng, session: rng.randbytes(rng.randrange(2000)),
  lambda rng, session: (
    protocol.SESSION.pack(session) + rng.randbytes(rng.randrange(2000))
  ),
  lambda rng, session: (
    protocol.VERSIONED.pack(session, rng.getrandbits(60)) + bytes(2000)
  ),
  lambda rng, session: protocol.SESSION.pack(session) + bytes(2**20),
  lambda rng, session: rng.choice(
    [
      b'{"session": ' + b'[' * 100_000,
      b'{"session": NaN}',
      b'{"session": 1e999, "columns": 1e999}',
      b'{"session": ' + b'9' * 10_000 + b'}',
      b'[1]',
      b'null',
      b'"x"',
    ]
  ),
)


def _frame(kind: int, flags: int, payload: bytes, stream: int) -> bytes:
  """Returns one of HTTP/2."""
  length = struct.pack('>I', len(payload))[1:]
  return length + bytes([kind, flags]) + struct.pack('>I', stream) + payload


def _header_block(headers: dict[str, str]) -> bytes:
  """Returns POST and http of the static table, and headers as they are."""
  block = b'\x83\x86'
  for text in (part for header in headers.items() for part in header):
    if text in headers:
      block += b'\0'
    block += bytes([len(text)]) + text.encode()
  return block


def _settings() -> bytes:
  return _frame(4, 0, b'', 0)
