"""TensorFlow is loaded by those who need it, and not before."""

import json
import subprocess
import sys
import types

import pytest

from scalable_agent import environments
from scalable_agent.runtimes import (
  ALGORITHMS,
  IMPALA,
  actor_process,
  assembly,
  impala_actor,
  startup,
)
from scalable_agent.runtimes.algorithm import Ended
from scalable_agent.transport import learner_link
from tests.configs import make_config, resolve
from tests.processes import environment_variables
from tests.waiting import DEADLINE_S

# TensorFlow, and what some libraries import if nobody looks.
HEAVY = ('tensorflow', 'keras', 'sonnet', 'matplotlib', 'pygame', 'cv2')

PROGRAM = """
import json, sys

import numpy as np

import experiment
from scalable_agent import actor, environments, options, runtimes
from scalable_agent.runtimes import processes, startup, worlds
from scalable_agent.storage import files
from scalable_agent.transport import protocol

level_name, *heavy = sys.argv[1:]
level = environments.parse_level(level_name)
config = runtimes.make_catalog().make(level_name=level_name)
config = options.resolve(config, level.suite)
environment = worlds.make_environment(config, level, 2, seed=1)
environment.reset()
environment.step(np.zeros([2], np.int64))
environment.close()
print(json.dumps([name for name in heavy if name in sys.modules]))
"""


ACTOR = """
import sys

import experiment
from absl import app
from scalable_agent.runtimes import processes

def act(act, config, levels, cluster, own):
  print(cluster.job_name, cluster.task, 'tensorflow' in sys.modules, own.token)

processes._act = act
app.run(experiment.main, sys.argv, flags_parser=experiment.parse_flags)
"""


def run(program, *argv):
  """Returns what a program in an interpreter of its own prints."""
  result = subprocess.run(
    [sys.executable, '-c', program, *argv],
    capture_output=True,
    text=True,
    env=environment_variables(),
    timeout=DEADLINE_S,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  return result.stdout


@pytest.mark.parametrize('level', ['pong', 'catch', 'CartPole-v1'])
def test_environments_are_made_and_stepped_without_tensorflow(level):
  assert json.loads(run(PROGRAM, level, *HEAVY)) == []


def test_an_actor_of_impala_gets_to_its_work_without_tensorflow(tmp_path):
  token = tmp_path / 'cluster_token'
  token.touch(0o600)
  token.write_text('a3\n')
  flags = ['--job_name=actor', '--task=1', '--num_actors=2']
  flags += ['--level_name=catch,catch_hidden', f'--logdir={tmp_path}']
  assert run(ACTOR, *flags) == 'actor 1 False a3\n'


STEPPER = """
import sys

from scalable_agent import environments, options, runtimes
from scalable_agent.distribution.cluster import Cluster
from scalable_agent.runtimes import actor_process, impala_actor
from scalable_agent.transport.learner_link import Over, Welcome

class Link:
  welcome = Welcome(0, 0, 'learner', {})
  asked = 0

  def begin(self, cargo, **message):
    print(cargo, message['columns'])

  def ask(self, method, write):
    self.asked += 1
    if self.asked > 20:
      raise Over
    write(b'')
    return bytes(8 * 4)

catalog = runtimes.make_catalog()
config = catalog.make(
  level_name='catch', job_name='actor', task=0, num_actors=1, envs_per_actor=8
)
levels = environments.parse_levels('catch')
config = options.resolve(config, levels[0].suite)
cluster = Cluster(('a:1',), (), 'actor', 0, 1)
link = Link()
try:
  impala_actor.work(actor_process.Job(config, levels, cluster, link))
except Over:
  print(link.asked, 'tensorflow' in sys.modules)
"""


def test_an_actor_that_only_steps_environments_never_loads_it():
  assert run(STEPPER) == 'observations 8\n21 False\n'


class Cluster:
  learners, task = ('localhost:1',), 0
  learner_address = 'localhost:1'

  def __init__(self, job_name):
    self.job_name = job_name


@pytest.mark.parametrize(
  ('cluster', 'expected'),
  [(None, []), (Cluster('learner'), []), (Cluster('actor'), ['impala'])],
)
def test_only_actors_of_impala_may_never_need_it(cluster, expected):
  begin = [one for one in ALGORITHMS if one.begins_without_tensorflow(cluster)]
  assert [one.name for one in begin] == expected


@pytest.fixture
def threads(monkeypatch):
  """Returns the numbers of threads that TensorFlow is told of."""
  numbers = []
  # Those of a process can be set once only.
  monkeypatch.setattr(
    assembly,
    'use_threads',
    lambda config: numbers.append(config.threads.intra_op_threads),
  )
  return numbers


def test_what_waits_for_tensorflow_is_resolved(threads):
  levels = environments.parse_levels('catch')
  config = resolve(
    make_config(level_name='catch', precision='auto', intra_op_threads=3),
    levels[0].suite,
  )
  waiting = config.agent
  assert [waiting.network, waiting.precision, waiting.jit_compile] == [
    'auto'
  ] * 3
  resolved = startup.resolve(config, levels, ()).agent
  assert resolved.network == 'mlp'
  assert resolved.precision in ('float32', 'bfloat16')
  assert resolved.jit_compile == 'pixels'
  assert threads == [3]


def test_an_actor_is_ready_before_anything_is_known_of_its_agent(threads):
  levels = environments.parse_levels('catch')
  config = make_config(
    level_name='catch', normalise_pixels=False, insecure_loopback=True, task=0
  )
  config = resolve(config, levels[0].suite)
  work = IMPALA.prepare(config, levels, Cluster('actor'), {'normalise_pixels'})
  assert threads == []
  assert callable(work)


def test_an_actor_that_acts_resolves_what_its_learner_left(threads):
  levels = environments.parse_levels('catch')
  config = make_config(level_name='catch', normalise_pixels=False)
  config = resolve(config, levels[0].suite)
  link = types.SimpleNamespace(welcome=learner_link.Welcome(0, 0, 'actor', {}))
  job = actor_process.Job(config, levels, Cluster('actor'), link)
  with pytest.raises(Ended, match=r'^--nonormalise_pixels has no effect'):
    impala_actor.work(job)
