"""The lines that pytorch-a3c printed."""

import pytest

from scalable_agent.reports import episode_log, pytorch_a3c_log


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
  assert pytorch_a3c_log.format_line(*arguments) == line


def test_a_line_has_the_steps_at_the_end_of_the_episode(capsys):
  episode = episode_log.Episode(
    frames=400,
    seconds=2.0,
    level='pong',
    episode_return=1.0,
    episode_length=25,
    episode_frames=100,
  )
  pytorch_a3c_log.PytorchA3CLog().evaluated(episode, 120)
  assert ', num steps 120, FPS 60, ' in capsys.readouterr().out
