"""GA3C as those meet it who know its own program."""

import re
import signal

import pytest

from tests.processes import (
  checkpoints,
  episodes,
  finish,
  flags,
  run,
  start,
  wait_for,
)

OPTIONS = {'algorithm': 'ga3c', 'level_name': 'catch'}
ARGUMENTS = ('--', 'AGENTS=2', 'TRAINERS=1', 'DYNAMIC_SETTINGS=')
LINE = re.compile(
  r'\[Time: +\d+\] \[Episode: +(\d+) Score: +-?[\d.]+\] '
  r'\[RScore: +-?[\d.]+ RPPS: +\d+\] \[PPS: +\d+ TPS: +\d+\] '
  r'\[NT:  1 NP:  2 NA:  2\]'
)


@pytest.fixture(scope='module')
def interrupted(tmp_path_factory):
  """A logdir, and what its training printed until Ctrl-C."""
  logdir = tmp_path_factory.mktemp('ga3c')
  process = start(*flags(logdir, OPTIONS), *ARGUMENTS)
  wait_for(lambda: len(episodes(logdir)) > 30, process)
  process.send_signal(signal.SIGINT)
  return logdir, finish(process)


def test_ctrl_c_saves(interrupted):
  logdir, result = interrupted
  assert result.status == 0, result.output
  assert 'Traceback' not in result.output
  (frames,) = checkpoints(logdir)
  assert f'Stopped at {frames} frames by SIGINT.' in result.output


def test_it_writes_what_the_original_wrote(interrupted):
  logdir, result = interrupted
  numbers = [int(match[1]) for match in LINE.finditer(result.output)]
  assert numbers == list(range(1, len(numbers) + 1))
  rows = (logdir / 'results.txt').read_text().splitlines()
  played = episodes(logdir)
  assert len(rows) == len(played) == len(numbers) > 30
  for row, episode in zip(rows, played, strict=True):
    date, score, length = row.split(', ')
    assert re.fullmatch(r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d', date)
    assert int(score) == float(episode['episode_return'])
    assert length == episode['episode_length']


def test_the_same_command_goes_on_and_play_mode_shows_it(interrupted):
  logdir, _ = interrupted
  frames = checkpoints(logdir)[-1]
  result = run(
    *flags(logdir, OPTIONS | {'total_environment_frames': frames + 200}),
    *ARGUMENTS,
  )
  assert result.status == 0, result.output
  assert f'Resuming at {frames:,} frames.' in result.output
  rows = (logdir / 'results.txt').read_text().splitlines()
  assert len(rows) == len(episodes(logdir))
  result = run(
    *flags(logdir, OPTIONS),
    '--test_num_episodes=1',
    '--',
    'PLAY_MODE=True',
    variables={'DISPLAY': ''},
  )
  assert result.status == 0, result.output
  video = logdir / 'videos' / 'catch.mp4'
  assert video.stat().st_size > 0
  assert 'There is no window: ' in result.output
  assert f'Videos go to {video.parent} instead.' in result.output
  assert f' and {video}.' in result.output


def test_another_algorithm_is_refused_there(interrupted):
  logdir, _ = interrupted
  result = run(*flags(logdir, {'level_name': 'catch', 'algorithm': 'impala'}))
  assert result.status == 1
  assert '--algorithm was ga3c and is impala' in result.output.splitlines()[-1]


@pytest.mark.parametrize(
  ('argv', 'said'),
  [
    (['--num_actors=0'], '--num_actors=0 leaves GA3C without an agent'),
    (['--', 'TRAINER=3'], 'TRAINER=3 is no option of GA3C. Write NAME=VALUE'),
    (
      ['--num_agents=3', '--', 'AGENTS=2'],
      '--num_actors=3 is also set by AGENTS=2. Leave one of them out.',
    ),
    (['--', 'ATARI_GAME=Pong-v0'], 'Use PongDeterministic-v0'),
    (['--', 'SAVE_MODELS='], '--save_checkpoint_secs'),
  ],
)
def test_a_mistake_is_answered_by_one_clear_line(argv, said):
  result = run('--algorithm=ga3c', *argv)
  assert result.status == 1
  line = result.output.splitlines()[-1]
  assert line.startswith('experiment.py: ')
  assert said in line
  assert 'Traceback' not in result.output
