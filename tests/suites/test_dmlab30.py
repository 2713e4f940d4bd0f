"""DMLab-30 scores, in the terms of the 2018 code."""

import numpy as np
import pytest

from scalable_agent.suites import dmlab30


def test_there_are_thirty_levels_two_of_which_differ_in_the_test():
  mapping = dmlab30.LEVEL_MAPPING
  assert len(mapping) == 30
  assert {k: v for k, v in mapping.items() if k != v} == {
    'rooms_collect_good_objects_train': 'rooms_collect_good_objects_test',
    'rooms_exploit_deferred_effects_train': (
      'rooms_exploit_deferred_effects_test'
    ),
  }
  test_levels = set(mapping.values())
  assert set(dmlab30.HUMAN_SCORES) == test_levels
  assert set(dmlab30.RANDOM_SCORES) == test_levels
  assert set(mapping) | test_levels == dmlab30.ALL_LEVELS


def test_the_human_gets_a_hundred_and_random_play_nothing():
  human = {k: [v] for k, v in dmlab30.HUMAN_SCORES.items()}
  random = {k: [v] for k, v in dmlab30.RANDOM_SCORES.items()}
  score = dmlab30.compute_human_normalized_score
  assert score(human, per_level_cap=None) == pytest.approx(100)
  assert score(random, per_level_cap=None) == pytest.approx(0)


def test_the_cap_holds_for_each_level_and_training_names_are_understood():
  returns = {
    train: [dmlab30.RANDOM_SCORES[test], dmlab30.RANDOM_SCORES[test]]
    for train, test in dmlab30.LEVEL_MAPPING.items()
  }
  # Human 54, random 4.065: the mean of these two is 300 % of the human.
  returns['rooms_watermaze'] = [4.065 + 3 * 49.935 - 1, 4.065 + 3 * 49.935 + 1]
  returns['not_of_the_thirty'] = []
  score = dmlab30.compute_human_normalized_score
  assert score(returns, per_level_cap=None) == pytest.approx(300 / 30)
  assert score(returns, per_level_cap=100) == pytest.approx(100 / 30)


def test_a_missing_level_is_named():
  returns = {k: [1.0] for k in dmlab30.LEVEL_MAPPING if k != 'rooms_watermaze'}
  with pytest.raises(
    ValueError, match=r"^Missing levels: \['rooms_watermaze'\]$"
  ):
    dmlab30.compute_human_normalized_score(returns, per_level_cap=100)


def test_a_level_without_returns_is_named():
  returns = {k: np.ones([2]) for k in dmlab30.LEVEL_MAPPING}
  returns['rooms_watermaze'] = np.ones([0])
  with pytest.raises(
    ValueError, match=r"^Missing returns for level: 'rooms_watermaze': $"
  ):
    dmlab30.compute_human_normalized_score(returns, per_level_cap=100)
