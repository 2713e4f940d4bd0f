"""TensorFlow is loaded by those who need it, and not before."""

import json
import subprocess
import sys

import pytest

from scalable_agent import environments
from scalable_agent.runtimes import ALGORITHMS, IMPALA, Ended, assembly, startup
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

def act(act, config, levels, cluster):
  print(cluster.job_name, cluster.task, 'tensorflow' in sys.modules)

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


def test_an_actor_of_impala_gets_to_its_work_without_tensorflow():
  flags = ['--job_name=actor', '--task=1', '--num_actors=2']
  said = run(ACTOR, *flags, '--level_name=catch,catch_hidden')
  assert said == 'actor 1 False\n'


class Cluster:
  def __init__(self, job_name):
    self.job_name = job_name

  def check(self):
    pass


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


def test_an_actor_says_in_one_line_what_is_wrong_with_its_agent(threads):
  levels = environments.parse_levels('catch')
  config = make_config(level_name='catch', normalise_pixels=False)
  config = resolve(config, levels[0].suite)
  work = IMPALA.prepare(config, levels, Cluster('actor'), {'normalise_pixels'})
  assert threads == []
  with pytest.raises(Ended, match=r'^--nonormalise_pixels has no effect: '):
    work()
