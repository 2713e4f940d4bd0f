"""Who is where, by flags, TF_CONFIG, Slurm and Kubernetes."""

import json
import os
import sys
import types

import pytest

from scalable_agent.distribution import cluster as cluster_lib
from scalable_agent.distribution import schedulers
from tests.configs import make_config


@pytest.fixture(autouse=True)
def environment(monkeypatch):
  """No scheduler, whatever runs the tests."""
  for name in list(os.environ):
    if name.startswith(('SLURM', 'JOB_COMPLETION')) or name == 'TF_CONFIG':
      monkeypatch.delenv(name)


def resolve(**given):
  config = make_config(**{'num_actors': 4} | given)
  return cluster_lib.resolve(config, given)


def refuse(message, **given):
  with pytest.raises(ValueError, match=message) as info:
    resolve(**given)
  assert '\n' not in str(info.value)


class TestFlags:
  def test_without_any_it_is_a_single_machine(self):
    assert resolve() is None
    assert resolve(num_actors=2) is None

  def test_a_test_is_on_a_single_machine(self, monkeypatch):
    set_tf_config(monkeypatch, CLUSTER, 'actor', 0)
    assert resolve(mode='test') is None

  def test_learners_are_on_this_host_by_default(self):
    config, cluster = resolve(task=1, num_learners=2, job_name='learner')
    assert cluster.learners == ('localhost:8000', 'localhost:8001')
    assert cluster.collectives == ('localhost:9000', 'localhost:9001')
    assert cluster.own_address == 'localhost:8001'
    assert (config.cluster.task, config.cluster.job_name) == (1, 'learner')

  def test_the_only_learner_needs_no_task(self):
    config, cluster = resolve(job_name='learner')
    assert (config.cluster.task, cluster.own_address) == (0, 'localhost:8000')
    # As in 2018, --task=-1 is the single machine, whatever the job.
    assert resolve(job_name='learner', task=-1) is None

  @pytest.mark.parametrize(
    'given', [{'job_name': 'actor'}, {'job_name': 'learner', 'num_learners': 2}]
  )
  def test_one_of_several_needs_a_task(self, given):
    refuse(rf'^--job_name={given["job_name"]} needs --task', **given)

  def test_addresses_are_separated_by_commas(self):
    _, cluster = resolve(
      task=3,
      job_name='actor',
      num_learners=2,
      learner_address='a:1, [::1]:2',
    )
    assert cluster.learners == ('a:1', '[::1]:2')
    assert cluster.num_actors == 4

  def test_actors_are_shared_out_among_the_learners(self):
    _, cluster = resolve(
      task=3, job_name='actor', num_learners=2, learner_address='a:1,b:1'
    )
    assert [cluster.learner_of(actor) for actor in range(4)] == [
      'a:1',
      'b:1',
      'a:1',
      'b:1',
    ]
    assert cluster.own_address == 'b:1'

  @pytest.mark.parametrize(
    ('given', 'message'),
    [
      (
        {'task': 4, 'job_name': 'actor'},
        '^--task=4: actor 4 is not one of --num_actors=4',
      ),
      (
        {'task': 2, 'num_learners': 2},
        '^--task=2: learner 2 is not one of --num_learners=2',
      ),
      (
        {'task': 0, 'learner_address': 'a:1,b:1'},
        r'^--learner_address: 2 address\(es\) for --num_learners=1',
      ),
      (
        {'task': 0, 'num_learners': 2, 'learner_address': 'a:1'},
        r'^--learner_address: 1 address\(es\) for --num_learners=2',
      ),
      ({'task': 0, 'learner_address': 'a'}, "^--learner_address: 'a' is no"),
      (
        {'task': 0, 'num_learners': 2, 'learner_address': 'a:1,a:1'},
        '^--learner_address: a:1 occurs twice',
      ),
    ],
  )
  def test_mistakes_are_named(self, given, message):
    refuse(message, **given)


CLUSTER = {'learner': ['a:1', 'b:1'], 'actor': ['c:1', 'd:1', 'e:1']}


def set_tf_config(monkeypatch, cluster, job_name=None, task=None):
  value = {'cluster': cluster}
  if job_name is not None:
    value['task'] = {'type': job_name, 'index': task}
  monkeypatch.setenv('TF_CONFIG', json.dumps(value))


class TestTfConfig:
  def test_it_says_all(self, monkeypatch):
    set_tf_config(monkeypatch, CLUSTER, 'actor', 2)
    config, cluster = cluster_lib.resolve(make_config(num_actors=8), ())
    assert config == make_config(
      job_name='actor', task=2, num_learners=2, num_actors=3
    )
    assert cluster.learners == ('a:1', 'b:1')
    assert (cluster.job_name, cluster.task, cluster.num_actors) == (
      'actor',
      2,
      3,
    )

  def test_actors_need_no_address(self, monkeypatch):
    set_tf_config(monkeypatch, {'learner': ['a:1']}, 'actor', 3)
    _, cluster = resolve(num_actors=4)
    assert cluster.num_actors == 4

  def test_flags_may_say_which_task_it_is(self, monkeypatch):
    set_tf_config(monkeypatch, CLUSTER)
    _, cluster = resolve(task=1, job_name='actor', num_actors=3)
    assert (cluster.job_name, cluster.task) == ('actor', 1)

  def test_flags_may_repeat_it(self, monkeypatch):
    set_tf_config(monkeypatch, CLUSTER, 'learner', 1)
    resolve(
      task=1,
      job_name='learner',
      num_learners=2,
      num_actors=3,
      learner_address='a:1,b:1',
    )

  @pytest.mark.parametrize(
    'cluster',
    [
      {},
      {'chief': ['a:1'], 'worker': ['b:1']},
      {'actor': ['c:1']},
      {'learner': []},
    ],
  )
  def test_one_without_a_learner_is_not_meant_for_this_program(
    self, monkeypatch, cluster
  ):
    set_tf_config(monkeypatch, cluster, 'worker', 0)
    assert resolve() is None

  @pytest.mark.parametrize(
    ('given', 'message'),
    [
      ({'task': 0}, '^--task=0 contradicts TF_CONFIG, which says 1'),
      (
        {'job_name': 'learner'},
        '^--job_name=learner contradicts TF_CONFIG, which says actor',
      ),
      (
        {'num_learners': 1},
        '^--num_learners=1 contradicts TF_CONFIG, which says 2',
      ),
      (
        {'num_actors': 4},
        '^--num_actors=4 contradicts TF_CONFIG, which says 3',
      ),
      (
        {'learner_address': 'a:1,b:2', 'num_actors': 3},
        '^--learner_address=a:1,b:2 contradicts TF_CONFIG, .* a:1,b:1',
      ),
    ],
  )
  def test_a_flag_that_contradicts_is_refused(
    self, monkeypatch, given, message
  ):
    set_tf_config(monkeypatch, CLUSTER, 'actor', 1)
    refuse(message, **given)

  @pytest.mark.parametrize(
    ('cluster', 'task', 'message'),
    [
      (CLUSTER, ('actor', 3), '^TF_CONFIG: actor 3 is not one of --num_actors'),
      (CLUSTER, ('chief', 0), "^TF_CONFIG: .* type 'chief'"),
      (CLUSTER, (None, None), '^TF_CONFIG does not say which task'),
      (CLUSTER, ('actor', 'x'), '^TF_CONFIG=.* cannot be read'),
      ({'learner': ['a:0']}, ('learner', 0), "^TF_CONFIG: 'a:0' is no address"),
      (
        {'learner': {'1': 'a:1'}},
        ('learner', 0),
        '^TF_CONFIG: learner 0 has no address',
      ),
      ([], ('learner', 0), '^TF_CONFIG=.* cannot be read'),
      ('abc', ('learner', 0), '^TF_CONFIG=.* cannot be read'),
      ({'learner': 3}, ('learner', 0), '^TF_CONFIG=.* cannot be read'),
    ],
  )
  def test_mistakes_are_named(self, monkeypatch, cluster, task, message):
    set_tf_config(monkeypatch, cluster, *task)
    config = make_config(num_actors=4)
    with pytest.raises(ValueError, match=message):
      cluster_lib.resolve(config, ())

  def test_what_is_no_json_is_refused(self, monkeypatch):
    monkeypatch.setenv('TF_CONFIG', '{')
    refuse('^TF_CONFIG={ cannot be read: .*Correct or unset it')


STEP = {
  'SLURM_PROCID': '0',
  'SLURM_STEP_NUM_TASKS': '5',
  'SLURM_STEP_NODELIST': 'n[9-11]',
  'SLURM_STEP_TASKS_PER_NODE': '2(x2),1',
}


def set_step(monkeypatch, **changed):
  for name, value in (STEP | changed).items():
    monkeypatch.setenv(name, value)


class TestSlurm:
  @pytest.mark.parametrize(
    ('rank', 'node', 'job_name', 'task'),
    [
      (0, 'n9', 'learner', 0),
      (2, 'n10', 'learner', 2),
      (3, 'n10', 'actor', 0),
      (4, 'n11', 'actor', 1),
    ],
  )
  def test_the_first_tasks_of_a_step_are_learners(
    self, monkeypatch, rank, node, job_name, task
  ):
    set_step(monkeypatch, SLURM_PROCID=str(rank), SLURMD_NODENAME=node)
    config, cluster = cluster_lib.resolve(
      make_config(num_actors=8, num_learners=3, learner_address='slurm'),
      ('num_learners', 'learner_address'),
    )
    assert cluster.learners == ('n9:8000', 'n9:8001', 'n10:8000')
    assert cluster.num_actors == config.actors.num_actors == 2
    assert (cluster.job_name, cluster.task) == (job_name, task)
    assert (config.cluster.job_name, config.cluster.task) == (job_name, task)

  def test_a_step_alone_is_no_distributed_run(self, monkeypatch):
    set_step(monkeypatch)
    assert resolve() is None

  def test_the_gpus_are_left_to_slurm(self, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '5')
    set_step(monkeypatch)
    resolve(learner_address='slurm')
    assert os.environ['CUDA_VISIBLE_DEVICES'] == '5'

  @pytest.mark.parametrize(
    ('changed', 'given', 'message'),
    [
      ({}, {'num_actors': 3}, r'^--num_actors=3 contradicts Slurm .* says 4'),
      ({}, {'task': 1}, r'^--task=1 contradicts Slurm \(SLURM_PROCID=0,.* 0\.'),
      (
        {},
        {'num_learners': 5},
        'NUM_TASKS=5 leaves no task .*--num_learners=5',
      ),
      (
        {'SLURMD_NODENAME': 'n10'},
        {},
        'SLURM_PROCID=0 runs on SLURMD_NODENAME=n10, not on n9.*=block',
      ),
      ({'SLURM_PROCID': 'x'}, {}, 'this is no step of Slurm'),
      ({'SLURM_STEP_NODELIST': 'n[9'}, {}, 'this is no step of Slurm'),
      ({'SLURM_STEP_NUM_TASKS': '7'}, {}, 'this is no step of Slurm'),
    ],
  )
  def test_mistakes_are_named(self, monkeypatch, changed, given, message):
    set_step(monkeypatch, **changed)
    refuse(message, learner_address='slurm', **given)

  @pytest.mark.parametrize('name', STEP)
  def test_outside_of_a_step_srun_is_named(self, monkeypatch, name):
    set_step(monkeypatch)
    monkeypatch.delenv(name)
    refuse(
      r'^--learner_address=slurm: this is no step.*srun\.$',
      learner_address='slurm',
    )


class FakeApi:
  """Pods of one namespace, as the client of Kubernetes shows them.

  Attributes:
    answers: what each call returns in turn, the last one again and again.
  """

  def __init__(self, *answers):
    self.answers = list(answers)

  def list_namespaced_pod(self, namespace, label_selector):
    assert (namespace, label_selector) == ('mine', 'job-name=learner')
    answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
    if isinstance(answer, Exception):
      raise answer
    return types.SimpleNamespace(items=[pod(*fields) for fields in answer])


def pod(name, ip, phase='Running'):
  return types.SimpleNamespace(
    metadata=types.SimpleNamespace(name=name),
    status=types.SimpleNamespace(phase=phase, pod_ip=ip, host_ip='192.0.2.9'),
  )


class ApiException(Exception):
  status = 403
  reason = 'Forbidden'


class ConfigException(Exception):
  pass


@pytest.fixture
def kubernetes(monkeypatch, tmp_path):
  """A client of Kubernetes; its pods are set with `kubernetes.pods(...)`."""
  module = types.ModuleType('kubernetes')
  module.config = types.SimpleNamespace(
    load_incluster_config=lambda: None, ConfigException=ConfigException
  )
  module.client = types.SimpleNamespace(ApiException=ApiException)

  def pods(*answers):
    api = FakeApi(*answers)
    module.client.CoreV1Api = lambda: api

  module.pods = pods
  (tmp_path / 'namespace').write_text('mine')
  monkeypatch.setitem(sys.modules, 'kubernetes', module)
  monkeypatch.setattr(schedulers, '_NAMESPACE', str(tmp_path / 'namespace'))
  monkeypatch.setattr(schedulers, '_POLL_SECONDS', 0.001)
  return module


class TestKubernetes:
  def test_learners_are_the_pods_of_their_job_in_its_order(self, kubernetes):
    kubernetes.pods(
      [
        ('learner-10-aa', '10.0.0.10'),
        *((f'learner-{i}-zz', f'10.0.0.{i}') for i in range(10)),
        ('learner-3-old', '10.0.0.99', 'Failed'),
      ]
    )
    _, cluster = resolve(
      learner_address='kubernetes', num_learners=11, task=1, job_name='actor'
    )
    assert cluster.learners == tuple(f'10.0.0.{i}:8000' for i in range(11))

  def test_ipv6_is_put_into_brackets(self, kubernetes):
    kubernetes.pods([('learner-0-x', 'fd00::1')])
    _, cluster = resolve(learner_address='kubernetes', task=0)
    assert cluster.learners == ('[fd00::1]:8000',)

  def test_the_job_tells_the_task(self, kubernetes, monkeypatch):
    monkeypatch.setenv('JOB_COMPLETION_INDEX', '3')
    kubernetes.pods([('learner-0-x', '10.0.0.1')])
    config, cluster = resolve(learner_address='kubernetes', job_name='actor')
    assert config.cluster.task == cluster.task == 3
    refuse(
      r'^--task=2 contradicts Kubernetes \(JOB_COMPLETION_INDEX=3\)',
      learner_address='kubernetes',
      job_name='actor',
      task=2,
    )

  def test_all_learners_are_waited_for(self, kubernetes):
    kubernetes.pods(
      [],
      [('learner-0-x', '10.0.0.1'), ('learner-1-x', None, 'Pending')],
      [('learner-0-x', '10.0.0.1'), ('learner-1-x', '10.0.0.2')],
    )
    _, cluster = resolve(learner_address='kubernetes', task=0, num_learners=2)
    assert cluster.learners == ('10.0.0.1:8000', '10.0.0.2:8000')

  @pytest.mark.parametrize(
    ('pods', 'reason'),
    [
      ([], '0 of --num_learners=2 run'),
      ([('learner-1-x', None, 'Pending')], 'learner-000001-x.*Pending'),
    ],
  )
  def test_a_learner_that_never_comes_is_named(self, kubernetes, pods, reason):
    kubernetes.pods(pods)
    with pytest.raises(TimeoutError, match=rf'after 0\.01 s: .*{reason}'):
      resolve(
        learner_address='kubernetes',
        task=0,
        num_learners=2,
        reconnect_timeout=0.01,
      )

  def test_more_pods_than_learners_are_refused(self, kubernetes):
    kubernetes.pods([('learner-0-x', '10.0.0.1'), ('learner-1-x', '10.0.0.2')])
    refuse(
      '2 pods have the label job-name=learner, but --num_learners=1',
      learner_address='kubernetes',
      task=0,
    )

  def test_who_may_not_list_pods_is_told_so(self, kubernetes):
    kubernetes.pods(ApiException())
    refuse(
      r'cannot be listed \(403 Forbidden\)\. Allow its service account',
      learner_address='kubernetes',
    )

  def test_outside_of_a_pod_addresses_are_asked_for(self, kubernetes):
    def fail():
      raise ConfigException('no host')

    kubernetes.config.load_incluster_config = fail
    refuse(
      r'this is no pod .*\(no host\)\. List the addresses',
      learner_address='kubernetes',
    )

  def test_a_missing_client_is_named(self, monkeypatch):
    monkeypatch.setitem(sys.modules, 'kubernetes', None)
    refuse('pip install kubernetes$', learner_address='kubernetes')

  def test_a_pod_alone_is_no_distributed_run(self, monkeypatch):
    monkeypatch.setenv('KUBERNETES_SERVICE_HOST', '10.0.0.1')
    monkeypatch.setenv('JOB_COMPLETION_INDEX', '0')
    assert resolve() is None


class TestCheck:
  def test_an_actor_has_to_find_its_learner_only(self):
    given = {'num_learners': 2, 'job_name': 'actor'}
    given['learner_address'] = 'localhost:1,no-such-host.invalid:1'
    _, cluster = resolve(task=0, **given)
    cluster.check()
    _, cluster = resolve(task=1, **given)
    with pytest.raises(ValueError, match=r'no-such-host\.invalid:1 cannot be'):
      cluster.check()

  def test_a_learner_has_to_be_on_its_host(self):
    _, cluster = resolve(task=0, learner_address='192.0.2.1:8000')
    with pytest.raises(ValueError, match=r'192\.0\.2\.1:8000: .* this host'):
      cluster.check()
