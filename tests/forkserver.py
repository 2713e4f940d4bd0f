"""A process that imports modules once and forks for each program to run.

  python forkserver.py DESCRIPTOR MODULE ...

takes requests from a socket until its other end is closed, and then ends with
all its forks. `programs.py` says what for, and what a fork is like.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import pathlib
import select
import signal
import socket
import sys
import types

ROOT = pathlib.Path(__file__).resolve().parent.parent

MAX_BYTES = 2**17  # Of a request; a socket takes more in one message.
_DESCRIPTORS = 4  # Standard input, output and errors, and that of reports.
_PR_SET_PDEATHSIG = 1


def _serve(channel: socket.socket, wake: int) -> dict:
  """Forks for each request; returns it, but in the fork only.

  The server says into the last descriptor of a request the id of the fork, and
  how it ended: its exit status, or -number of the signal.
  """
  server = os.getpid()
  reports = {}  # By the id of the fork.
  while True:
    ready, _, _ = select.select([channel, wake], [], [])
    if wake in ready:
      os.read(wake, 4096)
      _report_ends(reports)
    if channel not in ready:
      continue
    data, descriptors, _, _ = socket.recv_fds(channel, MAX_BYTES, _DESCRIPTORS)
    if not data:
      os._exit(0)
    # A fork has one thread only: whatever others do or hold would be missing.
    threads = len(os.listdir('/proc/self/task'))
    if threads != 1:
      raise RuntimeError(f'{threads} threads, started by an import')
    *streams, report = descriptors
    fork = os.fork()
    if not fork:
      _die_with(server)
      for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
      for descriptor in (*descriptors, *reports.values()):
        os.close(descriptor)
      return json.loads(data)
    for descriptor in streams:
      os.close(descriptor)
    reports[fork] = report
    os.write(report, b'%d\n' % fork)


def _report_ends(reports: dict[int, int]) -> None:
  while reports:
    fork, status = os.waitpid(-1, os.WNOHANG)
    if not fork:
      return
    report = reports.pop(fork)
    # Who asked for it may not care any more.
    with contextlib.suppress(BrokenPipeError):
      os.write(report, b'%d\n' % os.waitstatus_to_exitcode(status))
    os.close(report)


def _die_with(parent: int) -> None:
  """Lets this process be killed when its parent ends, however that comes."""
  ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
  if os.getppid() != parent:
    os._exit(1)


def _run(argv: list[str], env: dict[str, str], cwd: str) -> None:
  """Runs a program as the interpreter does once it has started."""
  os.environ.clear()
  os.environ.update(env)
  os.chdir(cwd)
  # Python's own generator starts anew by itself.
  if 'numpy' in sys.modules:
    sys.modules['numpy'].random.seed()
  main = types.ModuleType('__main__')
  if argv[0] == '-c':
    _, source, *arguments = argv
    sys.argv = ['-c', *arguments]
    path, folder = '<string>', ''
  else:
    sys.argv = argv
    path, folder = argv[0], os.path.dirname(argv[0])
    source = pathlib.Path(path).read_text(encoding='utf-8')
    main.__file__ = path
  given = env.get('PYTHONPATH', '')
  sys.path[0:1] = [folder, *filter(None, given.split(os.pathsep))]
  sys.modules['__main__'] = main
  exec(compile(source, path, 'exec'), main.__dict__)


def main() -> None:
  # As it must outlive what a terminal interrupts.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  folder, sys.path[0] = sys.path[0], str(ROOT)
  for name in sys.argv[2:]:
    importlib.import_module(name)
  sys.path[0] = folder
  # A collection would copy what forks share, now and at their ends.
  gc.collect()
  gc.freeze()
  channel = socket.socket(fileno=int(sys.argv[1]))
  wake, waker = os.pipe()
  os.set_blocking(waker, False)
  signal.set_wakeup_fd(waker)
  signal.signal(signal.SIGCHLD, lambda *_: None)

  request = _serve(channel, wake)

  signal.set_wakeup_fd(-1)
  signal.signal(signal.SIGCHLD, signal.SIG_DFL)
  signal.signal(signal.SIGINT, signal.default_int_handler)
  channel.close()
  os.close(wake)
  os.close(waker)
  _run(**request)


if __name__ == '__main__':
  # Kept: the program's own takes its place.
  itself = sys.modules['__main__']
  main()
