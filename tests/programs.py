"""Python programs that tests start, in forks of a process with TensorFlow.

To start Python and to import TensorFlow takes longer than most of what these
programs do. Each process of pytest has one server that has done so (see
`forkserver.py`); it ends with the process, and takes its forks along.

A program starts as in an interpreter of its own: as `__main__`, with its own
arguments, environment variables, search path, streams, handlers of signals and
random numbers; it ends as one, too. It differs in what belongs to the start of
Python: modules are there before they are imported, and have written their
start-up notes elsewhere; strings have the same hashes in all forks; numpy's
BLAS has one thread. Tests of these things take `subprocess`, and some test of
each kind of process does.
"""

import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time

from tests import forkserver
from tests.waiting import in_thread

ROOT = forkserver.ROOT

# What trainings and tests of agents import, at their start or later. None may
# start a thread.
MODULES = (
  'ale_py',
  'gymnasium.wrappers',
  'imageio.v2',
  'keras',
  'sonnet',
  'tensorboard.summary',
  'tensorflow',
  'scalable_agent.runtimes.a3c_actor',
  'scalable_agent.runtimes.a3c_learner',
  'scalable_agent.runtimes.a3c_local',
  'scalable_agent.runtimes.ga3c_local',
  'scalable_agent.runtimes.impala_actor',
  'scalable_agent.runtimes.impala_learner',
  'scalable_agent.runtimes.impala_local',
  'scalable_agent.runtimes.serial',
  'scalable_agent.runtimes.test',
)


def start(
  argv,
  env=None,
  cwd=ROOT,
  stdin=subprocess.DEVNULL,
  stdout=subprocess.PIPE,
  stderr=subprocess.STDOUT,
):
  """Starts a Python program; returns a Process.

  Args:
    argv: path of the program, or -c and its text; then its arguments.
    env: environment variables; default: those of this process.
    cwd: its working directory.
    stdin: subprocess.DEVNULL or PIPE, for text.
    stdout: a file, or subprocess.PIPE, for text.
    stderr: a file, or subprocess.PIPE, for text, or STDOUT.
  """
  argv = [str(argument) for argument in argv]
  env = dict(os.environ if env is None else env)
  if sys.platform != 'linux':
    # Apple's libraries forbid what a fork has to do.
    return subprocess.Popen(
      [sys.executable, *argv],
      env=env,
      cwd=cwd,
      stdin=stdin,
      stdout=stdout,
      stderr=stderr,
      text=True,
    )
  return Process(_server(), argv, env, cwd, stdin, stdout, stderr)


def run(argv, timeout, **kwargs):
  """Runs a Python program; returns a subprocess.CompletedProcess.

  Args:
    argv: see `start`.
    timeout: seconds; then it is killed and subprocess.TimeoutExpired raised.
    **kwargs: see `start`.
  """
  process = start(argv, **kwargs)
  try:
    output, errors = process.communicate(timeout=timeout)
  finally:
    process.kill()
    process.wait()
  return subprocess.CompletedProcess(argv, process.returncode, output, errors)


class Process:
  """A program in a fork, to be used like a subprocess.Popen.

  Attributes:
    pid: its id.
    returncode: None until its end was seen; -number if a signal ended it.
    stdin: file object of the pipe, or None.
    stdout: file object of the pipe, or None.
    stderr: file object of the pipe, or None.
  """

  def __init__(self, server, argv, env, cwd, stdin, stdout, stderr):
    self.args = argv
    self.returncode = None
    self._server = server
    self._readers = {}
    far_stdin, self.stdin = _ends(stdin, 'w')
    far_stdout, self.stdout = _ends(stdout, 'r')
    if stderr == subprocess.STDOUT:
      far_stderr, self.stderr = os.dup(far_stdout), None
    else:
      far_stderr, self.stderr = _ends(stderr, 'r')
    far_reports, self._reports = _ends(subprocess.PIPE, 'r')
    self._server.request(
      {'argv': argv, 'env': env, 'cwd': str(cwd)},
      [far_stdin, far_stdout, far_stderr, far_reports],
    )
    self.pid = self._hear()

  def _hear(self):
    """Returns the next number that the server says of it."""
    line = self._reports.readline()
    if not line:
      raise self._server.ended()
    return int(line)

  def _await(self, timeout):
    if (
      self.returncode is None
      and (select.select([self._reports], [], [], timeout)[0])
    ):
      self.returncode = self._hear()
      self._reports.close()
    return self.returncode

  def poll(self):
    return self._await(0)

  def wait(self, timeout=None):
    if self._await(timeout) is None:
      raise subprocess.TimeoutExpired(self.args, timeout)
    return self.returncode

  def send_signal(self, number):
    if self.poll() is None:
      os.kill(self.pid, number)

  def terminate(self):
    self.send_signal(signal.SIGTERM)

  def kill(self):
    self.send_signal(signal.SIGKILL)

  def communicate(self, timeout=None):
    """Waits; returns what is left of output and errors, None without a pipe.

    Raises:
      subprocess.TimeoutExpired: it still runs; another call loses nothing.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    if self.stdin:
      self.stdin.close()
    pipes = self.stdout, self.stderr
    for pipe in pipes:
      if pipe and pipe not in self._readers:
        self._readers[pipe] = in_thread(pipe.read)
    self.wait(timeout)
    # What it has started in turn may hold them open.
    left = None if deadline is None else max(deadline - time.monotonic(), 1)
    return tuple(pipe and self._readers[pipe].result(left) for pipe in pipes)

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    for pipe in (self.stdin, self.stdout, self.stderr):
      if pipe:
        pipe.close()
    self.wait()


def _ends(stream, mode):
  """Returns the program's descriptor, and a file object in case of a pipe."""
  if stream == subprocess.PIPE:
    near, far = os.pipe() if mode == 'r' else reversed(os.pipe())
    return far, open(near, mode, encoding='utf-8')
  if stream == subprocess.DEVNULL:
    return os.open(os.devnull, os.O_RDWR), None
  return os.dup(stream.fileno()), None


class Server:
  """A fork server, until the end of this process."""

  def __init__(self, modules, python_path=''):
    """Starts it; it is ready once it has imported the modules.

    Args:
      modules: their names.
      python_path: where it finds those that are not of this repository.
    """
    # Closed by the end of this process, however that comes, and no child
    # inherits this end.
    self._channel, far = socket.socketpair(
      socket.AF_UNIX, socket.SOCK_SEQPACKET
    )
    self._log = tempfile.TemporaryFile('w+', encoding='utf-8')  # noqa: SIM115
    with far:
      self._process = subprocess.Popen(
        [sys.executable, forkserver.__file__, str(far.fileno()), *modules],
        # One thread for BLAS, which would start others as it is imported.
        env=os.environ
        | {
          'OPENBLAS_NUM_THREADS': '1',
          'PYTHONPATH': str(python_path),
        },
        pass_fds=[far.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=self._log,
      )

  def request(self, program, descriptors):
    """Asks for a fork; closes the descriptors.

    Args:
      program: arguments of `forkserver._run`.
      descriptors: the fork's streams, and where to report on it.
    """
    message = json.dumps(program).encode()
    assert len(message) < forkserver.MAX_BYTES
    try:
      socket.send_fds(self._channel, [message], descriptors)
    except OSError as error:
      raise self.ended() from error
    finally:
      for descriptor in descriptors:
        os.close(descriptor)

  def end(self):
    self._channel.close()
    self._process.wait()

  def ended(self):
    """Returns an error that says why it has ended."""
    self._log.seek(0)
    return RuntimeError(f'the fork server has ended:\n{self._log.read()}')


@functools.cache
def _server():
  return Server(MODULES)


def end():
  """Ends the server, if it was ever started, and what is left of its forks."""
  if _server.cache_info().currsize:
    _server().end()
