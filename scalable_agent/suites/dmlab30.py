"""DMLab-30: levels, human and random scores, the capped mean of the papers.

Names and error texts are those of the 2018 code. Scores are keyed by test
level. Table B.1 of the IMPALA paper has the scores of the lasertag levels
`small` and `large` the other way round; these follow the code.
"""

from collections.abc import Mapping, Sequence

HUMAN_SCORES = {
  'rooms_collect_good_objects_test': 10,
  'rooms_exploit_deferred_effects_test': 85.65,
  'rooms_select_nonmatching_object': 65.9,
  'rooms_watermaze': 54,
  'rooms_keys_doors_puzzle': 53.8,
  'language_select_described_object': 389.5,
  'language_select_located_object': 280.7,
  'language_execute_random_task': 254.05,
  'language_answer_quantitative_question': 184.5,
  'lasertag_one_opponent_small': 12.65,
  'lasertag_three_opponents_small': 18.55,
  'lasertag_one_opponent_large': 18.6,
  'lasertag_three_opponents_large': 31.5,
  'natlab_fixed_large_map': 36.9,
  'natlab_varying_map_regrowth': 24.45,
  'natlab_varying_map_randomized': 42.35,
  'skymaze_irreversible_path_hard': 100,
  'skymaze_irreversible_path_varied': 100,
  'psychlab_arbitrary_visuomotor_mapping': 58.75,
  'psychlab_continuous_recognition': 58.3,
  'psychlab_sequential_comparison': 39.5,
  'psychlab_visual_search': 78.5,
  'explore_object_locations_small': 74.45,
  'explore_object_locations_large': 65.65,
  'explore_obstructed_goals_small': 206,
  'explore_obstructed_goals_large': 119.5,
  'explore_goal_locations_small': 267.5,
  'explore_goal_locations_large': 194.5,
  'explore_object_rewards_few': 77.7,
  'explore_object_rewards_many': 106.7,
}

RANDOM_SCORES = {
  'rooms_collect_good_objects_test': 0.073,
  'rooms_exploit_deferred_effects_test': 8.501,
  'rooms_select_nonmatching_object': 0.312,
  'rooms_watermaze': 4.065,
  'rooms_keys_doors_puzzle': 4.135,
  'language_select_described_object': -0.07,
  'language_select_located_object': 1.929,
  'language_execute_random_task': -5.913,
  'language_answer_quantitative_question': -0.33,
  'lasertag_one_opponent_small': -0.224,
  'lasertag_three_opponents_small': -0.214,
  'lasertag_one_opponent_large': -0.083,
  'lasertag_three_opponents_large': -0.102,
  'natlab_fixed_large_map': 2.173,
  'natlab_varying_map_regrowth': 2.989,
  'natlab_varying_map_randomized': 7.346,
  'skymaze_irreversible_path_hard': 0.1,
  'skymaze_irreversible_path_varied': 14.4,
  'psychlab_arbitrary_visuomotor_mapping': 0.163,
  'psychlab_continuous_recognition': 0.224,
  'psychlab_sequential_comparison': 0.129,
  'psychlab_visual_search': 0.085,
  'explore_object_locations_small': 3.575,
  'explore_object_locations_large': 4.673,
  'explore_obstructed_goals_small': 6.76,
  'explore_obstructed_goals_large': 2.61,
  'explore_goal_locations_small': 7.66,
  'explore_goal_locations_large': 3.14,
  'explore_object_rewards_few': 2.073,
  'explore_object_rewards_many': 2.438,
}

# Of their files, among the levels that come with DeepMind Lab.
FOLDER = 'contributed/dmlab30'

# Training level -> test level; the same but for two levels.
LEVEL_MAPPING = {
  level.replace('_test', '_train'): level for level in HUMAN_SCORES
}

ALL_LEVELS = frozenset(LEVEL_MAPPING) | frozenset(LEVEL_MAPPING.values())


def human_normalized_score(level: str, mean_return: float) -> float:
  """Returns 100 for the human's score and 0 for random play, in percent.

  Args:
    level: training or test level of DMLab-30.
    mean_return: mean return of its episodes.
  """
  level = LEVEL_MAPPING.get(level, level)
  random = RANDOM_SCORES[level]
  return (mean_return - random) / (HUMAN_SCORES[level] - random) * 100


def training_scores(
  level_returns: Mapping[str, Sequence[float]],
) -> dict[str, float]:
  """Returns the scores of a training by the TensorBoard tags of 2018."""
  tags = ('dmlab30/training_no_cap', 'dmlab30/training_cap_100')
  return _named(tags, level_returns)


def test_scores(
  level_returns: Mapping[str, Sequence[float]],
) -> dict[str, float]:
  """Returns the scores of a test as the log line of 2018 calls them."""
  return _named(('No cap.', 'Cap 100'), level_returns)


def _named(
  names: tuple[str, str], level_returns: Mapping[str, Sequence[float]]
) -> dict[str, float]:
  """Returns the score without a cap and with one of 100, so called."""
  return {
    name: compute_human_normalized_score(level_returns, per_level_cap=cap)
    for name, cap in zip(names, (None, 100), strict=True)
  }


def compute_human_normalized_score(
  level_returns: Mapping[str, Sequence[float]], per_level_cap: float | None
) -> float:
  """Returns the mean human-normalised score over the 30 levels, in percent.

  Args:
    level_returns: returns of episodes by training or test level. Levels
      outside DMLab-30 are left out.
    per_level_cap: most that one level may score, in percent; None for no cap.

  Raises:
    ValueError: if a level or its returns are missing.
  """
  import numpy as np  # Here, as --help imports this file.

  test_returns = {
    LEVEL_MAPPING.get(level, level): returns
    for level, returns in level_returns.items()
  }
  missing = [level for level in HUMAN_SCORES if level not in test_returns]
  if missing:
    raise ValueError(f'Missing levels: {missing}')
  scores: list[float] = []
  for level in HUMAN_SCORES:
    if len(test_returns[level]) == 0:
      raise ValueError(f"Missing returns for level: '{level}': ")
    score = human_normalized_score(level, float(np.mean(test_returns[level])))
    scores.append(score if per_level_cap is None else min(score, per_level_cap))
  return float(np.mean(scores))
