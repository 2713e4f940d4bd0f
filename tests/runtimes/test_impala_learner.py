"""IMPALA's learner process: what it makes of failures that are not its own."""

import pytest
import tensorflow as tf

from scalable_agent import queues
from scalable_agent.distribution import agreement
from scalable_agent.runtimes import impala_learner


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
