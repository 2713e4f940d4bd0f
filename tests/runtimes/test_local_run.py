"""Whole trainings: what they leave behind, how they end and how they go on."""

import itertools
import logging as python_logging
import os
import signal
import sys
import threading
import traceback

import numpy as np
import pytest
import tensorflow as tf

from scalable_agent import (
  actor,
  environments,
  losses,
  policies,
  structures,
)
from scalable_agent.environments import catch
from scalable_agent.runtimes import (
  assembly,
  impala_local,
  local_run,
  serial,
  training,
  worlds,
)
from scalable_agent.storage import files, nest_files
from tests import full_disk, runs
from tests.configs import make_config, resolve
from tests.environments import pixel_catch
from tests.runs import (
  NEVER,
  assert_same_bits,
  episodes,
  episodes_without_time,
  newest_checkpoint,
  saved_state,
  saved_variables,
  stop_after_updates,
)
from tests.waiting import wait_until

# 4 environments and 3 columns per update: some columns always wait.
SERIAL = {
  'level_name': 'catch',
  'num_actors': 0,
  'envs_per_actor': 4,
  'batch_size': 3,
  'unroll_length': 10,
  'learning_rate_schedule': 'constant',
  'total_environment_frames': 600,
  'save_checkpoint_secs': NEVER,
  'summary_secs': NEVER,
  'progress_secs': NEVER,
}
THREADS = SERIAL | {'num_actors': 2, 'batch_size': 6}
ATARI = {
  'level_name': 'pong',
  'width': 36,
  'height': 36,
  'max_episode_frames': 100,
  'total_environment_frames': 1500,
}


def make_run(logdir, **options):
  config, levels = runs.prepare(logdir, **options)
  if config.actors.num_actors == 0:
    return serial.Run(config, levels, config.batches.batch_size)
  return impala_local.Run(config, levels)


def breaking_in_graph(step, failing):
  """Returns a step of a policy whose graph fails, as `failing` says."""
  break_ = failing(lambda x: x, 30)

  def breaking(*args):
    output, state = step(*args)
    baseline = tf.numpy_function(break_, [output.baseline], tf.float32)
    baseline = tf.ensure_shape(baseline, output.baseline.shape)
    return output._replace(baseline=baseline), state

  return breaking


def train(logdir, **options):
  run = make_run(logdir, **options)
  local_run.train(run)
  return run


@pytest.fixture
def log(caplog):
  """The messages of absl's logger."""
  with caplog.at_level(python_logging.INFO, logger='absl'):
    yield caplog


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """The logdir of a training in serial mode that nothing interrupted."""
  logdir = tmp_path_factory.mktemp('whole')
  run = train(logdir, **SERIAL)
  assert run.frames() >= SERIAL['total_environment_frames']
  return logdir


class TestWhatATrainingLeaves:
  @pytest.fixture(scope='class')
  @classmethod
  def of_threads(cls, tmp_path_factory):
    logdir = tmp_path_factory.mktemp('threads')
    run = train(logdir, **THREADS)
    assert run.frames() >= THREADS['total_environment_frames']
    return logdir

  @pytest.fixture(params=['whole', 'of_threads'], ids=['serial', 'threads'])
  def logdir(self, request):
    return request.getfixturevalue(request.param)

  def test_a_checkpoint_of_the_frames_learned_from(self, logdir):
    variables = saved_variables(logdir)
    (frames,) = [v for n, v in variables.items() if n.startswith('frames/')]
    assert int(newest_checkpoint(logdir).name) == frames
    assert frames >= SERIAL['total_environment_frames']
    assert saved_state(logdir)['metrics']['frames'] == frames

  def test_a_row_for_each_episode(self, logdir):
    rows = episodes(logdir)
    assert len(rows) == saved_state(logdir)['metrics']['episode_count']
    # Catch takes nine steps, and one more column to start anew.
    assert len(rows) >= SERIAL['total_environment_frames'] // 10 - 8
    for row in rows:
      assert row['level'] == 'catch'
      assert float(row['episode_return']) in (-1.0, 1.0)
      assert int(row['episode_length']) == int(row['episode_frames']) == 9
    frames = [int(row['frames']) for row in rows]
    assert frames == sorted(frames)

  def test_tensorboard_events(self, logdir):
    (events,) = logdir.glob('events.out.tfevents.*')
    assert events.stat().st_size > 1000

  def test_nothing_else(self, logdir):
    assert {p.name.split('.')[0] for p in logdir.iterdir()} == {
      'checkpoints',
      'episodes',
      'events',
    }


def test_no_thread_outlives_a_training(tmp_path):
  before = set(threading.enumerate())
  train(tmp_path, **THREADS)
  ours = [
    thread.name
    for thread in set(threading.enumerate()) - before
    if thread.name.startswith(('actor', 'inference', 'learner'))
  ]
  assert not ours


def test_a_native_batcher_that_cannot_be_had_is_said_before_the_run(
  tmp_path, monkeypatch
):
  def load():
    raise ImportError('The native ops are not available.')

  monkeypatch.setattr(assembly.ops, 'load', load)
  with pytest.raises(ValueError, match=r'^--batcher=op: The native ops are'):
    make_run(tmp_path, **(THREADS | {'batcher': 'op'}))


@pytest.mark.parametrize('batcher', ['op', 'python', 'none'])
def test_with_or_without_a_batcher_it_trains(tmp_path, batcher):
  run = train(tmp_path, **(THREADS | {'batcher': batcher}))
  assert run.frames() >= 600


@pytest.mark.parametrize(
  'options',
  [
    {'lstm': True, 'last_action_reward': True, 'frame_stack': 2},
    {'optimizer': 'rmsprop', 'epsilon': 0.1, 'updates_per_batch': 2},
    {'correction': 'one_step_is', 'reward_clipping': 'soft_asymmetric'},
  ],
  ids=['memory', 'rmsprop', 'losses'],
)
def test_other_options_train(tmp_path, options):
  options = SERIAL | options | {'total_environment_frames': 100}
  assert train(tmp_path, **options).frames() >= 100


class TestSerialMode:
  def test_two_runs_are_equal_bit_for_bit(self, tmp_path):
    options = SERIAL | {'lstm': True}
    for name in 'one', 'two':
      train(tmp_path / name, **options)
    assert_same_bits(tmp_path / 'one', tmp_path / 'two')
    assert len(episodes(tmp_path / 'one')) > 40

  def test_another_seed_gives_another_run(self, whole, tmp_path):
    assert make_config(**SERIAL).run.seed != 2
    train(tmp_path, **(SERIAL | {'seed': 2}))
    one, two = saved_variables(whole), saved_variables(tmp_path)
    assert any((one[n] != two[n]).any() for n in one if n.startswith('agent'))
    assert episodes_without_time(whole) != episodes_without_time(tmp_path)

  @pytest.mark.parametrize(
    'options',
    [
      {},
      {'lstm': True, 'frame_stack': 3},
      {'level_name': 'CartPole-v1'},
      ATARI,
    ],
    ids=['catch', 'memory', 'cartpole', 'atari'],
  )
  def test_a_resumed_run_equals_an_uninterrupted_one(self, tmp_path, options):
    options = SERIAL | options
    train(tmp_path / 'whole', **options)
    for updates in 5, 11:  # Neither with all columns used up.
      run = make_run(tmp_path / 'parts', **options)
      stop_after_updates(run, updates)
      local_run.train(run)
      assert run.frames() < options['total_environment_frames']
      assert saved_state(tmp_path / 'parts')['serial']['queue']
    train(tmp_path / 'parts', **options)
    assert_same_bits(tmp_path / 'whole', tmp_path / 'parts')

  def test_a_run_prolonged_by_more_frames_is_the_same(self, whole, tmp_path):
    train(tmp_path, **(SERIAL | {'total_environment_frames': 200}))
    train(tmp_path, **SERIAL)
    assert_same_bits(whole, tmp_path)

  def test_a_run_that_crashed_goes_on_from_its_checkpoint(
    self, whole, tmp_path
  ):
    run = make_run(tmp_path, **(SERIAL | {'save_checkpoint_secs': 0.0}))
    update, count = run._training.learner.update, []

    def crash(batch):
      count.append(1)
      if len(count) == 8:
        raise RuntimeError('the machine has crashed')
      return update(batch)

    run._training.learner.update = crash
    with pytest.raises(RuntimeError, match='has crashed'):
      local_run.train(run)
    # Episodes that ended after the checkpoint are played once more.
    train(tmp_path, **SERIAL)
    assert_same_bits(whole, tmp_path)

  @pytest.mark.parametrize(
    'sizes', [{'envs_per_actor': 5}, {'unroll_length': 7}]
  )
  def test_with_other_sizes_episodes_begin_anew(self, tmp_path, log, sizes):
    one = train(tmp_path, **SERIAL)
    two = train(
      tmp_path, **(SERIAL | sizes | {'total_environment_frames': 900})
    )
    assert two.frames() >= 900 > one.frames()
    assert 'begin anew: --envs_per_actor or --unroll_length' in log.text


@pytest.mark.parametrize(
  'options', [SERIAL, THREADS], ids=['serial', 'threads']
)
def test_a_run_that_has_its_frames_says_so_and_does_nothing(
  tmp_path, capsys, monkeypatch, options
):
  options = options | {'total_environment_frames': 50}
  frames = train(tmp_path, **options).frames()
  before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*')}
  capsys.readouterr()
  monkeypatch.delattr(actor, 'Actor')
  train(tmp_path, **options)
  assert capsys.readouterr().out == (
    f'{tmp_path} already holds {frames} frames, and --total_environment_frames '
    'asks for 50. Raise it to train on.\n'
  )
  assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*')} == before


class TestThreads:
  def test_a_resumed_run_goes_on_counting(self, tmp_path, capsys):
    options = THREADS | {'learning_rate_schedule': 'linear'}
    options |= {'learning_rate': 1e-3, 'total_environment_frames': 2000}
    run = make_run(tmp_path, **options)
    stop_after_updates(run, 5)
    local_run.train(run)
    frames, rows = run.frames(), episodes(tmp_path)
    assert 0 < frames < 2000
    capsys.readouterr()
    other = make_run(tmp_path, **options)
    assert f'Resuming at {frames:,} frames.' in capsys.readouterr().out
    assert other.frames() == frames
    rates = []
    update = other._training.learner.update

    def record(batch):
      rates.append((other.frames(), float(update(batch)['learning_rate'])))
      return update(batch)

    other._training.learner.update = record
    local_run.train(other)
    assert other.frames() >= 2000
    for before, rate in rates:
      np.testing.assert_allclose(rate, 1e-3 * (1 - before / 2000), rtol=1e-4)
    assert episodes(tmp_path)[: len(rows)] == rows
    assert len(episodes(tmp_path)) > len(rows)

  def test_a_serial_run_can_go_on_in_threads_and_back(self, tmp_path):
    for frames, options in (
      (200, SERIAL),
      (400, THREADS),
      (600, SERIAL),
    ):
      options = options | {'total_environment_frames': frames}
      run = train(tmp_path, **options)
      assert run.frames() >= frames

  @pytest.mark.parametrize('broken', ['environment', 'agent', 'learner'])
  def test_a_failure_anywhere_ends_the_run_with_its_traceback(
    self, tmp_path, monkeypatch, broken
  ):
    run = make_run(tmp_path, **(THREADS | {'total_environment_frames': NEVER}))
    failing = runs.Breaking(broken)
    if broken == 'environment':
      environment = run._environments[1]
      environment.step = failing(environment.step, 30)
    elif broken == 'learner':
      run._training.learner.update = failing(run._training.learner.update, 2)
    else:
      make_step = policies.make_step
      monkeypatch.setattr(
        policies,
        'make_step',
        lambda *args: breaking_in_graph(make_step(*args), failing),
      )
    # A graph tells what failed in it as text.
    kind = tf.errors.UnknownError if broken == 'agent' else ZeroDivisionError
    with pytest.raises(kind, match=f'the {broken} broke') as error:
      local_run.train(run)
    if broken == 'agent':
      assert 'in fails_in_the_end' in str(error.value)
    else:
      frames = traceback.extract_tb(error.value.__traceback__)
      assert frames[-1].name == 'fails_in_the_end'
    assert failing.calls > 2

  def test_a_stuck_environment_costs_nothing_that_was_learned(
    self, tmp_path, monkeypatch
  ):
    monkeypatch.setattr(impala_local.Run, 'join_timeout', 3.0)
    run = make_run(tmp_path, **(THREADS | {'total_environment_frames': NEVER}))
    stuck, released = threading.Event(), threading.Event()
    step, update = run._environments[1].step, run._training.learner.update

    def block(action):
      stuck.set()
      released.wait()
      return step(action)

    def update_and_stop(batch):
      values = update(batch)
      if stuck.is_set():
        run.stop()
      return values

    run._environments[1].step = block
    run._training.learner.update = update_and_stop
    try:
      with pytest.raises(TimeoutError, match=r'actor_1$'):
        local_run.train(run)
    finally:
      released.set()
    assert int(newest_checkpoint(tmp_path).name) == run.frames() > 0


def fill_after_updates(run, updates):
  """Has the disk be full for episodes.csv from then on."""
  update = run._training.learner.update

  def update_and_fill(batch):
    values = update(batch)
    if int(values['updates']) == updates:
      with run._metrics._lock:
        full_disk.fill(run._metrics._episodes)
    return values

  run._training.learner.update = update_and_fill


@pytest.mark.parametrize(
  'options', [SERIAL, THREADS], ids=['serial', 'threads']
)
def test_a_full_disk_ends_the_run_with_a_checkpoint_if_one_fits(
  tmp_path, log, options
):
  run = make_run(tmp_path / 'full', **options)
  fill_after_updates(run, 4)
  with pytest.raises(files.WriteError, match=r'episodes\.csv: No space left'):
    local_run.train(run)
  assert 0 < int(newest_checkpoint(tmp_path / 'full').name) == run.frames()
  assert f'Saved {run.frames()} frames in {tmp_path / "full"}.' in log.text
  # Nothing that was played is lost to the learner.
  train(tmp_path / 'full', **options)
  if options is SERIAL:
    train(tmp_path / 'whole', **options)
    first, second = map(
      saved_variables, (tmp_path / 'full', tmp_path / 'whole')
    )
    for name, value in first.items():
      np.testing.assert_array_equal(value, second[name], err_msg=name)


def poison_batches(run, chosen):
  """Has chosen batches, counted from 0, hold rewards that are no numbers."""
  update, calls = run._training.learner.update, itertools.count()

  def update_poisoned(batch):
    if next(calls) in chosen:
      env_outputs = batch.env_outputs
      batch = batch._replace(
        env_outputs=env_outputs._replace(reward=env_outputs.reward * np.nan)
      )
    return update(batch)

  run._training.learner.update = update_poisoned


def test_a_poisoned_batch_is_dropped_counted_and_told_once(tmp_path, log):
  run = make_run(tmp_path, **SERIAL)
  poison_batches(run, {2, 3, 7})
  local_run.train(run)
  assert int(newest_checkpoint(tmp_path).name) >= 600
  for name, value in saved_variables(tmp_path).items():
    assert np.isfinite(value).all(), name
  assert saved_state(tmp_path)['metrics']['dropped_batches'] == 3
  assert log.text.count('Dropped a batch at') == 2
  assert 'its gradients are not finite. Look at the rewards' in log.text


def test_a_batch_that_lost_a_later_step_is_no_dropped_one(tmp_path, log):
  run = make_run(
    tmp_path,
    **(SERIAL | {'updates_per_batch': 2, 'total_environment_frames': 1000}),
  )
  update, recorded = run._training.learner.update, []

  def lose_the_second_step(batch):
    broken = {'skipped_steps': 1, 'gradient_norm': np.nan}
    return update(batch) | broken

  def record(frames, updates, values):
    recorded.append(values)

  run._training.learner.update = lose_the_second_step
  run._training.metrics.record_update = record
  local_run.train(run)
  assert len(recorded) == run._training.updates() > 10
  assert all({'total_loss', 'entropy'} <= set(values) for values in recorded)
  # What is no number would spoil the means.
  assert not any('gradient_norm' in values for values in recorded)
  assert saved_state(tmp_path)['metrics']['dropped_batches'] == 0
  assert 'Dropped a batch' not in log.text


@pytest.mark.parametrize(
  'options', [SERIAL, THREADS], ids=['serial', 'threads']
)
def test_after_several_poisoned_batches_in_a_row_the_run_stops_and_saves(
  tmp_path, options
):
  run = make_run(tmp_path, **(options | {'total_environment_frames': NEVER}))
  poison_batches(run, {1, *range(3, 1000)})
  with pytest.raises(
    training.RunError,
    match=r'of 10 batches in a row are not finite, so training stops at \d+ '
    r'frames\. Look at the rewards',
  ):
    local_run.train(run)
  assert run._training.updates() == 2
  assert 0 < int(newest_checkpoint(tmp_path).name) == run.frames()
  for name, value in saved_variables(tmp_path).items():
    assert np.isfinite(value).all(), name


def test_where_no_checkpoint_fits_the_cause_is_still_told(
  tmp_path, log, monkeypatch
):
  run = make_run(tmp_path, **THREADS)
  fill_after_updates(run, 2)

  def full(path, nest):
    raise OSError(28, 'No space left on device', path)

  monkeypatch.setattr(nest_files, 'write', full)
  with pytest.raises(files.WriteError, match=r'episodes\.csv: No space left'):
    local_run.train(run)
  assert 'What was learned could not be saved: cannot save' in log.text


@pytest.mark.parametrize(
  'options', [SERIAL, THREADS], ids=['serial', 'threads']
)
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_a_checkpoint(
  tmp_path, log, capfd, options, number
):
  run = make_run(tmp_path, **(options | {'total_environment_frames': NEVER}))
  update = run._training.learner.update

  def update_and_signal(batch):
    values = update(batch)
    if int(values['updates']) == 4:
      os.kill(os.getpid(), number)
    return values

  run._training.learner.update = update_and_signal
  before = signal.getsignal(number)
  local_run.train(run)
  assert signal.getsignal(number) is before
  name = signal.Signals(number).name
  assert (
    f'\n{name}: stops as soon as what is under way has ended; a second {name} '
    'does not wait for it.\n'
  ) in capfd.readouterr().err
  assert run.frames() == int(newest_checkpoint(tmp_path).name) > 0
  assert (
    f'Stopped at {run.frames()} frames by {signal.Signals(number).name}. Run '
    'the same command to go on.'
  ) in log.text


@pytest.mark.parametrize(
  'options', [SERIAL, THREADS], ids=['serial', 'threads']
)
def test_an_environment_that_exits_ends_no_run_as_if_all_were_well(
  tmp_path, monkeypatch, options
):
  run = make_run(tmp_path, **options)
  for environment in run._environments:
    monkeypatch.setattr(environment, '_step', lambda actions: sys.exit(0))
  with pytest.raises(
    RuntimeError, match=r'^catch has called sys\.exit\(0\)$'
  ) as raised:
    local_run.train(run)
  assert isinstance(raised.value.__cause__, SystemExit)


class TestLearning:
  """The whole machinery solves Catch, and a broken one does not."""

  OPTIONS = SERIAL | {
    'envs_per_actor': 32,
    'batch_size': 32,
    'updates_per_batch': 2,
    'learning_rate': 3e-3,
    'baseline_cost': 0.5,
    'lambda_': 1.0,
    'total_environment_frames': 60_000,
  }

  def _final_return(self, logdir, **options):
    train(logdir, **(self.OPTIONS | options))
    returns = [float(row['episode_return']) for row in episodes(logdir)]
    assert len(returns) > 1000
    return np.mean(returns[-500:])

  @pytest.mark.parametrize(
    'options',
    [{}, {'num_actors': 2, 'envs_per_actor': 16}],
    ids=['serial', 'threads'],
  )
  def test_catch_is_solved(self, tmp_path, options):
    run = make_run(tmp_path, **(self.OPTIONS | options))
    runs.train_until_solved(run, 0.95)

  @pytest.mark.slow
  @pytest.mark.parametrize('lstm', [True, False])
  def test_catch_hidden_is_solved_with_memory_only(self, tmp_path, lstm):
    options = self.OPTIONS | {
      'level_name': 'catch_hidden',
      'lstm': lstm,
      'envs_per_actor': 64,
      'batch_size': 64,
      'learning_rate': 2e-3,
      'total_environment_frames': 90_000,
    }
    if lstm:
      runs.train_until_solved(make_run(tmp_path, **options), 0.9)
    else:
      # Without memory at most three balls of five are caught.
      assert self._final_return(tmp_path, **options) <= 0.3

  @pytest.mark.slow
  @pytest.mark.parametrize(
    'ground',
    [
      'black',
      'white',
      pytest.param('grey', marks=pytest.mark.nightly),
    ],
  )
  def test_catch_is_solved_from_pixels_on_any_ground(self, tmp_path, ground):
    # With x / 255 it stays unsolved on grey and on white.
    options = SERIAL | {
      'level_name': pixel_catch.level_name(ground),
      'network': 'shallow',
      'envs_per_actor': 16,
      'batch_size': 8,
      'unroll_length': 20,
      'learning_rate': 1e-3,
      'total_environment_frames': 60_000,
    }
    runs.train_until_solved(make_run(tmp_path, **options), 0.95)

  def test_catch_is_not_solved_with_the_sign_of_the_advantages_wrong(
    self, tmp_path, monkeypatch
  ):
    right = losses.compute_policy_gradient_loss

    def wrong(log_probs, advantages, *args, **kwargs):
      return right(log_probs, -advantages, *args, **kwargs)

    monkeypatch.setattr(losses, 'compute_policy_gradient_loss', wrong)
    result = self._final_return(tmp_path, total_environment_frames=20_000)
    assert result < -0.5

  def test_catch_is_not_solved_with_rewards_a_step_too_late(
    self, tmp_path, monkeypatch
  ):
    right = losses.align

    def wrong(*args, **kwargs):
      transitions = right(*args, **kwargs)
      rewards = tf.roll(transitions.rewards, shift=1, axis=0)
      return transitions._replace(rewards=rewards)

    monkeypatch.setattr(losses, 'align', wrong)
    result = self._final_return(tmp_path, total_environment_frames=40_000)
    assert result < 0


def test_every_actor_plays_its_own_episodes(tmp_path):
  run = make_run(tmp_path, **THREADS)
  boards = [e.reset().observation for e in run._environments]
  later = []
  for environment in run._environments:
    for _ in range(10):
      output = environment.step(np.ones([4], np.int32))
    later.append(output.observation)
  assert not np.array_equal(boards, later)
  assert not np.array_equal(
    np.concatenate([boards[0], later[0]]), np.concatenate([boards[1], later[1]])
  )


def test_every_batch_mixes_the_levels_that_wait(tmp_path):
  options = {'level_name': 'catch,catch_hidden', 'envs_per_actor': 8}
  run = make_run(tmp_path, **(THREADS | options | {'batch_size': 4}))
  get = run._queue.get
  levels = []

  def get_when_both_have_put():
    def have_both_put():
      return {waiting.actor for waiting in run._queue._waiting} == {0, 1}

    wait_until(have_both_put)
    batch = get()
    levels.append(batch.level.tolist())
    return batch

  run._queue.get = get_when_both_have_put
  local_run.train(run)
  assert len(levels) >= 15
  assert all(sorted(batch) == [0, 0, 1, 1] for batch in levels)


def first_balls(run, episodes=8):
  """Where the balls of the first episodes of all environments start."""
  balls = []
  for environment in run._environments:
    output = environment.reset()
    for _ in range(10 * episodes):
      if (output.step_type == structures.FIRST).all():
        boards = output.observation.reshape([-1, catch.ROWS, catch.COLUMNS])
        balls.append(boards[:, 0].argmax(-1))
      output = environment.step(np.ones([environment.num_envs], np.int32))
  return np.array(balls)


@pytest.mark.parametrize(
  'options', [SERIAL, THREADS], ids=['serial', 'threads']
)
def test_in_threads_every_start_plays_other_episodes(tmp_path, options):
  plays = []
  for frames in (100, 200, 300):
    options = options | {'total_environment_frames': frames}
    plays.append(first_balls(make_run(tmp_path, **options)))
    # What a run without checkpoints plays does not depend on chance.
    np.testing.assert_array_equal(
      plays[0], first_balls(make_run(tmp_path / 'new', **options))
    )
    train(tmp_path, **options)
  # In serial mode they are those of the checkpoint, restored later.
  for one, two in itertools.combinations(plays, 2):
    assert np.array_equal(one, two) == (options['num_actors'] == 0)


def gauges_of_actors(run, environment_seconds):
  """What a run reports whose actors have worked for so long."""
  run._prepare()
  is_serial = isinstance(run, serial.Run)
  actors = [run._actor] if is_serial else run._actors
  for one, seconds in zip(actors, environment_seconds, strict=True):
    one.environment_seconds = seconds
  if is_serial:
    run._policy.seconds = 4.0
  else:
    run._policies[0]._seconds.assign(4.0)
  run._training.learner_seconds = 3.0
  run._queue._fills, run._queue._num_fills = 1.5, 2
  return run._gauges()


def test_the_learners_seconds_include_the_wait_for_its_device(
  tmp_path, monkeypatch
):
  run = make_run(tmp_path, **SERIAL)
  clock = [0.0]
  monkeypatch.setattr(training.time, 'perf_counter', lambda: clock[0])

  class Late(float):
    def __float__(self):
      clock[0] += 5
      return 1.0

  def update(batch):
    del batch
    clock[0] += 0.5
    # The counters are known at once.
    counters = {'frames': 20, 'updates': 1, 'skipped_steps': 0}
    return {**counters, 'gradient_norm': Late(1.0)}

  run._training.learner.update = update
  run._training.update(None)
  assert run._training.learner_seconds == 5.5


def test_the_policy_lag_is_counted_in_updates(tmp_path):
  """In serial mode it is known beforehand: two batches are of each unroll."""
  run = make_run(tmp_path, **(SERIAL | {'batch_size': 2}))
  update = run._training.learner.update
  lags = []

  def record(batch):
    values = update(batch)
    lags.append((float(values['policy_lag']), float(values['max_policy_lag'])))
    return values

  run._training.learner.update = record
  local_run.train(run)
  assert len(lags) >= 30
  assert lags == [(float(i % 2),) * 2 for i in range(len(lags))]


def test_with_threads_the_lag_does_not_grow_with_the_updates(tmp_path):
  run = make_run(tmp_path, **(THREADS | {'total_environment_frames': 6000}))
  update = run._training.learner.update
  lags = []

  def record(batch):
    values = update(batch)
    lags.append(float(values['max_policy_lag']))
    return values

  run._training.learner.update = record
  local_run.train(run)
  assert len(lags) >= 90
  assert max(lags) > 0
  # An actor may be held up, but not all the time.
  assert min(lags[-30:]) < 20


def test_without_threads_no_queue_tells_the_bottleneck(tmp_path):
  assert gauges_of_actors(make_run(tmp_path, **SERIAL), [2.0]) == {
    'stage_seconds': {'environment': 2.0, 'inference': 4.0, 'learner': 3.0}
  }


def test_the_seconds_of_a_stage_are_those_of_one_of_its_threads(tmp_path):
  run = make_run(tmp_path, **THREADS)
  gauges = gauges_of_actors(run, [5.0, 2.0])
  assert gauges['stage_seconds'] == {
    'environment': 3.5,
    'inference': 4.0,
    'learner': 3.0,
  }
  assert gauges['queue_fill'] == 0.75
  assert gauges['batcher'].batches == 0
  assert run._gauges()['queue_fill'] == 0  # It is since the last time.
  run._policies[0].close()


def test_without_a_batcher_each_actor_evaluates_the_agent_itself(tmp_path):
  run = make_run(tmp_path, **(THREADS | {'batcher': 'none'}))
  local_run.train(run)
  assert run.frames() >= 600
  gauges = run._gauges()
  assert gauges['batcher'] is None
  seconds = [one.seconds for one in run._policies]
  assert len(seconds) == 2
  assert min(seconds) > 0
  assert gauges['stage_seconds']['inference'] == sum(seconds) / 2


@pytest.mark.parametrize('batcher', ['op', 'python'])
def test_several_inference_threads_serve(tmp_path, batcher):
  options = {'inference_threads': 2, 'batcher': batcher}
  run = make_run(tmp_path, **(THREADS | options))
  names = set()
  serve = policies.Batched.serve

  def record(policy, *args):
    names.add(threading.current_thread().name)
    serve(policy, *args)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(policies.Batched, 'serve', record)
    local_run.train(run)
  assert run.frames() >= 600
  assert names == {'inference_0', 'inference_1'}


def test_checkpoints_come_at_their_time(tmp_path):
  run = make_run(tmp_path, **(SERIAL | {'save_checkpoint_secs': 0.0}))
  folders = []
  save = run._training._checkpointer.save

  def record(*args):
    folders.append(save(*args))
    return folders[-1]

  run._training._checkpointer.save = record
  local_run.train(run)
  # After every update, and at the end.
  assert len(folders) == int(run._training.learner.updates) + 1
  kept = [p for p in (tmp_path / 'checkpoints').iterdir() if p.is_dir()]
  assert len(kept) in (3, 4)  # The newest three, and the best.


@pytest.mark.parametrize(
  ('level_name', 'frames_per_step'),
  [('ALE/Pong-v5', 4), ('SpaceInvadersDeterministic-v4', 3)],
)
def test_the_options_of_the_level_reach_the_emulator(
  level_name, frames_per_step
):
  level = environments.parse_level(level_name)
  config = resolve(make_config(**ATARI), level.suite, level.options)
  environment = worlds.make_environment(config, level, 1, seed=1)
  assert environment.spec.observation.shape == (36, 36, 1)
  assert environment.spec.frames_per_step == frames_per_step
  environment.close()
