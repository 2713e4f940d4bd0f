"""What a run reports, and that it goes on seamlessly after a restart."""

import io
import json
import threading
import typing
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from absl import logging
from tensorboard.backend.event_processing import event_accumulator

from scalable_agent import structures
from scalable_agent.reports import (
  console,
  metrics,
  pytorch_a3c_log,
  summaries,
)
from scalable_agent.storage import files
from tests.configs import SUITES
from tests.full_disk import fill

ATARI = SUITES['atari']
FIRST, MID, LAST = structures.FIRST, structures.MID, structures.LAST
HEADER = 'frames,seconds,level,episode_return,episode_length,episode_frames'


class Clock:
  """A clock that is set by hand."""

  def __init__(self):
    self.now = 1000.0

  def __call__(self):
    return self.now


class Statistics(NamedTuple):
  """As of a dynamic batcher."""

  waiting_rows: int
  batches: int
  rows: int
  batch_sizes: dict[int, int]
  mean_wait_ms: float


def make_unroll(step_types, returns=None, steps=None, level=0, actions=None):
  """Returns an unroll; the arguments are lists of columns, [T + 1][E]."""
  step_type = np.array(step_types, np.int32)
  shape = step_type.shape
  zeros = np.zeros(shape, np.float32)
  info = structures.EpisodeInfo(
    episode_return=zeros if returns is None else np.array(returns, np.float32),
    episode_step=np.array(
      np.zeros(shape) if steps is None else steps, np.int32
    ),
  )
  action = np.zeros(shape) if actions is None else actions
  return structures.ActorOutput(
    agent_state=(),
    env_outputs=structures.StepOutput(step_type, zeros, zeros, zeros, info),
    agent_outputs=structures.AgentOutput(
      np.array(action, np.int32), zeros[..., None], zeros
    ),
    policy_version=np.zeros(shape[1:], np.int64),
    level=np.full(shape[1:], level, np.int32),
  )


def one_episode(episode_return=1.0, steps=5, level=0):
  """An unroll of one environment in which one episode ends."""
  return make_unroll(
    [[MID], [LAST]], [[0], [episode_return]], [[0], [steps]], level
  )


def make_metrics(logdir, clock=None, levels=('pong',), **options):
  options = {'stream': io.StringIO(), 'total_frames': 1000} | options
  return metrics.Metrics(
    str(logdir),
    levels=levels,
    frames_per_step=4,
    clock=clock or Clock(),
    **options,
  )


def rows(logdir):
  return (logdir / 'episodes.csv').read_text().splitlines()


def events(logdir):
  accumulator = event_accumulator.EventAccumulator(
    str(logdir), size_guidance={'tensors': 0}
  )
  accumulator.Reload()
  return {
    tag: [(e.step, tf.make_ndarray(e.tensor_proto)) for e in events]
    for tag in accumulator.Tags()['tensors']
    for events in [accumulator.Tensors(tag)]
  }


def scalars(logdir):
  return {
    tag: [(step, pytest.approx(float(value))) for step, value in values]
    for tag, values in events(logdir).items()
    if values[0][1].shape == ()
  }


def test_each_episode_of_an_unroll_is_a_row_in_order_of_time(tmp_path):
  clock = Clock()
  with make_metrics(tmp_path, clock) as m:
    m.record_update(80, 1, {})
    clock.now += 2.5
    m.record_unroll(
      make_unroll(
        [[MID, MID], [MID, LAST], [LAST, FIRST], [FIRST, LAST]],
        [[9, 9], [9, 1.5], [-2, 0], [0, 3]],
        [[9, 9], [9, 10], [11, 0], [0, 1]],
      )
    )
  assert rows(tmp_path) == [
    HEADER,
    '80,2.500,pong,1.5,10,40',
    '80,2.500,pong,-2.0,11,44',
    '80,2.500,pong,3.0,1,4',
  ]


def test_an_episode_that_ends_in_the_shared_column_counts_once(tmp_path):
  with make_metrics(tmp_path) as m:
    m.record_unroll(make_unroll([[MID], [LAST]], [[0], [7]], [[0], [5]]))
    m.record_unroll(make_unroll([[LAST], [FIRST]], [[7], [0]], [[5], [0]]))
  assert [row.split(',')[3] for row in rows(tmp_path)[1:]] == ['7.0']


def test_levels_are_told_apart(tmp_path):
  with make_metrics(tmp_path, levels=('a', 'b')) as m:
    m.record_unroll(
      make_unroll(
        [[MID] * 3, [LAST] * 3], [[0] * 3, [1, 2, 3]], level=[1, 0, 1]
      )
    )
    m.record_unroll(one_episode(8, level=0))
  assert [row.split(',')[2:4] for row in rows(tmp_path)[1:]] == [
    ['b', '1.0'],
    ['a', '2.0'],
    ['b', '3.0'],
    ['a', '8.0'],
  ]


def test_an_unroll_without_an_end_takes_no_lock(tmp_path):
  with make_metrics(tmp_path) as m, m._lock:
    m.record_unroll(make_unroll([[LAST], [FIRST], [MID]]))


def test_rows_are_in_the_file_before_it_is_closed(tmp_path):
  with make_metrics(tmp_path) as m:
    m.record_unroll(one_episode())
    assert len(rows(tmp_path)) == 2


def test_threads_lose_no_episode(tmp_path):
  with make_metrics(tmp_path, total_frames=1e6) as m:

    def act():
      for i in range(50):
        m.record_unroll(one_episode(i))
        m.record_update(i, i, {})

    threads = [threading.Thread(target=act) for _ in range(4)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    assert m.get_state()['episode_count'] == 200
  frames = [int(row.split(',')[0]) for row in rows(tmp_path)[1:]]
  assert len(frames) == 200
  assert frames == sorted(frames)


def test_episodes_after_closing_are_dropped(tmp_path):
  with make_metrics(tmp_path) as m:
    m.record_unroll(one_episode())
  m.record_unroll(one_episode())
  m.record_update(80, 1, {})
  m.maybe_report()
  m.close()
  assert len(rows(tmp_path)) == 2


class Poisoned:
  """A tensor that must not be waited for."""

  def __float__(self):
    raise AssertionError('converted although nothing was due')

  __array__ = __float__


def test_an_evaluation_is_told_with_the_frames_of_its_weights(tmp_path):
  clock, stream = Clock(), io.StringIO()
  m = make_metrics(
    tmp_path,
    clock,
    stream=stream,
    levels=('pong', 'qbert'),
    summary_secs=1e9,
  )
  close, closed = m._evaluations.close, []
  m._evaluations.close = lambda: closed.append(close())
  with m:
    m.record_update(480, 5, {})
    clock.now += 2.5
    m.record_evaluation(400, 480, 1, 7.0, 25)
  assert len(closed) == 1
  m.record_evaluation(480, 480, 0, 8.0, 25)  # Too late.
  _, row = (tmp_path / 'evaluations.csv').read_text().splitlines()
  assert row == '400,2.500,qbert,7.0,25,100'
  tags = scalars(tmp_path)
  assert tags['qbert/evaluation_return'] == [(400, 7)]
  assert tags['qbert/evaluation_frames'] == [(400, 100)]
  assert 'pong/evaluation_return' not in tags
  assert 'evaluation 7.00' in stream.getvalue()


def test_the_line_of_an_evaluation_has_agent_steps_and_is_the_only_one(
  tmp_path, capsys
):
  stream = io.StringIO()
  m = make_metrics(tmp_path, stream=stream)
  m.show_instead(pytorch_a3c_log.PytorchA3CLog())
  with m:
    m.record_update(480, 5, {})
    m.record_evaluation(400, 480, 0, 7.0, 25)
  assert ', num steps 120, ' in capsys.readouterr().out
  assert stream.getvalue() == ''


def test_a_resumed_run_goes_on_with_its_evaluations(tmp_path):
  with make_metrics(tmp_path) as m:
    m.record_update(480, 5, {})
    m.record_evaluation(400, 480, 0, 7.0, 25)
    state = m.get_state()
  other = make_metrics(tmp_path)
  other.set_state(state, 5)
  with other:
    other.record_evaluation(480, 480, 0, 8.0, 25)
  rows = (tmp_path / 'evaluations.csv').read_text().splitlines()
  assert [row.split(',')[3] for row in rows[1:]] == ['7.0', '8.0']


def test_the_log_of_ga3c_hears_of_every_unroll_and_stands_for_the_line(
  tmp_path,
):
  class Log(console.Console):
    calls: typing.ClassVar = []
    counts_steps = True

    def open(self, *args):
      self.calls.append(('open', *args))

    def add(self, steps, episodes, updates):
      returns = [e.episode_return for e in episodes]
      self.calls.append(('add', steps, returns, updates))

    def close(self):
      self.calls.append(('close',))

  stream = io.StringIO()
  m = make_metrics(tmp_path, stream=stream)
  m.show_instead(Log())
  with m:
    # One that nothing was learned from, and one that comes late.
    for frames, updates in ((80, 2), (80, 3), (40, 1)):
      m.record_update(frames, updates, {})
    m.record_unroll(
      make_unroll([[MID], [LAST], [FIRST], [MID]], [[0], [2], [0], [0]])
    )
    m.record_unroll(make_unroll([[LAST], [FIRST], [MID], [MID]]))
    m.record_unroll(make_unroll([[MID], [MID], [MID], [MID]]))
  assert Log.calls == [
    ('open', 0, 0),
    ('add', 2, [2.0], 3),
    ('add', 2, [], 3),
    ('add', 3, [], 3),
    ('close',),
  ]
  assert stream.getvalue() == ''


def test_lags_are_those_since_the_last_report(tmp_path):
  clock = Clock()
  with make_metrics(tmp_path, clock, summary_secs=10) as m:
    for updates, lag in ((1, 2.0), (2, 4.0)):
      clock.now += 10
      values = {'policy_lag': lag, 'max_policy_lag': 10 / lag}
      m.record_update(80 * updates, updates, values)
  tags = scalars(tmp_path)
  assert tags['policy_lag'] == [(80, 2), (160, 4)]
  assert tags['policy_lag_max'] == [(80, 5), (160, 2.5)]


def test_who_is_silent_writes_nothing(tmp_path):
  with make_metrics(tmp_path / 'of_another', silent=True) as m:
    m.record_update(80, 1, {})
    m.record_unroll(one_episode())
    m.record_evaluation(80, 80, 0, 7.0, 25)
  assert m.get_state()['frames'] == 80
  assert not list(tmp_path.iterdir())


def test_checkpoints_of_earlier_versions_say_less(tmp_path):
  with make_metrics(tmp_path) as m:
    m.record_update(80, 1, {})
    m.record_unroll(one_episode())
    state = m.get_state()
  del state['evaluations'], state['dropped_batches']
  other = make_metrics(tmp_path)
  other.set_state(state, 1)
  with other:
    assert other.get_state()['episode_count'] == 1
    assert other.get_state()['dropped_batches'] == 0


def test_episodes_that_end_a_run_are_in_the_line(tmp_path):
  clock, stream = Clock(), io.StringIO()
  m = make_metrics(tmp_path, clock, stream=stream, total_frames=1e9)
  ended = [0]
  m.set_gauges(lambda: {'episodes': (ended[0], 1000)})
  with m:
    clock.now += 10
    m.record_update(80, 1, {})
    ended[0] = 50
    clock.now += 10
    m.record_update(160, 2, {})
  line = stream.getvalue().splitlines()[1]
  assert line.startswith('50/1000 episodes 5.0% | ')
  # The 950 that are left, at 5 a second.
  assert line.endswith(' | ETA 0:03:10')


def test_tensors_are_not_converted_until_a_report_is_due(tmp_path):
  clock = Clock()
  with make_metrics(tmp_path, clock, summary_secs=10) as m:
    for i in range(9):
      clock.now += 1
      m.record_update(i * 80, i, {'total_loss': Poisoned()})
    clock.now += 1
    m.record_update(800, 10, {'total_loss': tf.constant(2.5)})
  assert scalars(tmp_path)['total_loss'][0] == (800, 2.5)


def test_summaries_have_the_tags_of_2018_over_frames(tmp_path):
  clock = Clock()
  m = make_metrics(tmp_path, clock, summary_secs=10, levels=('pong', 'qbert'))
  with m:
    m.record_unroll(one_episode(1, 10))
    m.record_unroll(one_episode(4, 20))
    clock.now += 10
    m.record_update(
      800,
      10,
      {
        'learning_rate': tf.constant(0.5),
        'total_loss': tf.constant(-1.0),
        'baseline_loss': 2.0,
        'entropy': 3.0,
        'rho_mean': 4.0,
        'gradient_norm': 5.0,
        'frames': 800,
        'policy_lag': tf.constant(2.0),
        'max_policy_lag': 6,
      },
    )
    m.record_unroll(one_episode(8, 30, level=1))
    clock.now += 10
    m.record_update(1600, 20, {})
  tags = scalars(tmp_path)
  assert tags['pong/episode_return'] == [(800, 2.5)]
  assert tags['pong/episode_frames'] == [(800, 60)]
  assert tags['qbert/episode_return'] == [(1600, 8)]
  assert tags['learning_rate'] == [(800, 0.5)]
  assert tags['total_loss'] == [(800, -1)]
  assert tags['loss/baseline_loss'] == [(800, 2)]
  assert tags['loss/entropy'] == [(800, 3)]
  assert tags['rho/rho_mean'] == [(800, 4)]
  assert tags['learner/gradient_norm'] == [(800, 5)]
  assert tags['policy_lag'][0] == (800, 2)
  assert tags['policy_lag_max'][0] == (800, 6)
  assert tags['frames_per_second'][1] == (1600, 80)
  assert tags['updates_per_second'][1] == (1600, 1)
  assert tags['rss_mb'][0][0] == 800
  assert 'learner/frames' not in tags
  assert 'learner/max_policy_lag' not in tags


def test_the_action_histogram_leaves_out_ignored_actions(tmp_path):
  with make_metrics(tmp_path) as m:
    m.record_unroll(
      make_unroll(
        [[MID], [MID], [LAST], [FIRST], [MID]],
        actions=[[9], [2], [2], [9], [4]],
      )
    )
  [(_, buckets)] = events(tmp_path)['action']
  assert buckets[:, 2].sum() == 3
  assert (buckets[:, 0].min(), buckets[:, 1].max()) == (2, 4)


def test_the_batcher_is_summarised_since_the_last_time(tmp_path):
  clock = Clock()
  statistics = Statistics(3, 2, 8, {4: 2}, 1.5)
  with make_metrics(tmp_path, clock, summary_secs=10) as m:
    m.set_gauges(lambda: {'batcher': statistics, 'temperature': 40})
    clock.now += 10
    m.record_update(80, 1, {})
    statistics = Statistics(0, 5, 38, {4: 2, 10: 3}, 1.0)
    clock.now += 10
    m.record_update(160, 2, {})
  tags = scalars(tmp_path)
  assert tags['batcher/waiting_rows'][:2] == [(80, 3), (160, 0)]
  assert tags['batcher/mean_wait_ms'][:2] == [(80, 1.5), (160, 1)]
  assert tags['batcher/mean_batch_size'] == [(80, 4), (160, 10)]
  assert tags['temperature'][0] == (80, 40)
  histograms = events(tmp_path)['batcher/batch_size']
  assert [h[:, 2].sum() for _, h in histograms] == [2, 3]


def test_a_histogram_of_very_many_batches_is_thinned_out(tmp_path):
  written = summaries.Summaries(str(tmp_path))
  written.batcher(1, Statistics(0, 1, 1, {1: 300_000, 2: 100_000}, 0.0))
  written.close()
  [(_, buckets)] = events(tmp_path)['batcher/batch_size']
  assert buckets[:, 2].sum() == 10_000
  assert buckets[0, 2] == 7_500


def test_an_episode_is_logged_in_the_words_of_2018(tmp_path, monkeypatch):
  lines = []
  monkeypatch.setattr(
    logging, 'debug', lambda message, *args: lines.append(message % args)
  )
  monkeypatch.setattr(logging, 'level_debug', lambda: True)
  with make_metrics(tmp_path) as m:
    m.record_unroll(one_episode(2))
  assert lines == ['Level: pong Episode return: 2.000000']


def play(m, clock, frames, returns):
  """Records an update for each of `frames` and one episode after it."""
  for frame, episode_return in zip(frames, returns, strict=True):
    clock.now += 1
    m.record_update(frame, frame // 80, {})
    m.record_unroll(one_episode(episode_return))


def test_a_run_that_is_killed_and_resumed_reports_as_if_it_were_not(tmp_path):
  frames, returns = list(range(80, 8000, 80)), list(range(99))
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  clock = Clock()
  with make_metrics(whole, clock) as m:
    play(m, clock, frames, returns)
    expected = m.get_state()

  clock = Clock()
  killed = make_metrics(parts, clock)
  killed.__enter__()
  play(killed, clock, frames[:40], returns[:40])
  state = json.loads(json.dumps(killed.get_state()))
  # Also rows of the very frames of the checkpoint may come after it.
  killed.record_unroll(one_episode(-1))
  play(killed, clock, frames[40:60], returns[40:60])
  assert len(rows(parts)) == 62

  clock = Clock()
  clock.now += 12345
  m = make_metrics(parts, clock)
  m.set_state(state, updates=40)
  with m:
    assert len(rows(parts)) == 41
    play(m, clock, frames[40:], returns[40:])
    assert m.get_state() == expected
  assert rows(parts) == rows(whole)


def test_a_run_from_the_start_begins_a_new_file(tmp_path):
  with make_metrics(tmp_path) as m:
    m.record_unroll(one_episode())
  with make_metrics(tmp_path):
    pass
  assert rows(tmp_path) == [HEADER]


def test_rows_beyond_the_frames_are_cut_off(tmp_path):
  clock = Clock()
  with make_metrics(tmp_path, clock) as m:
    play(m, clock, [80, 160, 240], [1, 2, 3])
    state = m.get_state()
  m = make_metrics(tmp_path)
  m.set_state(state | {'frames': 160}, updates=2)
  with m:
    pass
  assert [row.split(',')[0] for row in rows(tmp_path)[1:]] == ['80', '160']


def test_state_cannot_change_under_way(tmp_path):
  with make_metrics(tmp_path) as m, pytest.raises(RuntimeError):
    m.set_state(m.get_state(), 0)


def test_elsewhere_than_on_a_terminal_lines_come_every_ten_seconds(tmp_path):
  clock, stream = Clock(), io.StringIO()
  m = make_metrics(
    tmp_path, clock, stream=stream, progress_secs=2, summary_secs=1e9
  )
  with m:
    for i in range(25):
      clock.now += 1
      m.record_update(i * 10, i, {})
    assert stream.getvalue().count('\n') == 2
  assert '\r' not in stream.getvalue()
  assert stream.getvalue().count('\n') == 3


def test_summaries_come_every_so_many_seconds(tmp_path):
  clock = Clock()
  with make_metrics(tmp_path, clock, summary_secs=30) as m:
    for i in range(1, 71):
      clock.now += 1
      m.record_update(10 * i, i, {})
  steps = [step for step, _ in scalars(tmp_path)['updates_per_second']]
  assert steps == [300, 600, 700]


def test_on_a_terminal_one_line_is_rewritten(tmp_path):
  clock, stream = Clock(), io.StringIO()
  stream.isatty = lambda: True
  m = make_metrics(
    tmp_path, clock, stream=stream, progress_secs=2, summary_secs=1e9
  )
  with m:
    for i in range(10):
      clock.now += 1
      m.record_update(i * 10, i, {})
    assert stream.getvalue().count('\r') == 5
    assert '\n' not in stream.getvalue()
  assert stream.getvalue().endswith('\n')


class Listening(console.Console):
  """Notes what it is told."""

  secs = 5.0

  def __init__(self, counts_steps):
    self.told = []
    self._counts_steps = counts_steps

  @property
  def counts_steps(self):
    return self._counts_steps

  def open(self, episodes, updates):
    self.told.append(('open', episodes, updates))

  def add(self, steps, episodes, updates):
    returns = [e.episode_return for e in episodes]
    self.told.append(('add', steps, returns, updates))

  def evaluated(self, episode, num_steps):
    self.told.append(('evaluated', episode.episode_return, num_steps))

  def show(self, text):
    self.told.append(('show', text.partition(' |')[0]))

  def close(self):
    self.told.append(('close',))


@pytest.mark.parametrize('counts_steps', [False, True])
def test_another_console_is_told_in_place_of_the_line(tmp_path, counts_steps):
  clock, stream = Clock(), io.StringIO()
  m = make_metrics(tmp_path, clock, stream=stream)
  other = Listening(counts_steps)
  m.show_instead(other)
  m.set_state(m.get_state() | {'frames': 80}, updates=1)
  with m:
    m.record_unroll(make_unroll([[MID, LAST], [MID, FIRST]]))
    m.record_unroll(one_episode(2.0))
    clock.now += 5
    m.record_update(100, 2, {})
    m.record_evaluation(100, 120, 0, 3.0, 7)
  whole = [('add', 1, [], 1)] if counts_steps else []
  assert other.told == [
    ('open', 0, 1),
    *whole,
    ('add', 1, [2.0], 1),
    ('show', '100/1000 frames 10.0%'),
    ('evaluated', 3.0, 30),
    ('show', '100/1000 frames 10.0%'),
    ('close',),
  ]
  assert not stream.getvalue()


def test_the_return_is_that_of_the_last_hundred_episodes(tmp_path):
  stream = io.StringIO()
  with make_metrics(tmp_path, stream=stream) as m:
    for i in range(300):
      m.record_unroll(one_episode(i))
  assert '| return 249.50 (last 100 episodes) |' in stream.getvalue()


def test_several_games_are_measured_by_humans(tmp_path):
  stream = io.StringIO()
  levels = ('atlantis', 'pong')
  with make_metrics(tmp_path, stream=stream, levels=levels, suite=ATARI) as m:
    assert m.score is None
    assert m.score_measure == 'human_normalized_median'
    for _ in range(20):
      m.record_unroll(one_episode(12850, level=0))  # As random play.
      m.record_unroll(one_episode(14.6, level=1))  # As a human.
    assert m.score == pytest.approx(50)
  assert '| human-normalised 50.0% (median of 2 levels) |' in stream.getvalue()
  written = scalars(tmp_path)
  assert written['human_normalized/median'] == [(0, 50)]
  assert written['human_normalized/mean'] == [(0, 50)]
  assert written['pong/episode_return'] == [(0, 14.6)]


def test_the_bottleneck_is_that_of_the_latest_time(tmp_path):
  clock, stream = Clock(), io.StringIO()
  seconds = {'environment': 1000.0, 'inference': 0.0}
  with make_metrics(tmp_path, clock, stream=stream) as m:
    m.set_gauges(lambda: {'queue_fill': 0.0, 'stage_seconds': seconds})
    for i in range(2):
      clock.now += 10
      seconds = {
        'environment': 1000.0 + i,
        'inference': 5.0 * i,
      }
      m.record_update(100 * (i + 1), i, {})
  assert 'bottleneck inference' in stream.getvalue().splitlines()[1]
  assert scalars(tmp_path)['busy/inference'][1] == (200, 0.5)


def test_the_only_report_of_a_short_run_has_rates_since_its_start(tmp_path):
  clock, stream = Clock(), io.StringIO()
  m = make_metrics(tmp_path, clock, stream=stream)
  m.set_state(m.get_state() | {'frames': 1000}, updates=500)
  clock.now += 60  # Until the actors are made.
  with m:
    clock.now += 2
    m.record_update(1200, 510, {})
    assert not stream.getvalue()
  assert '| 100 frames/s | 5.0 updates/s' in stream.getvalue()
  assert scalars(tmp_path)['frames_per_second'] == [(1200, 100)]


def vital(entropy, error_variance):
  """Learner metrics of which vital signs are made."""
  return {
    'entropy': tf.constant(entropy),
    'vs_variance': tf.constant(2.0),
    'mean_vs': tf.constant(0.0),
    'error_variance': tf.constant(error_variance),
    'mean_baseline': tf.constant(0.0),
  }


def test_explained_variance_and_entropy_are_those_since_the_last_report(
  tmp_path,
):
  stream, clock = io.StringIO(), Clock()
  with make_metrics(
    tmp_path, clock, stream=stream, total_frames=1e7, summary_secs=10
  ) as m:
    for entropy, error in ((1.0, 0.0), (2.0, 3.0)):
      m.record_update(100, 1, vital(entropy, error))
    clock.now += 11
    m.maybe_report()
  assert 'entropy 1.50 | explained variance 0.25' in stream.getvalue()
  written = scalars(tmp_path)
  assert written['learner/explained_variance'][0] == (100, 0.25)
  assert written['loss/entropy'][0] == (100, 1.5)


def test_a_summary_has_the_signs_since_the_last_summary_not_the_last_line(
  tmp_path,
):
  stream, clock = io.StringIO(), Clock()
  stream.isatty = lambda: True
  with make_metrics(
    tmp_path, clock, stream=stream, progress_secs=2, summary_secs=5
  ) as m:
    for entropy in (1.0, 2.0):
      clock.now += 2
      m.record_update(100, 1, vital(entropy, 0.0))
    assert 'entropy 1.00' in stream.getvalue()
    assert 'entropy 2.00' in stream.getvalue()
    clock.now += 1  # No update since the last line.
    m.maybe_report()
  assert scalars(tmp_path)['loss/entropy'][0] == (100, 1.5)
  assert scalars(tmp_path)['learner/explained_variance'] == [(100, 1.0)]


@pytest.mark.parametrize('resumed', [False, True])
def test_a_run_that_does_not_learn_is_warned_unless_resumed(
  tmp_path, caplog, resumed
):
  clock = Clock()
  m = make_metrics(tmp_path, clock, total_frames=1e7)
  if resumed:
    m.set_state(m.get_state(), 1)
  with m:
    for frames in range(0, 2_000_000, 100_000):
      m.record_update(frames, 1, vital(1.386, 2.0))
      clock.now += 11
      m.maybe_report()
  assert caplog.text.count('does not seem to learn') == (not resumed)


class FullDisk:
  """What TensorFlow raises, as seen on a full tmpfs."""

  def flush(self):
    raise tf.errors.ResourceExhaustedError(
      None, None, 'events.v2; No space left on device\nCould not flush'
    )

  close = flush


def test_a_full_disk_is_named_and_all_files_are_closed(tmp_path):
  m = make_metrics(tmp_path)
  with m:
    m._reporter._summaries._writer.close()
    log = m._episodes
    m._reporter._summaries._writer = FullDisk()
    m._reporter._summaries.scalars = m._reporter._summaries.actions = (
      lambda *args: None
    )
    with pytest.raises(
      files.WriteError,
      match=f'TensorBoard events in {tmp_path}: .*No space left on device. Fr',
    ):
      m.close()
    assert log._file.closed
    m.record_unroll(one_episode())
  assert len(rows(tmp_path)) == 1


def use_a_full_disk(logdir, then):
  with make_metrics(logdir) as m:
    fill(m._episodes)
    then(m)


def test_a_last_report_that_fails_is_told_but_hides_no_other_failure(tmp_path):
  def write(m):
    m._episodes._file.write('a row')

  def fail(m):
    write(m)
    raise ZeroDivisionError

  with pytest.raises(files.WriteError):
    use_a_full_disk(tmp_path, write)
  with pytest.raises(ZeroDivisionError):
    use_a_full_disk(tmp_path, fail)


def test_dropped_batches_are_counted_over_restarts(tmp_path):
  m = make_metrics(tmp_path)
  with m:
    m.record_dropped_batch()
  state = m.get_state()
  m = make_metrics(tmp_path)
  m.set_state(state, 0)
  with m:
    m.record_dropped_batch()
  counts = events(tmp_path)['learner/dropped_batches']
  assert sorted(float(value) for _, value in counts) == [1, 2]
  # Checkpoints of before they were counted can be gone on from.
  del state['dropped_batches']
  make_metrics(tmp_path).set_state(state, 0)


def test_rows_that_a_power_cut_took_are_missed_once(tmp_path, caplog):
  with make_metrics(tmp_path) as m:
    for _ in range(3):
      m.record_unroll(one_episode())
    state = m.get_state()
  path = tmp_path / 'episodes.csv'
  path.write_bytes(path.read_bytes()[:-5] + bytes(5))
  for count in (3, 4):
    m = make_metrics(tmp_path)
    m.set_state(state, 0)
    with m:
      m.record_unroll(one_episode())
      state = m.get_state()
    assert len(rows(tmp_path)) == 1 + count
  assert caplog.text.count('It has 2 of the 3 rows') == 1
  assert caplog.text.count('set aside') + caplog.text.count('is now') == 1
