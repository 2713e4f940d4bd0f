"""A3C's trainings: what its workers share, how they end and how they go on."""

import csv
import logging as python_logging
import os
import re
import signal
import threading
import traceback

import numpy as np
import pytest

from scalable_agent import evaluation
from scalable_agent.options import check_given, validate
from scalable_agent.runtimes import a3c_local, local_run, training
from scalable_agent.storage import logdirs
from tests import runs
from tests.configs import make_config, resolve
from tests.runs import NEVER, episodes, newest_checkpoint, saved_state

OPTIONS = {
  'algorithm': 'a3c',
  'level_name': 'catch',
  'num_actors': 2,
  'envs_per_actor': 3,
  'unroll_length': 10,
  'learning_rate_schedule': 'constant',
  'total_environment_frames': 1000,
  'save_checkpoint_secs': NEVER,
  'summary_secs': NEVER,
  'progress_secs': NEVER,
  'evaluation_secs': 0.0,
}
OWN = {'shared_statistics': False}


def make_run(logdir, **options):
  config, levels = runs.prepare(logdir, **options)
  return a3c_local.Run(config, levels)


def train(logdir, **options):
  run = make_run(logdir, **(OPTIONS | options))
  local_run.train(run)
  return run


def on_update(run, function):
  """Has `function` called with the number of updates after each of them."""
  update = run._training.update

  def update_and_call(batch, worker):
    update(batch, worker)
    function(run._training.updates())

  run._training.update = update_and_call


def iterations(statistics):
  """How often the optimizers of a saved state took a step."""
  return [int(values[0]) for values in statistics]


@pytest.fixture
def log(caplog):
  """The messages of absl's logger."""
  with caplog.at_level(python_logging.INFO, logger='absl'):
    yield caplog


def test_a_training_leaves_a_checkpoint_and_a_row_for_each_episode(tmp_path):
  run = train(tmp_path)
  assert run.frames() >= OPTIONS['total_environment_frames']
  assert int(newest_checkpoint(tmp_path).name) == run.frames()
  rows = episodes(tmp_path)
  assert len(rows) == saved_state(tmp_path)['metrics']['episode_count'] > 80
  alive = [t.name for t in threading.enumerate() if t.name.startswith('worker')]
  assert not alive


def test_every_worker_acts_with_a_copy_of_the_learners_weights(tmp_path):
  run = make_run(tmp_path, **OPTIONS)
  copies = set()
  lags, versions = [], []
  update = run._training.update

  def record(batch, worker):
    # Nobody else changes the copy, whoever changes the weights meanwhile.
    before = [v.numpy() for v in worker.agent.variables]
    update(batch, worker)
    for one, other in zip(worker.agent.variables, before, strict=True):
      np.testing.assert_array_equal(one, other)
    copies.add(id(worker))
    versions.append(int(batch.policy_version[0]))
    lags.append(run._training.updates() - versions[-1])

  run._training.update = record
  local_run.train(run)
  assert len(copies) == 2
  learned = run._training.agent.variables
  for worker in run._workers:
    assert any(
      (own.numpy() != shared.numpy()).any()
      for own, shared in zip(worker.agent.variables, learned, strict=True)
    )
    worker.synchronise()
    for own, shared in zip(worker.agent.variables, learned, strict=True):
      np.testing.assert_array_equal(own, shared)
  # Of its own update at least.
  assert min(lags) >= 1
  assert max(versions) > run._training.updates() / 2


def test_several_levels_take_turns_among_the_workers(tmp_path):
  run = make_run(
    tmp_path,
    **(OPTIONS | {'level_name': 'catch,catch_hidden', 'num_actors': 5}),
  )
  names = [one.level.name for one in run._environments]
  assert names == ['catch', 'catch_hidden', 'catch', 'catch_hidden', 'catch']
  local_run.train(run)
  assert {row['level'] for row in episodes(tmp_path)} == {
    'catch',
    'catch_hidden',
  }


@pytest.mark.parametrize(
  'options',
  [
    {'lstm': True, 'last_action_reward': True, 'frame_stack': 2},
    {
      'optimizer': 'rmsprop',
      'epsilon': 0.1,
      'clip_gradient_by': 'average_norm',
    },
    {'gae_lambda': 1.0, 'loss_reduction': 'mean', 'envs_per_actor': 1},
  ],
  ids=['memory', 'rmsprop', 'losses'],
)
def test_other_options_train(tmp_path, options):
  options = options | {'total_environment_frames': 200}
  assert train(tmp_path, **options).frames() >= 200


def test_a_run_without_workers_is_refused():
  with pytest.raises(ValueError, match=r'^--num_actors=0 .* without a worker'):
    validate(make_config(**(OPTIONS | {'num_actors': 0})))


@pytest.mark.parametrize('option', [{'batch_size': 8}, {'lambda_': 0.9}])
def test_options_of_other_algorithms_are_refused(option):
  config = resolve(make_config(**OPTIONS, **option), 'catch')
  (name,) = option
  with pytest.raises(ValueError, match=f'--{name}=.* --algorithm=a3c'):
    check_given(config, [name])


def test_the_frames_of_pytorch_a3c_can_be_learned_from(tmp_path):
  options = {
    'level_name': 'PongDeterministic-v4',
    'width': 42,
    'height': 42,
    'frame_stack': 1,
    'lstm': True,
    'envs_per_actor': 1,
    'unroll_length': 20,
    'max_episode_length': 25,
    'total_environment_frames': 600,
  }
  run = train(tmp_path, **options)
  assert run.spec.observation.shape == (42, 42, 1)
  # Normalised by what was learned from.
  pixels = run._training.agent._pixels
  assert int(pixels.count) >= 600 // 4 // 4
  lengths = {int(row['episode_length']) for row in episodes(tmp_path)}
  assert lengths == {25}


def test_shared_statistics_mean_nothing_to_other_algorithms():
  options = OPTIONS | OWN | {'algorithm': 'impala'}
  config = resolve(make_config(**options), 'catch')
  with pytest.raises(ValueError, match='--shared_statistics=False has no'):
    check_given(config, ['shared_statistics'])


class TestStatistics:
  """Of the optimizer: shared by the workers, or each its own."""

  def test_shared_ones_count_the_updates_of_all(self, tmp_path):
    run = train(tmp_path)
    assert 'statistics' not in saved_state(tmp_path)
    (optimizer,) = run._training.learner.optimizers
    updates = run._training.updates()
    assert 0.9 * updates <= int(optimizer.iterations) <= updates

  def test_own_ones_are_saved_and_restored(self, tmp_path):
    run = train(tmp_path, **OWN)
    (unused,) = run._training.learner.optimizers
    assert int(unused.iterations) == 0
    saved = saved_state(tmp_path)['statistics']
    assert sum(iterations(saved)) == run._training.updates()
    assert all(iterations(saved))
    more = {'total_environment_frames': 1500}
    other = make_run(tmp_path, **(OPTIONS | OWN | more))
    other._prepare()
    for worker, values in zip(other._workers, saved, strict=True):
      restored = [v.numpy() for v in worker.optimizers[0].variables]
      for one, value in zip(restored, values, strict=True):
        np.testing.assert_array_equal(one, value)
    run = train(tmp_path, **(OWN | more))
    again = saved_state(tmp_path)['statistics']
    assert sum(iterations(again)) == run._training.updates()

  def test_new_workers_begin_without(self, tmp_path, log):
    train(tmp_path, **OWN)
    more = {'num_actors': 3, 'total_environment_frames': 1500}
    run = make_run(tmp_path, **(OPTIONS | OWN | more))
    run._prepare()
    counts = [int(w.optimizers[0].iterations) for w in run._workers]
    assert all(counts[:2])
    assert counts[2] == 0
    assert 'has the statistics of 2 workers of 3' in log.text


class TestEnds:
  @pytest.mark.parametrize('broken', ['environment', 'agent', 'learner'])
  def test_a_failure_anywhere_ends_the_run_with_its_traceback(
    self, tmp_path, broken
  ):
    run = make_run(tmp_path, **(OPTIONS | {'total_environment_frames': NEVER}))
    failing = runs.Breaking(broken)
    run._prepare()
    run._prepare = lambda: None
    if broken == 'environment':
      environment = run._environments[1]
      environment.step = failing(environment.step, 30)
    elif broken == 'agent':
      policy = run._policies[1]
      policy._step = failing(policy._step, 30)
    else:
      run._workers[1].update = failing(run._workers[1].update, 2)
    with pytest.raises(ZeroDivisionError, match=f'the {broken} broke') as error:
      local_run.train(run)
    frames = traceback.extract_tb(error.value.__traceback__)
    assert frames[-1].name == 'fails_in_the_end'
    assert failing.calls > 2

  @pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
  def test_a_signal_saves_and_the_same_command_goes_on(
    self, tmp_path, log, capsys, number
  ):
    options = OPTIONS | {'total_environment_frames': 2000}
    run = make_run(tmp_path, **options)
    sent = []

    def send(updates):
      if updates >= 4 and not sent:
        sent.append(updates)
        os.kill(os.getpid(), number)

    on_update(run, send)
    local_run.train(run)
    frames, rows = run.frames(), episodes(tmp_path)
    assert int(newest_checkpoint(tmp_path).name) == frames
    assert 0 < frames < 2000
    assert f'by {signal.Signals(number).name}. Run the same' in log.text
    capsys.readouterr()
    other = make_run(tmp_path, **options)
    assert f'Resuming at {frames:,} frames.' in capsys.readouterr().out
    for variable, value in zip(
      other._training.agent.variables,
      run._training.agent.variables,
      strict=True,
    ):
      np.testing.assert_array_equal(variable, value)
    local_run.train(other)
    assert other.frames() >= 2000
    assert episodes(tmp_path)[: len(rows)] == rows

  def test_a_stuck_environment_costs_nothing_that_was_learned(
    self, tmp_path, monkeypatch
  ):
    monkeypatch.setattr(a3c_local.Run, 'join_timeout', 3.0)
    monkeypatch.setattr(a3c_local, '_JOIN_TIMEOUT', 0.0)
    run = make_run(tmp_path, **(OPTIONS | {'total_environment_frames': NEVER}))
    stuck, released = threading.Event(), threading.Event()
    step = run._environments[1].step

    def block(action):
      stuck.set()
      released.wait()
      return step(action)

    run._environments[1].step = block
    on_update(run, lambda updates: run.stop() if stuck.is_set() else None)
    try:
      with pytest.raises(TimeoutError, match=r'worker_1$'):
        local_run.train(run)
    finally:
      released.set()
    assert int(newest_checkpoint(tmp_path).name) == run.frames() > 0

  def test_gradients_that_are_not_finite_stop_the_run_which_saves(
    self, tmp_path
  ):
    run = make_run(tmp_path, **(OPTIONS | {'total_environment_frames': NEVER}))
    update = run._training.update

    def poison(batch, worker):
      if run._training.updates() >= 3:
        reward = batch.env_outputs.reward * np.nan
        batch = batch._replace(
          env_outputs=batch.env_outputs._replace(reward=reward)
        )
      update(batch, worker)

    run._training.update = poison
    with pytest.raises(training.RunError, match='of 10 batches in a row'):
      local_run.train(run)
    assert int(newest_checkpoint(tmp_path).name) == run.frames() > 0


def test_checkpoints_come_at_their_time(tmp_path):
  run = make_run(tmp_path, **(OPTIONS | {'save_checkpoint_secs': 0.0}))
  run._config = run._config.replace(total_environment_frames=NEVER)
  run._training._config = run._config
  saved = []
  save = run._training.save

  def record(*args):
    save(*args)
    saved.append(run.frames())
    if len(saved) == 3:
      run.stop()

  run._training.save = record
  local_run.train(run)
  # The last one is that of the end.
  assert len(saved) >= 4
  assert int(newest_checkpoint(tmp_path).name) == saved[-1] == run.frames()


def test_a_logdir_of_another_algorithm_is_refused(tmp_path):
  run = train(tmp_path)
  logdirs.write_config(str(tmp_path), run._config)
  other = run._config.replace(algorithm='a2c')
  with (
    pytest.raises(ValueError, match='algorithm'),
    logdirs.prepare_logdir(str(tmp_path), other),
  ):
    pass


def test_the_seconds_of_a_stage_are_those_of_one_worker(tmp_path):
  run = make_run(tmp_path, **OPTIONS)
  run._prepare()
  seconds = [(5.0, 1.0), (2.0, 3.0)]
  for one, policy, (environment, inference) in zip(
    run._actors, run._policies, seconds, strict=True
  ):
    one.environment_seconds, policy.seconds = environment, inference
  run._training.learner_seconds = 3.0
  assert run._gauges() == {
    'stage_seconds': {'environment': 3.5, 'inference': 2.0, 'learner': 1.5}
  }


class TestEvaluations:
  """Episodes that are played meanwhile."""

  ON = {'evaluation_secs': 0.01, 'total_environment_frames': NEVER}  # noqa: RUF012

  def _run(self, logdir, evaluations, **options):
    """Trains until there were some evaluations; returns the run."""
    run = make_run(logdir, **(OPTIONS | self.ON | options))
    record, count = run._metrics.record_evaluation, []

    def record_and_stop(*args):
      record(*args)
      count.append(args)
      if len(count) >= evaluations:
        run.stop()

    run._metrics.record_evaluation = record_and_stop
    local_run.train(run)
    return run, count

  def _rows(self, logdir):
    with open(logdir / 'evaluations.csv', encoding='utf-8') as file:
      return list(csv.DictReader(file))

  def test_they_have_a_row_each_and_a_resumed_run_goes_on(self, tmp_path):
    run, recorded = self._run(
      tmp_path, 3, level_name='catch,catch_hidden', num_actors=2
    )
    rows = self._rows(tmp_path)
    assert len(rows) == len(recorded) >= 3
    for number, row in enumerate(rows):
      assert row['level'] == ('catch', 'catch_hidden')[number % 2]
      assert float(row['episode_return']) in (-1.0, 1.0)
      assert int(row['episode_length']) == 9
      assert 0 <= int(row['frames']) <= run.frames()
    assert saved_state(tmp_path)['metrics']['evaluations'] == {
      'count': len(rows),
      'latest': float(rows[-1]['episode_return']),
    }
    self._run(tmp_path, 1, level_name='catch,catch_hidden', num_actors=2)
    again = self._rows(tmp_path)
    assert again[: len(rows)] == rows
    assert len(again) > len(rows)
    # Not the first level once more, nor the first game.
    assert again[len(rows)]['level'] == ('catch', 'catch_hidden')[len(rows) % 2]

  def test_they_are_lines_of_pytorch_a3c_on_demand(self, tmp_path, capsys):
    _, recorded = self._run(tmp_path, 2, log_format='pytorch_a3c')
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(recorded)
    for line in lines:
      assert re.fullmatch(
        r'Time 00h \d\dm \d\ds, num steps \d+, FPS \d+, '
        r'episode reward -?1\.0, episode length 9',
        line,
      )

  def test_one_that_fails_ends_the_run_with_its_traceback(
    self, tmp_path, monkeypatch
  ):
    def fails(*args):
      raise ZeroDivisionError('the game broke')

    monkeypatch.setattr(evaluation, 'play_episode', fails)
    with pytest.raises(ZeroDivisionError, match='the game broke') as error:
      self._run(tmp_path, 1)
    frames = traceback.extract_tb(error.value.__traceback__)
    assert frames[-1].name == 'fails'

  def test_their_lines_need_them(self):
    options = OPTIONS | {'log_format': 'pytorch_a3c'}
    with pytest.raises(ValueError, match='--evaluation_secs=0 there are none'):
      validate(make_config(**options))

  def test_their_lines_tell_nothing_of_other_algorithms(self):
    options = {'algorithm': 'a2c', 'log_format': 'pytorch_a3c'}
    with pytest.raises(ValueError, match='tells nothing of --algorithm=a2c'):
      validate(make_config(**options))


class TestLearning:
  """The workers solve tasks that need the algorithm to be right."""

  @pytest.mark.parametrize(
    ('level_name', 'score'),
    [
      ('catch', 0.95),
      pytest.param('CartPole-v1', 450, marks=pytest.mark.nightly),
    ],
  )
  def test_the_defaults_solve_it(self, tmp_path, level_name, score):
    run = make_run(tmp_path, algorithm='a3c', level_name=level_name)
    runs.train_until_solved(run, score)

  def test_workers_with_statistics_of_their_own_solve_it(self, tmp_path):
    options = {'envs_per_actor': 16, 'total_environment_frames': 60_000}
    run = make_run(tmp_path, **(OPTIONS | OWN | options))
    runs.train_until_solved(run, 0.95)
