"""One part of a soak: a cluster, its faults, and what came of them."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import pathlib
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.soaking import cluster as cluster_lib
from benchmarks.soaking import faults, processes, strangers, worlds
from benchmarks.soaking.processes import Violation
from benchmarks.soaking.proxy import Loop, Proxy
from scalable_agent.transport import credentials

# Seconds between two looks, and between two lines.
_LOOK, _LINE = 0.3, 15.0
# Faults between two times at which all must have recovered.
_ROUND = 250
# Last faults and characters that are printed of what went wrong.
_SHOWN_FAULTS, _SHOWN = 60, 3000
_SIZE = '64m'
_MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Settings:
  """What a part of a soak is.

  Attributes:
    inference: who evaluates the agent.
    tls: whether all is encrypted.
    faults: to inject.
    seed: of their choice.
    pause: mean seconds between two.
    actors: their number; 0: as many as are apt.
    deadline: seconds in which what must happen has to.
    without: kinds of faults that are left out.
    start: see Cluster.
  """

  inference: str
  tls: bool
  faults: int
  seed: int = 0
  pause: float = 0.15
  actors: int = 0
  deadline: float = 120.0
  without: tuple[str, ...] = ()
  start: processes.Start = processes.start

  @property
  def num_actors(self) -> int:
    return self.actors or (6 if self.inference == 'learner' else 2)

  def __str__(self) -> str:
    return (
      f'--inference={self.inference} {"with" if self.tls else "without"} TLS'
    )


class Soak:
  """One part: a cluster with its faults.

  Attributes:
    cluster: of its processes.
    injected: number of faults, by kind.
    seconds: that it took.
  """

  def __init__(self, settings: Settings, folder: pathlib.Path):
    """Initialises; makes and starts nothing.

    Args:
      settings: of the part.
      folder: empty, for all that is written.
    """
    self._settings = settings
    self._folder = folder
    self._rng = random.Random(settings.seed)
    self._history: collections.deque = collections.deque(maxlen=_SHOWN_FAULTS)
    self._attacks: list[concurrent.futures.Future] = []
    self._began = time.monotonic()
    self._look_at = self._line_at = 0.0
    self.injected: collections.Counter = collections.Counter()
    self.seconds = 0.0
    self.cluster: Any = None

  def run(self) -> None:
    """Raises cluster.Violation where something is not as it must be."""
    with contextlib.ExitStack() as stack:
      self._make(stack)
      try:
        self._inject()
        self._end()
        self._last_run()
      except (Violation, strangers.Accepted, KeyboardInterrupt):
        self._tell_history()
        raise
      finally:
        self.seconds = time.monotonic() - self._began

  def _make(self, stack: contextlib.ExitStack) -> None:
    settings = self._settings
    logdir = self._folder / 'disk'
    logdir.mkdir()
    disk = stack.enter_context(_small_disk(logdir))
    flags_, own = _secrets(self._folder, settings.tls)
    port = cluster_lib.free_port()
    loop = stack.enter_context(Loop())
    self._pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(4))
    self._cluster_flags = {
      **flags_['all'],
      'level_name': ','.join(
        map(worlds.level_name, range(settings.num_actors))
      ),
      'num_actors': settings.num_actors,
      'envs_per_actor': 2,
      'unroll_length': 10,
      'batch_size': 4,
      'total_environment_frames': 1e12,
      'reconnect_timeout': 1000,
      'inference': settings.inference,
    }
    printed = self._folder / 'printed'
    printed.mkdir()
    self.cluster = cluster_lib.Cluster(
      printed,
      logdir / 'logdir',
      port,
      self._cluster_flags,
      flags_['learner']
      | {
        'learning_rate_schedule': 'constant',
        'save_checkpoint_secs': cluster_lib.SAVE_SECS,
        'summary_secs': 60,
      },
      [Proxy(loop, port) for _ in range(settings.num_actors)],
      settings.deadline,
      settings.start,
    )
    stack.callback(self.cluster.kill)
    learner = strangers.Learner(
      port, own, settings.inference, settings.num_actors
    )
    self._strangers = strangers.Strangers(learner)
    stack.callback(self._strangers.close)
    self._faults = faults.Faults(
      self.cluster, self._strangers, self._submit, self._rng, disk
    )

  def _inject(self) -> None:
    self.cluster.touch_all('start of all')
    self._recover()
    kinds = self._faults.kinds(self._settings.inference, self._settings.tls)
    for kind in self._settings.without:
      kinds.pop(kind)
    while self.injected.total() < self._settings.faults:
      (kind,) = self._rng.choices(list(kinds), list(kinds.values()))
      what = self._faults.inject(kind)
      if what is not None:
        self.injected[kind] += 1
        self._note(f'{kind}: {what}')
        if not self.injected.total() % _ROUND:
          self._recover()
      self._wait(self._rng.expovariate(1 / self._settings.pause))
    self._recover()

  def _submit(self, attack: Callable[..., None], *arguments: Any) -> Any:
    """Has an attack made in another thread; not too many at a time."""
    while len(self._attacks) > 20:
      self._wait(0.1)
    future = self._pool.submit(attack, *arguments)
    self._attacks.append(future)
    return future

  def _wait(self, seconds: float) -> None:
    """Looks, and ends what is due to end, for some seconds."""
    until = time.monotonic() + seconds
    while True:
      self._faults.end_those_due()
      if time.monotonic() >= self._look_at:
        self._look()
      left = until - time.monotonic()
      if left <= 0:
        return
      time.sleep(min(left, 0.05))

  def _look(self) -> None:
    self._look_at = time.monotonic() + _LOOK
    for attack in [one for one in self._attacks if one.done()]:
      self._attacks.remove(attack)
      attack.result()
    self.cluster.look()
    if time.monotonic() >= self._line_at:
      self._line_at = time.monotonic() + _LINE
      self._print_line()

  def _recover(self) -> None:
    """Waits until all actors' episodes arrive."""
    self._note('waits until all have recovered')
    deadline = time.monotonic() + 2 * self._settings.deadline
    while (
      self._attacks or self._faults.are_left() or not self.cluster.recovered()
    ):
      if time.monotonic() > deadline:
        raise Violation(f'not all have recovered: {self.cluster.seats}')
      self._wait(0.1)

  def _end(self) -> None:
    self._note('stops all by SIGTERM')
    self.cluster.stop()
    self._wait_for_ends()

  def _last_run(self) -> None:
    self._note('trains to the end')
    more = self.cluster.saved + 1000
    learner = {'total_environment_frames': more}
    self.cluster.start_learner(**learner)
    actors = list(map(self.cluster.start_actor, self.cluster.seats))
    self._wait_for_ends()
    for process in actors:
      if 'Training is over' not in process.output():
        raise Violation(f'not told: {process.output()}')

  def _wait_for_ends(self) -> None:
    deadline = time.monotonic() + self._settings.deadline
    while self.cluster.running():
      if time.monotonic() > deadline:
        left = [one.path.name for one in self.cluster.running()]
        raise Violation(f'they do not end: {left}')
      self._wait(0.1)

  def _note(self, what: str) -> None:
    self._history.append(f'{time.monotonic() - self._began:8.2f} {what}')

  def _print_line(self) -> None:
    seats = self.cluster.seats
    memory = [v for start in self.cluster.memory for v in start][-1:]
    print(
      f'{time.monotonic() - self._began:6.0f} s  '
      f'{self.injected.total()} faults  '
      f'{self.cluster.episodes.frames:,} frames  '
      f'{len(self.cluster.episodes):,} episodes  '
      f'{self.cluster.counts["starts of actors"]} starts of actors, '
      f'{self.cluster.counts["starts of the learner"]} of the learner  '
      f'{sum(bool(seat.pending) for seat in seats)} of {len(seats)} recover  '
      f'learner {memory[0][0] // _MIB if memory else 0} MiB',
      flush=True,
    )

  def _tell_history(self) -> None:
    print('\n'.join(['', 'The last faults:', *self._history]))
    if self.cluster is None:
      return
    for process in self.cluster.running():
      text = process.output()[-_SHOWN:]
      print(f'\n--- {process.path.name}\n{text}', flush=True)

  def summary(self) -> str:
    """Returns tables of what was done and what followed."""
    lines = [
      f'{self._settings}: {self.injected.total()} faults in '
      f'{self.seconds:.0f} s, {len(self.cluster.episodes):,} episodes, '
      f'{self.cluster.episodes.frames:,} frames',
      '',
      '| fault | times | recovered, s: p50 | p99 | most | waits |',
      '|---|---|---|---|---|---|',
    ]
    recoveries = self.cluster.recoveries
    for kind in sorted({*self.injected, *recoveries}):
      times = recoveries.get(kind, [])
      cells = [kind, self.injected[kind] or '']
      cells += (
        [f'{x:.1f}' for x in np.quantile(times, [0.5, 0.99, 1])]
        if (times)
        else 3 * ['']
      )
      lines.append('| ' + ' | '.join(map(str, [*cells, len(times)])) + ' |')
    lines.append('')
    lines += [f'{k}: {n}' for k, n in sorted(self.cluster.counts.items())]
    for i, values in enumerate(self.cluster.memory):
      if len(values) > 1:
        (rss, uss), (last_rss, last_uss) = values[0], values[-1]
        lines.append(
          f'memory of start {i + 1} of the learner, MiB: {rss // _MIB} (private'
          f' {uss // _MIB}), at its end {last_rss // _MIB} '
          f'({last_uss // _MIB})'
        )
    return '\n'.join(lines)


@contextlib.contextmanager
def _small_disk(path: pathlib.Path) -> Iterator[pathlib.Path | None]:
  """Makes a small file system at a path; yields None where it cannot."""
  mount = ['mount', '-t', 'tmpfs', '-o', f'size={_SIZE}', 'tmpfs', str(path)]
  try:
    subprocess.run(mount, check=True, capture_output=True, text=True)
  except (OSError, subprocess.CalledProcessError) as error:
    print(f'No disk will be full: a small one takes root ({error}).')
    yield None
    return
  try:
    yield path
  finally:
    subprocess.run(['umount', '--lazy', str(path)], check=True)


def _secrets(
  folder: pathlib.Path, tls: bool
) -> tuple[dict[str, dict], credentials.Credentials]:
  """Makes a token, and a certificate; returns flags and what actors show."""
  token = folder / 'token'
  token.touch(0o600)
  token.write_text(f'{random.SystemRandom().getrandbits(128):x}\n')
  common: dict[str, Any] = {'cluster_token_file': token}
  learner: dict[str, Any] = {}
  authority = b''
  if tls:
    certificate, key = folder / 'certificate.pem', folder / 'key.pem'
    command = ['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes']
    command += ['-subj', '/CN=localhost', '-days', '30']
    command += ['-addext', 'subjectAltName=DNS:localhost']
    command += ['-keyout', str(key), '-out', str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    learner = {'tls_certificate': certificate, 'tls_key': key}
    authority = certificate.read_bytes()
    common['tls_authority'] = certificate
    # Learners take actors without a certificate.
    learner['tls_authority'] = ''
  own = credentials.Credentials(token.read_text().strip(), authority=authority)
  return {'all': common, 'learner': learner}, own
