"""A learner and an actor of A3C without a network between them."""

import functools

from scalable_agent import gradient_queue, gradients, learner, objectives
from scalable_agent import optimizers as optimizers_lib
from scalable_agent.options import AdvantageOptions, OptimizerOptions
from scalable_agent.transport import (
  gradient_codec,
  gradient_service,
  rpc,
  weights,
)

LOSS = functools.partial(
  objectives.advantage_loss,
  AdvantageOptions(discounting=0.9, entropy_cost=0.01, gae_lambda=0.8),
)
CLIP = functools.partial(optimizers_lib.clip_gradients, clip_gradient_norm=0.5)
OPTIONS = {'discounting': 0.9}


def make_learner(agent, **optimizer):
  """Returns a Learner; gradients of the first unrolls are clipped."""
  options = OptimizerOptions(**({'epsilon': 0.01} | optimizer))
  return learner.Learner(
    agent,
    [optimizers_lib.make_optimizer(options)],
    optimizers_lib.learning_rate_schedule(0.01, 1000),
    LOSS,
    CLIP,
    frames_per_step=4,
  )


def make_layout(one, columns=1):
  """Returns the Layout and the GradientFunction of an `acting.Acting`."""
  function = gradients.GradientFunction(one.agent, LOSS, CLIP)
  specs = function.specs(one.spec, one.layout.unroll_length, columns)
  layout = gradient_codec.Layout(specs, one.spec, one.layout.unroll_length)
  return layout, function


def make_service(one, layout, queue=None, version=0, **changes):
  """Returns a GradientService for an `acting.Acting`, with its weights."""
  arguments = {
    'options': OPTIONS,
    'num_actors': 4,
    'index': 0,
    'num_learners': 1,
    'deal': (0,),
    'weights_description': weights.describe(one.agent.variables),
    'layout': layout,
    # It is false when it is empty.
    'queue': gradient_queue.GradientQueue(2) if queue is None else queue,
  }
  service = gradient_service.GradientService(**(arguments | changes))
  values = [v.numpy() for v in one.agent.variables]
  service.publish(weights.Snapshot(version, values), frames=100)
  return service


class Wire:
  """What takes the place of rpc.Server and rpc.Client within a process.

  Attributes:
    handlers: by address, of whoever listens there at present.
  """

  def __init__(self, monkeypatch):
    self.handlers = {}
    monkeypatch.setattr(rpc, 'Server', self.listen)
    monkeypatch.setattr(rpc, 'Client', functools.partial(_Client, self))

  def listen(self, address, handlers, *arguments, **options):
    """Has handlers answer at an address; returns their server."""
    del arguments, options
    self.handlers[address] = handlers
    return _Server(self, address, handlers)


class _Server:
  def __init__(self, wire, address, handlers):
    self._wire = wire
    self._address = address
    self._handlers = handlers

  def stop(self, grace=1.0):
    if self._wire.handlers.get(self._address) is self._handlers:
      del self._wire.handlers[self._address]


class _Client:
  def __init__(self, wire, address, *arguments, **options):
    del arguments, options
    self._wire = wire
    self._address = address
    self._closed = False

  def call(self, method, request=b'', timeout=None):
    del timeout
    if self._closed:
      raise rpc.Closed
    assert len(request) <= rpc.MAX_BYTES
    handlers = self._wire.handlers.get(self._address)
    if handlers is None:
      raise rpc.Unreachable('nobody listens')
    answer = handlers[method](request)
    assert len(answer) <= rpc.MAX_BYTES
    return answer

  def close(self):
    self._closed = True
