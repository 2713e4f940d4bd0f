"""Trainings in this process, and what they leave behind, for their tests."""

import csv

import numpy as np
import tensorflow as tf
import tree

from scalable_agent import environments
from scalable_agent.options import validate
from scalable_agent.runtimes import local_run
from scalable_agent.storage import nest_files
from tests.configs import make_config, resolve

NEVER = 1e9


def prepare(logdir, **options):
  """Returns the Config of a training, and its levels."""
  levels = environments.parse_levels(options['level_name'])
  config = make_config(logdir=str(logdir), **options)
  implied = environments.implied_options(levels, config)
  config = resolve(config, levels[0].suite, implied)
  validate(config)
  return config, levels


def stop_after_updates(run, updates):
  """Has `run` interrupted in the middle, whatever the clock says."""
  update = run._training.learner.update

  def update_and_stop(batch):
    values = update(batch)
    if int(values['updates']) >= updates:
      run.stop()
    return values

  run._training.learner.update = update_and_stop


def train_until_solved(run, score):
  """Trains until the mean return of the last 100 episodes is `score`.

  Asserts that it ever is.
  """
  update, solved = run._training.update, []

  def update_and_look(*args):
    update(*args)
    mean = run._metrics.score
    if mean is not None and mean >= score:
      solved.append(mean)
      run.stop()

  run._training.update = update_and_look
  local_run.train(run)
  assert solved, f'{run._metrics.score} at {run.frames()} frames'


class Breaking:
  """Makes functions that fail in the end, all of them with one count.

  Attributes:
    calls: of them so far.
  """

  def __init__(self, what):
    self.calls = 0
    self._what = what

  def __call__(self, function, limit):
    """Returns `function`, which raises once `limit` calls were made."""

    def fails_in_the_end(*args):
      self.calls += 1
      if self.calls > limit:
        raise ZeroDivisionError(f'the {self._what} broke')
      return function(*args)

    return fails_in_the_end


def newest_checkpoint(logdir):
  """Returns its folder."""
  folders = [p for p in (logdir / 'checkpoints').iterdir() if p.is_dir()]
  return max(folders, key=lambda path: int(path.name))


def saved_variables(logdir):
  """Weights, optimizer slots and counters in the newest checkpoint, by name."""
  path = str(newest_checkpoint(logdir) / 'variables')
  reader = tf.train.load_checkpoint(path)
  names = reader.get_variable_to_dtype_map()
  return {
    name: reader.get_tensor(name)
    for name, dtype in names.items()
    if dtype != tf.string and 'save_counter' not in name
  }


def saved_state(logdir):
  """Everything else in it but the time that it took."""
  state = nest_files.read(str(newest_checkpoint(logdir) / 'state.npz'))
  del state['metrics']['elapsed_seconds']
  return state


def episodes(logdir):
  """Rows of episodes.csv."""
  with open(logdir / 'episodes.csv', encoding='utf-8') as file:
    return list(csv.DictReader(file))


def episodes_without_time(logdir):
  """The same but for the seconds."""
  rows = episodes(logdir)
  for row in rows:
    assert float(row.pop('seconds')) >= 0
  return rows


def assert_same_bits(one, two):
  """Asserts that two logdirs hold the same run."""
  first, second = saved_variables(one), saved_variables(two)
  assert first.keys() == second.keys()
  assert any('optimizer' in name for name in first)
  for name, value in first.items():
    np.testing.assert_array_equal(value, second[name], err_msg=name)
  tree.map_structure(
    np.testing.assert_array_equal, saved_state(one), saved_state(two)
  )
  assert episodes_without_time(one) == episodes_without_time(two)
