"""An actor's link to its learner: it registers, and again after a failure.

What is the same whatever it sends; see `unroll_link` and `gradient_link`.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from absl import logging

import scalable_agent
from scalable_agent.transport import protocol, rpc, weights

# Seconds to wait for an answer. To the first call it is shorter, so that a
# wrong address is told soon; later a message of 4 MiB may take its time.
_FIRST_TIMEOUT = 8.0
_TIMEOUT = 30.0
# Seconds between two attempts to reach a learner.
_RETRY = 1.0
# Characters of what the learner is told of a failure.
_MAX_FAILURE = 10_000


class Over(Exception):
  """The learner says that training is over."""


class Stopped(Exception):
  """This process was asked to stop."""


class LinkError(ValueError):
  """The learner refused this actor, or was not there for too long."""


class Welcome(NamedTuple):
  """What the learner answers to a registration.

  Attributes:
    frames: environment frames that it has learned from.
    starts: registrations with this task before.
  """

  frames: int
  starts: int


class LearnerLink:
  """For one thread. Every method may raise Over, Stopped and LinkError.

  Attributes:
    sent_unrolls: taken by the learner so far, or their gradients.
    reconnects: how often the link was lost.
    cargo: what it sends, in the plural.
  """

  cargo = ''

  def __init__(
    self,
    address: str,
    task: int,
    options: Mapping[str, Any],
    reconnect_timeout: float,
    stopping: threading.Event,
  ):
    """Initialises; does not connect yet.

    Args:
      address: host:port of the learner.
      task: of this actor.
      options: that the learner must have, too, by name.
      reconnect_timeout: seconds to wait for a learner that does not answer.
      stopping: set by whoever wants this process to stop.
    """
    self._address = address
    self._task = task
    self._options = dict(options)
    self._reconnect_timeout = reconnect_timeout
    self._stopping = stopping
    self._client = rpc.Client(address, _FIRST_TIMEOUT)
    self._session = -1
    self._variables: Sequence[Any] = ()
    self._version = -1
    self._begin_message: dict[str, Any] = {}
    self.sent_unrolls = 0
    self.reconnects = 0

  def register(self) -> Welcome:
    """Waits for the learner and introduces this actor.

    Raises:
      LinkError: it refuses this actor's version, options or task, something
        else listens there, or nobody does for `reconnect_timeout` seconds.
    """
    return self._register(first=True)

  def update_weights(self) -> int:
    """Sets the variables to the newest weights; returns their version."""
    self._persist(self._fetch_weights)
    return self._version

  def report_failure(self, message: str) -> None:
    """Tells the learner why this actor ends, if it is there."""
    if self._session < 0:
      return
    try:
      self._client.call(
        'failed',
        protocol.to_json(session=self._session, message=message[:_MAX_FAILURE]),
      )
    except (rpc.Unreachable, rpc.Refused) as error:
      logging.warning('The learner could not be told: %s', error)

  # For those that say what is sent.

  def _agree(self, variables: Sequence[Any], **message: Any) -> None:
    """Agrees on what will be sent, and on the variables of the agent."""
    self._variables = variables
    self._begin_message = {'weights': weights.describe(variables), **message}
    self._persist(self._begin)

  def _deliver(self, transfer: Callable[[], None]) -> None:
    """Waits until the learner has room, and has `transfer` call it.

    What is under way when the link fails is lost: the weights that it was made
    with may be unknown to the learner that comes back.
    """

    def attempt():
      self._wait_for_room()
      transfer()
      self.sent_unrolls += 1

    self._attempt(attempt)

  def _restart(self) -> None:
    """Forgets what a learner knew before this link was made."""

  # One attempt each; they raise rpc.Unreachable and rpc.Refused.

  def _begin(self) -> None:
    message = protocol.to_json(session=self._session, **self._begin_message)
    self._client.call('begin', message)

  def _fetch_weights(self) -> None:
    parts: list[bytes] = []
    version, count = -1, 1
    while len(parts) < count:
      request = protocol.WEIGHTS_REQUEST.pack(
        self._session, self._version, version, len(parts)
      )
      answer = self._client.call('weights', request)
      version, count, over = protocol.WEIGHTS_ANSWER.unpack_from(answer)
      if over:
        raise Over
      parts.append(answer[protocol.WEIGHTS_ANSWER.size :])
    if count:
      weights.assign(self._variables, b''.join(parts))
      self._version = version

  def _wait_for_room(self) -> None:
    request = protocol.SESSION.pack(self._session)
    while True:
      answer = self._client.call('ready', request)
      wait_ms, over = protocol.READY_ANSWER.unpack(answer)
      if over:
        raise Over
      if not wait_ms:
        return
      if self._stopping.wait(wait_ms / 1000):
        raise Stopped

  # Persistence.

  def _persist(self, attempt: Callable[[], None]) -> None:
    """Attempts until it succeeds."""
    while not self._attempt(attempt):
      pass

  def _attempt(self, attempt: Callable[[], None]) -> bool:
    """Returns whether an attempt succeeded; if not, there is a new link."""
    if self._stopping.is_set():
      raise Stopped
    if self._succeeds(attempt):
      return True
    self.reconnects += 1
    while True:
      self._register(first=False)
      self._version = -1
      self._restart()
      if not self._begin_message or self._succeeds(self._begin):
        return False

  def _succeeds(self, attempt: Callable[[], None]) -> bool:
    try:
      attempt()
    except rpc.Unreachable as error:
      logging.warning('Lost the learner: %s', error)
    except rpc.Refused as refused:
      if str(refused) not in protocol.COME_BACK:
        raise self._refused(refused) from refused
      logging.warning('The learner says: %s. Registering again.', refused)
    else:
      return True
    if self._stopping.wait(_RETRY):
      raise Stopped
    return False

  def _register(self, first: bool) -> Welcome:
    self._client = rpc.Client(self._address, _FIRST_TIMEOUT)
    request = protocol.to_json(
      protocol=protocol.VERSION,
      version=scalable_agent.__version__,
      task=self._task,
      options=self._options,
    )
    deadline = time.monotonic() + self._reconnect_timeout
    waiting = False
    while True:
      if self._stopping.is_set():
        raise Stopped
      try:
        answer = protocol.from_json(self._client.call('register', request))
        break
      except rpc.Refused as refused:
        raise self._refused(refused) from refused
      except rpc.Unreachable as error:
        if first and error.strange:
          raise LinkError(
            f'--learner_address={self._address} takes connections but does '
            'not answer as a learner does: another program listens there, or '
            'the learner hangs. Check the address.'
          ) from error
        if time.monotonic() > deadline:
          raise LinkError(
            f'no learner at --learner_address={self._address} for '
            f'--reconnect_timeout={self._reconnect_timeout:g} seconds: {error}'
          ) from error
        if not waiting:
          waiting = True
          print(
            f'Actor {self._task} waits for the learner at {self._address}.',
            flush=True,
          )
      if self._stopping.wait(_RETRY):
        raise Stopped
    self._session = int(answer['session'])
    self._client.timeout = _TIMEOUT
    print(
      f'Actor {self._task} is connected to the learner at {self._address}.',
      flush=True,
    )
    return Welcome(int(answer['frames']), int(answer['starts']))

  def _refused(self, refused: rpc.Refused) -> LinkError:
    return LinkError(
      f'the learner at {self._address} refuses actor {self._task}: {refused}'
    )
