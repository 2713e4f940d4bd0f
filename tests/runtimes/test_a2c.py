"""A2C: the same seed gives the same run, bit for bit; it learns."""

import csv

import numpy as np
import pytest
import tensorflow as tf

from scalable_agent import environments
from scalable_agent.options import validate
from scalable_agent.runtimes import local_run, serial
from scalable_agent.storage import nest_files
from tests.configs import make_config, resolve

NEVER = 1e9
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
  levels = environments.parse_levels(options['level_name'])
  config = make_config(logdir=str(logdir), **options)
  implied = environments.implied_options(levels, config)
  config = resolve(config, levels[0].suite, implied)
  validate(config)
  return serial.Run(config, levels, config.actors.envs_per_actor)


def train(logdir, **options):
  run = make_run(logdir, **(OPTIONS | options))
  local_run.train(run)
  return run


def saved(logdir):
  """Everything in the newest checkpoint but the time that it took."""
  folders = [p for p in (logdir / 'checkpoints').iterdir() if p.is_dir()]
  folder = max(folders, key=lambda path: int(path.name))
  reader = tf.train.load_checkpoint(str(folder / 'variables'))
  kinds = reader.get_variable_to_dtype_map()
  variables = {
    name: reader.get_tensor(name)
    for name, kind in kinds.items()
    if kind != tf.string and 'save_counter' not in name
  }
  state = nest_files.read(str(folder / 'state.npz'))
  del state['metrics']['elapsed_seconds']
  return variables, state


def rows(logdir):
  with open(logdir / 'episodes.csv', encoding='utf-8') as file:
    return [
      {k: v for k, v in row.items() if k != 'seconds'}
      for row in csv.DictReader(file)
    ]


@pytest.mark.parametrize(
  'options',
  [
    {'lstm': True},
    {'level_name': 'CartPole-v1', 'optimizer': 'rmsprop', 'epsilon': 0.1},
  ],
  ids=['catch', 'cartpole'],
)
def test_interrupted_or_not_a_seed_gives_the_same_bits(tmp_path, options):
  for name in 'one', 'two':
    train(tmp_path / name, **options)
  # Stopped in the middle, twice.
  for updates in 4, 9:
    run = make_run(tmp_path / 'parts', **(OPTIONS | options))
    update = run._training.learner.update

    def update_and_stop(batch, run=run, update=update, updates=updates):
      values = update(batch)
      if int(values['updates']) == updates:
        run.stop()
      return values

    run._training.learner.update = update_and_stop
    local_run.train(run)
    assert run._training.updates() == updates
  train(tmp_path / 'parts', **options)
  variables, state = saved(tmp_path / 'one')
  assert any('optimizer' in name for name in variables)
  for other in 'two', 'parts':
    others, other_state = saved(tmp_path / other)
    assert variables.keys() == others.keys()
    for name, value in variables.items():
      np.testing.assert_array_equal(value, others[name], err_msg=name)
    tf.nest.map_structure(np.testing.assert_array_equal, state, other_state)
    assert rows(tmp_path / other) == rows(tmp_path / 'one')
  assert rows(tmp_path / 'one')
  train(tmp_path / 'seed', **(options | {'seed': 2}))
  others, _ = saved(tmp_path / 'seed')
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


def mean_return(logdir, episodes):
  returns = [float(row['episode_return']) for row in rows(logdir)]
  assert len(returns) >= episodes
  return np.mean(returns[-episodes:])


@pytest.mark.slow
@pytest.mark.parametrize(
  ('level_name', 'score'), [('catch', 0.95), ('CartPole-v1', 450)]
)
def test_the_defaults_solve_it(tmp_path, level_name, score):
  run = make_run(tmp_path, algorithm='a2c', level_name=level_name)
  local_run.train(run)
  assert mean_return(tmp_path, 100) >= score


def test_catch_is_solved(tmp_path):
  train(
    tmp_path,
    total_environment_frames=60_000,
    envs_per_actor=16,
    unroll_length=10,
  )
  assert mean_return(tmp_path, 500) >= 0.9
