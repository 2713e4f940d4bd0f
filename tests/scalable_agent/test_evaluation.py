"""Whole games, counted without bias, in tables, files and videos."""

import io
import itertools
import json
import re
from typing import ClassVar

import imageio.v2 as imageio
import numpy as np
import pytest
import rich.console
import tensorflow as tf

from scalable_agent import evaluation, networks, structures
from scalable_agent.reports import videos
from scalable_agent.storage import files
from tests import clockwork
from tests.configs import make_environment

NUM_ACTIONS = 5


class Scripted:
  """An agent whose most probable action is a function of what it is given."""

  def __init__(self, choose):
    """Args: choose: (last_action [B], count [B]) -> action [B]."""
    self._choose = choose

  def initial_state(self, batch_size):
    return tf.zeros([batch_size], tf.int32)

  def step(self, env_output, last_action, state, seed):
    del env_output
    action = self._choose(last_action, state) % NUM_ACTIONS
    logits = tf.one_hot(action, NUM_ACTIONS)
    sample = tf.random.stateless_categorical(logits, 1, seed, tf.int32)[:, 0]
    baseline = tf.zeros(tf.shape(action))
    return structures.AgentOutput(sample, logits, baseline), state + 1


ALWAYS_3 = Scripted(lambda last_action, count: 0 * count + 3)


def make(level_name, num_envs, **options):
  return make_environment(level_name, num_envs, seed=1, **options)


def result(level='pong', returns=(1.0, 3.0), human_normalized=None):
  lengths = [10] * len(returns)
  return evaluation.LevelResult(
    level, 'sample', list(returns), lengths, human_normalized
  )


def printed(results, path=None, width=120):
  console = rich.console.Console(file=io.StringIO(), width=width)
  evaluation.report(results, path, console)
  return console.file.getvalue()


def test_scores_of_a_suite_are_told_in_its_words(tmp_path, monkeypatch):
  said = []
  monkeypatch.setattr(
    evaluation.logging, 'info', lambda text, *values: said.append(text % values)
  )
  path = str(tmp_path / 'results.json')
  scores = {'No cap.': 50.5, 'Cap 100': 49.25}
  evaluation.report([result()], path, scores=scores)
  assert said == ['No cap.: 50.500000 Cap 100: 49.250000']
  with open(path, encoding='utf-8') as file:
    assert json.load(file)['scores'] == scores
  evaluation.report([result()], path)
  assert len(said) == 1
  with open(path, encoding='utf-8') as file:
    assert 'scores' not in json.load(file)


@pytest.mark.parametrize(
  ('num_episodes', 'lengths'),
  [
    (1, [4]),
    (2, [4, 5]),
    (3, [4, 5, 6]),
    (7, [4, 5, 6, 4, 5, 6, 4]),
  ],
)
def test_every_environment_plays_its_share_however_long_it_takes(
  num_episodes, lengths
):
  environment = clockwork.ClockworkEnvironment(num_envs=3)
  played = evaluation.evaluate(ALWAYS_3, environment, num_episodes)
  assert played.lengths == lengths
  assert len(played.returns) == num_episodes


def test_returns_are_raw_sums_over_whole_episodes():
  environment = clockwork.ClockworkEnvironment(num_envs=2)
  played = evaluation.evaluate(ALWAYS_3, environment, 4)
  # Column t of environment i has reward 100 i + t; LAST, then FIRST, take a
  # column each.
  assert played.returns == [
    1 + 2 + 3 + 4,
    101 + 102 + 103 + 104 + 105,
    6 + 7 + 8 + 9,
    107 + 108 + 109 + 110 + 111,
  ]


def test_a_lost_life_does_not_end_a_game():
  environment = clockwork.ClockworkEnvironment(
    num_envs=1, life_losses=frozenset({2})
  )
  played = evaluation.evaluate(ALWAYS_3, environment, 1)
  assert (played.lengths, played.returns) == ([4], [10])


def test_greedy_takes_the_most_probable_action():
  environment = clockwork.ClockworkEnvironment(num_envs=2)
  played = evaluation.evaluate(ALWAYS_3, environment, 4, greedy=True)
  assert np.unique(environment.actions) == [3]
  assert played.policy == 'greedy'


def test_samples_vary_and_repeat_with_the_seed():
  actions = []
  for seed in (1, 1, 2):
    environment = clockwork.ClockworkEnvironment(num_envs=2, episode_steps=30)
    played = evaluation.evaluate(ALWAYS_3, environment, 2, seed=seed)
    actions.append(np.array(environment.actions))
    assert played.policy == 'sample'
  assert len(np.unique(actions[0])) > 1
  np.testing.assert_array_equal(actions[0], actions[1])
  assert not np.array_equal(actions[0], actions[2])


def test_the_agent_is_told_the_action_that_was_taken():
  environment = clockwork.ClockworkEnvironment(num_envs=1)
  agent = Scripted(lambda last_action, count: last_action + 2)
  evaluation.evaluate(agent, environment, 1, greedy=True)
  assert np.ravel(environment.actions).tolist() == [2, 4, 1, 3]


def test_the_agent_keeps_its_state():
  environment = clockwork.ClockworkEnvironment(num_envs=1)
  agent = Scripted(lambda last_action, count: count)
  evaluation.evaluate(agent, environment, 1, greedy=True)
  assert np.ravel(environment.actions).tolist() == [0, 1, 2, 3]


def test_a_network_plays_the_same_games_twice():
  environment = make('catch', 2)
  agent = networks.Agent(environment.spec)
  first, second = (
    evaluation.evaluate(agent, environment, 5, seed=3) for _ in range(2)
  )
  environment.close()
  assert first == second
  assert first.lengths == [9] * 5
  assert set(first.returns) <= {-1, 1}
  assert first.human_normalized is None


def test_no_episodes_are_refused():
  environment = clockwork.ClockworkEnvironment()
  with pytest.raises(ValueError, match='num_episodes=0'):
    evaluation.evaluate(ALWAYS_3, environment, 0)


def test_the_lines_of_2018_are_logged(monkeypatch):
  lines = []
  monkeypatch.setattr(
    evaluation.logging,
    'info',
    lambda message, *args: lines.append(message % args),
  )
  environment = clockwork.ClockworkEnvironment(num_envs=1)
  evaluation.evaluate(ALWAYS_3, environment, 2)
  assert lines == [
    'Testing level: clockwork',
    'Mean episode return: 20.000000',
  ]


def test_the_table_has_the_statistics():
  text = printed([result(returns=[1, 2, 6])])
  head, _, row = text.splitlines()
  assert head.split()[2:] == ['episodes', 'mean', 'std', 'min', 'max', 'steps']
  expected = ['pong', 'sample', '3', '3.00', '2.16', '1.00', '6.00', '10']
  assert row.split() == expected
  assert 'human' not in text


def test_human_normalised_scores_are_shown_where_they_are_known():
  text = printed([result(human_normalized=50.0), result('catch')])
  rows = text.splitlines()
  assert any('pong' in row and '50.0%' in row for row in rows)
  assert any('catch' in row and row.split()[-1] == '-' for row in rows)
  assert 'over' not in text


@pytest.mark.parametrize(
  ('level', 'returns', 'human_normalized'),
  [
    ('CartPole-v1', [480.5, 500], None),
    ('space_invaders', [12345, 864321], 1234.5),
    ('a_module_with_a_long_name.of_environments:Labyrinth-v0', [-1e5, 1], None),
  ],
)
def test_eighty_columns_show_everything(level, returns, human_normalized):
  text = printed([result(level, returns, human_normalized)], width=80)
  _, _, *rows = text.splitlines()
  shown = ''.join(row.split('  ')[0].rstrip() for row in rows)
  assert shown == level
  for value in (min(returns), max(returns)):
    number = f'{value:.2f}' if abs(value) < 1000 else f'{value:.0f}'
    assert number in rows[0].split()
  if human_normalized:
    assert rows[0].split()[-1] == '1234.5%'


def test_several_levels_are_aggregated():
  # Also one on which it plays no better than at random.
  results = [result(human_normalized=score) for score in (0.0, 30.0, 90.0)]
  text = printed(results)
  assert 'over 3 levels: median 30.0%, mean 40.0%' in text


def test_results_are_written_with_every_return(tmp_path):
  path = tmp_path / 'test.json'
  results = [result(human_normalized=10.0), result('qbert', [5], 30.0)]
  printed(results, str(path))
  written = json.loads(path.read_text())
  assert written['levels'][0] == {
    'level': 'pong',
    'policy': 'sample',
    'returns': [1.0, 3.0],
    'lengths': [10, 10],
    'human_normalized': 10.0,
    'mean': 2.0,
    'std': 1.0,
    'min': 1.0,
    'max': 3.0,
  }
  assert written['aggregate'] == {
    'levels': 2,
    'median_human_normalized': 20.0,
    'mean_human_normalized': 20.0,
  }


def test_one_level_has_no_aggregate(tmp_path):
  path = tmp_path / 'test.json'
  printed([result(human_normalized=10.0)], str(path))
  assert json.loads(path.read_text())['aggregate'] is None


def test_a_file_that_cannot_be_written_is_named(tmp_path):
  (tmp_path / 'file').touch()
  path = str(tmp_path / 'file' / 'test.json')
  with pytest.raises(files.WriteError, match=re.escape(path)):
    printed([result()], path)


def test_a_failure_in_the_midst_of_a_game_finishes_its_video(monkeypatch):
  calls = []

  class Writer:
    def __init__(self, path, fps):
      del path, fps

    def add(self, frame):
      calls.append('add')

    def close(self):
      calls.append('close')

  def fail(action):
    raise ZeroDivisionError('the game broke')

  monkeypatch.setattr(videos, 'VideoWriter', Writer)
  environment = make('catch', 1, render=True)
  environment.step = fail
  with pytest.raises(ZeroDivisionError):
    evaluation.evaluate(
      networks.Agent(environment.spec), environment, 1, video_path='a.mp4'
    )
  environment.close()
  assert calls == ['add', 'close']


@pytest.mark.parametrize('ending', ['mp4', 'gif'])
def test_the_first_game_is_filmed_frame_by_frame(tmp_path, ending):
  path = str(tmp_path / f'catch.{ending}')
  environment = make('catch', 2, render=True)
  evaluation.evaluate(
    networks.Agent(environment.spec), environment, 4, video_path=path
  )
  environment.close()
  frames = imageio.mimread(path)
  assert len(frames) == 10
  assert frames[0].shape[:2] == (320, 160)
  assert all(np.any(a != b) for a, b in itertools.pairwise(frames))


def test_a_window_is_shown_every_game():
  class Window:
    frames: ClassVar[list] = []

    def add(self, frame):
      self.frames.append(frame)

  environment = make('catch', 1, render=True)
  played = evaluation.evaluate(
    networks.Agent(environment.spec), environment, 3, window=Window()
  )
  environment.close()
  assert len(played.returns) == 3
  # Ten of each, the first and the last column of an episode among them.
  assert len(Window.frames) == 30
  assert Window.frames[0].shape[-1] == 3


def test_a_classic_control_task_is_filmed(tmp_path):
  path = str(tmp_path / 'cart_pole.mp4')
  environment = make('CartPole-v1', 1, render=True)
  played = evaluation.evaluate(
    networks.Agent(environment.spec), environment, 1, video_path=path
  )
  environment.close()
  frames = imageio.mimread(path, memtest=False)
  assert len(frames) == played.lengths[0] + 1
  assert frames[0].shape == (400, 600, 3)
  assert np.any(frames[0] != frames[-1])


def test_an_atari_game_is_filmed_in_colour_and_scored(tmp_path):
  path = str(tmp_path / 'pong.mp4')
  environment = make('pong', 1, render=True, max_episode_frames=100, noop_max=0)
  played = evaluation.evaluate(
    networks.Agent(environment.spec), environment, 1, video_path=path
  )
  environment.close()
  with imageio.get_reader(path) as reader:
    assert reader.get_meta_data()['fps'] == 15
  frames = imageio.mimread(path)
  assert len(frames) == played.lengths[0] + 1
  assert frames[0].shape == (420, 320, 3)
  assert np.any(frames[0] != frames[-1])
  assert np.ptp(frames[-1].astype(int), axis=-1).max() > 50
  expected = (played.returns[0] + 20.7) / (14.6 + 20.7) * 100
  assert played.human_normalized == pytest.approx(expected)


def test_an_environment_that_cannot_render_leaves_no_file(tmp_path):
  environment = make('catch', 1)
  path = tmp_path / 'catch.mp4'
  with pytest.raises(RuntimeError, match='render'):
    evaluation.evaluate(
      networks.Agent(environment.spec), environment, 1, video_path=str(path)
    )
  assert not path.exists()


@pytest.mark.parametrize('name', ['a.avi', 'a', 'no/folder/a.mp4'])
def test_a_video_that_cannot_be_written_is_named(tmp_path, name):
  with pytest.raises(ValueError, match=name):
    videos.VideoWriter(str(tmp_path / name), 30)


def test_frames_of_odd_size_are_padded_not_scaled(tmp_path):
  path = str(tmp_path / 'a.mp4')
  with videos.VideoWriter(path, 30) as writer:
    for i in range(3):
      writer.add(np.full([401, 301, 3], 100 * i, np.uint8))
  assert [frame.shape for frame in imageio.mimread(path)] == [(402, 302, 3)] * 3


class Unrewarded(clockwork.ClockworkEnvironment):
  def step(self, action):
    output = super().step(action)
    nothing = np.zeros_like(output.info.episode_return)
    return output._replace(info=output.info._replace(episode_return=nothing))


class TestAnEpisodeMeanwhile:
  """`play_episode`: by the most probable actions, and not for ever."""

  def _play(
    self,
    choose,
    most_equal_actions=100,
    stopping=None,
    kind=clockwork.ClockworkEnvironment,
  ):
    """Plays a clock of 250 steps; returns the episode and the actions."""
    environment = kind(1, episode_steps=250, num_actions=NUM_ACTIONS)
    agent = Scripted(choose)
    episode = evaluation.play_episode(
      lambda *arguments: agent.step(*arguments, np.array([1, 2])),
      environment,
      agent.initial_state(1),
      most_equal_actions,
      stopping or (lambda: False),
    )
    return episode, [int(action[0]) for action in environment.actions]

  def test_it_takes_the_most_probable_actions_to_the_end(self):
    episode, actions = self._play(lambda last_action, count: count)
    assert actions == [i % NUM_ACTIONS for i in range(250)]
    # Rewards are the numbers of their columns.
    assert episode == (sum(range(1, 251)), 250)

  def test_a_hundred_equal_actions_end_it(self):
    episode, actions = self._play(ALWAYS_3._choose, kind=Unrewarded)
    assert actions == [3] * 100
    assert episode == (0, 100)

  def test_a_return_that_is_no_number_is_no_reward(self):
    class NoNumbers(clockwork.ClockworkEnvironment):
      def step(self, action):
        output = super().step(action)
        nan = np.full_like(output.info.episode_return, np.nan)
        return output._replace(info=output.info._replace(episode_return=nan))

    episode, _ = self._play(ALWAYS_3._choose, kind=NoNumbers)
    assert episode.length == 100

  def test_equal_actions_that_are_rewarded_go_on(self):
    episode, actions = self._play(ALWAYS_3._choose)
    assert actions == [3] * 250
    assert episode == (sum(range(1, 251)), 250)

  def test_equal_actions_count_in_a_row_only(self):
    # The first, 0, is the one that there was none before.
    def choose(last_action, count):
      del last_action
      return tf.where(count % 100 == 99, 1, 0)

    episode, actions = self._play(choose, kind=Unrewarded)
    assert actions.count(1) == 2
    assert episode.length == 250
    episode, _ = self._play(choose, most_equal_actions=99, kind=Unrewarded)
    assert episode.length == 99

  def test_it_can_be_left_off(self):
    asked = []

    def stopping():
      asked.append(1)
      return len(asked) == 8

    episode, actions = self._play(ALWAYS_3._choose, stopping=stopping)
    assert episode is None
    assert len(actions) == 7
