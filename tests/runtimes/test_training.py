"""The learner's side of a run, alone: its ends, its checkpoints, its drops."""

import time

import numpy as np
import pytest
import tensorflow as tf

from scalable_agent.runtimes import training, worlds
from tests import runs

OPTIONS = {
  'level_name': 'catch',
  'num_actors': 0,
  'envs_per_actor': 2,
  'batch_size': 2,
  'total_environment_frames': 1000,
  'save_checkpoint_secs': 60.0,
}


def make_training(logdir, chief=True, **options):
  config, levels = runs.prepare(logdir, **(OPTIONS | options))
  environment = worlds.make_environment(config, levels[0], 1, seed=1)
  environment.close()
  return training.Training(config, levels, environment.spec, chief=chief)


@pytest.fixture
def one(tmp_path):
  return make_training(tmp_path)


class TestDone:
  def test_is_who_has_all_frames(self, one):
    for frames, done in ((0, False), (999, False), (1000, True), (1001, True)):
      one.learner.frames.assign(frames)
      assert one.done() == done

  def test_is_who_has_all_episodes(self, tmp_path):
    one = make_training(
      tmp_path, algorithm='ga3c', num_actors=1, total_episodes=50
    )
    for episodes, done in ((0, False), (49, False), (50, True), (51, True)):
      one.learner.episodes.assign(episodes)
      assert one.done() == done


def count_saves(one):
  saved = []
  one.save = saved.append
  return saved


def make_due(one):
  one._last_save = time.monotonic() - 61


class TestSaving:
  def test_is_once_whenever_it_is_due(self, one):
    saved = count_saves(one)
    one.save_if_due(lambda: {'seeds': 3})
    assert saved == []
    for count in (1, 2):
      make_due(one)
      for _ in range(3):
        one.save_if_due(lambda: {'seeds': 3})
      assert saved == [{'seeds': 3}] * count

  def test_is_not_done_again_by_who_waited_meanwhile(self, one):
    saved = count_saves(one)
    make_due(one)
    alone = one._gate.alone

    def after_another():
      one._last_save = time.monotonic()
      return alone()

    one._gate.alone = after_another
    one.save_if_due()
    assert saved == []

  def test_is_the_chiefs_alone(self, tmp_path):
    one = make_training(tmp_path, chief=False)
    saved = count_saves(one)
    make_due(one)
    one.save_if_due()
    assert saved == []


def learn(one, finite):
  """Has the learner's next update take its step, or not."""
  values = {'frames': 0, 'updates': 0, 'gradient_norm': 1.0}
  skipped = {'skipped_steps': 0 if finite else 1}
  one.learner.update = lambda batch: tf.nest.map_structure(
    np.asarray, values | skipped
  )
  one.update(None)


def test_only_batches_in_a_row_end_the_run(one):
  for _ in range(3):
    for _ in range(9):
      learn(one, finite=False)
    learn(one, finite=True)
  assert one.metrics.get_state()['dropped_batches'] == 27
  for _ in range(9):
    learn(one, finite=False)
  with pytest.raises(training.RunError, match='of 10 batches in a row'):
    learn(one, finite=False)
