"""GA3C: what its threads do together, how they fail and how runs go on."""

import concurrent.futures
import contextlib
import random
import threading
import time
import types

import numpy as np
import psutil
import pytest
import tensorflow as tf
import tree
from tensorboard.compat.proto import event_pb2

from scalable_agent import objectives, optimizers
from scalable_agent.options import algorithm_of, check_given, validate
from scalable_agent.runtimes import ga3c_local, local_run, training, worlds
from tests import runs, waiting
from tests.configs import make_config, resolve
from tests.runs import (
  NEVER,
  episodes,
  newest_checkpoint,
  saved_variables,
  stop_after_updates,
)

OPTIONS = {
  'algorithm': 'ga3c',
  'level_name': 'catch',
  'num_actors': 3,
  'envs_per_actor': 4,
  'unroll_length': 10,
  'inference_threads': 2,
  'num_trainers': 2,
  'queue_capacity': 4,
  'learning_rate_schedule': 'constant',
  'total_environment_frames': 1000,
  'save_checkpoint_secs': NEVER,
  'summary_secs': NEVER,
  'progress_secs': NEVER,
}
ENDLESS = {'total_environment_frames': NEVER}
# Seconds.
SOAK_S = 600


def make_run(logdir, **options):
  options = OPTIONS | options
  config, levels = runs.prepare(logdir, **options)
  return ga3c_local.Run(config, levels)


def train(logdir, **options):
  run = make_run(logdir, **options)
  local_run.train(run)
  return run


@pytest.mark.parametrize('lstm', [False, True], ids=['mlp', 'lstm'])
def test_a_training_leaves_what_it_learned(tmp_path, lstm):
  run = train(tmp_path, lstm=lstm)
  assert run.frames() >= 1000
  assert int(newest_checkpoint(tmp_path).name) == run.frames()
  # A frame is an agent step in Catch, an update learns from 4 trajectories.
  assert run._training.updates() >= 1000 / 40
  assert len(episodes(tmp_path)) > 60


def test_every_thread_of_a_kind_works(tmp_path):
  run = make_run(tmp_path, **ENDLESS)
  names = {'predictor': set(), 'agent': set(), 'trainer': set()}

  def watched(kind, function):
    def watch(*args, **kwargs):
      names[kind].add(threading.current_thread().name)
      if sum(map(len, names.values())) == 2 + 2 + 3:
        run.stop()
      return function(*args, **kwargs)

    return watch

  run._training.learner.update = watched(
    'trainer', run._training.learner.update
  )
  run._metrics.record_unroll = watched('agent', run._metrics.record_unroll)
  assemble = run._prepare

  def prepare():
    assemble()
    run._policy.serve = watched('predictor', run._policy.serve)

  run._prepare = prepare
  local_run.train(run)
  assert names['predictor'] == {'predictor_0', 'predictor_1'}
  assert names['trainer'] == {'trainer_0', 'trainer_1'}
  assert names['agent'] == {'agent_0', 'agent_1', 'agent_2'}


@pytest.mark.parametrize(('least', 'columns'), [(0, 4), (40, 4), (41, 5)])
def test_an_update_has_the_transitions_that_it_needs(tmp_path, least, columns):
  run = make_run(tmp_path, training_min_batch_size=least)
  update, sizes = run._training.learner.update, set()
  versions = []

  def record(batch):
    sizes.add(batch.env_outputs.reward.shape)
    versions.append(batch.policy_version.max())
    return update(batch)

  run._training.learner.update = record
  local_run.train(run)
  assert sizes == {(11, columns)}
  assert max(versions) > 0  # Of the updates that they had seen.


def test_the_episodes_learned_from_are_counted_and_saved(tmp_path):
  run = make_run(tmp_path)
  update, ended = run._training.learner.update, []

  def record(batch):
    ended.append((batch.env_outputs.step_type[1:] == 2).sum())
    return update(batch)

  run._training.learner.update = record
  local_run.train(run)
  assert run._training.episodes() == sum(ended) > 60
  assert make_run(tmp_path)._training.episodes() == sum(ended)


def test_a_run_ends_after_its_episodes(tmp_path, capsys):
  run = train(tmp_path, total_episodes=50, **ENDLESS)
  # 3 unrolls of 4 environments in hand, and one episode of each.
  assert 50 <= run._training.episodes() <= 50 + 2 * 8
  train(tmp_path, total_episodes=50, **ENDLESS)
  assert 'and --total_episodes asks for 50.' in capsys.readouterr().out
  assert train(tmp_path, total_episodes=60, **ENDLESS).done()


def test_rate_and_cost_follow_the_episodes_in_a_straight_line(tmp_path):
  run = make_run(
    tmp_path,
    num_trainers=1,
    learning_rate=1e-3,
    learning_rate_end=0.0,
    entropy_cost=0.02,
    entropy_cost_end=0.01,
    annealing_episode_count=50,
  )
  update, seen = run._training.learner.update, []

  def record(batch):
    before = run._training.episodes()
    values = update(batch)
    seen.append((before, values['learning_rate'], values['entropy_cost']))
    return values

  run._training.learner.update = record
  local_run.train(run)
  counts = np.array([count for count, _, _ in seen])
  assert 0 == counts[0] < 25 < 50 < counts[-1]
  share = np.minimum(counts / 50, 1)
  _, rates, costs = map(np.array, zip(*seen, strict=True))
  np.testing.assert_allclose(rates, 1e-3 * (1 - share), atol=1e-9)
  np.testing.assert_allclose(costs, 0.02 - 0.01 * share, rtol=1e-5)


def test_dual_rmsprop_has_statistics_of_each_part(tmp_path):
  run = train(
    tmp_path, dual_rmsprop=True, optimizer='rmsprop', clip_gradient_norm=0.0
  )
  assert len(run._training.learner.optimizers) == 2
  policy, baseline = (
    {
      v.path.rpartition('/')[2]: np.asarray(v)
      for v in one.variables
      if 'velocity' in v.path
    }
    for one in run._training.learner.optimizers
  )
  # The head of the one has no part in the other's loss: its slots stay at 1.
  own = [path for path in policy if 'policy_logits_w' in path]
  others = [path for path in policy if 'baseline_w' in path]
  assert len(own) == len(others) == 1
  assert (policy[own[0]] != 1).any()
  assert (baseline[others[0]] != 1).any()
  assert (policy[others[0]] == 1).all()
  assert (baseline[own[0]] == 1).all()
  names = {name.partition('/')[0] for name in saved_variables(tmp_path)}
  assert {'optimizer', 'baseline_optimizer', 'episodes'} <= names


def test_a_count_beyond_single_precision_still_anneals():
  count = tf.Variable(2**25 + 1, dtype=tf.int64)
  actual = optimizers.annealed(0.0, 2.0**26, 2**26, count)
  np.testing.assert_allclose(actual, 2**25 + 1, rtol=1e-7)


def test_levels_take_turns_among_the_agents(tmp_path):
  levels = ['catch', 'catch_hidden']
  run = make_run(tmp_path, level_name=','.join(levels), num_actors=4, **ENDLESS)
  names = [one.level.name for one in run._environments]
  assert names == levels * 2
  seeds = [one._seed for one in run._environments]
  record, later, seen = run._metrics.record_unroll, [], set()
  make, changes = run._make_environment, ['remove', 'add']

  def make_later(*args):
    later.append((args[0], make(*args)))
    return later[-1][1]

  def watch(unroll):
    record(unroll)
    name = threading.current_thread().name
    seen.add((name, unroll.level[0]))
    pool = run._pools['num_agents']
    if name == 'agent_0' and changes and len(seen) == 4 and pool.settled:
      getattr(pool, changes.pop(0))()
    elif name == 'agent_3' and later:
      run.stop()

  run._make_environment = make_later
  run._metrics.record_unroll = watch
  local_run.train(run)
  assert seen == {(f'agent_{i}', i % 2) for i in range(4)}
  # The one that came after another had left.
  ((index, environment),) = later
  assert index == 3
  assert environment.level.name == 'catch_hidden'
  # It plays no episodes of those before it.
  assert environment._seed >= max(seeds) + environment.num_envs


@pytest.mark.parametrize(
  ('rows', 'levels', 'least'), [(1, 1, 1), (8, 1, 2), (9, 1, 3), (4, 2, 2)]
)
def test_each_level_keeps_an_agent_and_a_batch_its_rows(
  tmp_path, rows, levels, least
):
  run = make_run(
    tmp_path,
    level_name=','.join(['catch', 'catch_hidden'][:levels]),
    inference_minimum_batch_size=rows,
  )
  made = run._make_pools(None)
  assert made['num_agents']._least == least
  assert made['num_predictors']._least == made['num_trainers']._least == 1


def test_the_gauges_are_those_of_one_thread_of_each_kind(tmp_path):
  run = make_run(tmp_path)
  run._prepare()
  agents = [types.SimpleNamespace(environment_seconds=s) for s in (5.0, 1.0)]
  for one in agents:
    run._agents.add(one)
  policy = run._policy
  run._policy = types.SimpleNamespace(
    seconds=6.0, statistics=policy.statistics, close=policy.close
  )
  run._training.learner_seconds = 4.0
  run._pools = {
    'num_agents': range(2),
    'num_predictors': range(3),
    'num_trainers': range(4),
  }
  gauges = run._gauges()
  assert gauges['stage_seconds'] == {
    'environment': 3.0,
    'inference': 2.0,
    'learner': 1.0,
  }
  assert {k: v for k, v in gauges.items() if k.startswith('num_')} == {
    k: len(v) for k, v in run._pools.items()
  }
  assert gauges['batcher'].batches == 0
  # What those that left have done stays; what comes is of those that are here.
  run._agents.remove(agents[1])
  agents[0].environment_seconds += 2.0
  run._policy.seconds += 1.0
  run._pools |= {'num_agents': range(1), 'num_predictors': range(0)}
  assert run._gauges()['stage_seconds'] == {
    'environment': 5.0,
    'inference': 3.0,
    'learner': 1.0,
  }
  run._policy.close()


def test_the_queue_tells_how_full_it_was_found(tmp_path):
  run = make_run(tmp_path, queue_capacity=7)
  assert run._queue.capacity == 7
  run._prepare()
  run._queue.fill = lambda: 0.25
  assert run._gauges()['queue_fill'] == 0.25
  run._policy.close()


@pytest.mark.parametrize('most', [0, 50])
def test_episodes_are_told_where_they_end_the_run(tmp_path, most):
  run = make_run(tmp_path, total_episodes=most)
  run._prepare()
  run._training.learner.episodes.assign(20)
  assert run._gauges()['episodes'] == ((20, 50) if most else None)
  run._policy.close()


@pytest.mark.parametrize(
  ('name', 'own'), [('results.txt', True), ('../results.txt', False)]
)
def test_only_results_in_the_logdir_are_the_runs_own(tmp_path, name, own):
  run = make_run(
    tmp_path / 'run',
    log_format='ga3c',
    results_filename=name,
    print_stats_frequency=3,
    stat_rolling_mean_window=5,
  )
  log = run._metrics._console
  assert log._path == str((tmp_path / 'run' / name).resolve())
  assert log._own == own
  assert log._every == 3
  assert log._scores.maxlen == 5


class TestOptions:
  def test_a_run_without_agents_is_refused(self):
    config = make_config(algorithm='ga3c', num_actors=0)
    with pytest.raises(
      ValueError, match=r'^--num_actors=0 leaves GA3C without an agent'
    ):
      validate(config)

  def test_predictors_need_the_batcher(self):
    config = make_config(algorithm='ga3c', batcher='none')
    with pytest.raises(ValueError, match=r'^--batcher=none leaves GA3C'):
      validate(config)
    for batcher in 'auto', 'op', 'python':
      validate(config.replace(batcher=batcher))

  def test_a_rate_goes_by_frames_or_by_episodes(self):
    config = make_config(
      algorithm='ga3c', learning_rate_end=0.0, learning_rate_schedule='linear'
    )
    with pytest.raises(
      ValueError, match=r'Set --learning_rate_schedule=constant, or '
    ):
      validate(config)
    validate(config.replace(learning_rate_schedule='constant'))

  @pytest.mark.parametrize('end', ['entropy_cost_end', 'learning_rate_end'])
  def test_episodes_over_which_nothing_changes_are_refused(self, tmp_path, end):
    given = {'annealing_episode_count': 5}

    def prepare(**ends):
      config, levels = runs.prepare(
        tmp_path, algorithm='ga3c', level_name='catch', **given, **ends
      )
      return algorithm_of(config).prepare(config, levels, None, given)

    with pytest.raises(
      ValueError,
      match=r'^--annealing_episode_count=5 has no effect without .*Leave it',
    ):
      prepare()
    prepare(**{end: 0.0}, learning_rate_schedule='constant')

  @pytest.mark.parametrize(
    ('name', 'value'),
    [
      ('log_epsilon', 1.5),
      ('training_min_batch_size', 1_000_001),
      # Names of a run's own files.
      ('results_filename', 'episodes.csv'),
      ('results_filename', ''),
    ],
  )
  def test_what_would_leave_nothing_is_refused(self, name, value):
    with pytest.raises(ValueError, match=rf'^--{name}={value} must '):
      validate(make_config(algorithm='ga3c', **{name: value}))

  @pytest.mark.parametrize('name', ['entropy_cost_end', 'learning_rate_end'])
  def test_an_end_below_zero_is_refused(self, name):
    with pytest.raises(ValueError, match=rf'^--{name}=-0\.5 must be at least'):
      validate(make_config(algorithm='ga3c', **{name: -0.5}))

  @pytest.mark.parametrize(
    'name', ['batch_size', 'learner_devices', 'lambda_', 'gae_lambda']
  )
  def test_what_means_nothing_to_it_is_refused(self, name):
    config = resolve(make_config(algorithm='ga3c'), 'catch')
    with pytest.raises(ValueError, match='has no effect with --algorithm=ga3c'):
      check_given(config, {name})

  @pytest.mark.parametrize('name', ['num_trainers', 'log_epsilon'])
  def test_what_is_its_own_is_refused_elsewhere(self, name):
    config = resolve(make_config(), 'catch')
    with pytest.raises(
      ValueError, match='has no effect with --algorithm=impala'
    ):
      check_given(config, {name})

  @pytest.mark.parametrize('suite', ['atari', 'gymnasium', 'catch'])
  @pytest.mark.parametrize('preset', ['auto', 'paper'])
  def test_every_preset_is_valid(self, suite, preset):
    validate(resolve(make_config(algorithm='ga3c', preset=preset), suite))


def threads_of(kind):
  return [
    thread
    for thread in threading.enumerate()
    if thread.name.startswith(f'{kind}_')
  ]


class TestThatNumbersChange:
  @pytest.fixture
  def made(self, monkeypatch):
    """All environments that are made, those that are closed with True."""
    made = {}
    make = worlds.make_environment

    def record(*args, **kwargs):
      environment = make(*args, **kwargs)
      close = environment.close
      made[id(environment)] = [environment, False]

      def close_once():
        assert not made[id(environment)][1]
        made[id(environment)][1] = True
        close()

      environment.close = close_once
      return environment

    monkeypatch.setattr(worlds, 'make_environment', record)
    return made

  @pytest.mark.nightly
  def test_ten_minutes_of_the_fastest_adjustment_leak_nothing(self, tmp_path):
    run = make_run(
      tmp_path,
      dynamic_settings=True,
      dynamic_settings_initial_wait=0.0,
      dynamic_settings_step_wait=0.02,
      **ENDLESS,
    )
    training_ = waiting.in_thread(run.train)
    process, memory, counts = psutil.Process(), [], set()
    end = time.monotonic() + SOAK_S
    while time.monotonic() < end:
      with contextlib.suppress(concurrent.futures.TimeoutError):
        training_.result(timeout=SOAK_S / 600)
      assert not training_.done()
      memory.append(process.memory_info().rss / 2**20)
      counts.add(tuple(map(len, run._pools.values())))
    assert len(counts) > 10
    run.stop()
    training_.result(timeout=60)
    assert not any(map(threads_of, ('agent', 'predictor', 'trainer')))
    assert len(run._environments) == len(run._agents)
    # The first third is that of graphs for new numbers of rows.
    middle, last = np.array_split(memory, 3)[1:]
    assert np.median(last) < np.median(middle) + 50

  def test_many_fast_changes_leak_and_lose_nothing(self, tmp_path, made):
    run = make_run(tmp_path, **ENDLESS)
    played, learned = [], []
    record, update = run._metrics.record_unroll, run._training.learner.update

    def count_played(unroll):
      played.append(unroll.level.shape[0])
      record(unroll)

    def count_learned(batch):
      learned.append(batch.level.shape[0])
      return update(batch)

    run._metrics.record_unroll = count_played
    run._training.learner.update = count_learned
    training_ = waiting.in_thread(run.train)
    waiting.wait_until(lambda: len(run._pools) == 3 or training_.done())
    pools = run._pools
    waiting.wait_until(lambda: len(pools['num_trainers']) == 2)
    choose = random.Random(5)
    for _ in range(150):
      pool = pools[choose.choice(list(pools))]
      if pool.shrinkable and (len(pool) > 5 or choose.random() < 0.5):
        pool.remove()
      else:
        pool.add()
    for pool in pools.values():
      while len(pool) > 2:
        pool.remove()
      while len(pool) < 2:
        pool.add()

    def calm():
      assert not training_.done(), training_.result()
      return all(pool.settled for pool in pools.values()) and all(
        len(threads_of(kind)) == 2 for kind in ('agent', 'predictor', 'trainer')
      )

    waiting.wait_until(calm)
    waiting.wait_until(
      lambda: sum(not closed for _, closed in made.values()) == 2
    )
    assert len(made) > 10
    assert len(run._environments) == len(run._agents) == 2
    gauges = run._gauges()
    assert [gauges[f'num_{k}s'] for k in ('agent', 'predictor', 'trainer')] == [
      2,
      2,
      2,
    ]
    # It still learns.
    before = len(learned)
    waiting.wait_until(lambda: len(learned) > before + 5)
    run.stop()
    training_.result(timeout=60)
    assert not any(map(threads_of, ('agent', 'predictor', 'trainer')))
    assert all(closed for _, closed in made.values())
    # What was in the hands of those that are there at the end, and no more.
    waits = sum(map(len, run._queue._waiting))
    assert 0 <= sum(played) - sum(learned) - waits <= 2 * 4

  def test_an_agent_that_leaves_hands_in_its_unroll(self, tmp_path, made):
    run = make_run(tmp_path, num_actors=2, **ENDLESS)
    steps, handed = [], []
    one = run._environments[1]
    step, put = one.step, run._queue.put

    def leave_in_the_middle(action):
      steps.append(1)
      if len(steps) == 25:
        run._pools['num_agents'].remove()
      return step(action)

    def record(unroll, actor):
      handed.append(actor)
      put(unroll, actor)
      pool = run._pools['num_agents']
      if len(pool) == 1 and pool.settled:
        run.stop()

    one.step = leave_in_the_middle
    run._queue.put = record
    local_run.train(run)
    assert len(steps) == 30  # Three unrolls of 10.
    assert handed.count(1) == 3

  def test_it_adjusts_itself_and_says_so(self, tmp_path, made, caplog):
    run = make_run(
      tmp_path,
      dynamic_settings=True,
      dynamic_settings_initial_wait=0.0,
      dynamic_settings_step_wait=0.05,
      summary_secs=0.2,
      **ENDLESS,
    )
    with caplog.at_level('INFO', logger='absl'):
      training_ = waiting.in_thread(run.train)
      waiting.wait_until(
        lambda: (
          caplog.text.count('Dynamic adjustment: num_') >= 8 or training_.done()
        )
      )
      run.stop()
      training_.result(timeout=60)
    assert ' taken back.' in caplog.text or ' kept.' in caplog.text
    assert not any(map(threads_of, ('agent', 'predictor', 'trainer')))
    assert all(closed for _, closed in made.values())
    tags = set()
    for path in tmp_path.glob('events*'):
      for record in tf.data.TFRecordDataset(str(path)):
        event = event_pb2.Event.FromString(record.numpy())
        tags |= {value.tag for value in event.summary.value}
    assert {'num_agents', 'num_predictors', 'num_trainers'} <= tags


class Broken(Exception):
  """What the tests break with."""


def break_after(calls, function):
  """Returns a function that raises at its call of that number."""
  left = [calls]

  def work(*args, **kwargs):
    left[0] -= 1
    if left[0] <= 0:
      raise Broken('it broke')
    return function(*args, **kwargs)

  return work


@pytest.mark.parametrize('kind', ['agent', 'predictor', 'trainer', 'reset'])
def test_a_thread_that_fails_ends_the_run_with_its_traceback(
  tmp_path, kind, monkeypatch
):
  run = make_run(tmp_path, **ENDLESS)
  if kind == 'agent':
    one = run._environments[2]
    monkeypatch.setattr(one, 'step', break_after(20, one.step))
  elif kind == 'reset':
    one = run._environments[1]
    monkeypatch.setattr(one, 'reset', break_after(1, one.reset))
  elif kind == 'trainer':
    one = run._training.learner
    monkeypatch.setattr(one, 'update', break_after(5, one.update))
  else:
    one = run._training.agent
    monkeypatch.setattr(one, 'step', break_after(1, one.step))
  with pytest.raises(Broken) as raised:
    local_run.train(run)
  files = {str(entry.path) for entry in raised.traceback}
  assert any(path.endswith('ga3c_local.py') for path in files)


def test_a_run_goes_on_where_it_was_interrupted(tmp_path):
  run = make_run(tmp_path, **ENDLESS)
  stop_after_updates(run, 20)
  local_run.train(run)
  before = run.frames()
  assert int(newest_checkpoint(tmp_path).name) == before
  again = make_run(tmp_path, **ENDLESS)
  assert again.frames() == before
  assert again._seeds.get_state() == run._seeds.get_state()
  tree.map_structure(
    np.testing.assert_array_equal,
    [v.numpy() for v in again._training.agent.variables],
    [v.numpy() for v in run._training.agent.variables],
  )
  stop_after_updates(again, 40)
  local_run.train(again)
  assert again.frames() > before


def test_a_checkpoint_holds_no_half_of_an_update(tmp_path, monkeypatch):
  run = make_run(tmp_path, num_trainers=4, save_checkpoint_secs=0.0)
  save, seen = training.Training.save, []
  working = []
  update = run._training.learner.update

  def mark(batch):
    working.append(1)
    try:
      return update(batch)
    finally:
      working.pop()

  def look(self, extra=None):
    seen.append(len(working))
    save(self, extra)

  run._training.learner.update = mark
  monkeypatch.setattr(training.Training, 'save', look)
  local_run.train(run)
  assert len(seen) > 5
  assert set(seen) == {0}


class TestLearning:
  """What a user has who gives no other option."""

  @pytest.mark.parametrize(
    ('level_name', 'score'),
    [
      ('catch', 0.95),
      pytest.param('CartPole-v1', 450, marks=pytest.mark.nightly),
    ],
  )
  def test_the_defaults_solve_it(self, tmp_path, level_name, score):
    config, levels = runs.prepare(
      tmp_path, algorithm='ga3c', level_name=level_name
    )
    runs.train_until_solved(ga3c_local.Run(config, levels), score)

  def test_catch_is_not_solved_with_the_sign_of_the_advantages_wrong(
    self, tmp_path, monkeypatch
  ):
    right = objectives.returns.n_step_returns

    def wrong(rewards, *args):
      return right(-rewards, *args)

    monkeypatch.setattr(objectives.returns, 'n_step_returns', wrong)
    train(tmp_path, envs_per_actor=16, total_environment_frames=20_000)
    returns = [float(row['episode_return']) for row in episodes(tmp_path)]
    assert np.mean(returns[-500:]) < -0.5
