"""Which agent of a logdir is tested, on what, and what is told of it."""

import datetime
import errno
import json
import os
import re
import signal

import pytest

import experiment
import scalable_agent
from scalable_agent import environments, options, policies
from scalable_agent.runtimes import (
  assembly,
  processor,
  startup,
  test,
  training,
  worlds,
)
from scalable_agent.storage import checkpointing, files, logdirs
from tests.configs import make_config, resolve


@pytest.fixture
def logdir(tmp_path):
  """A logdir with checkpoints of 100 (the best) and 200 frames."""
  config = make_config(
    level_name='catch', logdir=str(tmp_path), intra_op_threads=1
  )
  config = resolve(config, 'catch')
  logdirs.write_config(config.run.logdir, config)
  environment = worlds.make_environment(
    config, environments.parse_level('catch'), 1, seed=1
  )
  agent = assembly.make_agent(config, environment.spec)
  learner = training.make_learner(config, agent, environment.spec)
  items = learner.checkpoint_items()
  checkpointer = checkpointing.Checkpointer(config.run.logdir, items)
  for frames, score in (100, 2.0), (200, 1.0):
    items['frames'].assign(frames)
    checkpointer.save(frames, {}, score)
  environment.close()
  return config.run.logdir


@pytest.fixture
def run_test(logdir, monkeypatch):
  """Tests what is in the logdir; returns what the files of all tests hold."""
  # The threads of a process can be set once only.
  monkeypatch.setattr(assembly, 'use_threads', lambda config: None)

  def run(**options):
    options = {'mode': 'test', 'logdir': logdir} | options
    test.test(*test.prepare(make_config(**options), options))
    folder = os.path.join(logdir, 'tests')
    written = []
    for name in sorted(os.listdir(folder)):
      with open(os.path.join(folder, name), encoding='utf-8') as file:
        written.append(json.load(file))
    return written

  return run


@pytest.mark.parametrize(
  ('given', 'precision'),
  [({}, 'float32'), ({'precision': 'auto'}, 'bfloat16')],
)
def test_what_follows_the_machine_is_resolved(
  logdir, monkeypatch, given, precision
):
  monkeypatch.setattr(assembly, 'use_threads', lambda config: None)
  monkeypatch.setattr(processor, 'has_bfloat16', lambda: True)
  chosen = {'mode': 'test', 'logdir': logdir} | given
  config = test.prepare(make_config(**chosen), chosen).config
  assert config.agent.precision == precision
  assert config.agent.jit_compile != 'auto'


class TestSeeds:
  def test_no_environment_of_a_test_is_one_of_a_training(
    self, run_test, monkeypatch
  ):
    seeds = []
    make = environments.make

    def record(level, num_envs, chosen, seed, **purpose):
      seeds.extend(range(seed, seed + num_envs))
      assert purpose['test']
      return make(level, num_envs, chosen, seed, **purpose)

    monkeypatch.setattr(environments, 'make', record)
    for seed in (0, 1, 2_000_000_000):
      run_test(seed=seed, test_num_episodes=3)
    # Of three tests, the environment that is looked at and the three played.
    assert len(set(seeds)) == 3 * 3
    assert min(seeds) >= environments.TEST_SEEDS

  def test_no_draw_of_a_test_is_one_of_a_training(self, run_test, monkeypatch):
    seeds = []

    class Seeds(policies.Seeds):
      def __init__(self, seed):
        super().__init__(seed)
        seeds.append(seed)

    monkeypatch.setattr(policies, 'Seeds', Seeds)
    run_test(test_num_episodes=1)
    # Training takes at most 32 bits.
    assert min(seeds) >= 2**32

  def test_seeds_of_tests_leave_room_for_environments(self):
    firsts = [test.environment_seed(seed) for seed in range(10_000)]
    assert min(firsts) >= environments.TEST_SEEDS
    assert max(firsts) + 2**20 < 2**31

  def test_a_training_cannot_be_given_a_seed_of_tests(self):
    with pytest.raises(
      ValueError, match=r'^--seed=2000000001 must lie between'
    ):
      options.validate(make_config(seed=2_000_000_001))
    assert environments.TEST_SEEDS > 2_000_000_001 + 2**20


class TestResults:
  def test_every_test_leaves_its_own(self, run_test):
    run_test(checkpoint='best', test_num_episodes=2)
    written = run_test(test_policy='greedy', test_num_episodes=3)
    assert sorted(
      (t['frames'], t['protocol']['policy'], t['protocol']['episodes'])
      for t in written
    ) == [(100, 'sample', 2), (200, 'greedy', 3)]

  def test_they_say_what_was_tested_and_how(self, run_test):
    (written,) = run_test(seed=5, checkpoint='best', test_num_episodes=2)
    assert len(written['levels'][0]['returns']) == 2
    assert written.pop('levels')[0]['level'] == 'catch'
    assert written.pop('aggregate') is None
    assert written.pop('date').endswith('+00:00')
    assert written == {
      'version': scalable_agent.__version__,
      'checkpoint': 'checkpoints/000000000100',
      'frames': 100,
      'seed': 5,
      'protocol': {'policy': 'sample', 'episodes': 2},
    }

  def test_the_protocol_is_that_of_the_suite(self):
    config = resolve(
      make_config(level_name='ALE/Pong-v5', test_policy='greedy'),
      'atari',
      {'sticky_actions': 0.25},
    )
    level = environments.parse_level('ALE/Pong-v5')
    assert test._protocol(config, level) == {
      'policy': 'greedy',
      'episodes': 10,
      'fire_reset': True,
      'full_action_space': False,
      'grayscale': True,
      'height': 84,
      'life_loss_is_terminal': True,
      'max_episode_frames': 108000,
      'max_episode_length': 0,
      'noop_max': 30,
      'num_action_repeats': 4,
      'sticky_actions': 0.25,
      'width': 84,
    }


def test_tests_that_begin_within_one_second_have_files_of_their_own(tmp_path):
  date = datetime.datetime(2020, 1, 2, 3, 4, 5)
  with (
    test._new_file(str(tmp_path), date) as one,
    test._new_file(str(tmp_path), date) as other,
  ):
    pass
  assert [os.path.basename(path) for path in (one, other)] == [
    '2020-01-02_03-04-05.json',
    '2020-01-02_03-04-05_2.json',
  ]


def test_a_test_that_fails_leaves_no_file(tmp_path):
  date = datetime.datetime(2020, 1, 2, 3, 4, 5)
  with pytest.raises(ZeroDivisionError), test._new_file(str(tmp_path), date):
    raise ZeroDivisionError
  assert not os.listdir(tmp_path / 'tests')


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_one_that_is_interrupted_says_so_and_leaves_no_file(
  logdir, run_test, monkeypatch, number
):
  before = signal.getsignal(number)

  def interrupted(*args):
    os.kill(os.getpid(), number)
    return [], []

  monkeypatch.setattr(test, '_play', interrupted)
  with pytest.raises(SystemExit, match=r'^The test was interrupted: it leaves'):
    run_test()
  assert not os.listdir(os.path.join(logdir, 'tests'))
  assert signal.getsignal(number) is before


def test_a_full_disk_after_the_games_costs_the_file_only(
  logdir, monkeypatch, capsys
):
  def full(path, value):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

  monkeypatch.setattr(assembly, 'use_threads', lambda config: None)
  monkeypatch.setattr(startup, 'load_tensorflow', lambda: None)
  monkeypatch.setattr(files, 'write_json', full)
  config = make_config(mode='test', logdir=logdir, test_num_episodes=1)
  with pytest.raises(SystemExit) as ended:
    experiment.test(config, {'mode', 'logdir', 'test_num_episodes'})
  assert re.fullmatch(
    rf'experiment\.py: cannot write {logdir}/tests/\S+\.json: No space left on '
    r'device\. Free .*',
    ended.value.code,
  )
  assert re.search('catch +sample +1 ', capsys.readouterr().out)


def test_where_no_result_can_be_written_no_game_is_played(logdir, monkeypatch):
  def fail(dir):
    raise PermissionError(13, 'Permission denied')

  monkeypatch.setattr(logdirs.tempfile, 'TemporaryFile', fail)
  config = make_config(mode='test', logdir=logdir)
  with pytest.raises(
    ValueError, match=f'--logdir={logdir} cannot be written: Permission denied'
  ):
    test.prepare(config, {'mode', 'logdir'})


def test_a_folder_of_videos_that_cannot_be_made_is_named(logdir):
  video_dir = os.path.join(logdir, 'config.json', 'videos')
  config = make_config(mode='test', logdir=logdir, video_dir=video_dir)
  with pytest.raises(
    ValueError, match=f'^--video_dir={video_dir} cannot be made: Not a direct'
  ):
    test.prepare(config, {'mode', 'logdir', 'video_dir'})


@pytest.mark.parametrize(
  ('options', 'frames'),
  [({}, 200), ({'checkpoint': 'newest'}, 200), ({'checkpoint': 'best'}, 100)],
)
def test_the_checkpoint_that_was_asked_for_is_tested(
  logdir, capsys, monkeypatch, options, frames
):
  # The threads of a process can be set once only.
  monkeypatch.setattr(assembly, 'use_threads', lambda config: None)
  config = make_config(mode='test', logdir=logdir, **options)
  test.prepare(config, {'mode', 'logdir', *options})
  assert capsys.readouterr().out == (
    f'Testing the agent of {logdir} on catch after {frames} frames.\n'
  )
