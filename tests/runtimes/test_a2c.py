"""A2C: the same seed gives the same run, bit for bit; it learns."""

import pytest

from scalable_agent.options import validate
from scalable_agent.runtimes import local_run, serial
from tests import runs
from tests.configs import make_config
from tests.runs import NEVER

OPTIONS = {
  'algorithm': 'a2c',
  'level_name': 'catch',
  'envs_per_actor': 3,
  'unroll_length': 5,
  'total_environment_frames': 300,
  'save_checkpoint_secs': NEVER,
  'summary_secs': NEVER,
  'progress_secs': NEVER,
}


def make_run(logdir, **options):
  config, levels = runs.prepare(logdir, **options)
  return serial.Run(config, levels, config.actors.envs_per_actor)


def train(logdir, **options):
  run = make_run(logdir, **(OPTIONS | options))
  local_run.train(run)
  return run


def test_interrupted_or_not_a_seed_gives_the_same_bits(tmp_path):
  options = {
    'level_name': 'CartPole-v1',
    'lstm': True,
    'optimizer': 'rmsprop',
    'epsilon': 0.1,
  }
  for name in 'one', 'two':
    train(tmp_path / name, **options)
  # Stopped in the middle, twice.
  for updates in 4, 9:
    run = make_run(tmp_path / 'parts', **(OPTIONS | options))
    runs.stop_after_updates(run, updates)
    local_run.train(run)
    assert run._training.updates() == updates
  train(tmp_path / 'parts', **options)
  for other in 'two', 'parts':
    runs.assert_same_bits(tmp_path / 'one', tmp_path / other)
  assert runs.episodes(tmp_path / 'one')
  train(tmp_path / 'seed', **(options | {'seed': 2}))
  variables = runs.saved_variables(tmp_path / 'one')
  others = runs.saved_variables(tmp_path / 'seed')
  assert any((variables[name] != others[name]).any() for name in variables)


def test_every_update_learns_from_all_environments_and_lags_behind_none(
  tmp_path,
):
  run = make_run(tmp_path, **OPTIONS)
  update, seen = run._training.learner.update, []

  def record(batch):
    values = update(batch)
    seen.append((batch.level.shape, float(values['max_policy_lag'])))
    return values

  run._training.learner.update = record
  local_run.train(run)
  assert len(seen) >= 20
  assert set(seen) == {((3,), 0.0)}


@pytest.mark.parametrize(
  ('level_name', 'score'),
  [
    ('catch', 0.95),
    pytest.param('CartPole-v1', 450, marks=pytest.mark.nightly),
  ],
)
def test_the_defaults_solve_it(tmp_path, level_name, score):
  run = make_run(tmp_path, algorithm='a2c', level_name=level_name)
  runs.train_until_solved(run, score)


@pytest.mark.parametrize('algorithm', ['a2c', 'ga3c'])
@pytest.mark.parametrize(
  'place', [{'task': 0}, {'learner_address': 'slurm'}], ids=['task', 'slurm']
)
def test_several_processes_are_refused(algorithm, place):
  config = make_config(algorithm=algorithm, level_name='catch', **place)
  with pytest.raises(
    ValueError,
    match=f'^--algorithm={algorithm} trains on a single machine only',
  ):
    validate(config)
