"""Evaluations while a training goes on: their rows."""

from scalable_agent.reports import episode_log, evaluations


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
  one = evaluations.Evaluations(str(tmp_path))
  assert one.latest is None
  one.add(make_episode(400, 1.0))
  state = one.get_state()
  one.add(make_episode(900, 2.0))
  one.close()
  other = evaluations.Evaluations(str(tmp_path))
  other.set_state(state, 500)
  assert other.latest == 1.0
  other.add(make_episode(800, 3.0))
  other.close()
  rows = episode_log.read(str(tmp_path / 'evaluations.csv'))
  assert [(r.frames, r.episode_return) for r in rows] == [(400, 1), (800, 3)]
  assert other.get_state() == {'count': 2, 'latest': 3.0}


def test_without_evaluations_there_is_no_file(tmp_path):
  evaluations.Evaluations(str(tmp_path)).close()
  assert not list(tmp_path.iterdir())
