"""The processes of a soak, and all that must be true of them at any time."""

import collections
import dataclasses
import os
import pathlib
import random
import re
import signal
import socket
import time
from collections.abc import Sequence
from typing import Any

import psutil

from benchmarks.soaking import processes, worlds
from benchmarks.soaking.episodes import Episodes
from benchmarks.soaking.processes import Process, Violation
from benchmarks.soaking.proxy import Proxy

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
_LEARNER = ROOT / 'benchmarks' / 'soaking' / 'checked_learner.py'
_ACTOR = ROOT / 'experiment.py'
# Seconds between checkpoints, and how much older the newest may be.
SAVE_SECS = 2.0
_LATE = 60.0
# In place of a signal: the disk is full.
FULL_DISK = 1000
# Of the learner: seconds until its memory is compared with, and its bounds.
_SETTLES = 20.0
_MOST_GROWTH, _MOST_THREADS, _MOST_FILES = 400 * 2**20, 150, 400
_ENDED_STRANGE = 'takes connections but does not answer as a learner does'
_REPLACED = 'has taken its place'
_CONNECTED = 'is connected'
_STARTS = 'starts of the learner'


@dataclasses.dataclass
class Pending:
  """A fault whose recovery is awaited.

  Attributes:
    kind: of it.
    since: when it ended.
    least: number of the oldest process whose episodes show that it is over.
    start: of the learner, the first that has to have taken them.
  """

  kind: str
  since: float
  least: int = 0
  start: int = 0


@dataclasses.dataclass
class Seat:
  """A task of an actor.

  Attributes:
    task: its number, and that of its level.
    proxy: its way to the learner.
    processes: that play it: one, or two for a while.
    restart_at: when it gets one if it has none.
    touched: when a fault last met it.
    arrival: when an episode of it last came.
    pending: faults whose recovery is awaited.
    holds: what must be done before it gets a process.
  """

  task: int
  proxy: Proxy
  processes: list[Process] = dataclasses.field(default_factory=list)
  restart_at: float = 0.0
  touched: float = 0.0
  arrival: float = 0.0
  pending: list[Pending] = dataclasses.field(default_factory=list)
  holds: Any = None


class Cluster:
  """A learner and its actors, started again as a supervisor would.

  Attributes:
    counts: of what has happened, by name.
    recoveries: seconds until episodes came again, by kind of fault.
    memory: of the learner, [(rss, uss)], a list for each start.
    saved: frames of the newest checkpoint when the learner last ended.
    over: whether processes may end by themselves, with status 0.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    logdir: pathlib.Path,
    port: int,
    flags: dict[str, Any],
    learner_flags: dict[str, Any],
    proxies: Sequence[Proxy],
    deadline: float,
    start: processes.Start = processes.start,
  ):
    """Initialises; starts nothing.

    Args:
      folder: of what processes print.
      logdir: of the run.
      port: of the learner.
      flags: of all processes, by name.
      learner_flags: of the learner.
      proxies: of each actor.
      deadline: seconds in which anything that must happen has to.
      start: starts a Python program, given its path and flags, its environment
        variables and a file for what it prints.
    """
    self.folder, self.logdir, self.port = folder, logdir, port
    self._flags, self._learner_flags = flags, learner_flags
    self._deadline = deadline
    self._start = start
    self.seats = [Seat(i, proxy) for i, proxy in enumerate(proxies)]
    self.learner: Process | None = None
    self.learner_restart_at = 0.0
    self.episodes = Episodes(logdir, len(proxies))
    self.counts: collections.Counter = collections.Counter()
    self.recoveries: dict[str, list[float]] = collections.defaultdict(list)
    self.memory: list[list[tuple[int, int]]] = []
    self.over = False
    self._numbers = 0
    self.saved = self._kept = 0
    self._read_bytes: dict[pathlib.Path, int] = {}
    self._memory_at = 0.0

  # What is done to it.

  def start_learner(self, **more: Any) -> None:
    """Starts it, with more flags; it goes on from its checkpoint."""
    flags = self._flags | self._learner_flags | more
    flags |= {'job_name': 'learner', 'task': 0, 'logdir': self.logdir}
    flags['learner_address'] = f'localhost:{self.port}'
    self.learner = self._launch('learner', _LEARNER, flags)
    self.memory.append([])
    self._memory_at = 0.0
    self.counts[_STARTS] += 1

  def start_actor(self, seat: Seat) -> Process:
    """Starts one more for a task."""
    flags = self._flags | {'job_name': 'actor', 'task': seat.task}
    flags['learner_address'] = f'localhost:{seat.proxy.port}'
    process = self._launch(f'actor_{seat.task}', _ACTOR, flags)
    seat.processes.append(process)
    self.counts['starts of actors'] += 1
    return process

  def touch(self, seat: Seat, kind: str, later=0.0, **least: int) -> None:
    """Has the recovery of a seat awaited.

    Args:
      seat: it is.
      kind: of the fault.
      later: seconds until the fault ends.
      **least: see Pending.
    """
    since = time.monotonic() + later
    seat.touched = max(seat.touched, since)
    if all(pending.kind != kind for pending in seat.pending):
      seat.pending.append(Pending(kind, since, **least))

  def touch_all(self, kind: str, later: float = 0.0, restarts=False) -> None:
    """The same for all, also where the learner is to start again."""
    start = self.counts[_STARTS] + restarts
    for seat in self.seats:
      self.touch(seat, kind, later, start=start)

  def next_number(self) -> int:
    """Returns the number of the process that is started next."""
    return self._numbers + 1

  def is_listening(self) -> bool:
    """Whether the learner takes calls."""
    learner = self.learner
    return (
      learner is not None
      and not learner.asked
      and not learner.frozen
      and learner.has_said('Learner 0 listens')
    )

  def recovered(self) -> bool:
    """Whether nothing is awaited, and nothing wrong."""
    return self.is_listening() and all(
      not seat.pending and len(seat.processes) == 1 for seat in self.seats
    )

  def stop(self) -> None:
    """Asks all that run to end, the learner first."""
    self.over = True
    for process in self.running():
      process.send(signal.SIGTERM)

  def kill(self) -> None:
    """Ends everything at once."""
    for process in self.running():
      process.popen.kill()
      process.popen.wait()

  def running(self) -> list[Process]:
    """Returns all that have not been seen to end."""
    learner = [self.learner] if self.learner else []
    return learner + [one for seat in self.seats for one in seat.processes]

  # What must be true of it.

  def look(self) -> None:
    """Raises Violation if what must be true is not; restarts what ended."""
    now = time.monotonic()
    self._look_at_learner(now)
    for seat in self.seats:
      self._look_at_seat(seat, now)
    for path in self.folder.glob('*.txt'):
      self._look_for_tracebacks(path)
    self._read_episodes()
    if self.over:
      return
    for seat in self.seats:
      late = [p for p in seat.pending if now > p.since + self._deadline]
      if late and now > seat.touched + self._deadline:
        raise Violation(f'no episode of actor {seat.task} since {late[0]}')
      if now > max(seat.touched, seat.arrival) + self._deadline:
        raise Violation(f'no episode of actor {seat.task}')

  def _read_episodes(self) -> None:
    for level, process in self.episodes.read(self._kept):
      self._arrived(self.seats[level], process)

  def _launch(self, name: str, program: pathlib.Path, flags: Any) -> Process:
    self._numbers += 1
    path = self.folder / f'{self._numbers:05d}_{name}.txt'
    env = os.environ | {
      'PYTHONPATH': str(ROOT),
      'CUDA_VISIBLE_DEVICES': '',
      'COLUMNS': '80',
      worlds.PROCESS: str(self._numbers),
    }
    command = [str(program), *(f'--{k}={v}' for k, v in flags.items())]
    with open(path, 'wb') as file:
      popen = self._start(command, env, file)
    return Process(self._numbers, popen, path)

  def _look_at_learner(self, now: float) -> None:
    if self.learner is None:
      if not self.over and now >= self.learner_restart_at:
        self.start_learner()
      return
    learner, status = self.learner, self.learner.popen.poll()
    if status is None:
      self._check_asked(learner, now)
      self._check_resumed(learner)
      if now >= self._memory_at and not learner.frozen:
        self._measure(learner, now)
      return
    output = learner.output()
    if learner.asked == signal.SIGKILL:
      well = status == -signal.SIGKILL
    elif learner.asked == FULL_DISK:
      well = status == 1 and 'No space left on device' in output
    elif learner.asked or self.over:
      well = status == 0
    else:
      well = False
    if not well:
      raise Violation(f'the learner has ended with status {status}:\n{output}')
    self._check_saved(learner)
    self.learner = None

  def _check_saved(self, learner: Process) -> None:
    """Notes what must not be lost."""
    self._read_episodes()
    folder = self.logdir / 'checkpoints'
    names = [p for p in folder.glob('*') if p.name.isdigit()]
    if not names:
      return
    newest = max(names, key=lambda path: int(path.name))
    if int(newest.name) < self.saved:
      raise Violation(f'{newest.name} is newest, but {self.saved} were saved')
    self.saved = int(newest.name)
    self._kept = self.episodes.before(self.saved)
    if learner.asked == signal.SIGTERM and self.saved < self.episodes.frames:
      raise Violation(
        f'stopped at {self.episodes.frames} frames, saved {self.saved}'
      )
    age = time.time() - newest.stat().st_mtime
    if learner.asked == signal.SIGKILL and age > SAVE_SECS + _LATE:
      listened = time.monotonic() - learner.since
      if listened > _LATE:
        raise Violation(f'the newest checkpoint is {age:.0f} s old')

  def _check_resumed(self, learner: Process) -> None:
    if learner.resumed or not learner.has_said('Learner 0 listens'):
      return
    learner.resumed = True
    match = re.search(r'Resuming at ([\d,]+) frames', learner.output())
    frames = int(match[1].replace(',', '')) if match else 0
    if frames != self.saved:
      raise Violation(f'{frames} frames are left, but {self.saved} were saved')

  def _measure(self, learner: Process, now: float) -> None:
    self._memory_at = now + 5
    try:
      process = psutil.Process(learner.popen.pid)
      memory = process.memory_full_info()
      threads, files = process.num_threads(), process.num_fds()
    except psutil.Error:
      return  # It has just ended.
    if now < learner.since + _SETTLES or not self.is_listening():
      return
    values = self.memory[-1]
    values.append((memory.rss, memory.uss))
    for name, value in (
      ('threads of the learner, most', threads),
      ('files of the learner, most', files),
    ):
      self.counts[name] = max(self.counts[name], value)
    if memory.uss > values[0][1] + _MOST_GROWTH:
      raise Violation(f'the memory of the learner grows: {values}')
    if threads > _MOST_THREADS or files > _MOST_FILES:
      raise Violation(f'the learner has {threads} threads, {files} files')

  def _check_asked(self, process: Process, now: float) -> None:
    if process.asked and now > process.asked_at + self._deadline:
      raise Violation(
        f'{process.path.name} still runs {self._deadline:.0f} s after signal '
        f'{process.asked}'
      )

  def _look_at_seat(self, seat: Seat, now: float) -> None:
    for process in list(seat.processes):
      status = process.popen.poll()
      if status is None:
        self._check_asked(process, now)
        continue
      self._check_end(process, status)
      seat.processes.remove(process)
      for other in seat.processes:
        other.rivals = True
    if len(seat.processes) == 2 and now > seat.touched + self._deadline:
      raise Violation(f'two actors with --task={seat.task} go on')
    if self.over or seat.processes or now < seat.restart_at:
      return
    if seat.holds is None or seat.holds.done():
      self.touch(seat, 'start of an actor', least=self.next_number())
      self.start_actor(seat)

  def _check_end(self, process: Process, status: int) -> None:
    output = process.output()
    connected = _CONNECTED in output
    if status == -signal.SIGKILL and process.asked:
      return
    if status == 0 and (process.asked or self.over):
      return
    # Before it had a handler for it.
    if status == -signal.SIGTERM and process.asked and not connected:
      return
    if status == 1 and _REPLACED in output and process.rivals:
      self.counts['actors that were replaced'] += 1
      return
    if status == 1 and _ENDED_STRANGE in output and not connected:
      self.counts['actors that gave up at their start'] += 1
      return
    raise Violation(f'{process.path.name} ended with {status}:\n{output}')

  def _look_for_tracebacks(self, path: pathlib.Path) -> None:
    size, seen = path.stat().st_size, self._read_bytes.get(path, 0)
    if size == seen:
      return
    with open(path, 'rb') as file:
      file.seek(max(seen - 100, 0))
      text = file.read()
    self._read_bytes[path] = seen + len(text) - min(seen, 100)
    for sign in (b'Traceback', b'Fatal', b'Segmentation'):
      if sign in text:
        raise Violation(f'{path.name} has {text.decode(errors="replace")}')

  def _arrived(self, seat: Seat, process: int) -> None:
    now = seat.arrival = time.monotonic()
    if process > self._numbers:
      raise Violation(f'an episode of process {process} that never was')
    for pending in list(seat.pending):
      if (
        process >= pending.least
        and self.counts[_STARTS] >= pending.start
        and now > pending.since
      ):
        self.recoveries[pending.kind].append(now - pending.since)
        seat.pending.remove(pending)


def free_port() -> int:
  """Returns one that is free, and that no connection takes by itself."""
  while True:
    port = random.SystemRandom().randrange(20_000, 32_000)
    with socket.socket() as probe:
      try:
        probe.bind(('localhost', port))
      except OSError:
        continue
    return port
