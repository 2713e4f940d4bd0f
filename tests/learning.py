"""A learner's service for the unrolls of `tests.acting`, and actors by hand."""

import json
from typing import Any

import scalable_agent
from scalable_agent import unroll_queue
from scalable_agent.transport import (
  protocol,
  rpc,
  unroll_codec,
  unroll_service,
  weights,
)

OPTIONS = {'level_name': 'clockwork', 'unroll_length': 2, 'lstm': False}


class Clock:
  """Seconds that pass when a test says so."""

  def __init__(self):
    self.now = 1000.0

  def __call__(self) -> float:
    return self.now


def make_service(
  one, queue=None, values=(), version=0, **changes
) -> unroll_service.UnrollService:
  """Returns a service for an `acting.Acting`, with weights published."""
  variables = one.agent.variables
  arguments: dict[str, Any] = {
    'options': OPTIONS,
    'num_actors': 6,
    'index': 0,
    'num_learners': 1,
    'deal': (0,),
    'layout': one.layout,
    'skip_frames': one.agent.skip_frames,
    'weights_description': weights.describe(variables),
    # It is false when it is empty.
    'queue': unroll_queue.UnrollQueue(3, 2) if queue is None else queue,
    'record_unroll': lambda unroll: None,
  }
  service = unroll_service.UnrollService(**(arguments | changes))
  values = values or [v.numpy() for v in variables]
  service.publish(weights.Snapshot(version, values), frames=100)
  return service


class ByHand:
  """An actor that calls the handlers of a service itself.

  Attributes:
    session: of the registration, None before.
  """

  def __init__(self, service, one, task=0):
    self._handlers = service.handlers()
    self._one = one
    self._task = task
    self.session = None
    self._encoders: dict[int, unroll_codec.Encoder] = {}

  def call(self, method: str, request: bytes) -> bytes:
    """Calls any handler with any bytes."""
    return self._handlers[method](request)

  def register(self, **changes) -> dict:
    """Registers; returns the answer."""
    message = {
      'protocol': protocol.VERSION,
      'version': scalable_agent.__version__,
      'task': self._task,
      'options': OPTIONS,
    } | changes
    answer = json.loads(self.call('register', json.dumps(message).encode()))
    self.session = answer['session']
    return answer

  def begin(self, columns=3, **changes) -> None:
    """Says what it will send."""
    message = {
      'session': self.session,
      'layout': self._one.layout.describe(),
      'weights': weights.describe(self._one.agent.variables),
      'columns': columns,
    } | changes
    self.call('begin', json.dumps(message).encode())

  def start(self, columns=3) -> 'ByHand':
    """Registers and begins; returns itself."""
    self.register()
    self.begin(columns)
    return self

  def weights(self, has=-1, version=-1, index=0):
    """Returns (version, number of pieces, whether it is over, piece)."""
    request = protocol.WEIGHTS_REQUEST.pack(self.session, has, version, index)
    answer = self.call('weights', request)
    header = protocol.WEIGHTS_ANSWER
    return *header.unpack_from(answer), answer[header.size :]

  def ready(self):
    """Returns (milliseconds to wait, whether it is over)."""
    answer = self.call('ready', protocol.SESSION.pack(self.session))
    return protocol.READY_ANSWER.unpack(answer)

  def send_bytes(self, message: bytes, stream=0) -> bytes:
    """Sends any bytes as an unroll."""
    header = protocol.UNROLL.pack(self.session, stream)
    return self.call('unroll', header + message)

  def send(self, unroll, stream=0) -> bytes:
    """Sends an unroll as the next one of a stream."""
    encoder = self._encoders.setdefault(
      stream, unroll_codec.Encoder(self._one.layout)
    )
    return self.send_bytes(encoder.encode(unroll), stream)

  def restart(self, stream=0) -> None:
    """Begins a stream anew."""
    self._encoders[stream].restart()


def serve(address: str, services: list) -> rpc.Server:
  """Has an rpc.Server answer with `services[0]`, whichever that is."""

  def delegate(name):
    return lambda request: services[0].handlers()[name](request)

  names = list(services[0].handlers())
  return rpc.Server(address, {name: delegate(name) for name in names})
