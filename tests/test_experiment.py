"""The command line, as a user meets it."""

import json
import signal
import subprocess
import sys

import pytest

from tests.processes import (
  ENDLESS,
  SMALL,
  checkpoints,
  environment_variables,
  episodes,
  finish,
  flags,
  run,
  start,
  wait_for,
)

SERIAL = SMALL | {'num_actors': 0}


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A logdir and what the training in it printed."""
  logdir = tmp_path_factory.mktemp('trained')
  return logdir, run(*flags(logdir, SMALL), fresh=True)


class TestTrainAndTest:
  def test_a_training_ends_well(self, trained):
    _, result = trained
    assert result.status == 0, result.output
    assert 'Traceback' not in result.output
    assert 'functional_saver.py' not in result.output

  def test_it_leaves_what_the_documentation_lists(self, trained):
    logdir, _ = trained
    options = json.loads((logdir / 'config.json').read_text())
    assert options['level_name'] == 'catch'
    assert options['unroll_length'] == 10
    assert options['learning_rate'] is not None  # Resolved.
    assert options['network'] == 'mlp'
    assert checkpoints(logdir)[-1] >= 2000
    assert len(episodes(logdir)) > 100
    assert list(logdir.glob('events.out.tfevents.*'))

  def test_it_says_what_it_does(self, trained):
    _, result = trained
    assert 'level_name=catch*' in result.output
    assert 'frames/s' in result.output

  def test_a_finished_training_stays_as_it_is(self, trained):
    logdir, _ = trained
    before = (logdir / 'config.json').read_text()
    # The network is what auto stood for.
    result = run(*flags(logdir, SMALL | {'seed': 2, 'network': 'mlp'}))
    assert result.status == 0, result.output
    assert f'{logdir} already holds' in result.output
    assert (logdir / 'config.json').read_text() == before

  def test_the_agent_can_be_tested_by_its_logdir_alone(self, trained):
    logdir, _ = trained
    result = run(
      '--mode=test',
      f'--logdir={logdir}',
      '--test_num_episodes=5',
      f'--video_dir={logdir}/videos',
      fresh=True,
    )
    assert result.status == 0, result.output
    assert 'Traceback' not in result.output
    assert 'catch' in result.output
    # What it scored is left in a file, too.
    (path,), video = (
      (logdir / 'tests').iterdir(),
      logdir / 'videos' / 'catch.mp4',
    )
    assert '"catch"' in json.dumps(json.loads(path.read_text()))
    assert video.stat().st_size > 0
    assert result.output.endswith(f'\nWrote {path} and {video}.\n')


class TestSeveralLevels:
  GAMES = ('pong', 'breakout')

  @pytest.fixture(scope='class')
  @classmethod
  def logdir(cls, tmp_path_factory):
    logdir = tmp_path_factory.mktemp('levels')
    options = SMALL | {
      'level_name': ','.join(cls.GAMES),
      'full_action_space': True,
      'width': 36,
      'height': 36,
      'max_episode_frames': 100,
      'total_environment_frames': 3000,
    }
    result = run(*flags(logdir, options))
    assert result.status == 0, result.output
    assert 'level_name=pong,breakout*' in result.output
    assert 'human-normalised' in result.output
    assert 'levels)' in result.output
    return logdir

  def test_episodes_of_all_levels_are_reported(self, logdir):
    rows = episodes(logdir)
    assert {row['level'] for row in rows} == set(self.GAMES)
    assert checkpoints(logdir)[-1] >= 3000

  def test_all_levels_are_tested(self, logdir):
    result = run(
      '--mode=test',
      f'--logdir={logdir}',
      '--test_num_episodes=2',
      f'--video_dir={logdir}/videos',
    )
    assert result.status == 0, result.output
    (path,) = (logdir / 'tests').iterdir()
    report = json.loads(path.read_text())
    assert [level['level'] for level in report['levels']] == list(self.GAMES)
    assert all(len(level['returns']) == 2 for level in report['levels'])
    assert report['aggregate']['levels'] == 2
    assert 'Human-normalised over 2 levels: median' in result.output
    for game in self.GAMES:
      path = logdir / 'videos' / f'{game}.mp4'
      assert path.stat().st_size > 0
      assert f' and {path}' in result.output


def assert_stopped_well(result, logdir, name):
  assert result.status == 0, result.output
  assert 'Traceback' not in result.output
  frames = checkpoints(logdir)[-1]
  assert f'Stopped at {frames} frames by {name}.' in result.output
  assert 'Run the same command to go on.' in result.output


class TestSignals:
  def test_ctrl_c_saves_and_the_same_command_goes_on(self, tmp_path):
    options = SMALL | ENDLESS
    process = start(*flags(tmp_path, options))
    wait_for(lambda: len(episodes(tmp_path)) > 20, process)
    process.send_signal(signal.SIGINT)
    result = finish(process)
    assert_stopped_well(result, tmp_path, 'SIGINT')
    (frames,) = checkpoints(tmp_path)
    rows = episodes(tmp_path)
    result = run(
      *flags(tmp_path, options | {'total_environment_frames': frames + 500})
    )
    assert result.status == 0, result.output
    assert f'Resuming at {frames:,} frames.' in result.output
    assert checkpoints(tmp_path)[-1] >= frames + 500
    assert episodes(tmp_path)[: len(rows)] == rows

  def test_a_logdir_in_use_is_refused_until_sigterm_ends_its_user(
    self, tmp_path
  ):
    argv = flags(tmp_path, SERIAL | ENDLESS)
    process = start(*argv)
    try:
      wait_for(lambda: episodes(tmp_path), process)
      result = run(*argv)
      assert result.status == 1
      line = result.output.splitlines()[-1]
      assert f'is in use by a running training process (id {process.pid})' in (
        line
      )
    finally:
      process.send_signal(signal.SIGTERM)
      result = finish(process)
    assert_stopped_well(result, tmp_path, 'SIGTERM')

  def test_a_killed_run_goes_on_from_its_last_checkpoint(self, tmp_path):
    options = SMALL | ENDLESS | {'save_checkpoint_secs': 0}
    process = start(*flags(tmp_path, options))
    wait_for(lambda: len(checkpoints(tmp_path)) >= 3, process)
    process.kill()
    finish(process)
    frames = checkpoints(tmp_path)[-1]
    result = run(
      *flags(tmp_path, options | {'total_environment_frames': frames + 500})
    )
    assert result.status == 0, result.output
    assert f'Resuming at {frames:,} frames.' in result.output
    assert checkpoints(tmp_path)[-1] >= frames + 500


@pytest.mark.parametrize('mode', ['train', 'test'])
def test_ctrl_c_before_the_work_ends_it_with_one_line(tmp_path, mode):
  # Importing the level is part of the set-up.
  (tmp_path / 'slow_module.py').write_text(
    'import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n'
  )
  result = run(
    '--level_name=slow_module:Slow-v0',
    f'--mode={mode}',
    python_path=tmp_path,
    # Without TensorFlow, that is at once.
    fresh=mode == 'train',
  )
  assert result.status == 130
  assert 'Traceback' not in result.output
  assert result.output.splitlines()[-1] == 'experiment.py: interrupted.'


BROKEN = """
import gymnasium
import numpy as np
from gymnasium import spaces


class Broken(gymnasium.Env):
  observation_space = spaces.Box(-1, 1, (3,), np.float32)
  action_space = spaces.Discrete(2)
  steps = 0

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    return np.zeros([3], np.float32), {}

  def step(self, action):
    self.steps += 1
    if self.steps == 50:
      raise ZeroDivisionError('the simulator broke')
    return np.zeros([3], np.float32), 0.0, False, False, {}


gymnasium.register(id='Broken-v0', entry_point=Broken)
"""


@pytest.mark.parametrize('env_processes', [0, 1])
def test_an_exception_in_an_environment_ends_the_run_with_its_traceback(
  tmp_path, env_processes
):
  (tmp_path / 'broken_module.py').write_text(BROKEN)
  options = SMALL | ENDLESS
  options |= {
    'level_name': 'broken_module:Broken-v0',
    'env_processes': env_processes,
    'envs_per_actor': 2,
  }
  result = run(*flags(tmp_path / 'logdir', options), python_path=tmp_path)
  assert result.status not in (0, None)
  assert 'Traceback' in result.output
  assert 'the simulator broke' in result.output
  assert 'broken_module.py' in result.output


# (options, what the answer has to say).
MISTAKES = {
  'a_level_with_a_typo': (
    {'level_name': 'CartPol-v1'},
    ['CartPol-v1', 'Similar:', 'CartPole-v1'],
  ),
  'a_game_with_a_typo': ({'level_name': 'brakeout'}, ['breakout']),
  'thirty_levels_and_two_actors': (
    {'level_name': 'dmlab30'},
    ['--num_actors=2', '--level_name=dmlab30', 'Set --num_actors=30'],
  ),
  'shares_of_a_level_that_is_not_played': (
    {'level_name': 'catch,catch_hidden', 'level_shares': 'pong:2'},
    ['--level_shares=pong:2', 'pong is not played'],
  ),
  'levels_with_other_actions': (
    {'level_name': 'pong,breakout'},
    [
      'pong and breakout differ',
      '6 actions and 4 actions',
      '--full_action_space',
    ],
  ),
  'levels_that_imply_different_options': (
    {'level_name': 'pong,ALE/Breakout-v5'},
    ['--sticky_actions=0.0 and breakout --sticky_actions=0.25', 'Set'],
  ),
  'more_levels_than_actors': (
    {'level_name': 'atari57', 'full_action_space': True},
    ['--num_actors=2', '--level_name=atari57', 'Set --num_actors=57'],
  ),
  'a_test_of_other_levels': (
    {'logdir': '{trained}', 'mode': 'test', 'level_name': 'catch,catch_hidden'},
    ['--level_name=catch,catch_hidden (trained with catch)'],
  ),
  'choices_and_numbers_as_actions': (
    {'level_name': 'tests.environments.toys:Toys/Both-v0'},
    ['Both-v0', "Dict('binary': Discrete(2)", 'MultiDiscrete', 'Wrap'],
  ),
  'bounds_where_nothing_has_any': (
    {'action_bounds': 'squash', 'level_name': 'CartPole-v1'},
    ['--action_bounds=squash has no effect: CartPole-v1', 'Leave it out'],
  ),
  'a_level_that_needs_what_is_not_installed': (
    {'level_name': 'tests.environments.toys:Toys/Unmakeable-v0'},
    ['Unmakeable-v0 cannot be made: Box3D is not installed', '--level_name'],
  ),
  'a_video_that_needs_what_is_not_installed': (
    {'logdir': '{tmp}/unfilmable', 'mode': 'test', 'video_dir': '{tmp}/v'},
    ['Unfilmable-v0 cannot be filmed', 'no_such_module', '--video_dir'],
  ),
  'a_batch_that_cannot_be_filled': (
    {'batch_size': 9, 'num_actors': 0},
    ['--batch_size=9', '--num_actors=0', '--envs_per_actor=4', 'Lower'],
  ),
  'no_batch': ({'batch_size': 0}, ['--batch_size=0 must be at least 1']),
  'a_negative_unroll': (
    {'unroll_length': -3},
    ['--unroll_length=-3 must be at least 1'],
  ),
  'a_learning_rate_of_nan': (
    {'learning_rate': 'nan'},
    ['--learning_rate=nan must be greater than 0'],
  ),
  'a_network_with_a_typo': (
    {'network': 'shalow'},
    ['--network=shalow is not known', 'shallow'],
  ),
  'a_network_for_images': (
    {'network': 'deep'},
    ['--network=deep needs image', '--network=mlp'],
  ),
  'frames_too_small': (
    {'level_name': 'pong', 'width': 8, 'height': 8},
    ['--network=shallow needs at least 20 x 20', '8 x 8', '--network=small'],
  ),
  'a_network_that_is_nowhere': (
    {'network': 'no_such_module:Net'},
    ['--network=no_such_module:Net cannot be imported'],
  ),
  'a_task_that_is_not_there': (
    {'task': 1},
    ['--task=1', '--num_learners=1', 'Lower --task'],
  ),
  'a_video_of_a_training': (
    {'video_dir': 'videos'},
    ['--video_dir=videos has no effect with --mode=train'],
  ),
  'an_option_without_effect': (
    {'num_action_repeats': 4},
    ['--num_action_repeats=4', 'no effect on catch'],
  ),
  'a_seed_too_large': (
    {'seed': 2**31},
    [f'--seed={2**31}', 'between 0 and 2000000000'],
  ),
  'a_logdir_below_a_file': (
    {'logdir': '{tmp}/file/logdir'},
    ['--logdir=', '/file/logdir cannot be written', 'Choose a folder'],
  ),
  'a_damaged_config': (
    {'logdir': '{tmp}/damaged'},
    ['--logdir=', 'config.json cannot be read', 'Repair it'],
  ),
  'the_logdir_of_another_level': (
    {'logdir': '{trained}', 'level_name': 'catch_hidden'},
    ['--level_name was catch and is catch_hidden', 'another --logdir'],
  ),
  'the_logdir_of_another_network': (
    {'logdir': '{trained}', 'network': 'deep'},
    ['--network was mlp and is deep', 'another --logdir'],
  ),
  'an_option_without_effect_on_the_optimizer': (
    {'decay': 0.9},
    ['--decay=0.9 has no effect with --optimizer=adam', 'Leave it out'],
  ),
  'endless_frames': (
    {'total_environment_frames': 'inf'},
    ['--total_environment_frames=inf must be finite'],
  ),
  'a_test_without_a_training': (
    {'logdir': '{tmp}/nothing', 'mode': 'test'},
    ['--logdir=', 'nothing was trained there'],
  ),
  'a_test_of_another_network': (
    {'logdir': '{trained}', 'mode': 'test', 'network': 'deep'},
    ['--network=deep (trained with mlp)'],
  ),
  'damaged_checkpoints': (
    {'logdir': '{tmp}/broken'},
    ['no checkpoint', 'is intact', 'another --logdir'],
  ),
}


class TestMistakes:
  """Each is answered by one line that names option, value and remedy."""

  @pytest.fixture(scope='class')
  @classmethod
  def tmp(cls, tmp_path_factory, trained):
    """A folder of logdirs in which something is wrong."""
    tmp = tmp_path_factory.mktemp('mistakes')
    (tmp / 'file').touch()
    for name in 'damaged', 'broken', 'unfilmable':
      (tmp / name).mkdir()
    (tmp / 'damaged' / 'config.json').write_text('{"seed": 1')
    (tmp / 'broken' / 'checkpoints' / '000000001234').mkdir(parents=True)
    config = json.loads((trained[0] / 'config.json').read_text())
    config['level_name'] = 'tests.environments.toys:Toys/Unfilmable-v0'
    (tmp / 'unfilmable' / 'config.json').write_text(json.dumps(config))
    return tmp

  @pytest.mark.parametrize('name', MISTAKES)
  def test_a_mistake_is_answered_by_one_clear_line(self, trained, tmp, name):
    options, parts = MISTAKES[name]
    given = {'logdir': f'{tmp}/{name}'} | options
    if given.get('mode') != 'test':
      given = SMALL | given
    places = {'tmp': tmp, 'trained': trained[0]}
    result = run(*(flag.format(**places) for flag in flags(None, given)))
    assert result.status == 1, result.output
    assert 'Traceback' not in result.output, result.output
    line = result.output.splitlines()[-1]
    assert line.startswith('experiment.py: ')
    for part in parts:
      assert part in line
    # No options are left, or the corrected command might be refused for them.
    left = {path.parent.name for path in tmp.glob('*/config.json')}
    assert left == {'damaged', 'unfilmable'}


def test_an_unknown_flag_is_named():
  result = run('--learning_rat=1', fresh=True)
  assert result.status == 1
  assert "Unknown command line flag 'learning_rat'" in result.output
  assert 'learning_rate' in result.output


def test_a_value_where_there_can_be_none_is_refused():
  result = run('--nolstm=3')
  assert result.status == 1
  assert (
    result.output == 'experiment.py: --nolstm=3 does not take an argument\n'
  )


def test_what_is_no_flag_is_refused():
  result = run('pong', fresh=True)
  assert result.status == 1
  (line,) = result.output.splitlines()
  assert line.startswith('experiment.py: unexpected arguments: pong. Options')


def test_help_explains_every_flag():
  result = run('--help', fresh=True)
  assert result.status == 0
  titles = ['The run:', 'Actors and batches:', 'Loss:', 'Atari:', 'Levels (']
  assert [t for t in titles if f'\n{t}' in result.output] == titles
  assert 'Unit: agent steps.' in result.output
  assert 'Only with levels of dmlab.' in result.output
  assert 'No effect with --optimizer=adam.' in result.output
  assert 'V-trace' in result.output
  for name in ('level_name', 'num_actors', 'total_environment_frames'):
    assert f'--{name}=' in result.output
  assert 'Traceback' not in result.output


# Importing it is what makes a command slow.
HEAVY = """
import sys
import experiment
from absl import app

try:
  app.run(experiment.main, sys.argv, flags_parser=experiment.parse_flags)
except SystemExit as error:
  print(error.code, file=sys.stderr)
for name in ('gymnasium', 'ale_py', 'numpy', 'tensorflow'):
  print(name, name in sys.modules)
"""


@pytest.mark.parametrize(
  ('argv', 'said'),
  [
    (['--help'], 'V-trace'),
    (['--unroll_lenght=3'], 'Did you mean: unroll_length'),
    (['--unroll_length=0'], '--unroll_length=0 must be at least 1.'),
    (['--mode=tset'], 'should be one of'),
    (
      ['--level_name=catch', '--decay=0.5'],
      '--decay=0.5 has no effect with --optimizer=adam.',
    ),
    (
      ['--level_name=catch', '--noop_max=5'],
      '--noop_max=5 has no effect on catch, a level of the catch suite',
    ),
  ],
)
def test_what_needs_no_simulator_is_answered_at_once(argv, said):
  result = subprocess.run(
    [sys.executable, '-c', HEAVY, *argv],
    capture_output=True,
    text=True,
    env=environment_variables(),
    check=False,
  )
  assert said in result.stdout + result.stderr
  assert result.stdout.splitlines()[-4:] == [
    'gymnasium False',
    'ale_py False',
    'numpy False',
    'tensorflow False',
  ]
