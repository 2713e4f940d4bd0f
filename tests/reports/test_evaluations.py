"""Evaluations while a training goes on: rows and lines."""

import pytest

from scalable_agent.reports import episode_log, evaluations


@pytest.mark.parametrize(
  ('arguments', 'line'),
  [
    (
      (62.4, 12345, -21.0, 1016),
      'Time 00h 01m 02s, num steps 12345, FPS 198, episode reward -21.0, '
      'episode length 1016',
    ),
    (
      (90061.9, 9006190, 20.0, 1658),
      'Time 25h 01m 01s, num steps 9006190, FPS 100, episode reward 20.0, '
      'episode length 1658',
    ),
    (
      (0.0, 0, 3.0, 7),
      'Time 00h 00m 00s, num steps 0, FPS 0, episode reward 3.0, '
      'episode length 7',
    ),
  ],
)
def test_the_line_is_that_of_pytorch_a3c(arguments, line):
  assert evaluations.pytorch_a3c_line(*arguments) == line


def make_episode(frames, episode_return):
  return episode_log.Episode(
    frames=frames,
    seconds=2.0,
    level='pong',
    episode_return=episode_return,
    episode_length=25,
    episode_frames=100,
  )


def test_a_run_that_goes_on_cuts_off_what_came_after_its_checkpoint(tmp_path):
  one = evaluations.Evaluations(str(tmp_path), lines=False)
  assert one.latest is None
  one.add(make_episode(400, 1.0), 110)
  state = one.get_state()
  one.add(make_episode(900, 2.0), 230)
  one.close()
  other = evaluations.Evaluations(str(tmp_path), lines=False)
  other.set_state(state, 500)
  assert other.latest == 1.0
  other.add(make_episode(800, 3.0), 210)
  other.close()
  rows = episode_log.read(str(tmp_path / 'evaluations.csv'))
  assert [(r.frames, r.episode_return) for r in rows] == [(400, 1), (800, 3)]
  assert other.get_state() == {'count': 2, 'latest': 3.0}


def test_a_line_has_the_steps_at_the_end_of_the_episode(tmp_path, capsys):
  one = evaluations.Evaluations(str(tmp_path), lines=True)
  one.add(make_episode(400, 1.0), 120)
  assert ', num steps 120, FPS 60, ' in capsys.readouterr().out


def test_without_evaluations_there_is_no_file(tmp_path):
  evaluations.Evaluations(str(tmp_path), lines=False).close()
  assert not list(tmp_path.iterdir())
