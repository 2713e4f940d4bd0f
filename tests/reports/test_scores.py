"""Which returns make the score of a run."""

import numpy as np

from scalable_agent.reports import scores


def test_few_episodes_do_not_make_a_score():
  s = scores.Scores(['a', 'b'])
  for i in range(30):
    s.add('a', i)
  assert s.score is None
  assert s.mean == np.mean(range(30))
  for _ in range(20):
    s.add('b', 0)
  assert s.score == s.mean == np.mean(range(30)) / 2


def test_scores_are_of_the_latest_episodes():
  s = scores.Scores(['a'])
  assert s.mean is None
  for episode_return in [5] * 100 + [-100] * 100:
    s.add('a', episode_return)
  assert s.score == s.mean == -100
