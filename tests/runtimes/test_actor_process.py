"""An actor process: it is taken, works, and says why it ends."""

import os
import signal

import pytest

from scalable_agent import environments, unroll_queue
from scalable_agent.distribution.cluster import Cluster
from scalable_agent.runtimes import actor_process
from scalable_agent.transport import learner_link, protocol, rpc
from scalable_agent.transport.credentials import Credentials
from tests import acting, learning
from tests.configs import make_config, resolve
from tests.ports import free_port
from tests.waiting import DEADLINE_S, in_thread

TOKEN = Credentials(token='a secret')
OPTIONS = {'level_name': 'catch', 'precision': 'bfloat16'}


@pytest.fixture(scope='module')
def one():
  return acting.Acting(acting.ImageEnvironment(3), unroll_length=2)


@pytest.fixture
def learner(one):
  """A service, and where it answers to those that have the token."""
  service = learning.make_service(
    one, unroll_queue.UnrollQueue(3, 2), options=OPTIONS
  )
  address = f'127.0.0.1:{free_port()}'
  server = rpc.Server(address, service.handlers(), TOKEN)
  yield service, address
  server.stop(0)


def act(address, work, own=TOKEN, **options):
  levels = environments.parse_levels('catch')
  given = {'level_name': 'catch', 'reconnect_timeout': 0.05} | options
  config = resolve(make_config(**given), levels[0].suite)
  cluster = Cluster((address,), (), 'actor', 1, 6)
  agreed = OPTIONS | {'precision': config.agent.precision}
  actor_process.act(config, levels, cluster, own, agreed, work)


def test_it_works_with_what_was_left_to_its_learner(learner):
  _, address = learner
  jobs = []

  def work(job):
    jobs.append(job)
    raise learner_link.Over  # Else it works for ever.

  act(address, work, precision=protocol.AUTO)
  (job,) = jobs
  assert job.config.agent.precision == 'bfloat16'
  assert job.cluster.task == 1
  assert job.link.welcome.inference == 'actor'


def test_at_the_end_of_training_it_says_what_it_has_done(learner, capsys):
  service, address = learner

  def work(job):
    job.link.cargo = 'things'
    service.finish()
    job.link.update_weights()

  act(address, work, precision='auto')
  last = capsys.readouterr().out.splitlines()[-1]
  assert last == (
    'Actor 1 sent 0 things in 0 s and reconnected 0 times. Training is over.'
  )


@pytest.mark.parametrize('asked', [False, True])
def test_it_takes_a_proxy_only_if_asked_to(learner, monkeypatch, asked):
  _, address = learner
  proxies = []
  make = rpc.Client

  def noted(address, credentials, proxy):
    proxies.append(proxy)
    return make(address, credentials)

  def end(job):
    raise learner_link.Over  # Else it works for ever.

  monkeypatch.setattr(rpc, 'Client', noted)
  act(address, end, precision='auto', cluster_proxy=asked)
  assert set(proxies) == {asked}


def test_its_learner_hears_why_it_fails(learner):
  service, address = learner

  def work(job):
    raise ZeroDivisionError('the environment broke')

  with pytest.raises(ZeroDivisionError):
    act(address, work, precision='auto')
  assert service.gauges()['actors/failures'] == 1


@pytest.mark.parametrize(
  ('own', 'options', 'message'),
  [
    (Credentials(token='another'), {}, 'does not show the token'),
    (TOKEN, {'precision': 'float32'}, '--precision is bfloat16 at the learner'),
  ],
)
def test_one_that_is_refused_does_no_work(learner, own, options, message):
  service, address = learner
  with pytest.raises(learner_link.LinkError, match=message):
    act(address, lambda job: pytest.fail('it works'), own, **options)
  assert service.gauges()['actors/failures'] == 0


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_call_that_lasts(number, capsys):
  with learning.slow_learner() as (address, asked):

    def send_signal():
      assert asked.wait(DEADLINE_S)
      os.kill(os.getpid(), number)

    sent = in_thread(send_signal)
    act(address, lambda job: None)
    sent.result(DEADLINE_S)
  assert f'Stopped by {number.name}.' in capsys.readouterr().out


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_may_come_while_it_begins_to_wait(learner, capsys, number):
  _, address = learner

  def work(job):
    stopping = job.link._stopping
    with stopping._cond:  # As `Event.wait` has it for a moment.
      os.kill(os.getpid(), number)
    assert stopping.wait(DEADLINE_S)
    job.link.update_weights()

  act(address, work, precision='auto')
  assert f'Stopped by {number.name}.' in capsys.readouterr().out
