"""DMLab-30 from the command line, on a stand-in for the engine."""

import collections
import importlib.util
import json
import os
import re

import pytest
from tensorboard.backend.event_processing import event_accumulator

from scalable_agent.suites import dmlab30
from tests.ports import free_address
from tests.processes import ROOT, Jobs, episodes, flags, run

FAKES = ROOT / 'tests' / 'environments' / 'fakes'
WITH_LAB = f'{ROOT}{os.pathsep}{FAKES}'

TINY = {
  'network': 'shallow',
  'width': 24,
  'height': 24,
  'instruction_length': 4,
  'unroll_length': 10,
}
DMLAB30 = TINY | {
  'preset': 'impala_dmlab30',
  'level_name': 'dmlab30',
  # Two of them play the same.
  'num_actors': 31,
  'level_shares': 'rooms_watermaze:2',
  'batch_size': 31,
  # Three unrolls of each actor, whose episodes have up to ten steps.
  'total_environment_frames': 3 * 31 * 10 * 4,
  # So that no actor is far ahead of the others.
  'queue_capacity': 1,
}


@pytest.mark.slow
class TestDmLab30:
  @pytest.fixture(scope='class')
  @classmethod
  def trained(cls, tmp_path_factory):
    """A logdir, and what the training in it has printed."""
    logdir = tmp_path_factory.mktemp('dmlab30')
    result = run(*flags(logdir, DMLAB30), '-v=1', python_path=WITH_LAB)
    assert result.status == 0, result.output
    return logdir, result.output

  def test_all_levels_are_trained_on(self, trained):
    logdir, output = trained
    counts = collections.Counter(row['level'] for row in episodes(logdir))
    assert set(counts) == set(dmlab30.LEVEL_MAPPING)
    assert (
      '--num_actors=31 with --level_shares=rooms_watermaze:2: each actor plays '
      'one: 2 (6.5%) for rooms_watermaze; 1 (3.2%) for each of 29'
    ) in output
    options = json.loads((logdir / 'config.json').read_text())
    assert options['entropy_cost'] == 0.0033391318945337044
    assert options['reward_clipping'] == 'soft_asymmetric'

  def test_episodes_are_told_as_in_2018(self, trained):
    logdir, output = trained
    told = collections.Counter(
      re.findall(r'Level: (\w+) Episode return: -?\d+\.\d{6}', output)
    )
    assert told == collections.Counter(row['level'] for row in episodes(logdir))

  def test_scores_have_the_tags_of_2018(self, trained):
    logdir, _ = trained
    accumulator = event_accumulator.EventAccumulator(str(logdir)).Reload()
    tags = set(accumulator.Tags()['tensors']) | set(
      accumulator.Tags()['scalars']
    )
    expected = {f'{level}/episode_return' for level in dmlab30.LEVEL_MAPPING}
    expected |= {f'{level}/episode_frames' for level in dmlab30.LEVEL_MAPPING}
    expected |= {'dmlab30/training_no_cap', 'dmlab30/training_cap_100'}
    assert expected <= tags

  def test_a_test_is_of_the_test_levels(self, trained):
    logdir, _ = trained
    result = run(
      '--mode=test',
      f'--logdir={logdir}',
      '--test_num_episodes=1',
      python_path=WITH_LAB,
    )
    assert result.status == 0, result.output
    (path,) = (logdir / 'tests').iterdir()
    report = json.loads(path.read_text())
    returns = {level['level']: level['returns'] for level in report['levels']}
    assert list(returns) == list(dmlab30.LEVEL_MAPPING.values())
    scores = [
      dmlab30.compute_human_normalized_score(returns, cap)
      for cap in (None, 100)
    ]
    assert 'No cap.: {:f} Cap 100: {:f}'.format(*scores) in result.output
    assert list(report['scores'].values()) == pytest.approx(scores)
    for level in returns:
      assert f'Testing level: {level}' in result.output
    assert result.output.count('Mean episode return: ') == 30


@pytest.mark.skipif(
  importlib.util.find_spec('deepmind_lab') is not None,
  reason='DeepMind Lab is installed',
)
@pytest.mark.parametrize('level_name', ['rooms_watermaze', 'lt_chasm'])
def test_without_deepmind_lab_there_is_one_line(tmp_path, level_name):
  result = run(*flags(tmp_path / 'logdir', {'level_name': level_name}))
  assert result.status == 1
  assert 'Traceback' not in result.output
  line = result.output.splitlines()[-1]
  assert line.startswith(f'experiment.py: {level_name} needs DeepMind Lab')
  assert 'pip install dmlab-gym' in line
  assert not list(tmp_path.glob('*/config.json'))


def test_a_learner_needs_no_engine_and_its_actors_do(tmp_path):
  options = TINY | {
    'level_name': 'contributed/dmlab30/language_select_described_object',
    'batch_size': 1,
    'num_actors': 1,
    'envs_per_actor': 1,
    'total_environment_frames': 200,
    'learner_address': free_address(),
  }
  with Jobs(tmp_path, options) as jobs:
    learner = jobs.learner()
    actor = jobs.actor(0, variables={'PYTHONPATH': WITH_LAB})
    for job in learner, actor:
      result = job.finish()
      assert result.status == 0, result.output
    assert {row['level'] for row in episodes(jobs.logdir)} == {
      'language_select_described_object'
    }


def test_a_video_shows_what_is_seen(tmp_path):
  options = TINY | {
    'level_name': 'seekavoid_arena_01',
    'num_actors': 1,
    'batch_size': 1,
    'total_environment_frames': 40,
    'logdir': tmp_path,
  }
  result = run(*flags(tmp_path, options), python_path=WITH_LAB)
  assert result.status == 0, result.output
  result = run(
    '--mode=test',
    f'--logdir={tmp_path}',
    '--test_num_episodes=1',
    f'--video_dir={tmp_path}/videos',
    python_path=WITH_LAB,
  )
  assert result.status == 0, result.output
  assert (tmp_path / 'videos' / 'seekavoid_arena_01.mp4').stat().st_size > 0
