"""What docs/distributed.md promises when something fails, on real processes."""

import contextlib
import os
import signal
import socket
import subprocess

import pytest

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
    return np.zeros([3], np.float32), {}

  def step(self, action):
    self.steps += 1
    if self.steps == int(os.environ.get('TOY_BREAKS_AT', 0)):
      raise ZeroDivisionError('the simulator broke')
    return np.zeros([3], np.float32), 1.0, self.steps % 5 == 0, False, {}


gymnasium.register(id='Even-v0', entry_point=Toy)
gymnasium.register(id='Odd-v0', entry_point=Toy)
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


@pytest.fixture
def jobs(tmp_path):
  (tmp_path / 'toys_module.py').write_text(TOYS)
  options = ENDLESS | {'learner_address': free_address()}
  with Jobs(tmp_path, options, python_path=tmp_path) as jobs:
    yield jobs


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
  with abuse(jobs.address, 1000):
    wait_for_arrivals(jobs, learner, 'Even-v0')
    wait_for_arrivals(jobs, learner, 'Odd-v0')

  # An exception in an environment.
  odd.send(signal.SIGTERM)
  assert 'Stopped by SIGTERM' in odd.finish().output
  broken = jobs.actor(1, variables={'TOY_BREAKS_AT': '25'}).finish()
  assert broken.status not in (0, None)
  assert 'Traceback' in broken.output
  assert 'toys_module.py' in broken.output
  learner.wait_for('Actor 1 failed: ZeroDivisionError: the simulator broke')
  wait_for_arrivals(jobs, learner, 'Even-v0')

  # The learner ends it.
  learner.send(signal.SIGTERM)
  assert learner.finish().status == 0
  assert even.process.poll() is None, even.output
  even.send(signal.SIGTERM)
  assert even.finish().status == 0
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


def test_unrolls_may_take_all_of_tensorflows_threads_at_once(jobs):
  # As if as many had come as there are threads to answer them.
  learner = jobs.learner(
    variables={'TF_NUM_INTEROP_THREADS': '1'}, total_environment_frames=2000
  )
  actors = [jobs.actor(0), jobs.actor(1)]
  assert learner.finish().status == 0
  assert [actor.finish().status for actor in actors] == [0, 0]


def test_actors_wait_for_a_learner_that_comes_late_or_comes_back(jobs):
  even, odd = jobs.actor(0), jobs.actor(1)
  for actor in (even, odd):
    actor.wait_for('waits for the learner at')
  learner = jobs.learner()
  wait_for_arrivals(jobs, learner, 'Even-v0')
  wait_for_arrivals(jobs, learner, 'Odd-v0')
  # They have said so once.
  assert even.output.count('waits for the learner') == 1
  learner.wait_for(lambda: len(checkpoints(jobs.logdir)) >= 2)
  learner.send(signal.SIGKILL)
  learner.finish()
  saved = jobs.frames()
  for actor in (even, odd):
    actor.wait_for(lambda actor=actor: actor.output.count('waits for') == 2)

  learner = jobs.learner(total_environment_frames=saved + 5000)
  learner.wait_for(f'Resuming at {saved:,} frames.')
  results = [job.finish() for job in (learner, even, odd)]
  assert [result.status for result in results] == [0, 0, 0], results
  assert 'Training is over' in results[1].output
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


def fill(disk):
  """Returns a file that leaves not a byte of a file system."""
  ballast = disk / 'ballast'
  with open(ballast, 'wb', buffering=0) as file:
    for size in (2**20, 2**12, 1):
      with contextlib.suppress(OSError):
        while True:
          file.write(bytes(size))
  return ballast


def test_a_full_disk_ends_the_learner_with_its_cause_and_no_actor(
  jobs, small_disk
):
  never = {'save_checkpoint_secs': 1e9, 'logdir': small_disk / 'logdir'}
  jobs.logdir = never['logdir']
  learner = jobs.learner(**never)
  even, odd = jobs.actor(0), jobs.actor(1)
  wait_for_arrivals(jobs, learner, 'Even-v0')
  ballast = fill(small_disk)
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
    actor.wait_for(
      lambda actor=actor: (
        'waits for' in actor.output.rpartition('is connected')[2]
      )
    )
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
  """Each is refused by an error on both sides that names the difference."""

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

  @pytest.mark.parametrize(
    ('options', 'parts'),
    [
      (
        {'level_name': 'toys_module:Odd-v0,toys_module:Even-v0'},
        ['--level_name is toys_module:Even-v0,toys_module:Odd-v0 at the'],
      ),
      ({'lstm': True}, ['--lstm is False at the learner and True at actor 0']),
      ({'learner_address': 'no-such-host.invalid:8000'}, ['no-such-host']),
    ],
    ids=['level', 'network', 'host'],
  )
  def test_an_actor_that_does_not_fit_is_refused(self, jobs, options, parts):
    result = jobs.actor(0, **options).finish()
    assert result.status == 1
    assert 'Traceback' not in result.output
    line = result.output.splitlines()[-1]
    assert line.startswith('experiment.py: ')
    for part in parts:
      assert part in line
      if 'learner_address' not in options:
        assert part in jobs.running.output
    assert jobs.running.process.poll() is None

  def test_a_port_in_use_is_named(self, jobs):
    result = jobs.learner(logdir=jobs.logdir.parent / 'other').finish()
    assert result.status == 1
    assert 'Traceback' not in result.output
    line = result.output.splitlines()[-1]
    assert jobs.address in line
    assert 'another process listens on this port' in line

  def test_a_stranger_on_the_port_is_named(self, jobs):
    with socket.socket() as stranger:
      stranger.bind(('localhost', 0))
      stranger.listen()
      address = f'localhost:{stranger.getsockname()[1]}'
      result = jobs.actor(0, learner_address=address).finish()
    assert result.status == 1
    assert f'{address} takes connections but does not answer' in result.output
