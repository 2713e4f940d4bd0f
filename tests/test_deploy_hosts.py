"""What the manifests in deploy/ start, on hosts of this machine.

Each process runs in a network namespace of its own with the flags that the file
gives it, but for the level and its size; the name of the learner resolves only
after the actors have begun to ask for it.
"""

import contextlib
import os
import pathlib
import subprocess
import sys

import pytest
import yaml

from tests import hosts as hosts_lib
from tests.processes import DEADLINE_S, ROOT, environment_variables
from tests.waiting import wait_until

NUM_ACTORS = 2
# Later flags win.
SMALL = [
  '--level_name=catch',
  f'--num_actors={NUM_ACTORS}',
  '--total_environment_frames=30000',
]
HOSTS = ['learner', *(f'actor{task}' for task in range(NUM_ACTORS))]


@pytest.fixture(scope='module', autouse=True)
def _possible():
  if reason := hosts_lib.obstacle():
    pytest.skip(reason)


def of_kubernetes():
  """Returns the command of each host, and the learner's name."""
  text = (ROOT / 'deploy' / 'kubernetes.yaml').read_text(encoding='utf-8')
  jobs = {
    each['metadata']['name']: each['spec']['template']['spec']
    for each in yaml.safe_load_all(text)
    if each['kind'] == 'Job'
  }
  commands = {}
  for host in HOSTS:
    role, index = ('learner', 0) if host == 'learner' else ('actor', host[-1])
    (container,) = jobs[f'scalable-agent-{role}']['containers']
    flags = [
      flag.replace('$(JOB_COMPLETION_INDEX)', str(index))
      for flag in container['args']
    ]
    commands[host] = container['command'] + flags
  return commands, 'scalable-agent-learner'


def of_compose():
  """Returns the command of each host, and the learner's name."""
  text = (ROOT / 'deploy' / 'compose.yaml').read_text(encoding='utf-8')
  services = yaml.safe_load(text)['services']
  names = dict(zip(HOSTS, services, strict=False))
  commands = {
    host: [
      flag.replace('${LEVEL:-pong}', 'pong')
      for flag in services[name]['entrypoint'] + services[name]['command']
    ]
    for host, name in names.items()
  }
  return commands, 'learner'


@contextlib.contextmanager
def names_of(network):
  """Yields a function that has all hosts know an address by a name."""
  files = {}
  with contextlib.ExitStack() as stack:
    for host in HOSTS:
      namespace = network.inside(host)[-1]
      # `ip netns exec` lays what is here over /etc.
      folder = pathlib.Path('/etc/netns') / namespace
      folder.mkdir(parents=True)
      stack.callback(folder.rmdir)
      files[host] = folder / 'hosts'
      files[host].write_text('127.0.0.1 localhost\n')
      stack.callback(files[host].unlink)

    def know(name, address):
      for file in files.values():
        with file.open('a') as lines:
          lines.write(f'{address} {name}\n')

    yield know


@pytest.mark.parametrize(
  ('manifest', 'inference'),
  [
    (of_kubernetes, 'learner'),
    pytest.param(of_compose, 'actor', marks=pytest.mark.nightly),
  ],
)
def test_what_a_manifest_starts_trains(manifest, inference, tmp_path):
  commands, name = manifest()
  token = tmp_path / 'token'
  token.write_text('a-secret\n')
  token.chmod(0o600)
  # `python` is that of the image.
  folder = os.path.dirname(sys.executable)
  variables = environment_variables() | {
    'PATH': f'{folder}{os.pathsep}{os.environ["PATH"]}'
  }
  with hosts_lib.Network(HOSTS) as network, names_of(network) as know:
    processes, outputs = {}, {}

    def start(host):
      mounted = [
        f'--cluster_token_file={token}'
        if flag.startswith('--cluster_token_file=')
        else flag.replace('=/logs', f'={tmp_path}/logs')
        for flag in commands[host]
      ]
      outputs[host] = tmp_path / f'{host}.txt'
      with open(outputs[host], 'w', encoding='utf-8') as file:
        processes[host] = subprocess.Popen(
          [*network.inside(host), *mounted, *SMALL, f'--inference={inference}'],
          cwd=ROOT,
          env=variables,
          stdout=file,
          stderr=subprocess.STDOUT,
        )

    for host in HOSTS[1:]:
      start(host)
    try:
      for host in HOSTS[1:]:
        wait_until(
          lambda host=host: 'waits for the' in outputs[host].read_text()
        )
      know(name, network.address('learner'))
      start('learner')
      statuses = [p.wait(DEADLINE_S) for p in processes.values()]
    finally:
      for process in processes.values():
        process.kill()
        process.wait()
  texts = {host: path.read_text() for host, path in outputs.items()}
  assert statuses == [0] * len(HOSTS), texts
  for host in HOSTS[1:]:
    assert texts[host].count('waits for the learner') == 1
    assert 'Training is over' in texts[host]
  assert 'is not encrypted' in texts['learner']
