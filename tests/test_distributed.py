"""Actors and learners as processes: they learn, stop, resume and share."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests import processes
from tests.ports import free_address, free_addresses
from tests.processes import (
  DEADLINE_S,
  ROOT,
  Jobs,
  checkpoints,
  environment_variables,
  episodes,
  run,
  wait_for,
)

SMALL = processes.SMALL | {'total_environment_frames': 4000}
ENDLESS = processes.ENDLESS | {'save_checkpoint_secs': 0.5}
# A proxy that there is not: whoever asked it would reach nobody.
NOWHERE = dict.fromkeys(
  ('grpc_proxy', 'http_proxy', 'https_proxy'), 'http://127.0.0.1:9'
)

# Actors follow what learners have.
both_ways = pytest.mark.parametrize('inference', ['actor', 'learner'])


def start_all(jobs, num_learners=1, num_actors=2):
  learners = [jobs.learner(task) for task in range(num_learners)]
  return learners, [jobs.actor(task) for task in range(num_actors)]


def assert_all_end_well(jobs):
  results = [job.finish() for job in jobs]
  assert [result.status for result in results] == [0] * len(jobs), results
  assert not any('Traceback' in result.output for result in results), results


def mean_return(logdir):
  """Returns the mean of the last 100 episodes."""
  returns = [float(row['episode_return']) for row in episodes(logdir)]
  return np.mean(returns[-100:]) if len(returns) >= 100 else -np.inf


@pytest.mark.slow
@both_ways
@pytest.mark.parametrize(
  ('level_name', 'score'),
  [
    ('catch', 0.95),
    pytest.param('CartPole-v1', 475, marks=pytest.mark.nightly),
  ],
)
def test_a_learner_and_two_actors_learn(tmp_path, level_name, score, inference):
  # The defaults, as a user has them: the schedule ends before the deadline.
  options = {
    'level_name': level_name,
    'num_actors': 2,
    'learner_address': free_address(),
  }
  with Jobs(tmp_path, options, of_learners={'inference': inference}) as jobs:
    (learner,), actors = start_all(jobs)
    # Minutes where the cores have other work.
    learner.wait_for(lambda: mean_return(jobs.logdir) >= score, 600)
    for job in (learner, *actors):
      job.send(signal.SIGTERM)
    assert_all_end_well([learner, *actors])


def test_a_run_leaves_what_one_of_a_single_machine_leaves(tmp_path):
  options = SMALL | {'learner_address': free_address()}
  with Jobs(tmp_path, options) as jobs:
    learners, actors = start_all(jobs)
    assert_all_end_well([*learners, *actors])
    assert jobs.frames() >= 4000
    assert len(episodes(jobs.logdir)) > 100
    assert list(jobs.logdir.glob('events.out.tfevents.*'))
    assert json.loads((jobs.logdir / 'config.json').read_text())['task'] == 0
    # It can be tested, and goes on alone.
    result = run('--mode=test', f'--logdir={jobs.logdir}')
    assert result.status == 0, result.output
    more = {'total_environment_frames': jobs.frames() + 500}
    result = run(
      *(f'--{k}={v}' for k, v in (SMALL | more).items()),
      f'--logdir={jobs.logdir}',
    )
    assert result.status == 0, result.output
    assert 'Resuming at' in result.output
    # Actors that come to a run that is over are sent home.
    jobs.frames()
    learners, actors = start_all(jobs)
    assert_all_end_well([*learners, *actors])
    assert 'already holds' in learners[0].output


def test_an_actor_that_is_environments_only_has_no_tensorflow(tmp_path):
  options = {
    'level_name': 'pong',
    'num_actors': 1,
    'envs_per_actor': 4,
    'learner_address': free_address(),
  }
  with Jobs(tmp_path, options, of_learners={'inference': 'learner'}) as jobs:
    learner, actor = jobs.learner(), jobs.actor(0, fresh=True)
    learner.wait_for(lambda: episodes(jobs.logdir))
    maps = pathlib.Path(f'/proc/{actor.process.pid}/maps').read_text()
    assert 'grpc' in maps
    assert 'tensorflow' not in maps
    assert actor.memory().uss < 150 * 2**20
    actor.send(signal.SIGINT)
    assert actor.finish().status == 0


def test_gradients_of_two_actors_solve_catch(tmp_path):
  options = {
    'algorithm': 'a3c',
    'level_name': 'catch',
    'num_actors': 2,
    'envs_per_actor': 16,
    'unroll_length': 10,
    'total_environment_frames': 60_000,
    'learning_rate_schedule': 'constant',
    'evaluation_secs': 0,
    'learner_address': free_address(),
  }
  with Jobs(tmp_path, options) as jobs:
    (learner,), actors = start_all(jobs)
    assert_all_end_well([learner, *actors])
    assert all('Training is over.' in actor.output for actor in actors)
    assert all(' gradients in ' in actor.output for actor in actors)
    rows = episodes(jobs.logdir)
    # Each unroll has one whole episode of 9 steps of each environment.
    updates = -(-60_000 // (9 * 16))
    assert jobs.frames() == updates * 9 * 16
    assert len(rows) == updates * 16
    returns = [float(row['episode_return']) for row in rows]
    assert np.mean(returns[-500:]) >= 0.9


def test_the_devices_of_a_single_machine_share_its_batches(tmp_path):
  options = SMALL | {'logdir': tmp_path, 'learner_devices': 2}
  result = run(*(f'--{name}={value}' for name, value in options.items()))
  assert result.status == 0, result.output
  assert checkpoints(tmp_path)[-1] >= 4000


def test_the_devices_of_a_learner_share_its_batches(tmp_path):
  options = SMALL | {'learner_address': free_address(), 'learner_devices': 2}
  with Jobs(tmp_path, options) as jobs:
    learners, actors = start_all(jobs)
    assert_all_end_well([*learners, *actors])
    assert jobs.frames() >= 4000


@both_ways
def test_two_learners_stop_together_and_resume_together(tmp_path, inference):
  options = SMALL | {'learner_address': free_addresses(2), 'num_learners': 2}
  # Neither calls nor TensorFlow's collectives go over a proxy.
  more = {'variables': NOWHERE, 'of_learners': {'inference': inference}}
  with Jobs(tmp_path, options | ENDLESS, **more) as jobs:
    learners, actors = start_all(jobs, num_learners=2)
    learners[0].wait_for(lambda: len(checkpoints(jobs.logdir)) >= 2)
    # One that is told to stop takes the other with it.
    learners[1].send(signal.SIGTERM)
    assert_all_end_well(learners)
    stopped_at = jobs.frames()
    for actor in actors:
      actor.wait_for(actor.waits)

  options |= {'total_environment_frames': stopped_at + 1000}
  with Jobs(tmp_path, options, **more) as jobs:
    learners, actors = start_all(jobs, num_learners=2)
    assert_all_end_well([*learners, *actors])
    assert f'Resuming at {stopped_at:,} frames.' in learners[0].output
    assert jobs.frames() >= stopped_at + 1000


@pytest.mark.parametrize(
  ('number', 'inference'),
  [(signal.SIGTERM, 'learner'), (signal.SIGKILL, 'actor')],
)
def test_a_learner_with_a_batch_and_one_without_end_together(
  tmp_path, number, inference
):
  options = SMALL | {'learner_address': free_addresses(2), 'num_learners': 2}
  of_learners = {'inference': inference}
  with Jobs(tmp_path, options | ENDLESS, of_learners=of_learners) as jobs:
    learners = [jobs.learner(task) for task in range(2)]
    for learner in learners:
      learner.wait_for('listens')
    # Only one of them gets unrolls. It takes a second one once it has made a
    # batch of the first, which it holds from then on.
    actor = jobs.actor(0)
    learners[0].wait_for(
      lambda: len(episodes(jobs.logdir)) > SMALL['envs_per_actor']
    )
    learners[0].send(number)
    result = learners[1].finish()
    if number == signal.SIGTERM:
      assert [r.status for r in (result, learners[0].finish())] == [0, 0]
    else:
      assert result.status == 1
      assert 'has lost another learner' in result.output.splitlines()[-1]
    assert actor.process.poll() is None


@pytest.mark.parametrize('failing', [0, 1])
def test_a_learner_that_cannot_go_on_fails_the_other(tmp_path, failing):
  options = SMALL | {'learner_address': free_addresses(2), 'num_learners': 2}
  with Jobs(tmp_path, options | ENDLESS) as jobs:
    # There are no actors, and only one of them minds.
    learners = [
      jobs.learner(task, actor_timeout=1 if task == failing else 0)
      for task in range(2)
    ]
    results = [learner.finish() for learner in learners]
    for task, result in enumerate(results):
      assert result.status == 1, result
      assert 'Traceback' not in result.output
      line = result.output.splitlines()[-1]
      if task == failing:
        assert 'no actor was heard of' in line
      else:
        assert 'another learner cannot go on' in line
    assert 'Saved 0 frames' in results[0].output


@pytest.mark.parametrize(('lost', 'inference'), [(0, 'actor'), (1, 'learner')])
def test_a_learner_that_loses_another_saves_and_says_so(
  tmp_path, lost, inference
):
  options = SMALL | {'learner_address': free_addresses(2), 'num_learners': 2}
  options |= ENDLESS | {'save_checkpoint_secs': 1e9}
  with Jobs(tmp_path, options, of_learners={'inference': inference}) as jobs:
    learners, actors = start_all(jobs, num_learners=2)
    learners[0].wait_for(lambda: len(episodes(jobs.logdir)) > 100)
    learners[lost].send(signal.SIGKILL)
    result = learners[1 - lost].finish()
    assert result.status == 1
    line = result.output.splitlines()[-1]
    assert f'learner {1 - lost} has lost another learner' in line
    assert f'Saved {jobs.frames():,} frames' in line
    assert jobs.frames() > 0
    assert all(actor.process.poll() is None for actor in actors)

    saved = jobs.frames()
    more = {'total_environment_frames': saved + 1000}
    learners[lost].finish()
    learners = [jobs.learner(task, **more) for task in range(2)]
    assert_all_end_well([*learners, *actors])
    assert f'Resuming at {saved:,} frames.' in learners[0].output


SCRIPT = ROOT / 'scripts' / 'local_cluster.sh'


BROKEN = """
import gymnasium
import numpy as np
from gymnasium import spaces


class Broken(gymnasium.Env):
  observation_space = spaces.Box(-1, 1, (3,), np.float32)
  action_space = spaces.Discrete(2)

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    return np.zeros([3], np.float32), {}

  def step(self, action):
    raise ZeroDivisionError('the simulator broke')


gymnasium.register(id='Broken-v0', entry_point=Broken)
"""


@pytest.fixture
def script(tmp_path):
  """Starts local_cluster.sh; what it leaves behind is killed."""
  started = []

  def start(options, python_path=ROOT):
    options = options | {
      'learner_address': free_address(),
      'logdir': tmp_path / 'logdir',
    }
    with open(tmp_path / 'output.txt', 'wb') as file:
      process = subprocess.Popen(
        [SCRIPT, *(f'--{name}={value}' for name, value in options.items())],
        env=environment_variables(python_path) | {'PYTHON': sys.executable},
        stdin=subprocess.DEVNULL,
        stdout=file,
        stderr=subprocess.STDOUT,
        start_new_session=True,
      )
    started.append(process)
    return process

  yield start
  for process in started:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# `.ci/run` does the same with two learners.
@pytest.mark.nightly
def test_the_script_starts_all_and_ends_when_they_do(tmp_path, script):
  process = script(SMALL)
  assert process.wait(DEADLINE_S) == 0
  assert (tmp_path / 'output.txt').read_text().count('Training is over.') == 2
  assert checkpoints(tmp_path / 'logdir')[-1] >= 4000


def test_the_script_stops_all_on_a_signal(tmp_path, script):
  process = script(SMALL | ENDLESS | {'inference': 'learner'})
  wait_for(lambda: len(episodes(tmp_path / 'logdir')) > 50, process)
  # A terminal sends it to all of them.
  os.killpg(process.pid, signal.SIGINT)
  assert process.wait(DEADLINE_S) == 0
  output = (tmp_path / 'output.txt').read_text()
  assert output.count('Stopped by SIG') == 2
  assert 'Stopped at' in output
  # Nobody is left of its session.
  with pytest.raises(ProcessLookupError):
    os.killpg(process.pid, 0)


def test_the_script_ends_with_an_error_when_all_actors_have(tmp_path, script):
  # The learner never makes environments of its own but to look at them.
  (tmp_path / 'broken_module.py').write_text(BROKEN)
  options = SMALL | ENDLESS | {'level_name': 'broken_module:Broken-v0'}
  process = script(options, python_path=tmp_path)
  status = process.wait(DEADLINE_S)
  output = (tmp_path / 'output.txt').read_text()
  assert status == 1, output
  assert output.count('ZeroDivisionError: the simulator broke') >= 2
  assert 'all actors have failed, the first with status 1; stopping' in output
  assert checkpoints(tmp_path / 'logdir')
