"""Learning curves drawn from episodes.csv."""

import imageio.v2 as imageio
import matplotlib.pyplot as plt
import numpy as np
import pytest

from benchmarks import plot
from scalable_agent.reports import episode_log


def write_run(logdir, num_episodes=30, levels=('pong',)):
  logdir.mkdir(parents=True)
  log = episode_log.EpisodeLog(str(logdir / 'episodes.csv'), 0, 0)
  log.append(
    episode_log.Episode(80 * i, 60.0 * i, levels[i % len(levels)], i, 10, 40)
    for i in range(num_episodes)
  )
  log.close()
  return str(logdir)


@pytest.fixture
def figures(monkeypatch):
  """Figures that were drawn, kept open."""
  drawn = []
  monkeypatch.setattr(plot.plt, 'close', drawn.append)
  yield drawn
  monkeypatch.undo()
  for figure in drawn:
    plt.close(figure)


def test_curves_are_drawn_over_frames_and_minutes(tmp_path, figures):
  logdirs = [write_run(tmp_path / 'a'), write_run(tmp_path / 'b', 5)]
  plot.plot(logdirs, str(tmp_path / 'curve.png'))
  image = imageio.imread(tmp_path / 'curve.png')
  assert image.shape[0] > 300
  assert len(np.unique(image.reshape(-1, image.shape[-1]), axis=0)) > 10
  by_frames, by_time = figures[0].axes
  assert by_frames.get_xlabel() == 'environment frames'
  assert by_time.get_xlabel() == 'wall clock (minutes)'
  assert '100 episodes' in by_frames.get_ylabel()
  labels = [text.get_text() for text in by_frames.get_legend().get_texts()]
  assert labels == ['a', 'b']
  x, y = by_frames.lines[1].get_data()
  assert (list(x), list(y)) == ([0, 80, 160, 240, 320], [0, 0.5, 1, 1.5, 2])
  assert list(by_time.lines[1].get_xdata()) == [0, 1, 2, 3, 4]


def test_each_level_of_a_run_has_a_curve(tmp_path, figures):
  logdir = write_run(tmp_path / 'run', 6, ('qbert', 'pong'))
  plot.plot([logdir], str(tmp_path / 'curve.svg'))
  lines = figures[0].axes[0].lines
  assert [line.get_label() for line in lines] == ['run: pong', 'run: qbert']
  assert list(lines[0].get_ydata()) == [1, 2, 3]


@pytest.mark.parametrize(
  ('over', 'x', 'label'),
  [
    ('frames', [0, 160], 'environment frames'),
    ('minutes', [0, 2], 'wall clock (minutes)'),
  ],
)
def test_each_level_has_a_panel(tmp_path, figures, over, x, label):
  logdirs = [
    write_run(tmp_path / 'one', 4, ('qbert', 'pong')),
    write_run(tmp_path / 'two', 3),
  ]
  output = tmp_path / 'panels.png'
  plot.main(
    [
      *(f'--logdir={one}' for one in logdirs),
      f'--panels={over}',
      f'--output={output}',
    ]
  )
  pong, qbert = figures[0].axes
  assert (pong.get_title(), qbert.get_title()) == ('pong', 'qbert')
  assert [line.get_label() for line in pong.lines] == ['one', 'two']
  assert [line.get_label() for line in qbert.lines] == ['one']
  assert pong.lines[0].get_color() == qbert.lines[0].get_color()
  assert pong.lines[0].get_color() != pong.lines[1].get_color()
  assert list(qbert.lines[0].get_xdata()) == x
  assert list(qbert.lines[0].get_ydata()) == [0, 1]
  assert qbert.get_xlabel() == label
  assert qbert.get_legend() is None
  assert output.exists()


def test_panels_fill_rows_of_three(tmp_path, figures):
  logdir = write_run(tmp_path / 'run', 8, ('a', 'b', 'c', 'd'))
  plot.plot_panels([logdir], str(tmp_path / 'panels.png'), 'frames')
  drawn = [axes for axes in figures[0].axes if axes.get_visible()]
  assert [axes.get_title() for axes in drawn] == ['a', 'b', 'c', 'd']
  assert figures[0].axes[0].get_gridspec().ncols == 3


def test_the_running_mean_is_of_the_last_values():
  values = np.random.default_rng(0).normal(size=300)
  expected = [np.mean(values[max(0, i - 99) : i + 1]) for i in range(300)]
  np.testing.assert_allclose(plot.running_mean(values), expected)
  assert plot.running_mean([5.0]) == [5.0]


def test_runs_are_named_by_what_tells_them_apart():
  assert plot.names_of(['/x/logs/pong/']) == ['pong']
  assert plot.names_of(['/x/a/pong', '/x/b/pong']) == ['a/pong', 'b/pong']
  assert plot.names_of(['/x/a', '/x/a']) == ['/x/a', '/x/a']


def check_error(arguments, *parts):
  with pytest.raises(SystemExit) as error:
    plot.main(arguments)
  for part in ('plot.py: ', *parts):
    assert part in str(error.value)


def test_a_run_without_episodes_is_named(tmp_path):
  empty = write_run(tmp_path / 'empty', 0)
  output = f'--output={tmp_path}/curve.png'
  check_error([f'--logdir={empty}', output], empty, 'no episode', 'Train')
  missing = str(tmp_path / 'none')
  check_error([f'--logdir={missing}', output], missing, 'no episodes.csv')
  assert not (tmp_path / 'curve.png').exists()


def test_a_file_that_is_no_log_is_named(tmp_path):
  (tmp_path / 'episodes.csv').write_text('hello\n')
  check_error([f'--logdir={tmp_path}'], 'episodes.csv', 'header')


@pytest.mark.parametrize('name', ['none/curve.png', 'curve.xyz'])
def test_an_image_that_cannot_be_written_is_named(tmp_path, name):
  logdir = write_run(tmp_path / 'run')
  output = f'--output={tmp_path / name}'
  check_error([f'--logdir={logdir}', output], output)


def test_the_command_line_draws(tmp_path, capsys):
  logdir = write_run(tmp_path / 'run')
  plot.main([f'--logdir={logdir}', f'--output={tmp_path}/curve.pdf'])
  assert (tmp_path / 'curve.pdf').stat().st_size > 1000
  assert 'Wrote' in capsys.readouterr().out
