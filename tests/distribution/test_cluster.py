"""Who is where, by flags, TF_CONFIG and Slurm."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
from absl import logging

from scalable_agent.distribution import addresses, schedulers
from scalable_agent.distribution import cluster as cluster_lib
from tests.configs import make_config
from tests.ports import free_address, free_addresses

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def environment(monkeypatch):
  """No scheduler, whatever runs the tests."""
  for name in list(os.environ):
    if name.startswith('SLURM') or name == 'TF_CONFIG':
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
    assert cluster.learner_address == 'localhost:8001'
    assert (config.cluster.task, config.cluster.job_name) == (1, 'learner')

  def test_the_only_learner_needs_no_task(self):
    config, cluster = resolve(job_name='learner')
    assert (config.cluster.task, cluster.learner_address) == (
      0,
      'localhost:8000',
    )
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
    serves = [
      resolve(
        task=task, job_name='actor', num_learners=2, learner_address='a:1,b:1'
      )[1].learner_address
      for task in range(4)
    ]
    assert serves == ['a:1', 'b:1', 'a:1', 'b:1']

  def test_a_learner_listens_where_actors_find_it(self):
    given = {'num_learners': 2, 'learner_address': 'a:1,b:1'}
    _, cluster = resolve(task=1, **given)
    assert cluster.learner_address == cluster.listens_at == 'b:1'
    assert not cluster.is_chief
    assert resolve(task=0, **given)[1].is_chief

  def test_or_where_it_is_told_to(self):
    given = {'learner_address': 'a:1', 'listen_address': '0.0.0.0:7'}
    _, cluster = resolve(task=0, **given)
    assert (cluster.learner_address, cluster.listens_at) == ('a:1', '0.0.0.0:7')
    # It says nothing to actors.
    _, cluster = resolve(task=0, job_name='actor', **given)
    assert cluster.learner_address == cluster.listens_at == 'a:1'

  def test_a_single_learner_may_be_a_path(self):
    _, cluster = resolve(task=0, learner_address='unix:/a')
    assert (cluster.learners, cluster.collectives) == (('unix:/a',), ())

  def test_an_actor_is_no_chief(self):
    assert not resolve(task=0, job_name='actor')[1].is_chief

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
      (
        {'task': 0, 'num_learners': 2, 'learner_address': 'a:1,unix:/a'},
        '^--learner_address: unix:/a is for a single learner',
      ),
      (
        {'task': 0, 'learner_address': 'a:1', 'listen_address': 'b'},
        "^--listen_address: 'b' is no address",
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
      {'worker': ['b:1', 'c:1']},
      {'chief': ['a:1'], 'ps': ['b:1']},
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
    ('kind', 'index', 'job_name', 'task'),
    [
      ('chief', 0, 'learner', 0),
      ('worker', 1, 'actor', 1),
      ('Worker', '1', 'actor', 1),
    ],
  )
  @pytest.mark.parametrize(
    'cluster',
    [
      {'chief': ['a:1'], 'worker': ['b:1', 'c:1'], 'evaluator': ['d:1']},
      {'Chief': ['a:1'], 'Worker': ['b:1', 'c:1'], 'PS': ['d:1']},
      {'master': {'0': 'a:1'}, 'worker': {'1': 'c:1'}},
    ],
  )
  def test_the_chief_of_kubeflow_learns_and_its_workers_act(
    self, monkeypatch, cluster, kind, index, job_name, task
  ):
    value = {'cluster': cluster, 'task': {'type': kind, 'index': index}}
    value['environment'] = 'cloud'
    monkeypatch.setenv('TF_CONFIG', json.dumps(value))
    _, found = cluster_lib.resolve(make_config(num_actors=8), ())
    assert found.learners == ('a:1',)
    assert (found.job_name, found.task, found.num_actors) == (job_name, task, 2)

  def test_an_empty_one_is_none(self, monkeypatch):
    monkeypatch.setenv('TF_CONFIG', '')
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
      (
        CLUSTER,
        ('evaluator', 0),
        "^TF_CONFIG: .* type 'evaluator'.*Start only",
      ),
      (CLUSTER, ('ps', '0'), "^TF_CONFIG: .* type 'ps'"),
      (CLUSTER, (7, 0), '^TF_CONFIG=.* cannot be read'),
      (
        CLUSTER | {'chief': ['f:1']},
        ('chief', 0),
        '^TF_CONFIG has the jobs .* two of them are learners. Leave one',
      ),
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
      ({'learner': [3]}, ('learner', 0), '^TF_CONFIG=.* cannot be read'),
      ({'learner': {'x': 'a:1'}}, ('learner', 0), '^TF_CONFIG=.* be read'),
    ],
  )
  def test_mistakes_are_named(self, monkeypatch, cluster, task, message):
    set_tf_config(monkeypatch, cluster, *task)
    config = make_config(num_actors=4)
    with pytest.raises(ValueError, match=message):
      cluster_lib.resolve(config, ())

  @pytest.mark.parametrize('text', ['{', '[]', '{"task": 3}'])
  def test_what_is_of_another_form_is_refused(self, monkeypatch, text):
    monkeypatch.setenv('TF_CONFIG', text)
    refuse(rf'^TF_CONFIG={re.escape(text)} cannot be read: .*Correct or unset')

  def test_workers_that_do_not_know_their_chief_are_refused(self, monkeypatch):
    # With `enableDynamicWorker`, Kubeflow's TFJob tells them no more than this.
    text = '{"sparseCluster": {"worker": {"0": "a:1"}, "ps": []}}'
    monkeypatch.setenv('TF_CONFIG', text)
    refuse('^TF_CONFIG=.* where the learner is. Leave enableDynamicWorker')


STEP = {
  'SLURM_JOB_ID': '2413',
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
    ('rank', 'node', 'local', 'job_name', 'task'),
    [
      (0, 'n9', 0, 'learner', 0),
      (2, 'n10', 0, 'learner', 2),
      (3, 'n10', 1, 'actor', 0),
      (4, 'n11', 0, 'actor', 1),
    ],
  )
  def test_the_first_tasks_of_a_step_are_learners(
    self, monkeypatch, rank, node, local, job_name, task
  ):
    set_step(
      monkeypatch,
      SLURM_PROCID=str(rank),
      SLURMD_NODENAME=node,
      SLURM_LOCALID=str(local),
    )
    config, cluster = cluster_lib.resolve(
      make_config(num_actors=8, num_learners=3, learner_address='slurm'),
      ('num_learners', 'learner_address'),
    )
    assert cluster.learners == ('n9:8130', 'n9:8131', 'n10:8130')
    assert cluster.num_actors == config.actors.num_actors == 2
    assert (cluster.job_name, cluster.task) == (job_name, task)
    assert (config.cluster.job_name, config.cluster.task) == (job_name, task)

  def test_a_step_alone_is_no_distributed_run(self, monkeypatch):
    set_step(monkeypatch)
    assert resolve() is None

  def test_all_components_of_a_job_have_the_ports_of_the_first(
    self, monkeypatch
  ):
    set_step(monkeypatch, SLURM_JOB_ID_HET_GROUP_0='2412')
    _, cluster = resolve(learner_address='slurm')
    assert cluster.learners == ('n9:8120',)

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
      (
        {'SLURMD_NODENAME': 'n9', 'SLURM_LOCALID': '1'},
        {},
        'SLURM_PROCID=0 .*is SLURM_LOCALID=1, not 0, there.*=block',
      ),
      ({'SLURM_PROCID': 'x'}, {}, 'this is no step of Slurm'),
      ({'SLURM_PROCID': '5'}, {}, 'this is no step of Slurm'),
      ({'SLURM_STEP_NODELIST': 'n[9'}, {}, 'this is no step of Slurm'),
      ({'SLURM_STEP_NUM_TASKS': '7'}, {}, 'this is no step of Slurm'),
      ({'SLURM_STEP_TASKS_PER_NODE': '5'}, {}, 'this is no step of Slurm'),
      ({'SLURM_STEP_TASKS_PER_NODE': '2x2,1'}, {}, 'PER_NODE=2x2,1 cannot'),
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


class TestHosts:
  @pytest.mark.parametrize(
    ('hosts', 'names'),
    [
      ('n1', 'n1'),
      ('a,b', 'a b'),
      ('n[1-3,07-09,12]', 'n1 n2 n3 n07 n08 n09 n12'),
      ('n[9-11],m', 'n9 n10 n11 m'),
      ('r[1-2]n[01-02]', 'r1n01 r1n02 r2n01 r2n02'),
      ('n[1-2]-ib,n[098-100]x.y', 'n1-ib n2-ib n098x.y n099x.y n100x.y'),
    ],
  )
  def test_all_forms_of_a_list_are_expanded(self, hosts, names):
    assert schedulers.expand_hosts(hosts) == names.split()

  @pytest.mark.parametrize(
    'hosts', ['', 'a,', 'n[1', 'n1]', 'n[]', 'n[1-]', 'n[a]', 'n[1[2]]']
  )
  def test_what_is_no_list_is_refused(self, hosts):
    with pytest.raises(ValueError, match='is no list of'):
      schedulers.expand_hosts(hosts)

  def test_slurm_itself_is_asked_where_it_is(self, tmp_path, monkeypatch):
    scontrol = tmp_path / 'scontrol'
    scontrol.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path))
    assert schedulers.expand_hosts('n[1-2]') == ['show', 'hostnames', 'n[1-2]']

  def test_where_slurm_fails_hosts_are_expanded_here(
    self, tmp_path, monkeypatch
  ):
    scontrol = tmp_path / 'scontrol'
    scontrol.write_text('#!/bin/sh\nexit 1\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path))
    assert schedulers.expand_hosts('n[1-2]') == ['n1', 'n2']


class TestPorts:
  def test_jobs_in_a_row_share_no_port(self):
    taken = set()
    for job in range(10**6, 10**6 + schedulers.NUM_PORT_RANGES):
      first = schedulers.base_port(job)
      for port in range(first, first + schedulers.PORTS_PER_JOB):
        assert port not in taken
        assert port + addresses.COLLECTIVE_OFFSET not in taken
        taken |= {port, port + addresses.COLLECTIVE_OFFSET}

  def test_ports_are_below_those_of_outgoing_connections(self):
    firsts = {
      schedulers.base_port(job) for job in range(schedulers.NUM_PORT_RANGES)
    }
    assert min(firsts) == schedulers.BASE_PORT == 8000
    highest = max(firsts) + schedulers.PORTS_PER_JOB - 1
    assert highest + addresses.COLLECTIVE_OFFSET == 31999


def test_who_is_where_is_known_without_tensorflow():
  program = (
    'import sys\n'
    'from scalable_agent.distribution import addresses, cluster, schedulers\n'
    'print([name for name in sys.modules if name.startswith("tensorflow")])'
  )
  shown = subprocess.run(
    [sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True
  )
  assert (shown.stdout, shown.stderr) == ('[]\n', '')


class TestInsecureLoopback:
  """Without a secret, nobody else may connect."""

  @pytest.mark.parametrize(
    'address', ['', 'localhost:1', '127.0.0.1:1', '[::1]:1', 'unix:/a']
  )
  def test_is_for_this_machine(self, address):
    resolve(task=0, insecure_loopback=True, learner_address=address)

  @pytest.mark.parametrize('address', ['0.0.0.0:1', '192.0.2.1:1', 'node-1:1'])
  @pytest.mark.parametrize('job_name', ['learner', 'actor'])
  def test_and_for_no_other(self, address, job_name):
    refuse(
      f'^--insecure_loopback does without a secret, and others can .*{address}',
      task=0,
      job_name=job_name,
      insecure_loopback=True,
      learner_address=address,
    )

  def test_wherever_the_address_is_from(self, monkeypatch):
    set_tf_config(monkeypatch, CLUSTER, 'learner', 0)
    refuse('^--insecure_loopback .* a:1', insecure_loopback=True, num_actors=3)

  def test_where_it_listens_counts_too(self):
    refuse(
      r'^--insecure_loopback .* 0\.0\.0\.0:1\. Leave it out',
      task=0,
      insecure_loopback=True,
      learner_address='localhost:1',
      listen_address='0.0.0.0:1',
    )


class TestCheckPlace:
  @pytest.fixture
  def log(self, monkeypatch):
    """What is warned of, without what is warned of once only."""
    logged = []
    monkeypatch.setattr(
      logging, 'warning', lambda text, *args: logged.append(text % args)
    )
    monkeypatch.setattr(
      logging, 'log_first_n', lambda level, text, n, *args: None
    )
    return logged

  def test_a_learner_has_to_be_on_its_host(self):
    _, cluster = resolve(task=0, learner_address='192.0.2.1:8000')
    with pytest.raises(
      ValueError, match=r'^--learner_address: .*192\.0\.2\.1:8000: .* this host'
    ):
      cluster.check_place(encrypted=False)

  def test_or_where_it_listens(self, log):
    place = free_address()
    given = {'learner_address': '192.0.2.1:8000', 'task': 0}
    _, cluster = resolve(**given, listen_address=place)
    cluster.check_place(encrypted=False)
    assert log == []
    _, cluster = resolve(**given, listen_address='203.0.113.1:80')
    with pytest.raises(ValueError, match=r'^--listen_address: .* this host'):
      cluster.check_place(encrypted=False)

  @pytest.mark.parametrize('encrypted', [False, True])
  def test_whoever_others_may_reach_is_warned_of_it(
    self, log, monkeypatch, encrypted
  ):
    warned = []
    monkeypatch.setattr(
      addresses, 'warn_of_reach', lambda *place: warned.append(place)
    )
    place = free_address()
    _, cluster = resolve(
      task=0, learner_address='192.0.2.1:8000', listen_address=place
    )
    cluster.check_place(encrypted)
    assert warned == [(place, encrypted)]

  @pytest.mark.parametrize('encrypted', [False, True])
  def test_several_learners_are_told_of_the_port_that_is_open_to_all(
    self, log, encrypted
  ):
    places = free_addresses(2)
    _, cluster = resolve(task=1, num_learners=2, learner_address=places)
    cluster.check_place(encrypted)
    (warning,) = log
    port = int(places.rpartition(':')[2]) + addresses.COLLECTIVE_OFFSET
    assert f'on port {port} of all network interfaces' in warning
