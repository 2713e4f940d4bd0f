"""Strategies: one device, several, several learners.

What configures TensorFlow's devices runs in processes of its own.
"""

import signal
import socket
import subprocess

import pytest
import tensorflow as tf

from scalable_agent.distribution import addresses, strategies
from scalable_agent.distribution.cluster import Cluster
from tests import programs, waiting
from tests.ports import free_address


def make_cluster(*learners, task=0, job_name='learner'):
  return Cluster(
    learners=learners,
    collectives=addresses.collectives_of(learners, 'test'),
    job_name=job_name,
    task=task,
    num_actors=2,
  )


class FakeDevices:
  """Some GPUs where there are none, and a record of what is done with them."""

  def __init__(self, monkeypatch, num_gpus):
    self.gpus = [f'gpu {index}' for index in range(num_gpus)]
    self.visible = None
    self.made = None
    monkeypatch.setattr(
      tf.config, 'list_physical_devices', lambda kind: self.gpus
    )
    monkeypatch.setattr(tf.config, 'set_visible_devices', self.set_visible)
    monkeypatch.setattr(tf.distribute, 'MirroredStrategy', self.make)
    monkeypatch.setattr(tf.distribute, 'MultiWorkerMirroredStrategy', self.make)

  def set_visible(self, devices, kind):
    assert kind == 'GPU'
    self.visible = devices

  def make(self, devices=None, cluster_resolver=None):
    self.made = devices or cluster_resolver
    return 'strategy'


@pytest.mark.parametrize(
  'cluster',
  [
    None,
    make_cluster('localhost:1'),
    make_cluster('unix:/a'),
    make_cluster('localhost:1', 'localhost:2', job_name='actor'),
  ],
)
def test_one_device_of_one_learner_needs_no_strategy(cluster):
  default = tf.distribute.get_strategy()
  assert strategies.make_strategy(cluster, 1) is default


class TestGpus:
  def test_too_few_for_all_learners_of_a_host_are_refused(self, monkeypatch):
    FakeDevices(monkeypatch, 3)
    cluster = make_cluster('localhost:1', 'localhost:2', task=1)
    with pytest.raises(ValueError, match=r'before this one take 2\..* to 1,'):
      strategies.make_strategy(cluster, 2)

  @pytest.mark.parametrize('learners', [1, 2])
  def test_fewer_than_asked_for_are_refused(self, monkeypatch, learners):
    FakeDevices(monkeypatch, 2)
    cluster = make_cluster(*(f'localhost:{i}' for i in range(1, learners + 1)))
    with pytest.raises(
      ValueError, match=r'^--learner_devices=3: this host has 2 GPU.*to 2'
    ):
      strategies.make_strategy(cluster, 3)

  def test_the_first_ones_are_mirrored(self, monkeypatch):
    fake = FakeDevices(monkeypatch, 3)
    assert strategies.make_strategy(None, 2) == 'strategy'
    assert fake.made == ['GPU:0', 'GPU:1']

  def test_of_several_learners_of_a_host_each_has_its_own(self, monkeypatch):
    fake = FakeDevices(monkeypatch, 5)
    learners = free_learners()
    cluster = make_cluster(*learners, task=1)
    met = []

    def meet():
      # Before TensorFlow waits for the others, deaf to signals.
      assert fake.made is None
      met.append(fake.visible)

    assert strategies.make_strategy(cluster, 2, meet) == 'strategy'
    assert met == [['gpu 2', 'gpu 3']]
    assert fake.visible == ['gpu 2', 'gpu 3']
    assert fake.made.num_accelerators() == {'GPU': 2}
    assert (fake.made.task_type, fake.made.task_id) == ('worker', 1)
    assert fake.made.cluster_spec().as_dict() == {
      'worker': list(cluster.collectives)
    }


def test_several_learners_have_one_device_each_on_the_cpu():
  with pytest.raises(
    ValueError, match=r'^--learner_devices=2 with --num_learners=2: on the CPU'
  ):
    strategies.make_strategy(make_cluster('localhost:1', 'localhost:2'), 2)


@pytest.mark.parametrize('task', [0, 1])
def test_a_port_of_the_collectives_in_use_is_named(task):
  learners = free_learners()
  cluster = make_cluster(*learners, task=task)
  own = cluster.collectives[task]
  with (
    socket.create_server(('', int(own.rpartition(':')[2]))),
    pytest.raises(ValueError, match=rf'collectives.* listen at {own}: another'),
  ):
    strategies.make_strategy(cluster, 1, lambda: pytest.fail('they have met'))


@pytest.mark.parametrize('learner_devices', [1, 2])
def test_nobody_else_meets(monkeypatch, learner_devices):
  FakeDevices(monkeypatch, 2)

  def meet():
    pytest.fail('they have met')

  for cluster in (None, make_cluster('localhost:1'), make_cluster('unix:/a')):
    strategies.make_strategy(cluster, learner_devices, meet)


def free_learners():
  """Returns two addresses."""
  return [free_address(), free_address()]


def start(code, *args):
  return programs.start(
    ['-c', code, *args], stdin=subprocess.PIPE, stderr=subprocess.PIPE
  )


def finish(process):
  """Returns what a process wrote; it must have ended well."""
  try:
    output, errors = process.communicate(timeout=2 * waiting.DEADLINE_S)
  finally:
    process.kill()
  assert process.returncode == 0, errors
  return output


ON_ONE_CPU = """
import tensorflow as tf
from scalable_agent.distribution import strategies
strategy = strategies.make_strategy(None, 2)
total = strategy.run(
  lambda: tf.distribute.get_replica_context().all_reduce('sum', tf.constant(21))
)
print(strategy.num_replicas_in_sync, [int(t) for t in total.values])
"""

TOO_LATE = """
import tensorflow as tf
from scalable_agent.distribution import strategies
tf.constant(1)
try:
  strategies.make_strategy(None, 2)
except RuntimeError as error:
  print(error)
"""

LEARNER = """
import functools
import sys
import tensorflow as tf
from scalable_agent.distribution import addresses, strategies
from scalable_agent.distribution.cluster import Cluster
from scalable_agent.transport import rendezvous
task, *learners = sys.argv[1:]
cluster = Cluster(
  learners, addresses.collectives_of(learners, 'x'), 'learner', int(task), 1
)
meet = functools.partial(rendezvous.meet, cluster, 60.0)
strategy = strategies.make_strategy(cluster, 1, meet)
total = tf.function(lambda: strategy.run(
  lambda: tf.distribute.get_replica_context().all_reduce('sum', 10 + int(task))
))()
print(strategy.num_replicas_in_sync, int(total), flush=True)
sys.stdin.read()
"""

WAITING = """
import sys
from scalable_agent.distribution.cluster import Cluster
from scalable_agent.transport import rendezvous
rendezvous._QUIET_SECONDS = 0.0
cluster = Cluster(sys.argv[2:], (), 'learner', int(sys.argv[1]), 1)
rendezvous.meet(cluster, 60.0)
"""


class TestProcesses:
  def test_the_cpu_is_split(self):
    assert finish(start(ON_ONE_CPU)) == '2 [42, 42]\n'

  def test_a_cpu_in_use_cannot_be_split(self):
    assert finish(start(TOO_LATE)).startswith(
      '--learner_devices=2: TensorFlow was used before the CPU could be split'
    )

  def test_two_learners_work_together(self):
    learners = free_learners()
    processes = [start(LEARNER, str(task), *learners) for task in range(2)]
    try:
      lines = [process.stdout.readline() for process in processes]
      for process in processes:  # TensorFlow itself would only take note of it.
        process.terminate()
      errors = [
        process.communicate(timeout=waiting.DEADLINE_S)[1]
        for process in processes
      ]
    finally:
      for process in processes:
        process.kill()
    assert lines == ['2 21\n'] * 2, errors
    assert [process.returncode for process in processes] == [
      -signal.SIGTERM
    ] * 2

  @pytest.mark.parametrize('task', [0, 1])
  @pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
  def test_whoever_waits_for_others_can_be_interrupted(self, task, number):
    process = start(WAITING, str(task), *free_learners())
    try:
      assert process.stdout.readline().startswith('Waiting for learner')
      process.send_signal(number)
      process.communicate(timeout=waiting.DEADLINE_S)
    finally:
      process.kill()
    assert process.returncode != 0
