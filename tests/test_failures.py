"""What docs/distributed.md promises when something fails, on real processes."""

import contextlib
import os
import signal
import socket
import subprocess

import pytest

from benchmarks.soaking import faults
from tests import claims
from tests.certificates import Authority
from tests.ports import free_address
from tests.processes import Jobs, checkpoints, episodes

# Two levels with the same look: episodes.csv tells whose episodes arrive.
TOYS = """
import os
import gymnasium
import numpy as np
from gymnasium import spaces


class Toy(gymnasium.Env):
  observation_space = spaces.Box(-1, 1, (3,), np.float32)
  action_space = spaces.Discrete(2)
  steps = 0

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    if not self.steps:
      print('A toy begins.', flush=True)
    return np.zeros([3], np.float32), {}

  def step(self, action):
    self.steps += 1
    if self.steps == int(os.environ.get('TOY_BREAKS_AT', 0)):
      raise ZeroDivisionError('the simulator broke')
    return np.zeros([3], np.float32), 1.0, self.steps % 5 == 0, False, {}


gymnasium.register(id='Even-v0', entry_point=Toy)
gymnasium.register(id='Odd-v0', entry_point=Toy)
"""

# One that stops, or breaks, where it evaluates few rows: those of actors.
AGENTS = """
import pathlib
import threading
import sonnet as snt
import tensorflow as tf

HERE = pathlib.Path(__file__).parent
MOST_ROWS = 12


def obey(features):
  if len(features) <= MOST_ROWS:
    while (HERE / 'hold').exists():
      threading.Event().wait(0.01)
    if (HERE / 'break').exists():
      raise ZeroDivisionError('the agent broke')
  return features


class Obedient(snt.Module):
  def __init__(self, observation):
    super().__init__()
    self._layer = snt.Linear(4)

  def __call__(self, observation):
    obeyed = tf.py_function(obey, [observation], tf.float32)
    return self._layer(tf.ensure_shape(obeyed, observation.shape))
"""

ENDLESS = {
  'level_name': 'toys_module:Even-v0,toys_module:Odd-v0',
  'num_actors': 2,
  'envs_per_actor': 4,
  'batch_size': 4,
  'unroll_length': 10,
  'total_environment_frames': 1e9,
  'learning_rate_schedule': 'constant',
  'save_checkpoint_secs': 0.5,
}

# In which a process ends that does not wait for others.
SOON_S = 20


@pytest.fixture
def jobs(tmp_path, request):
  """With the learner's --inference, which actors follow, as parameter."""
  (tmp_path / 'toys_module.py').write_text(TOYS)
  options = ENDLESS | {'learner_address': free_address()}
  of_learners = {'inference': getattr(request, 'param', 'actor')}
  with Jobs(tmp_path, options, tmp_path, of_learners=of_learners) as jobs:
    yield jobs


both_ways = pytest.mark.parametrize('jobs', ['actor', 'learner'], indirect=True)


def arrivals(jobs, level):
  """Returns how many episodes of a level have been learned from."""
  return sum(row['level'].endswith(level) for row in episodes(jobs.logdir))


def wait_for_arrivals(jobs, learner, level, count=50):
  before = arrivals(jobs, level)
  learner.wait_for(lambda: arrivals(jobs, level) >= before + count)


def kill_and_replace(jobs, learner, odd):
  """The others go on, and a new one with the actor's task takes its place."""
  odd.send(signal.SIGKILL)
  odd.finish()
  wait_for_arrivals(jobs, learner, 'Even-v0')
  odd = jobs.actor(1)
  learner.wait_for('Actor 1 has joined again.')
  wait_for_arrivals(jobs, learner, 'Odd-v0')
  return odd


def abuse(address, connections):
  """Talks nonsense; returns connections that stay open, and say no more."""
  host, port = address.split(':')
  random = os.urandom(1000)
  half_open = socket.create_connection((host, int(port)))
  half_open.sendall(b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00')
  for _ in range(connections):
    with socket.create_connection((host, int(port))) as connection:
      connection.sendall(random)
  return half_open


def claim_much(jobs):
  """Claims 100 GiB without the token, and 2 GiB with it; sends next to none."""
  stack = contextlib.ExitStack()
  token = jobs.token_file.read_text().strip()
  for method in ('register', 'unroll', 'no_such_method'):
    for length in (2**28, 2**32 - 1):
      claim = claims.claim(jobs.address, method, length, calls=8)
      stack.enter_context(claim)
  claim = claims.claim(jobs.address, 'register', 2**28, token, calls=8)
  stack.enter_context(claim)
  return stack


@both_ways
def test_a_run_survives_its_actors_and_strangers(jobs):
  learner = jobs.learner()
  even, odd = jobs.actor(0), jobs.actor(1)
  wait_for_arrivals(jobs, learner, 'Even-v0')
  wait_for_arrivals(jobs, learner, 'Odd-v0')

  odd = kill_and_replace(jobs, learner, odd)

  # Frozen: the others do not notice, and it goes on when it thaws.
  even.send(signal.SIGSTOP)
  wait_for_arrivals(jobs, learner, 'Odd-v0', 200)
  even.send(signal.SIGCONT)
  wait_for_arrivals(jobs, learner, 'Even-v0')

  # Strangers.
  before = learner.memory().rss
  with abuse(jobs.address, 1000), claim_much(jobs):
    wait_for_arrivals(jobs, learner, 'Even-v0')
    wait_for_arrivals(jobs, learner, 'Odd-v0')
    assert learner.memory().rss < before + 2**27

  # The learner is frozen: nobody has to wait for it in order to end.
  learner.send(signal.SIGSTOP)
  odd.send(signal.SIGINT)
  result = odd.finish(SOON_S)
  assert result.status == 0
  assert 'Stopped by SIGINT' in result.output
  learner.send(signal.SIGCONT)

  # An exception in an environment.
  broken = jobs.actor(1, variables={'TOY_BREAKS_AT': '25'}).finish()
  assert broken.status not in (0, None)
  assert 'Traceback' in broken.output
  assert 'toys_module.py' in broken.output
  learner.wait_for('Actor 1 failed: ZeroDivisionError: the simulator broke')
  wait_for_arrivals(jobs, learner, 'Even-v0')

  # The learner ends it, without an answer from an actor that is frozen.
  even.send(signal.SIGSTOP)
  learner.send(signal.SIGINT)
  assert learner.finish(SOON_S).status == 0
  even.send(signal.SIGCONT)
  even.wait_for(even.waits)
  even.send(signal.SIGTERM)
  assert even.finish(SOON_S).status == 0
  assert 'Traceback' not in learner.output + even.output


def test_a_run_of_a3c_survives_an_actor_and_its_learner(tmp_path):
  (tmp_path / 'toys_module.py').write_text(TOYS)
  options = ENDLESS | {'algorithm': 'a3c', 'learner_address': free_address()}
  del options['batch_size']
  with Jobs(tmp_path, options, python_path=tmp_path) as jobs:
    learner = jobs.learner()
    even, odd = jobs.actor(0), jobs.actor(1)
    wait_for_arrivals(jobs, learner, 'Odd-v0')
    odd = kill_and_replace(jobs, learner, odd)

    learner.wait_for(lambda: len(checkpoints(jobs.logdir)) >= 2)
    learner.send(signal.SIGKILL)
    learner.finish()
    saved = jobs.frames()
    learner = jobs.learner(total_environment_frames=saved + 5000)
    learner.wait_for(f'Resuming at {saved:,} frames.')
    results = [job.finish() for job in (learner, even, odd)]
  assert [result.status for result in results] == [0, 0, 0], results
  assert all('Training is over' in result.output for result in results[1:])
  assert jobs.frames() >= saved + 5000


@pytest.mark.parametrize('jobs', ['learner'], indirect=True)
def test_calls_of_many_actors_wait_and_an_agent_that_breaks_ends_its_learner(
  jobs, tmp_path
):
  (tmp_path / 'agents_module.py').write_text(AGENTS)
  network = {'network': 'agents_module:Obedient', 'envs_per_actor': 1}
  many = network | {'num_actors': 12}
  learner = jobs.learner(**many)
  learner.wait_for('Learner 0 listens')
  hold = tmp_path / 'hold'
  hold.touch()
  actors = [jobs.actor(task, **many) for task in range(11)]
  # As many as there are wait for their first action; they can be joined, and
  # left, all the same.
  for task in range(11):
    learner.wait_for(f'Actor {task} has joined.')
  late = jobs.actor(11, **many)
  learner.wait_for('Actor 11 has joined.')
  late.send(signal.SIGINT)
  assert late.finish(SOON_S).status == 0
  hold.unlink()
  wait_for_arrivals(jobs, learner, 'Even-v0')
  wait_for_arrivals(jobs, learner, 'Odd-v0')

  (tmp_path / 'break').touch()
  result = learner.finish()
  assert result.status not in (0, None)
  assert 'Traceback' in result.output
  assert 'the agent broke' in result.output
  for actor in actors:
    actor.wait_for(actor.waits)
    assert 'refuse' not in actor.output


@both_ways
def test_actors_wait_for_a_learner_that_comes_late_or_comes_back(jobs, request):
  even, odd = jobs.actor(0), jobs.actor(1)
  for actor in (even, odd):
    actor.wait_for('Waiting for --cluster_token_file=')
  learner = jobs.learner()
  wait_for_arrivals(jobs, learner, 'Even-v0')
  wait_for_arrivals(jobs, learner, 'Odd-v0')
  # They have said once what they wait for: a token, and then, if it has not
  # come meanwhile, whoever has made it.
  assert even.output.count('Waiting for') == 1
  said = even.output.count('waits for the learner')
  assert said <= 1
  assert even.output.count('A toy begins.') == ENDLESS['envs_per_actor']
  learner.wait_for(lambda: len(checkpoints(jobs.logdir)) >= 2)
  learner.send(signal.SIGKILL)
  learner.finish()
  saved = jobs.frames()
  for actor in (even, odd):
    actor.wait_for(actor.waits)

  learner = jobs.learner(total_environment_frames=saved + 5000)
  learner.wait_for(f'Resuming at {saved:,} frames.')
  results = [job.finish() for job in (learner, even, odd)]
  assert [result.status for result in results] == [0, 0, 0], results
  assert 'Training is over' in results[1].output
  assert even.output.count('waits for the learner') == said + 1
  # Where the learner evaluates the agent, its state of their episodes is lost.
  begun = 2 if request.node.callspec.params['jobs'] == 'learner' else 1
  toys = begun * ENDLESS['envs_per_actor']
  assert even.output.count('A toy begins.') == toys
  assert jobs.frames() >= saved + 5000
  # Nothing is left of what came after the checkpoint.
  frames = [int(row['frames']) for row in episodes(jobs.logdir)]
  assert frames == sorted(frames)


@pytest.fixture
def small_disk(tmp_path):
  """A file system with room for a few checkpoints."""
  path = tmp_path / 'disk'
  path.mkdir()
  mount = ['mount', '-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', str(path)]
  try:
    subprocess.run(mount, check=True, capture_output=True, text=True)
  except (OSError, subprocess.CalledProcessError) as error:
    pytest.skip(f'no file system can be mounted, which takes root: {error}')
  yield path
  subprocess.run(['umount', '--lazy', str(path)], check=True)


def test_a_full_disk_ends_the_learner_with_its_cause_and_no_actor(
  jobs, small_disk
):
  never = {'save_checkpoint_secs': 1e9}
  jobs.logdir = small_disk / 'logdir'
  learner = jobs.learner(**never)
  even, odd = jobs.actor(0), jobs.actor(1)
  wait_for_arrivals(jobs, learner, 'Even-v0')
  ballast = faults.fill(small_disk)
  result = learner.finish()
  assert result.status == 1
  assert 'Traceback' not in result.output
  line = result.output.splitlines()[-1]
  assert line.startswith('experiment.py: cannot write ')
  assert str(jobs.logdir) in line
  assert 'No space left on device. Free some space there' in line
  assert 'What was learned could not be saved: cannot save' in result.output
  for actor in (even, odd):
    # It hears that the learner stops, or finds it gone.
    actor.wait_for(actor.waits)
    assert 'refuse' not in actor.output

  ballast.unlink()
  learner = jobs.learner(**(never | {'total_environment_frames': 2000}))
  results = [job.finish() for job in (learner, even, odd)]
  assert [result.status for result in results] == [0, 0, 0], results
  assert jobs.frames() >= 2000


def test_a_learner_gives_up_on_actors_that_never_come(jobs):
  result = jobs.learner(actor_timeout=1).finish()
  assert result.status == 1
  assert 'Traceback' not in result.output
  line = result.output.splitlines()[-1]
  assert line.startswith('experiment.py: no actor was heard of for --actor_tim')
  assert 'Saved 0 frames' in result.output


@pytest.mark.parametrize('jobs', ['learner'], indirect=True)
def test_a_learner_gives_up_on_actors_that_are_gone(jobs):
  actor = jobs.actor(0)
  learner = jobs.learner(actor_timeout=5)
  wait_for_arrivals(jobs, learner, 'Even-v0')
  actor.send(signal.SIGKILL)
  result = learner.finish()
  assert result.status == 1
  assert 'Traceback' not in result.output
  assert jobs.frames() > 0
  assert f'Saved {jobs.frames():,} frames' in result.output


def test_an_actor_gives_up_on_a_learner_that_is_gone_for_good(jobs):
  learner = jobs.learner()
  # It must not give up on one that is about to come.
  learner.wait_for('Learner 0 listens')
  actor = jobs.actor(0, reconnect_timeout=1)
  wait_for_arrivals(jobs, learner, 'Even-v0')
  learner.send(signal.SIGKILL)
  result = actor.finish()
  assert result.status == 1
  assert 'Traceback' not in result.output
  line = result.output.splitlines()[-1]
  assert line.startswith('experiment.py: no learner at --learner_address=')
  assert '--reconnect_timeout=1 seconds' in line


class TestMismatches:
  """Each is told by one line, at both sides where the learner heard of it."""

  @pytest.fixture(scope='class')
  @classmethod
  def jobs(cls, tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp('mismatches')
    (tmp_path / 'toys_module.py').write_text(TOYS)
    options = ENDLESS | {'learner_address': free_address()}
    with Jobs(tmp_path, options, python_path=tmp_path) as jobs:
      jobs.running = jobs.learner()
      jobs.running.wait_for('Learner 0 listens')
      yield jobs

  @pytest.fixture(autouse=True)
  def _goes_on(self, jobs):
    yield
    assert jobs.running.process.poll() is None, jobs.running.output

  def last_line(self, job):
    """Returns the line with which a process has failed."""
    result = job.finish()
    assert result.status == 1, result
    assert 'Traceback' not in result.output
    line = result.output.splitlines()[-1]
    assert line.startswith('experiment.py: ')
    return line

  @pytest.mark.parametrize(
    ('options', 'difference'),
    [
      (
        {'level_name': 'toys_module:Odd-v0,toys_module:Even-v0'},
        '--level_name is toys_module:Even-v0,toys_module:Odd-v0 at the',
      ),
      ({'lstm': True}, '--lstm is False at the learner and True at actor 0'),
    ],
    ids=['level', 'network'],
  )
  def test_an_actor_that_does_not_fit_is_refused(
    self, jobs, options, difference
  ):
    assert difference in self.last_line(jobs.actor(0, **options))
    assert difference in jobs.running.output

  def test_a_port_in_use_is_named(self, jobs):
    other = jobs.learner(logdir=jobs.logdir.parent / 'other')
    line = self.last_line(other)
    assert jobs.address in line
    assert 'another process listens on this port' in line

  def test_a_stranger_on_the_port_is_named(self, jobs):
    with socket.socket() as stranger:
      stranger.bind(('localhost', 0))
      stranger.listen()
      address = f'localhost:{stranger.getsockname()[1]}'
      line = self.last_line(jobs.actor(0, learner_address=address))
    assert f'{address} takes connections but does not answer' in line

  def test_an_unknown_host_is_waited_for_and_named(self, jobs):
    address = 'no-such-host.invalid:8000'
    actor = jobs.actor(0, learner_address=address, reconnect_timeout=1)
    line = self.last_line(actor)
    assert f'no learner at --learner_address={address} for' in line
    assert '--reconnect_timeout=1 seconds' in line
    assert 'name of the host is not known' in line
    assert actor.output.count('waits for the learner') == 1

  def write(self, jobs, name, mode=0o600):
    """Writes another token than that of the run; returns the path."""
    path = jobs.logdir.parent / name
    path.write_text('0123456789abcdef' * 4 + '\n')
    path.chmod(mode)
    return path

  def test_a_proxy_is_used_where_one_is_asked_for(self, jobs):
    # Where it is not, `test_distributed.py` has the same variable.
    nowhere = {'http_proxy': 'http://127.0.0.1:9'}
    asked = {'cluster_proxy': True, 'reconnect_timeout': 1}
    line = self.last_line(jobs.actor(0, variables=nowhere, **asked))
    assert f'no learner at --learner_address={jobs.address} for' in line

  def test_a_wrong_token_is_refused(self, jobs):
    wrong = self.write(jobs, 'wrong')
    line = self.last_line(jobs.actor(0, cluster_token_file=wrong))
    assert 'does not show the token of the run' in line
    assert '--cluster_token_file' in line
    assert 'A call without the token of the run' in jobs.running.output

  def test_an_actor_without_a_token_is_refused(self, jobs):
    line = self.last_line(jobs.actor(0, insecure_loopback=True))
    assert 'does not show the token of the run' in line

  def test_a_token_that_others_can_read_is_not_used(self, jobs):
    path = self.write(jobs, 'readable', 0o640)
    line = self.last_line(jobs.actor(0, cluster_token_file=path))
    assert f'Run: chmod 600 {path}' in line

  def test_a_token_that_nobody_makes_is_waited_for_and_named(self, jobs):
    path = jobs.logdir.parent / 'nobody' / 'makes_it'
    missing = {'cluster_token_file': path, 'reconnect_timeout': 1}
    actor = jobs.actor(0, **missing)
    line = self.last_line(actor)
    assert f'{path} was not there within --reconnect_timeout=1 seconds' in line
    assert 'copy it from there' in line

  def test_a_learner_that_others_can_reach_needs_a_token(self, jobs):
    options = {'listen_address': '0.0.0.0:8000', 'insecure_loopback': True}
    line = self.last_line(jobs.learner(**options))
    assert '--insecure_loopback does without a secret' in line
    assert '0.0.0.0:8000' in line

  def test_an_actor_with_tls_does_not_trust_a_learner_without(
    self, jobs, tmp_path
  ):
    authority = Authority(tmp_path / 'authority').certificate
    line = self.last_line(jobs.actor(0, tls_authority=authority))
    assert 'TLS' in line
