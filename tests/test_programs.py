"""Programs in forks are like programs in interpreters of their own."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import psutil
import pytest

from tests import programs
from tests.ports import free_port
from tests.waiting import DEADLINE_S, wait_until

TELL = """
import json, os, signal, sys
import numpy as np
print(json.dumps({
  'argv': sys.argv,
  'folders': sys.path[:2],
  'cwd': os.getcwd(),
  'home': os.environ.get('HOME'),
  'given': os.environ.get('GIVEN'),
  'input': sys.stdin.read(),
  'main': sorted(name for name in vars() if not name.startswith('__')),
  'file': globals().get('__file__'),
  'interrupts': signal.getsignal(signal.SIGINT) is signal.default_int_handler,
  'children': signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL,
  'descriptors': os.listdir('/proc/self/fd')[3:-1],
  'threads': os.listdir('/proc/self/task') == [str(os.getpid())],
  'random': int(np.random.randint(2**31)),
}))
"""


def tell(argv, **kwargs):
  result = programs.run(argv, DEADLINE_S, **kwargs)
  assert result.returncode == 0, result.stdout
  return json.loads(result.stdout)


def test_a_program_starts_as_in_an_interpreter_of_its_own(tmp_path):
  path = tmp_path / 'program.py'
  path.write_text(TELL)
  env = {'PYTHONPATH': '/given', 'GIVEN': 'this'}
  told = tell([path, '--one', 2], env=env, cwd=tmp_path)
  random = told.pop('random')
  assert told == {
    'argv': [str(path), '--one', '2'],
    'folders': [str(tmp_path), '/given'],
    'cwd': str(tmp_path),
    'home': None,
    'given': 'this',
    'input': '',
    'main': ['json', 'np', 'os', 'signal', 'sys'],
    'file': str(path),
    'interrupts': True,
    'children': True,
    'descriptors': [],
    'threads': True,
  }
  told = tell(['-c', TELL, 'x'])
  assert told['argv'] == ['-c', 'x']
  assert told['folders'][0] == ''
  assert told['home'] == os.environ.get('HOME')
  assert told['file'] is None
  assert told['random'] != random


@pytest.mark.parametrize(
  ('code', 'status', 'output'),
  [
    ('print("done")', 0, 'done\n'),
    ('import sys; sys.exit(3)', 3, ''),
    ('import sys; sys.exit("said")', 1, 'said\n'),
    ('import os; os._exit(4)', 4, ''),
    ('import os; os.abort()', -signal.SIGABRT, ''),
    ('import os; os.kill(os.getpid(), 2)', -signal.SIGINT, None),
    ('raise ValueError("said")', 1, None),
    ('import atexit; atexit.register(print, "bye")', 0, 'bye\n'),
    (
      'import threading; threading.Timer(0.01, print, ["late"]).start()',
      0,
      'late\n',
    ),
  ],
)
def test_it_ends_as_any_other(code, status, output):
  result = programs.run(['-c', code], DEADLINE_S)
  assert result.returncode == status
  if output is None:
    assert result.stdout.startswith('Traceback')
  else:
    assert result.stdout == output


def test_it_can_be_talked_to_and_stopped():
  process = programs.start(
    [
      '-c',
      'import sys; [print(line, end="", flush=True) for line in sys.stdin]',
    ],
    stdin=subprocess.PIPE,
  )
  with process:
    print('hello', file=process.stdin, flush=True)
    assert process.stdout.readline() == 'hello\n'
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
      process.wait(0.01)
    process.terminate()
    assert process.wait(DEADLINE_S) == -signal.SIGTERM
    process.kill()  # Does nothing, as the number may be another's by now.
  assert process.returncode == -signal.SIGTERM


def test_one_that_nobody_waits_for_does_no_harm_to_others():
  process = programs.start(
    ['-c', 'import sys; sys.stdin.read()'], stdin=subprocess.PIPE
  )
  pid = process.pid
  del process  # Its standard input ends with it.
  wait_until(lambda: not psutil.pid_exists(pid))
  assert programs.run(['-c', ''], DEADLINE_S).returncode == 0


def test_tensorflow_runs_in_it_without_an_import_of_its_own():
  code = """
    import sys
    assert 'tensorflow' in sys.modules
    import tensorflow as tf
    print(int(tf.function(lambda x: x + 1)(41)))
  """
  result = programs.run(['-c', textwrap.dedent(code)], DEADLINE_S)
  assert result.stdout.endswith('42\n')


def test_forks_end_with_the_process_that_asked_for_them():
  # A server without modules is there at once.
  code = """
    import subprocess, time
    from tests import programs
    server = programs.Server([])
    sleep = 'import time; print("sleeps", flush=True); time.sleep(1000)'
    fork = programs.Process(
      server, ['-c', sleep], {}, '/', subprocess.DEVNULL, subprocess.PIPE,
      subprocess.STDOUT)
    assert fork.stdout.readline() == 'sleeps\\n'
    print(fork.pid, flush=True)
    time.sleep(1000)
  """
  process = subprocess.Popen(
    [sys.executable, '-c', textwrap.dedent(code)],
    cwd=programs.ROOT,
    stdout=subprocess.PIPE,
    text=True,
  )
  with process:
    fork = psutil.Process(int(process.stdout.readline()))
    server = fork.parent()
    process.kill()
  wait_until(lambda: not server.is_running() and not fork.is_running())


def test_a_server_with_threads_says_so_and_does_not_fork(tmp_path):
  (tmp_path / 'starts_a_thread.py').write_text(
    'import threading\n'
    'threading.Thread(target=threading.Event().wait, daemon=True).start()\n'
  )
  server = programs.Server(['starts_a_thread'], python_path=tmp_path)
  arguments = ['-c', ''], {}, '/', *[subprocess.DEVNULL] * 3
  with pytest.raises(RuntimeError, match='2 threads, started by an import'):
    programs.Process(server, *arguments)
  server.end()


def test_no_port_is_given_twice():
  ports = [free_port() for _ in range(100)]
  assert len(set(ports)) == 100
