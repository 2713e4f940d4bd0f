"""A learner's service for the unrolls of `tests.acting`, and actors by hand."""

import contextlib
import json
import threading
from typing import Any

import numpy as np

import scalable_agent
from scalable_agent import unroll_queue
from scalable_agent.transport import (
  protocol,
  rpc,
  unroll_service,
  weights,
)
from tests.ports import free_port
from tests.waiting import DEADLINE_S

OPTIONS = {'level_name': 'clockwork', 'unroll_length': 2, 'lstm': False}


class Clock:
  """Seconds that pass when a test says so."""

  def __init__(self):
    self.now = 1000.0

  def __call__(self) -> float:
    return self.now


class Counted:
  """Four zeros that tell how often they were asked for.

  Attributes:
    count: times so far.
  """

  shape, dtype = (4,), np.dtype(np.float32)

  def __init__(self):
    self.count = 0

  def __array__(self, dtype=None, copy=None):
    self.count += 1
    return np.zeros(self.shape, self.dtype)


@contextlib.contextmanager
def slow_learner():
  """A learner that does not answer; yields its address, and whether asked."""
  asked, release = threading.Event(), threading.Event()

  def register(request):
    asked.set()
    release.wait(DEADLINE_S)
    return b''

  address = f'127.0.0.1:{free_port()}'
  server = rpc.Server(address, {'register': register})
  try:
    yield address, asked
  finally:
    release.set()
    server.stop(0)


def make_service(
  one,
  queue=None,
  values=(),
  version=0,
  kind: Any = unroll_service.UnrollService,
  **changes,
) -> Any:
  """Returns a service for an `acting.Acting`, with weights published."""
  variables = one.agent.variables
  arguments: dict[str, Any] = {
    'options': OPTIONS,
    'num_actors': 6,
    'index': 0,
    'num_learners': 1,
    'deal': (0,),
    'layout': one.layout,
    'weights_description': weights.describe(variables),
    # It is false when it is empty.
    'queue': unroll_queue.UnrollQueue(3, 2) if queue is None else queue,
    'record_unroll': lambda unroll: None,
  }
  service = kind(**(arguments | changes))
  values = values or [v.numpy() for v in variables]
  service.publish(weights.Snapshot(version, values), frames=100)
  return service


class ByHand:
  """An actor that calls the handlers of a service itself.

  Attributes:
    session: of the registration, 1 before.
  """

  def __init__(
    self, service, layout, variables=(), task=0, options=None, columns=3
  ):
    """Initialises.

    Args:
      service: of a learner.
      layout: of what it sends.
      variables: of its agent.
      task: of the actor.
      options: that it has; default: OPTIONS.
      columns: E.
    """
    self._handlers = service.handlers()
    self._layout = layout
    self._variables = variables
    self._task = task
    self._options = OPTIONS if options is None else options
    self._columns = columns
    self.session = 1

  def call(self, method: str, request: bytes) -> bytes:
    """Calls any handler with any bytes."""
    return self._handlers[method](request)

  def register(self, **changes) -> dict:
    """Registers; returns the answer."""
    message = {
      'protocol': protocol.VERSION,
      'version': scalable_agent.__version__,
      'task': self._task,
      'options': self._options,
    } | changes
    answer = json.loads(self.call('register', json.dumps(message).encode()))
    self.session = answer['session']
    return answer

  def begin(self, **changes) -> dict:
    """Says what it will send; returns the answer."""
    message = {
      'session': self.session,
      'layout': self._layout.describe(),
      'weights': weights.describe(self._variables),
      'columns': self._columns,
    } | changes
    return json.loads(self.call('begin', json.dumps(message).encode()))

  def start(self) -> 'ByHand':
    """Registers and begins; returns itself."""
    self.register()
    self.begin()
    return self

  def weights(self, has=-1) -> tuple[int, bytes]:
    """Returns a version, and its weights if they are not those it has."""
    answer = self.call('weights', protocol.VERSIONED.pack(self.session, has))
    header = protocol.WEIGHTS_ANSWER
    (version,) = header.unpack_from(answer)
    return version, answer[header.size :]

  def send_bytes(self, message: bytes, version=0, method='unroll') -> bytes:
    """Sends any bytes as an unroll, or as something else."""
    header = protocol.VERSIONED.pack(self.session, version)
    return self.call(method, header + message)

  def send(self, unroll, version=0) -> bytes:
    """Sends an unroll."""
    return self.send_bytes(self._layout.write(unroll), version)

  def step(self, env_output) -> bytes:
    """Sends what environments show; returns the bytes of actions."""
    header = protocol.SESSION.pack(self.session)
    return self.call('step', self._layout.write(env_output, header))

  def fail(self, **message) -> bytes:
    """Says that it ends."""
    return self.call(
      'failed', protocol.to_json(**({'session': self.session} | message))
    )


def serve(address: str, services: list, *arguments) -> rpc.Server:
  """Has an rpc.Server answer with `services[0]`, whichever that is."""

  def delegate(name):
    return lambda request: services[0].handlers()[name](request)

  names = list(services[0].handlers())
  return rpc.Server(
    address, {name: delegate(name) for name in names}, *arguments
  )
