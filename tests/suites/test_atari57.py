"""The 57 games: the published aggregates come out of the published scores."""

import csv
import pathlib

import pytest

from scalable_agent.suites import atari57

# IMPALA paper, Table C.1.
_SCORES = pathlib.Path(__file__).parents[1] / 'data' / 'impala_table_c1.csv'


def published(column):
  with _SCORES.open(newline='') as file:
    return {row['game']: float(row[column]) for row in csv.DictReader(file)}


def test_there_are_57_games_with_two_scores_each():
  assert len(atari57.GAMES) == len(set(atari57.GAMES)) == 57
  assert set(atari57.RANDOM_SCORES) == set(atari57.GAMES)
  assert set(published('impala_deep')) == set(atari57.GAMES)


@pytest.mark.parametrize(
  ('column', 'median', 'mean'),
  [
    ('impala_deep', 191.82, 957.28),
    ('impala_shallow', 93.23, 466.06),
  ],
)
def test_medians_and_means_of_the_impala_paper(column, median, mean):
  scores = atari57.aggregate(published(column))
  assert scores.median == pytest.approx(median, abs=0.005)
  zero = {'video_pinball': atari57.VIDEO_PINBALL_RANDOM_OF_IMPALA}
  papers = atari57.aggregate(published(column), atari57.RANDOM_SCORES | zero)
  assert papers.median == pytest.approx(median, abs=0.005)
  assert papers.mean == pytest.approx(mean, abs=0.005)
  # The trap: with the usual random score of video_pinball the mean is another.
  assert scores.mean > 1.5 * papers.mean


def test_pong_by_hand():
  # Human 14.6, random -20.7.
  assert atari57.human_normalized_score('pong', 14.6) == pytest.approx(100)
  assert atari57.human_normalized_score('pong', -20.7) == pytest.approx(0)
  assert atari57.human_normalized_score('pong', -3.05) == pytest.approx(50)
  assert atari57.human_normalized_score(
    'pong', 4.6, random_score=-5.4
  ) == pytest.approx(50)


def test_a_game_without_a_human_score_is_named():
  with pytest.raises(ValueError, match='tetris is not one of the 57'):
    atari57.human_normalized_score('tetris', 1.0)


def test_a_missing_game_is_named():
  scores = {game: 0.0 for game in atari57.GAMES if game != 'pong'}
  with pytest.raises(ValueError, match=r"lacks 1 of 57 games: \['pong'\]"):
    atari57.aggregate(scores)
