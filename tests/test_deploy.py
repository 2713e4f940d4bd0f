"""The files in deploy/ start what they say, and agree with the program."""

import os
import re
import shlex
import signal
import subprocess
import sys

import pytest
import yaml

from scalable_agent import runtimes
from scalable_agent.distribution import addresses, schedulers
from tests.processes import DEADLINE_S, ROOT

DEPLOY = ROOT / 'deploy'
OPTIONS = runtimes.make_catalog().options


def read(name):
  return (DEPLOY / name).read_text(encoding='utf-8')


def parse(arguments):
  """Returns the values of flags by name; all of them are options."""
  flags = {}
  for argument in arguments:
    name, equals, value = argument.removeprefix('--').partition('=')
    assert argument.startswith('--')
    assert equals
    assert name in OPTIONS
    assert name not in flags
    flags[name] = value
  return flags


def check_agreement(learner, actors):
  """Asserts that processes of one learner are those of one run."""
  assert learner['job_name'] == 'learner'
  host, port = addresses.split(learner['learner_address'])
  assert learner['listen_address'] == f'0.0.0.0:{port}'
  for actor in actors:
    assert actor['job_name'] == 'actor'
    for name in (
      'level_name',
      'num_actors',
      'learner_address',
      'cluster_token_file',
    ):
      assert actor[name] == learner[name]
  return host, port


@pytest.mark.parametrize('name', sorted(path.name for path in DEPLOY.iterdir()))
def test_all_flags_with_underscores_are_options(name):
  # Those of other programs have hyphens.
  for flag in re.findall(r'--([a-z]+_\w+)', read(name)):
    assert flag in OPTIONS


class TestKubernetes:
  @pytest.fixture
  def objects(self):
    return {
      (each['kind'], each['metadata']['name']): each['spec']
      for each in yaml.safe_load_all(read('kubernetes.yaml'))
    }

  @pytest.fixture
  def jobs(self, objects):
    return {
      role: objects['Job', f'scalable-agent-{role}']
      for role in ('learner', 'actor')
    }

  def test_actors_find_the_learner_by_its_service(self, objects, jobs):
    flags = {role: parse(container(job)['args']) for role, job in jobs.items()}
    host, port = check_agreement(flags['learner'], [flags['actor']])
    service = objects['Service', host]
    assert service['clusterIP'] == 'None'
    assert [each['port'] for each in service['ports']] == [port]
    (own_port,) = container(jobs['learner'])['ports']
    assert own_port['containerPort'] == port
    is_selected = {
      role: service['selector'].items()
      <= job['template']['metadata']['labels'].items()
      for role, job in jobs.items()
    }
    assert is_selected == {'learner': True, 'actor': False}

  def test_each_task_has_a_pod_that_comes_back(self, jobs):
    for role, job in jobs.items():
      flags = parse(container(job)['args'])
      assert flags['task'] == '$(JOB_COMPLETION_INDEX)'
      assert job['completionMode'] == 'Indexed'
      assert job['template']['spec']['restartPolicy'] == 'OnFailure'
      count = int(flags['num_actors']) if role == 'actor' else 1
      assert job['completions'] == job['parallelism'] == count

  def test_all_have_the_token_that_the_readme_makes(self, jobs):
    _, secret, key = re.search(
      r'create secret generic (([\w-]+)) --from-file=(\w+)=',
      ' '.join(read('README.md').replace('\\\n', ' ').split()),
    ).groups()
    for job in jobs.values():
      path = parse(container(job)['args'])['cluster_token_file']
      folder, _, name = path.rpartition('/')
      assert name == key
      source = volume_at(job, folder)['secret']
      assert source == {'secretName': secret, 'defaultMode': 0o400}

  def test_the_learner_keeps_its_logs(self, objects, jobs):
    logdir = parse(container(jobs['learner'])['args'])['logdir']
    volume = volume_at(jobs['learner'], logdir.rpartition('/')[0])
    claim = volume['persistentVolumeClaim']['claimName']
    assert ('PersistentVolumeClaim', claim) in objects

  def test_processes_are_run_by_a_script_of_the_image(self, jobs):
    for job in jobs.values():
      (command,) = container(job)['command']
      assert os.access(ROOT / command, os.X_OK)
      resources = container(job)['resources']
      assert resources['requests'].keys() == {'cpu', 'memory'}
      assert resources['requests'].items() <= resources['limits'].items()


def container(job):
  (only,) = job['template']['spec']['containers']
  return only


def volume_at(job, folder):
  """Returns the volume of a job that is mounted at a folder."""
  (name,) = (
    mount['name']
    for mount in container(job)['volumeMounts']
    if mount['mountPath'] == folder
  )
  (volume,) = (
    each for each in job['template']['spec']['volumes'] if each['name'] == name
  )
  return volume


class TestJob:
  """The script that a Job runs."""

  @pytest.fixture
  def python(self, tmp_path):
    """Returns a function that starts the script with a stand-in for Python."""

    def start(program):
      add_program(tmp_path, 'python', f'#!{sys.executable}\n{program}')
      return subprocess.Popen(
        [DEPLOY / 'job.sh', '--task=0'],
        env=os.environ
        | {'PATH': f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'},
        stdout=subprocess.PIPE,
        text=True,
      )

    return start

  @pytest.mark.parametrize('status', [0, 3])
  def test_it_ends_as_the_program_does(self, python, status):
    with python(f'import sys; print(sys.argv[1:]); sys.exit({status})') as job:
      output, _ = job.communicate(timeout=DEADLINE_S)
    assert output == "['experiment.py', '--task=0']\n"
    assert job.returncode == status

  def test_one_that_is_told_to_stop_has_not_succeeded(self, python):
    program = (
      'import signal, sys\n'
      'def stop(*_):\n'
      '  print("saved")\n'
      '  sys.exit(0)\n'
      'signal.signal(signal.SIGTERM, stop)\n'
      'print("runs", flush=True)\n'
      'signal.pause()\n'
    )
    with python(program) as job:
      assert job.stdout.readline() == 'runs\n'
      job.send_signal(signal.SIGTERM)
      output, _ = job.communicate(timeout=DEADLINE_S)
    assert output == 'saved\n'
    assert job.returncode == 128 + signal.SIGTERM


class TestCompose:
  @pytest.fixture
  def file(self):
    return yaml.safe_load(read('compose.yaml'))

  @pytest.fixture
  def flags(self, file):
    flags = {}
    for name, service in file['services'].items():
      command = service['entrypoint'] + service['command']
      assert command[:2] == ['python', 'experiment.py']
      flags[name] = parse(command[2:])
    return flags

  def test_there_is_a_learner_and_each_of_its_actors(self, flags):
    learner = flags['learner']
    actors = [flags[name] for name in flags if name != 'learner']
    host, _ = check_agreement(learner, actors)
    assert host == 'learner'
    tasks = [int(actor['task']) for actor in actors]
    assert tasks == list(range(int(learner['num_actors'])))
    assert learner['task'] == '0'

  def test_all_share_a_network_and_the_token(self, file, flags):
    for name, service in file['services'].items():
      assert [*file['networks']] == service['networks']
      (secret,) = service['secrets']
      assert flags[name]['cluster_token_file'] == f'/run/secrets/{secret}'
      assert secret in file['secrets']

  def test_the_token_stays_out_of_the_repository_and_the_image(self, file):
    path = file['secrets']['cluster_token']['file']
    name = os.path.normpath(os.path.join('deploy', path))
    assert name in (ROOT / '.dockerignore').read_text().splitlines()
    assert f'/{name}' in (ROOT / '.gitignore').read_text().splitlines()
    assert name in read('README.md')

  def test_the_learner_keeps_its_logs(self, file, flags):
    (mount,) = file['services']['learner']['volumes']
    volume, _, folder = mount.partition(':')
    assert volume in file['volumes']
    assert flags['learner']['logdir'].startswith(f'{folder}/')


SRUN = """#!/bin/bash
# Starts all tasks of a step, as srun does; prints its own flags.
own=()
while [[ $1 == --* ]]; do
  own+=("$1")
  [[ $1 == --ntasks=* ]] && count=${1#*=}
  shift
done
echo "srun ${own[*]}" >>"$RECORD"
for ((task = 0; task < count; task++)); do
  SLURM_PROCID=$task "$@" &
  wait $! || status=$?
done
exit ${status:-0}
"""
SCONTROL = """#!/bin/bash
[[ "$*" == 'show hostnames gpu[07]' ]] && echo gpu07
"""
PYTHON = """#!/bin/bash
printf -v line '%q ' "$@"
echo "$line" >>"$RECORD"
[[ $* != *--job_name=learner* ]] || exit ${STATUS:-0}
"""


def add_program(folder, name, text):
  (folder / name).write_text(text)
  (folder / name).chmod(0o755)


class TestSlurm:
  @pytest.fixture
  def run(self, tmp_path):
    """Returns a function that runs the script, and what it started."""
    for name, text in (
      ('srun', SRUN),
      ('scontrol', SCONTROL),
      ('some python', PYTHON),
    ):
      add_program(tmp_path, name, text)
    variables = {
      'PATH': f'{tmp_path}{os.pathsep}{os.environ["PATH"]}',
      'PYTHON': str(tmp_path / 'some python'),
      'RECORD': str(tmp_path / 'record'),
      'SLURM_JOB_ID': '2413',
      'SLURM_JOB_NODELIST_HET_GROUP_0': 'gpu[07]',
      'SLURM_NTASKS_HET_GROUP_1': '3',
      'SLURM_CPUS_PER_TASK_HET_GROUP_0': '8',
      'SLURM_CPUS_PER_TASK_HET_GROUP_1': '2',
    }

    def run(*arguments, status=0, **more):
      done = subprocess.run(
        ['bash', DEPLOY / 'slurm.sbatch', *arguments],
        cwd=tmp_path,
        env=variables | {'STATUS': str(status)} | more,
        capture_output=True,
        text=True,
      )
      assert (done.returncode, done.stderr) == (status, '')
      steps, learners, actors = [], [], []
      for line in (tmp_path / 'record').read_text().splitlines():
        program, *flags = shlex.split(line)
        if program == 'srun':
          steps.append(flags)
          continue
        assert program == 'experiment.py'
        flags = parse(flags)
        {'learner': learners, 'actor': actors}[flags['job_name']].append(flags)
      (tmp_path / 'record').unlink()
      return steps, learners, actors

    return run

  def test_bash_can_read_it(self):
    subprocess.run(['bash', '-n', DEPLOY / 'slurm.sbatch'], check=True)

  def test_it_starts_a_learner_and_its_actors(self, run, tmp_path):
    steps, (learner,), actors = run()
    assert check_agreement(learner, actors)[0] == 'gpu07'
    assert learner['task'] == '0'
    assert sorted(actor['task'] for actor in actors) == ['0', '1', '2']
    assert learner['num_actors'] == '3'
    assert learner['level_name'] == 'pong'
    assert learner['logdir'] == f'{tmp_path}/logs/pong'
    assert (
      learner['cluster_token_file'] == f'{tmp_path}/logs/pong/cluster_token'
    )
    assert sorted(step[:3] for step in steps) == [
      ['--het-group=0', '--ntasks=1', '--cpus-per-task=8'],
      ['--het-group=1', '--ntasks=3', '--cpus-per-task=2'],
    ]

  def test_what_is_exported_and_what_follows_its_name_counts(self, run):
    _, (learner,), actors = run(
      '--batch_size=64', LEVEL='a b', NUM_ACTORS='2', LOGDIR='/some where'
    )
    assert len(actors) == 2
    for process in (learner, *actors):
      assert process['level_name'] == 'a b'
      assert process['num_actors'] == '2'
      assert process['batch_size'] == '64'
      assert process['logdir'] == '/some where'
      assert process['cluster_token_file'] == '/some where/cluster_token'

  @pytest.mark.parametrize('job', [1200, 1299, 1300, 2399])
  def test_its_ports_are_those_of_the_job(self, run, job):
    _, (learner,), _ = run(SLURM_JOB_ID=str(job))
    _, port = addresses.split(learner['learner_address'])
    assert port == schedulers.base_port(job)

  def test_it_fails_if_the_learner_does(self, run):
    run(status=3)
