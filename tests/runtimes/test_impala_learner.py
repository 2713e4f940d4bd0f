"""IMPALA's learner process: who acts, and what it makes of failures."""

import types

import numpy as np
import pytest
import tensorflow as tf

from scalable_agent import environments, policies, queues
from scalable_agent.distribution import agreement
from scalable_agent.distribution.cluster import Cluster
from scalable_agent.runtimes import assembly, impala_learner, worlds
from scalable_agent.transport import weights
from tests.configs import make_config, resolve


class Group:
  """Of threads, that notes what fails."""

  def __init__(self):
    self.failures = []

  @property
  def failing(self):
    return bool(self.failures)

  def fail(self, error):
    self.failures.append(error)


@pytest.fixture
def run():
  """A learner without its parts, but for its threads."""
  one = impala_learner.Run.__new__(impala_learner.Run)
  one._group = Group()
  return one


@pytest.mark.parametrize(
  ('message', 'reason'),
  [
    (
      'Graph execution error:\n\nDetected at node Reduce defined at:\n  File '
      '"threads.py", line 1002, in _run\n\nCollective ops is aborted by: '
      'recvmsg:Connection reset by peer\nRestart your program.',
      'Collective ops is aborted by: recvmsg:Connection reset by peer',
    ),
    ('Socket closed\nmore', 'Socket closed'),
    ('', 'UnavailableError'),
  ],
)
def test_of_a_lost_learner_a_line_says_why(message, reason):
  error = tf.errors.UnavailableError(None, None, message)
  assert impala_learner._reason_of(error) == reason


class TestActing:
  def act(self, run, error):
    def policy(*arguments):
      raise error

    run._policy = policy
    with pytest.raises(queues.Closed):
      run._act('what is seen')
    return run._group.failures

  def test_an_agent_that_fails_ends_the_run_and_is_no_fault_of_actors(
    self, run
  ):
    error = ZeroDivisionError()
    assert self.act(run, error) == [error]

  def test_a_batcher_that_is_closed_is_no_failure(self, run):
    assert self.act(run, tf.errors.CancelledError(None, None, '')) == []


def test_other_learners_are_told_of_a_failure_or_of_an_end(run):
  assert impala_learner._ending(run._group) == agreement.Step.STOP
  run._group.fail(ZeroDivisionError())
  assert impala_learner._ending(run._group) == agreement.Step.FAIL


def test_a_report_that_fails_ends_the_run_and_is_no_fault_of_actors(run):
  run._training = None  # Has no metrics.
  run._record_unroll('an unroll')
  assert len(run._group.failures) == 1


class TestWhoEvaluates:
  NUM_ENVS, UNROLL_LENGTH, UPDATES, LEVEL = 3, 2, 7, 1

  def make(self, **options):
    """Returns a learner of catch, its agent and its service."""
    levels = environments.parse_levels('catch')
    given = {
      'level_name': 'catch',
      'unroll_length': self.UNROLL_LENGTH,
      'task': 0,
      'num_actors': 2,
    }
    one = impala_learner.Run.__new__(impala_learner.Run)
    one._config = resolve(make_config(**given | options), levels[0].suite)
    one._cluster = Cluster(('localhost:8000',), (), 'learner', 0, 2)
    one._group = Group()
    one._policy = None
    one._seeds = policies.Seeds(1)
    one._training = types.SimpleNamespace(
      updates=lambda: self.UPDATES, frames=lambda: 0
    )
    one.spec = worlds.find_spec(one._config, levels[0])
    one._queue = one._make_queue()
    agent = assembly.make_agent(one._config, one.spec)
    service = one._make_service(
      agent,
      num_actors=2,
      index=0,
      num_learners=1,
      deal=(0,),
      weights_description=weights.describe(agent.variables),
    )
    return one, agent, service

  def test_actors_send_unrolls_that_they_acted_for(self):
    one, _, service = self.make(inference='actor')
    assert service.inference == 'actor'
    assert 'unroll' in service.handlers()
    assert one._policy is None

  @pytest.mark.parametrize(
    ('batcher', 'kind'),
    [('none', policies.Direct), ('python', policies.Batched)],
  )
  def test_or_the_learner_acts_with_the_batcher_or_without(self, batcher, kind):
    one, _, service = self.make(inference='learner', batcher=batcher)
    assert service.inference == 'learner'
    assert 'step' in service.handlers()
    assert isinstance(one._policy, kind)

  def test_its_unrolls_are_of_its_own_updates(self):
    one, agent, _ = self.make(inference='learner', batcher='none')
    unroller = one._make_unroller(agent, self.NUM_ENVS, self.LEVEL)
    environment = worlds.make_environment(
      one._config, environments.parse_levels('catch')[0], self.NUM_ENVS, seed=1
    )
    unroll = unroller.observe(environment.reset())
    for _ in range(self.UNROLL_LENGTH):
      assert unroll is None
      unroll = unroller.observe(environment.step(unroller.act()))
    environment.close()
    np.testing.assert_array_equal(unroll.policy_version, [self.UPDATES] * 3)
    np.testing.assert_array_equal(unroll.level, [self.LEVEL] * 3)
    assert unroll.env_outputs.reward.shape == (3, 3)

  def test_without_weights_on_their_way_versions_are_told(self):
    one, _, service = self.make(inference='learner', batcher='none')
    one._service = service
    one._publish()
    assert service._snapshot == weights.Snapshot(self.UPDATES, ())
