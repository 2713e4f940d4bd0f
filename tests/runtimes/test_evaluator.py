"""The evaluator: what it plays, with which weights, and what it reports."""

import types

import numpy as np
import pytest

from scalable_agent import environments, evaluation
from scalable_agent.runtimes import evaluator, test, training, worlds
from tests import runs

OPTIONS = {
  'algorithm': 'a3c',
  'level_name': 'catch,catch_hidden',
  'num_actors': 2,
  'envs_per_actor': 3,
  'evaluation_secs': 7.5,
  'seed': 4,
}
EPISODES = 5


class Group:
  """Stops after so many looks at it.

  Attributes:
    waits: seconds of each.
  """

  def __init__(self, looks):
    self._looks = looks
    self.waits = []

  @property
  def stopping(self):
    self._looks -= 1
    return self._looks < 0

  def wait_for_stop(self, seconds):
    self.waits.append(seconds)


class World:
  """An Evaluator, and what it did in the order in which it did it.

  Attributes:
    made: arguments of the environments that were made.
    open: environments that are not closed.
    played: arguments of `play_episode`.
    recorded: arguments of `record_evaluation`.
  """

  def __init__(self, logdir, monkeypatch):
    config, levels = runs.prepare(logdir, **OPTIONS)
    self.config = config
    self._make = worlds.make_environment
    with_spec = self._make(config, levels[0], num_envs=1, seed=1)
    with_spec.close()
    self.training = training.Training(config, levels, with_spec.spec)
    self.evaluator = evaluator.Evaluator(
      config, levels, self.training, with_spec.spec
    )
    self.made, self.open, self.played, self.recorded = [], [], [], []
    self.play = lambda: evaluation.Episode(1.0, 9)
    monkeypatch.setattr(worlds, 'make_environment', self._make_environment)
    monkeypatch.setattr(evaluation, 'play_episode', self._play_episode)
    self.training.metrics.record_evaluation = self._record

  def _make_environment(self, config, level, num_envs, seed, test):
    assert test
    environment = self._make(config, level, num_envs=num_envs, seed=seed)
    self.made.append((level.name, num_envs, seed))
    self.open.append(environment)
    close = environment.close

    def close_and_forget():
      close()
      self.open.remove(environment)

    environment.close = close_and_forget
    return environment

  def _play_episode(self, *args):
    self.played.append(args)
    return self.play()

  def _record(self, *args):
    self.recorded.append(args)

  def run(self, episodes):
    group = Group(episodes)
    self.evaluator.run(group)
    return group


@pytest.fixture
def world(tmp_path, monkeypatch):
  return World(tmp_path, monkeypatch)


def test_it_waits_between_two_episodes(world):
  assert world.run(EPISODES).waits == [7.5] * EPISODES
  assert len(world.played) == EPISODES


def test_levels_take_turns_and_every_episode_is_one_of_a_test(world):
  world.run(EPISODES)
  names, numbers, seeds = zip(*world.made, strict=True)
  assert names == ('catch', 'catch_hidden', 'catch', 'catch_hidden', 'catch')
  assert set(numbers) == {1}
  assert len(set(seeds)) == EPISODES
  assert min(seeds) >= environments.TEST_SEEDS
  assert [recorded[2] for recorded in world.recorded] == [0, 1, 0, 1, 0]


def test_its_actions_are_none_of_a_training(tmp_path, monkeypatch):
  seeds = []
  make = evaluator.policies.Seeds

  def record(seed):
    seeds.append(seed)
    return make(seed)

  monkeypatch.setattr(evaluator.policies, 'Seeds', record)
  World(tmp_path, monkeypatch)
  assert seeds == [test.sampling_seed(OPTIONS['seed'])]


def test_it_plays_with_the_weights_of_the_moment(world):
  learned = world.training.agent.variables
  seen = []

  def look():
    copy = world.evaluator._copy.agent.variables
    for own, shared in zip(copy, learned, strict=True):
      np.testing.assert_array_equal(own, shared)
      shared.assign_add(shared * 0 + 1)  # Meanwhile.
      assert (own.numpy() != shared.numpy()).any()
    seen.append(1)
    return evaluation.Episode(1.0, 9)

  world.play = look
  world.run(2)
  assert len(seen) == 2


def test_the_frames_of_its_weights_and_those_of_the_end_are_told(world):
  frames = world.training.learner.frames

  def learn():
    frames.assign_add(100)
    return evaluation.Episode(-1.0, 9)

  world.play = learn
  world.run(2)
  assert world.recorded == [(0, 100, 0, -1.0, 9), (100, 200, 1, -1.0, 9)]


def test_a_policy_that_does_the_same_for_ever_is_given_up(world):
  world.run(1)
  ((_, _, _, most_equal_actions, _),) = world.played
  assert most_equal_actions == 100


def test_what_was_left_off_at_the_end_is_no_episode(world):
  group = types.SimpleNamespace(stopping=False, wait_for_stop=lambda secs: None)

  def stop():
    stopping = world.played[-1][-1]
    assert not stopping()
    group.stopping = True
    assert stopping()

  world.play = stop
  world.evaluator.run(group)
  assert len(world.played) == 1
  assert world.recorded == []


def test_every_environment_is_closed_also_after_a_failure(world):
  world.run(2)
  assert world.open == []

  def fail():
    raise ZeroDivisionError('the game broke')

  world.play = fail
  with pytest.raises(ZeroDivisionError):
    world.run(1)
  assert len(world.made) == 3
  assert world.open == []
