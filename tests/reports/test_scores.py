"""Which returns make the score of a run."""

import numpy as np
import pytest

from scalable_agent import environments
from scalable_agent.reports import scores
from scalable_agent.suites import atari57, dmlab30
from tests.configs import SUITES

ATARI = SUITES['atari']
NONE = environments.Suite()


def filled(levels, suite=NONE, episodes=20):
  """Scores with as many episodes of the same return for each level."""
  s = scores.Scores(levels, suite)
  for level, episode_return in levels.items():
    for _ in range(episodes):
      s.add(level, episode_return)
  return s


def percent(game, share):
  """The return of a game that is so many percent of a human's."""
  random, human = atari57.RANDOM_SCORES[game], atari57.HUMAN_SCORES[game]
  return random + share / 100 * (human - random)


def test_few_episodes_do_not_make_a_score():
  s = scores.Scores(['pong', 'qbert'], ATARI)
  for _ in range(30):
    s.add('pong', percent('pong', 50))
  assert s.score is None
  assert s.human_normalized == [pytest.approx(50)]
  for _ in range(20):
    assert s.score is None
    s.add('qbert', percent('qbert', 10))
  assert s.score == pytest.approx(30)


def test_scores_are_of_the_latest_episodes():
  s = scores.Scores(['a'])
  assert s.score is None
  for episode_return in [5] * 100 + [-100] * 100:
    s.add('a', episode_return)
  assert s.score == -100
  assert s.means == {'a': -100}
  assert s.measure == 'return'


def test_a_game_of_many_points_does_not_drown_one_of_few():
  """Pong falls from perfect to nothing while Atlantis wins 100 points."""
  before = filled({'atlantis': 30_000, 'pong': 21}, ATARI)
  after = filled({'atlantis': 30_100, 'pong': -21}, ATARI)
  assert before.score > after.score + 50
  assert before.measure == after.measure == 'human_normalized_median'


def test_the_score_of_several_games_is_the_median_in_percent_of_humans():
  shares = {'pong': 80, 'qbert': 20, 'atlantis': 4000}
  s = filled({game: percent(game, x) for game, x in shares.items()}, ATARI)
  assert s.score == pytest.approx(80)
  assert s.summaries() == {
    'human_normalized/median': pytest.approx(80),
    'human_normalized/mean': pytest.approx(4100 / 3),
  }
  assert s.describe() == 'human-normalised 80.0% (median of 3 levels)'


def test_those_of_all_games_are_those_of_atari57():
  returns = {game: 3.0 * i for i, game in enumerate(atari57.GAMES)}
  median, mean = atari57.aggregate(returns)
  s = scores.Scores(atari57.GAMES, ATARI)
  for game, episode_return in returns.items():
    assert not s.summaries()
    s.add(game, episode_return)
  assert s.summaries() == {
    'human_normalized/median': pytest.approx(median),
    'human_normalized/mean': pytest.approx(mean),
  }
  assert s.describe() == (
    f'human-normalised {median:.1f}% (median of 57 levels)'
  )


@pytest.mark.parametrize(
  ('suite', 'levels'),
  [
    ('catch', {'catch': 1.0, 'catch_hidden': -0.25}),
    ('atari', {'pong': 1.0, 'adventure': -0.25}),
    # Games of another suite that are called so.
    ('gymnasium', {'pong': 1.0, 'qbert': -0.25}),
  ],
)
def test_without_human_scores_levels_stay_apart(suite, levels):
  s = filled(levels, SUITES[suite])
  assert s.score is None
  assert s.summaries() == {}
  one, other = levels
  assert s.describe() == f'returns {one} 1.00, {other} -0.25'


def test_of_very_many_levels_some_are_named():
  s = filled({f'level_{i}': i for i in range(9)})
  assert s.describe() == (
    'returns level_0 0.00, level_1 1.00, level_2 2.00, level_3 3.00 and 5 more'
  )


def test_of_one_level_the_return_is_described():
  s = scores.Scores(['pong'], ATARI)
  assert s.describe() is None
  for i in range(3):
    s.add('pong', i)
  assert s.describe() == 'return 1.00 (last 3 episodes)'


def test_levels_without_an_episode_are_not_counted():
  s = scores.Scores(['pong', 'qbert'], ATARI)
  s.add('pong', percent('pong', 40))
  assert s.describe() == 'human-normalised 40.0% (median of 1 of 2 levels)'


def test_what_was_saved_takes_the_place_of_what_there_is():
  s = scores.Scores(['a', 'c'])
  s.add('a', 100)
  s.set_state(filled({'a': 3.0, 'b': 1.0}).get_state())
  assert s.means == {'a': 3.0}


def test_dmlab30_has_the_scores_of_2018():
  """Of all episodes since the last, as soon as each level has one."""
  levels = list(dmlab30.LEVEL_MAPPING)
  s = scores.Scores(levels, SUITES['dmlab'])
  returns = {level: [float(i), i + 300.0] for i, level in enumerate(levels)}
  for level in levels:
    assert 'dmlab30/training_no_cap' not in s.summaries()
    for episode_return in returns[level]:
      s.add(level, episode_return)
  values = s.summaries()
  for tag, cap in (('no_cap', None), ('cap_100', 100)):
    expected = dmlab30.compute_human_normalized_score(returns, cap)
    assert values[f'dmlab30/training_{tag}'] == pytest.approx(expected)
  assert 'dmlab30/training_no_cap' not in s.summaries()
  for level in levels:
    s.add(level, dmlab30.HUMAN_SCORES[dmlab30.LEVEL_MAPPING[level]])
  assert s.summaries()['dmlab30/training_no_cap'] == pytest.approx(100)
  assert np.isfinite(s.score or 0)
