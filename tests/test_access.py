"""Who may connect to a learner, how and where, on real processes."""

import signal

import pytest

from tests import processes
from tests.certificates import Authority
from tests.ports import free_address, free_port
from tests.processes import SMALL, Jobs, checkpoints, episodes
from tests.waiting import wait_until

ENDLESS = processes.ENDLESS | {'save_checkpoint_secs': 0.5}


def assert_ends_with(job, *parts):
  """That a process fails with one line that has these parts."""
  result = job.finish()
  assert result.status == 1, result
  assert 'Traceback' not in result.output
  line = result.output.splitlines()[-1]
  assert line.startswith('experiment.py: ')
  for part in parts:
    assert part in line


def shown(authority, name):
  """Returns the options that show a certificate for a host of this name."""
  certificate, key = authority.sign(name, f'DNS:{name}')
  return {'tls_certificate': certificate, 'tls_key': key}


class TestTls:
  """A learner with a certificate, which asks actors for theirs."""

  @pytest.fixture(scope='class')
  @classmethod
  def authorities(cls, tmp_path_factory):
    """That of the run, and another one of the same name."""
    folder = tmp_path_factory.mktemp('tls')
    return [Authority(folder / name) for name in ('ours', 'theirs')]

  @pytest.fixture(scope='class')
  @classmethod
  def jobs(cls, tmp_path_factory, authorities):
    own, _ = authorities
    port = free_port()
    options = (
      SMALL
      | ENDLESS
      | {
        'learner_address': f'localhost:{port}',
        'reconnect_timeout': 10,
      }
    )
    of_learners = shown(own, 'localhost') | {
      'tls_authority': own.certificate,
      # Where actors find it is not where it listens.
      'listen_address': f'0.0.0.0:{port}',
      'inference': 'learner',
    }
    folder = tmp_path_factory.mktemp('jobs')
    with Jobs(folder, options, of_learners=of_learners) as jobs:
      jobs.running = jobs.learner()
      jobs.running.wait_for(f'Learner 0 listens at 0.0.0.0:{port}')
      jobs.port = port
      yield jobs

  @pytest.fixture(autouse=True)
  def _goes_on(self, jobs):
    yield
    assert jobs.running.process.poll() is None, jobs.running.output

  def test_actors_act_whose_certificates_are_right(self, jobs, authorities):
    own, _ = authorities
    right = shown(own, 'actor') | {'tls_authority': own.certificate}
    # By an address that its certificate does not have, but for its name.
    renamed = {
      'learner_address': f'127.0.0.1:{jobs.port}',
      'tls_name': 'localhost',
    }
    actors = [jobs.actor(0, **right), jobs.actor(1, **right, **renamed)]
    for task in range(2):
      jobs.running.wait_for(f'Actor {task} has joined.')
    before = len(episodes(jobs.logdir))
    jobs.running.wait_for(lambda: len(episodes(jobs.logdir)) > before + 50)
    assert 'not encrypted' not in jobs.running.output
    for actor in actors:
      actor.send(signal.SIGTERM)
      assert actor.finish().status == 0

  def test_an_actor_without_tls_is_told_of_it(self, jobs):
    assert_ends_with(jobs.actor(0), jobs.address, 'TLS')

  def test_a_learner_of_another_authority_is_not_trusted(
    self, jobs, authorities
  ):
    own, other = authorities
    wrong = shown(own, 'actor') | {'tls_authority': other.certificate}
    assert_ends_with(jobs.actor(0, **wrong), jobs.address, 'TLS')

  def test_a_learner_of_another_name_is_not_trusted(self, jobs, authorities):
    own, _ = authorities
    right = shown(own, 'actor') | {'tls_authority': own.certificate}
    wrong = right | {'tls_name': 'another-host'}
    assert_ends_with(jobs.actor(0, **wrong), jobs.address, 'TLS')

  def test_an_actor_without_a_certificate_is_refused(self, jobs, authorities):
    own, _ = authorities
    actor = jobs.actor(0, tls_authority=own.certificate)
    assert_ends_with(actor, jobs.address, 'TLS')

  def test_an_actor_of_another_authority_is_refused(self, jobs, authorities):
    own, other = authorities
    wrong = shown(other, 'actor') | {'tls_authority': own.certificate}
    assert_ends_with(jobs.actor(0, **wrong), jobs.address, 'TLS')


def test_a_run_over_a_socket_in_the_file_system(tmp_path):
  address = f'unix:{tmp_path}/socket'
  options = SMALL | {'learner_address': address, 'insecure_loopback': True}
  with Jobs(tmp_path, options) as jobs:
    actors = [jobs.actor(task) for task in range(2)]
    learner = jobs.learner(**ENDLESS)
    learner.wait_for(lambda: len(episodes(jobs.logdir)) > 50)
    assert not jobs.token_file.exists()
    other = jobs.learner(logdir=tmp_path / 'other')
    assert_ends_with(other, address, 'another process does')
    # What it leaves there is in nobody's way.
    learner.wait_for(lambda: checkpoints(jobs.logdir))
    learner.send(signal.SIGKILL)
    learner.finish()
    learner = jobs.learner()
    results = [job.finish() for job in (learner, *actors)]
  assert [result.status for result in results] == [0, 0, 0], results
  assert 'not encrypted' not in results[0].output


@pytest.mark.parametrize('kind', ['port', 'socket'])
def test_of_two_learners_that_start_at_once_one_ends(tmp_path, kind):
  address = free_address() if kind == 'port' else f'unix:{tmp_path}/socket'
  options = SMALL | ENDLESS | {'learner_address': address}
  with Jobs(tmp_path, options) as jobs:
    folders = [tmp_path / name for name in ('one', 'other')]
    learners = [jobs.learner(logdir=folder) for folder in folders]
    processes = [learner.process for learner in learners]
    wait_until(lambda: any(p.poll() is not None for p in processes))
    ended = processes[0].poll() is None
    assert_ends_with(learners[ended], address, 'another process')
    actor = jobs.actor(0, logdir=folders[not ended])
    learners[not ended].wait_for('Actor 0 has joined.')
    assert actor.process.poll() is None
