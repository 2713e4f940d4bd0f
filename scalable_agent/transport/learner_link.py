"""An actor's link to its learner: it registers, and again after a failure.

It needs no TensorFlow: an actor may wait for its learner, or be refused, before
that is loaded, and one that is environments only never does.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from absl import logging

import scalable_agent
from scalable_agent.transport import protocol, rpc, weights
from scalable_agent.transport.credentials import NONE, Credentials

# Seconds to wait for the answer to the first call, so that a wrong address is
# told soon. Later ones wait as long as the learner gives signs of life.
_FIRST_TIMEOUT = 8.0
# Seconds in which a learner is told of a failure, or is not.
_LAST_TIMEOUT = 5.0
# Seconds between two attempts to reach a learner.
_RETRY = 1.0
# Characters of what the learner is told of a failure.
_MAX_FAILURE = 10_000


# The learner says that training is over.
Over = rpc.Over


class Stopped(Exception):
  """This process was asked to stop."""


class LinkError(ValueError):
  """The learner refused this actor, or was not there for too long."""


class Welcome(NamedTuple):
  """What the learner answers to a registration.

  Attributes:
    frames: environment frames that it has learned from.
    starts: registrations with this task before.
    inference: 'actor' or 'learner': who evaluates the agent.
    options: that this actor has left open, by name.
  """

  frames: int
  starts: int
  inference: str
  options: dict[str, Any]


class LearnerLink:
  """For one thread. Every method may raise Over, Stopped and LinkError.

  Attributes:
    welcome: of the last registration.
    cargo: what is sent, in the plural.
    sent: how much of it the learner has taken so far.
    reconnects: how often the link was lost.
  """

  def __init__(
    self,
    address: str,
    task: int,
    options: Mapping[str, Any],
    reconnect_timeout: float,
    stopping: threading.Event,
    credentials: Credentials = NONE,
    proxy: bool = False,
  ):
    """Initialises; does not connect yet.

    Args:
      address: of the learner.
      task: of this actor.
      options: that the learner must have, too, by name; protocol.AUTO for what
        it is to say.
      reconnect_timeout: seconds to wait for a learner that does not answer.
      stopping: set by whoever wants this process to stop.
      credentials: that the learner asks for.
      proxy: see rpc.Client.
    """
    self._address = address
    self._task = task
    self._options = dict(options)
    self._reconnect_timeout = reconnect_timeout
    self._stopping = stopping
    self._credentials = credentials
    self._proxy = proxy
    self._client = self._make_client()
    self._session = -1
    self._variables: Sequence[Any] = ()
    self._version = -1
    self._begin_message: dict[str, Any] = {}
    self.welcome = Welcome(0, 0, '', {})
    self.cargo = 'messages'
    self.sent = 0
    self.reconnects = 0
    # A call may last: whoever stops this process need not wait for its end.
    threading.Thread(target=self._hang_up, daemon=True).start()

  def register(self) -> Welcome:
    """Waits for the learner and introduces this actor.

    Raises:
      LinkError: it refuses this actor's version, options or task, something
        else listens there, or nobody does for `reconnect_timeout` seconds.
    """
    return self._register(first=True)

  def begin(
    self, cargo: str, variables: Sequence[Any] = (), **message: Any
  ) -> None:
    """Agrees on what will be sent, and on what is fetched.

    Args:
      cargo: what will be sent, in the plural.
      variables: of the agent, to be set by `update_weights`.
      **message: more that the learner compares.

    Raises:
      LinkError: the learner has another level, network or loss.
    """
    self.cargo = cargo
    self._variables = variables
    self._begin_message = {'weights': weights.describe(variables), **message}
    self._persist(self._begin)

  def update_weights(self) -> int:
    """Sets the variables to the newest weights; returns their version."""
    self._persist(self._fetch_weights)
    return self._version

  def send(self, method: str, write: Callable[[bytes], bytes]) -> bool:
    """Sends something, and waits until the learner has room for it.

    What is under way when the link fails is lost: the weights that it was made
    with may be unknown to the learner that comes back.

    Args:
      method: that takes it.
      write: makes it, given its header.

    Returns:
      Whether it was taken; if not, there is a new link.
    """

    def attempt():
      header = protocol.VERSIONED.pack(self._session, self._version)
      self._call(method, write(header))
      self.sent += 1

    return self._attempt(attempt)

  def ask(self, method: str, write: Callable[[bytes], bytes]) -> bytes | None:
    """Returns the answer to a question; None if there is a new link.

    Args:
      method: that answers it.
      write: makes it, given its header.
    """
    answers: list[bytes] = []

    def attempt():
      header = protocol.SESSION.pack(self._session)
      answers.append(self._call(method, write(header)))
      self.sent += 1

    return answers[0] if self._attempt(attempt) else None

  def report_failure(self, message: str) -> None:
    """Tells the learner why this actor ends, if it is there."""
    if self._session < 0:
      return
    try:
      self._client.call(
        'failed',
        protocol.to_json(session=self._session, message=message[:_MAX_FAILURE]),
        _LAST_TIMEOUT,
      )
    except (rpc.Unreachable, rpc.Refused, rpc.Again, rpc.Closed) as error:
      logging.warning('The learner could not be told: %s', error)

  # One attempt each; they raise what `_call` does.

  def _begin(self) -> None:
    message = protocol.to_json(session=self._session, **self._begin_message)
    self._call('begin', message)

  def _fetch_weights(self) -> None:
    request = protocol.VERSIONED.pack(self._session, self._version)
    answer = self._call('weights', request)
    (version,) = protocol.WEIGHTS_ANSWER.unpack_from(answer)
    if version != self._version:
      weights.assign(self._variables, answer, protocol.WEIGHTS_ANSWER.size)
      self._version = version

  def _call(
    self, method: str, request: bytes, timeout: float | None = None
  ) -> bytes:
    """Returns an answer; see `rpc.Client.call`, which may be tried again.

    Raises:
      rpc.Unreachable, rpc.Again: a new link is needed.
      Over, Stopped, LinkError: none is any more.
    """
    try:
      return self._client.call(method, request, timeout)
    except rpc.Closed:
      raise Stopped from None
    except rpc.Refused as refused:
      raise LinkError(
        f'the learner at {self._address} refuses actor {self._task}: {refused}'
      ) from refused

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
      if not self._begin_message or self._succeeds(self._begin):
        return False

  def _succeeds(self, attempt: Callable[[], None]) -> bool:
    try:
      attempt()
    except rpc.Unreachable as error:
      logging.warning('Lost the learner: %s', error)
    except rpc.Again as reason:
      logging.warning('The learner says: %s. Registering again.', reason)
    else:
      return True
    self._pause()
    return False

  def _pause(self) -> None:
    if self._stopping.wait(_RETRY):
      raise Stopped

  def _make_client(self) -> rpc.Client:
    return rpc.Client(self._address, self._credentials, self._proxy)

  def _hang_up(self) -> None:
    """Ends the call under way once this process is to stop."""
    self._stopping.wait()
    self._client.close()

  def _register(self, first: bool) -> Welcome:
    request = protocol.to_json(
      protocol=protocol.VERSION,
      version=scalable_agent.__version__,
      task=self._task,
      options=self._options,
    )
    deadline = time.monotonic() + self._reconnect_timeout
    waiting = False
    while True:
      # One of its own for each attempt, without the delays of those before.
      self._client.close()
      self._client = self._make_client()
      if self._stopping.is_set():
        raise Stopped
      try:
        answer = self._call('register', request, _FIRST_TIMEOUT)
        session, welcome = _read_welcome(answer)
        break
      except (rpc.Unreachable, rpc.Again) as error:
        if first and getattr(error, 'strange', False):
          raise LinkError(
            f'--learner_address={self._address} takes connections but does '
            'not answer as a learner does: another program listens there, the '
            f'learner hangs, or TLS of both sides does not fit ({error}). '
            'Check the address, and --tls_authority and --tls_certificate.'
          ) from error
        if time.monotonic() > deadline:
          raise LinkError(
            f'no learner at --learner_address={self._address} for '
            f'--reconnect_timeout={self._reconnect_timeout:g} seconds: '
            f'{self._reason(error)}. Start it, or correct the address.'
          ) from error
        if not waiting:
          waiting = True
          print(
            f'Actor {self._task} waits for the learner at {self._address} '
            f'({self._reason(error)}).',
            flush=True,
          )
      self._pause()
    if first:
      self._take_over(welcome.options)
    elif welcome.inference != self.welcome.inference:
      raise LinkError(
        f'the learner at {self._address} has --inference={welcome.inference} '
        f'now, and had {self.welcome.inference}. Start this actor again.'
      )
    self._session, self.welcome = session, welcome
    print(
      f'Actor {self._task} is connected to the learner at {self._address}.',
      flush=True,
    )
    return welcome

  def _take_over(self, options: Mapping[str, Any]) -> None:
    """Has what was left to the learner be as it says, also later."""
    for name, value in options.items():
      if self._options.get(name) != protocol.AUTO:
        raise LinkError(
          f'the learner at {self._address} wants --{name}={value}, which this '
          'actor has not left to it. Is it another program?'
        )
      if isinstance(value, str) and ':' in value:
        # The name of a module: whoever starts this process decides what it
        # imports.
        raise LinkError(
          f'the learner at {self._address} has --{name}={value}. Start this '
          'actor with the same.'
        )
    self._options.update(options)

  def _reason(self, error: Exception) -> str:
    return str(error).removeprefix(f'{self._address}: ')


def _read_welcome(answer: bytes) -> tuple[int, Welcome]:
  """Returns a session, and what comes with it.

  Raises:
    rpc.Unreachable: no learner has answered this.
  """
  try:
    values = protocol.from_json(answer)
    return int(values['session']), Welcome(
      int(values['frames']),
      int(values['starts']),
      str(values['inference']),
      dict(values['options']),
    )
  except (ValueError, KeyError, TypeError) as error:
    raise rpc.Unreachable('its answer is no welcome', strange=True) from error
