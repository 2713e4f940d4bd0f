"""Processes of experiment.py, as a user starts them."""

import csv
import dataclasses
import os
import subprocess
import sys
import threading
import time

import psutil
import pytest

from tests import programs

ROOT = programs.ROOT
DEADLINE_S = 120

# Options of a run that takes seconds, and of one that does not end.
SMALL = {
  'level_name': 'catch',
  'num_actors': 2,
  'envs_per_actor': 4,
  'batch_size': 4,
  'unroll_length': 10,
  'total_environment_frames': 2000,
}
ENDLESS = {
  'total_environment_frames': 1e9,
  'learning_rate_schedule': 'constant',
}


@dataclasses.dataclass
class Result:
  status: int
  output: str


def flags(logdir, options):
  return [f'--{k}={v}' for k, v in ({'logdir': logdir} | options).items()]


def environment_variables(python_path=ROOT):
  return os.environ | {
    'PYTHONPATH': str(python_path),
    'CUDA_VISIBLE_DEVICES': '',
    'COLUMNS': '80',
  }


def start(
  *argv,
  python_path=ROOT,
  variables=None,
  prefix=(),
  fresh=False,
  output=subprocess.PIPE,
):
  """Starts experiment.py; returns a subprocess.Popen, or what acts as one.

  Args:
    *argv: flags.
    python_path: where it finds modules of a test.
    variables: more environment variables.
    prefix: of the command, such as one that runs it on another host.
    fresh: whether an interpreter starts for it, as for a user; see
      `programs.py`. It does with a prefix.
    output: a file for what it prints; default: a pipe.
  """
  program = [str(ROOT / 'experiment.py'), *argv]
  env = environment_variables(python_path) | (variables or {})
  if not prefix and not fresh:
    return programs.start(program, env, stdout=output)
  return subprocess.Popen(
    [*prefix, sys.executable, *program],
    stdin=subprocess.DEVNULL,
    stdout=output,
    stderr=subprocess.STDOUT,
    text=True,
    env=env,
  )


def finish(process):
  """Returns the Result; a process that hangs is killed and fails the test."""
  try:
    output, _ = process.communicate(timeout=DEADLINE_S)
  except subprocess.TimeoutExpired:
    process.kill()
    output, _ = process.communicate()
    pytest.fail(f'still running after {DEADLINE_S} s:\n{output}')
  return Result(process.returncode, output)


def run(*argv, **kwargs):
  return finish(start(*argv, **kwargs))


def wait_for(condition, process):
  """Polls until `condition`; a process that ends before fails the test."""
  deadline = time.monotonic() + DEADLINE_S
  while not _holds(condition):
    if process.poll() is not None:
      pytest.fail(f'ended too early:\n{process.communicate()[0]}')
    if time.monotonic() > deadline:
      pytest.fail(f'never happened:\n{finish(process).output}')


def _holds(condition):
  """Returns whether it does; if not, pauses before the next look.

  Most looks read a file that grows, on cores that those need whom one waits
  for: they may take a tenth of the time.
  """
  start = time.thread_time()
  if condition():
    return True
  threading.Event().wait(max(0.02, 10 * (time.thread_time() - start)))
  return False


def checkpoints(logdir):
  folder = logdir / 'checkpoints'
  if not folder.is_dir():
    return []
  return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def episodes(logdir):
  try:
    with open(logdir / 'episodes.csv', encoding='utf-8') as file:
      return list(csv.DictReader(file))
  except FileNotFoundError:
    return []


class Job:
  """A process in the background that writes into a file.

  Attributes:
    process: see `start`.
  """

  def __init__(self, path, argv, **kwargs):
    """Starts it.

    Args:
      path: of the file.
      argv: flags of experiment.py.
      **kwargs: see `start`.
    """
    self._path = path
    with open(path, 'ab') as file:
      self.process = start(*argv, output=file, **kwargs)

  @property
  def output(self):
    return self._path.read_text(encoding='utf-8', errors='replace')

  def wait_for(self, condition, deadline_s=DEADLINE_S):
    """Waits for a condition, or for a text in the output.

    The process must be alive until then.
    """
    if isinstance(condition, str):
      text, condition = condition, lambda: text in self.output
    deadline = time.monotonic() + deadline_s
    while not _holds(condition):
      if self.process.poll() is not None and not condition():
        pytest.fail(f'ended too early:\n{self.output}')
      if time.monotonic() > deadline:
        pytest.fail(f'never happened:\n{self.output}')

  def waits(self):
    """Whether an actor waits for a learner that it was connected to."""
    return 'waits for the learner' in self.output.rpartition('is connected')[2]

  def memory(self):
    """Returns psutil's memory_full_info: rss, and uss, which is private."""
    return psutil.Process(self.process.pid).memory_full_info()

  def send(self, number):
    self.process.send_signal(number)

  def finish(self, deadline_s=DEADLINE_S):
    """Waits for the end; returns the Result."""
    try:
      status = self.process.wait(deadline_s)
    except subprocess.TimeoutExpired:
      self.process.kill()
      pytest.fail(f'still running after {deadline_s} s:\n{self.output}')
    return Result(status, self.output)


class Jobs:
  """The processes of a distributed run; a context manager that kills them.

  Attributes:
    logdir: that they get; may be changed.
    address: of the learners.
  """

  def __init__(
    self, folder, options, python_path=ROOT, variables=None, of_learners=None
  ):
    """Initialises; starts nothing.

    Args:
      folder: of the outputs and, below, of the logdir.
      options: dict of flags that all processes get.
      python_path: where they find modules of a test.
      variables: more environment variables.
      of_learners: dict of flags that learners get besides.
    """
    self.logdir = folder / 'logdir'
    self._folder = folder
    self._options = options
    self._python_path = python_path
    self._variables = variables or {}
    self._of_learners = of_learners or {}
    self.address = options.get('learner_address')
    self._jobs = []

  def start(
    self, job_name, task, variables=None, prefix=(), fresh=False, **options
  ):
    """Returns a Job, with more flags if given; see the other `start`."""
    own = {'logdir': self.logdir, 'job_name': job_name, 'task': task}
    options = own | self._options | options
    job = Job(
      self._folder / f'{len(self._jobs)}_{job_name}_{task}.txt',
      [f'--{name}={value}' for name, value in options.items()],
      variables=self._variables | (variables or {}),
      python_path=self._python_path,
      prefix=prefix,
      fresh=fresh,
    )
    self._jobs.append(job)
    return job

  def learner(self, task=0, **options):
    return self.start('learner', task, **(self._of_learners | options))

  def actor(self, task, **options):
    return self.start('actor', task, **options)

  @property
  def token_file(self):
    """Path of the secret that learner 0 makes."""
    return self.logdir / 'cluster_token'

  def frames(self):
    """Returns the frames that the newest checkpoint has."""
    return max(checkpoints(self.logdir), default=0)

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    for job in self._jobs:
      job.process.kill()
      job.process.wait()
