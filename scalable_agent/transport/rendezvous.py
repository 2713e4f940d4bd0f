"""A meeting of all learners, before TensorFlow's own.

The constructor of MultiWorkerMirroredStrategy waits for its peers for an hour,
and deaf to every signal: Ctrl-C and SIGTERM do nothing, and as it keeps the
interpreter's lock, no other thread runs. So the learners meet before, at the
address of learner 0: the others ask it again and again whether all are there.
"""

import math
import secrets
import threading
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from scalable_agent.distribution import cluster as cluster_lib
from scalable_agent.transport import protocol, rpc
from scalable_agent.transport.credentials import NONE, Credentials

_MEET = 'meet'
_GO, _WAIT = b'go', b'wait'
# Seconds that an answer may take, after which one that does not ask again is
# gone, of patience before the user is told, and between two attempts.
_ANSWER_SECONDS = 1.0
_LEASE_SECONDS = 4.0
_QUIET_SECONDS = 1.0
_RETRY_SECONDS = 0.2
# Seconds between two looks at signals.
_LOOK_SECONDS = 0.1
_TIMEOUT_SECONDS = 8.0


def meet(
  cluster: cluster_lib.Cluster,
  timeout: float,
  options: Mapping[str, Any] = MappingProxyType({}),
  credentials: Credentials = NONE,
) -> None:
  """Returns when all learners of a cluster are in this function.

  Args:
    cluster: with the task of this learner.
    timeout: seconds to wait.
    options: by name, JSON-able; all learners must have the same.
    credentials: of the run.

  Raises:
    TimeoutError: not all came in time; names those who did not.
    ValueError: learner 0 cannot listen, or knows of other places, has other
      options, or has met its peers before.
  """
  if cluster.task == 0:
    host = _Host(cluster, options)
    handlers = {_MEET: host.answer, 'register': _not_yet}
    server = rpc.Server(
      cluster.listens_at, handlers, credentials, cluster.listen_source
    )
    try:
      host.gather(timeout)
    finally:
      server.stop()
  else:
    _attend(cluster, timeout, options, credentials)


class _Host:
  """Learner 0."""

  def __init__(self, cluster: cluster_lib.Cluster, options: Mapping[str, Any]):
    self._learners = list(cluster.learners)
    self._options = dict(options)
    # Of each other learner: who it is, and when it last asked.
    self._present: dict[int, tuple[str, float]] = {}
    self._gone: set[int] = set()  # Those that were let go.
    self._complete = False
    self._condition = threading.Condition()

  def gather(self, timeout: float) -> None:
    """Returns once all others have been let go."""
    deadline = time.monotonic() + timeout
    told_at = time.monotonic() + _QUIET_SECONDS
    with self._condition:
      while self._gone != set(self._others()):
        now = time.monotonic()
        missing = self._missing()
        if now >= deadline:
          raise TimeoutError(
            f'{missing} did not come within {timeout:g} s. Start it with '
            '--job_name=learner and its --task, or lower --num_learners.'
          )
        if now >= told_at and missing:
          print(f'Waiting for {missing}.', flush=True)
          told_at = deadline
        # Not for long: a signal that comes just before it does not end it.
        self._condition.wait(_LOOK_SECONDS)

  def answer(self, request: bytes) -> bytes:
    """Answers another learner whether to go; see `rpc.Server`."""
    try:
      values = protocol.from_json(request)
    except ValueError as error:
      raise rpc.Refused(f'not a message of a learner: {error}') from error
    with self._condition:
      task = self._find(values)
      now = time.monotonic()
      name, seen = self._present.get(task, ('', -math.inf))
      if name != values.get('name') and now - seen < _LEASE_SECONDS:
        # One that ended, perhaps, and has started again.
        self._condition.wait(_ANSWER_SECONDS)
        return _WAIT
      self._present[task] = str(values.get('name')), now
      deadline = time.monotonic() + _ANSWER_SECONDS
      self._condition.notify_all()
      self._condition.wait_for(
        self._is_complete, max(0.0, deadline - time.monotonic())
      )
      if not self._complete:
        return _WAIT
      self._gone.add(task)
      self._condition.notify_all()
      return _GO

  def _find(self, values: Mapping[str, Any]) -> int:
    """Returns the task of who asks; raises rpc.Refused."""
    theirs = values.get('options')
    if isinstance(theirs, dict):
      differ = [
        f'--{name} is {own} there and {theirs.get(name)} here'
        for name, own in self._options.items()
        if theirs.get(name) != own
      ]
      if differ:
        raise rpc.Refused('; '.join(differ))
    task = values.get('task')
    if (
      not isinstance(task, int)
      or task not in self._others()
      or values.get('learners') != self._learners
    ):
      raise rpc.Refused(f'it expects others at {",".join(self._learners)}')
    return task

  def _others(self) -> range:
    return range(1, len(self._learners))

  def _is_complete(self) -> bool:
    self._complete = self._complete or not self._missing()
    return self._complete

  def _missing(self) -> str:
    now = time.monotonic()
    return ', '.join(
      f'learner {task} ({self._learners[task]})'
      for task in self._others()
      if task not in self._gone
      and now - self._present.get(task, ('', -_LEASE_SECONDS))[1]
      >= _LEASE_SECONDS
    )


def _not_yet(request: bytes) -> bytes:
  """Answers an actor."""
  del request
  raise rpc.Again('the learner waits for other learners')


def _attend(
  cluster: cluster_lib.Cluster,
  timeout: float,
  options: Mapping[str, Any],
  credentials: Credentials,
) -> None:
  """Waits until learner 0 lets this one go."""
  place = cluster.learners[0]
  request = protocol.to_json(
    learners=list(cluster.learners),
    task=cluster.task,
    options=dict(options),
    name=secrets.token_hex(8),
  )
  deadline = time.monotonic() + timeout
  told_at = time.monotonic() + _QUIET_SECONDS
  pause = threading.Event()
  reason = ''
  client = None
  try:
    while (now := time.monotonic()) < deadline:
      if now >= told_at:
        print(f'Waiting for learner 0 ({place}).{reason}', flush=True)
        told_at = deadline
      if client is None:
        client = rpc.Client(place, credentials)
      try:
        if client.call(_MEET, request, _TIMEOUT_SECONDS) == _GO:
          return
        continue
      except rpc.Refused as refused:
        raise ValueError(
          f'Learner 0 ({place}) refuses learner {cluster.task}: {refused}; '
          f'this one knows {",".join(cluster.learners)}. Give all learners the '
          'same options, and each its own --task.'
        ) from refused
      except rpc.Unreachable as error:
        if error.strange:
          raise ValueError(
            f'Learner 0 ({place}) trains already, or another program has its '
            'port. A learner cannot join later: stop all learners, then start '
            f'them again; they resume from the checkpoint. ({error})'
          ) from error
        reason = f' ({error})'
        client.close()
        client = None
      pause.wait(_RETRY_SECONDS)
  finally:
    if client is not None:
      client.close()
  raise TimeoutError(
    f'Not all learners were there within {timeout:g} s, or learner 0 '
    f'({place}) cannot be reached from here. Start the others with '
    '--job_name=learner and their --task.'
  )
