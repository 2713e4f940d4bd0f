"""Catch, with and without a ball that hides."""

import itertools

import numpy as np
import pytest

from scalable_agent.environments import catch, catch_suite
from scalable_agent.structures import FIRST, LAST, MID
from tests.configs import make_environment
from tests.environments import contract


def make(name='catch', num_envs=4, seed=3, **options):
  return make_environment(name, num_envs, seed, **options)


def boards(output):
  """Returns [E, rows, columns] observations."""
  return output.observation.reshape([-1, catch.ROWS, catch.COLUMNS])


class TestCatch(contract.Contract):
  @pytest.fixture(params=catch_suite.LEVEL_NAMES)
  def subject(self, request):
    return contract.Subject(
      make=lambda seed: make(request.param, seed=seed), steps=40
    )


def test_an_episode_takes_nine_steps_and_terminates():
  played = contract.stack(contract.play(make(), 10))
  expected = [FIRST] + [MID] * 8 + [LAST, FIRST]
  np.testing.assert_array_equal(played.step_type, np.transpose([expected] * 4))
  assert (played.discount[9] == 0).all()
  assert (played.reward[:9] == 0).all()


def test_whoever_stays_under_the_ball_gets_one_and_others_minus_one():
  environment = make(num_envs=64)
  output = environment.reset()
  ball = boards(output)[:, 0].argmax(axis=1)
  assert set(ball) == set(range(catch.COLUMNS))
  for _ in range(catch.EPISODE_STEPS):
    paddle = boards(output)[:, -1].argmax(axis=1)
    # The odd ones run away from the ball instead.
    towards = np.sign(ball - paddle)
    away = np.where(ball >= catch.COLUMNS // 2, -1, 1)
    move = np.where(np.arange(64) % 2 == 0, towards, away)
    output = environment.step(move + 1)
  assert (output.step_type == LAST).all()
  np.testing.assert_array_equal(
    output.reward, np.where(np.arange(64) % 2 == 0, 1, -1)
  )


def test_the_ball_falls_a_row_a_step_and_the_paddle_stays_on_the_board():
  environment = make(num_envs=1)
  output = environment.reset()
  column = boards(output)[0, 0].argmax()
  for row in range(1, catch.ROWS - 1):
    output = environment.step(np.zeros([1], np.int32))
    board = boards(output)[0]
    assert board[row, column] == 1
    assert board.sum() == 2
    assert board[-1].argmax() == max(catch.COLUMNS // 2 - row, 0)


def test_the_hidden_ball_is_seen_in_the_first_row_only():
  environment = make('catch_hidden', num_envs=8)
  played = contract.stack(contract.play(environment, 25))
  board = played.observation.reshape([-1, 8, catch.ROWS, catch.COLUMNS])
  assert (board[:, :, 1:-1] == 0).all()
  first = played.step_type == FIRST
  np.testing.assert_array_equal(board[:, :, 0].sum(axis=-1), first)


def test_the_hidden_ball_plays_by_the_same_rules():
  plain, hidden = make('catch'), make('catch_hidden')
  one = contract.stack(contract.play(plain, 30))
  two = contract.stack(contract.play(hidden, 30))
  contract.assert_equal(
    one._replace(observation=0), two._replace(observation=0)
  )


def test_without_memory_the_hidden_ball_is_caught_three_times_of_five():
  best = 0
  # All policies that look at the ball once and then at the paddle only.
  for later in itertools.product((-1, 0, 1), repeat=catch.COLUMNS):
    ends = set()
    for start in (1, 2, 3):
      paddle = start
      for _ in range(catch.EPISODE_STEPS - 1):
        paddle = min(max(paddle + later[paddle], 0), catch.COLUMNS - 1)
      ends.add(paddle)
    best = max(best, len(ends))
  assert best == 3


@pytest.mark.parametrize('name', catch_suite.LEVEL_NAMES)
def test_it_goes_on_from_a_saved_state(name):
  environment = make(name)
  contract.play(environment, 13)
  state = environment.get_state()
  actions = contract.random_actions(environment, 30)
  expected = contract.stack([environment.step(a) for a in actions])
  restored = make(name, seed=99)
  restored.set_state(state)
  actual = contract.stack([restored.step(a) for a in actions])
  contract.assert_equal(expected, actual)


def test_each_ball_is_the_next_draw_of_its_environments_own_generator():
  num_envs, episodes = 3, catch._BALLS + 5
  environment = make(num_envs=num_envs, seed=7)
  balls = [boards(environment.reset())[:, 0].argmax(axis=1)]
  stay = np.ones([num_envs], np.int32)
  while len(balls) < episodes:
    output = environment.step(stay)
    if output.step_type[0] == FIRST:
      balls.append(boards(output)[:, 0].argmax(axis=1))
  for i, of_one in enumerate(np.transpose(balls)):
    generator = np.random.default_rng(7 + i)
    expected = [generator.integers(catch.COLUMNS) for _ in range(episodes)]
    np.testing.assert_array_equal(of_one, expected)


def test_it_goes_on_from_the_state_of_a_version_that_drew_balls_one_by_one():
  environment = make(num_envs=2, seed=3)
  environment.reset()
  state = environment.get_state()
  generators = [np.random.default_rng(seed) for seed in (3, 4)]
  for generator in generators:
    generator.integers(catch.COLUMNS)  # The balls that fall now.
  old = state['environment']
  del old['balls'], old['dropped']
  old['generators'] = [g.bit_generator.state for g in generators]
  actions = contract.random_actions(environment, 30)
  expected = contract.stack([environment.step(a) for a in actions])
  restored = make(num_envs=2, seed=99)
  contract.play(restored, 30)
  restored.set_state(state)
  actual = contract.stack([restored.step(a) for a in actions])
  contract.assert_equal(expected, actual)


def test_a_state_is_nobodys_but_the_callers():
  environment = make(num_envs=2)
  environment.reset()
  state = environment.get_state()
  actions = [np.ones([2], np.int32)] * (
    (catch._BALLS + 2) * (catch.EPISODE_STEPS + 1)
  )
  expected = contract.stack([environment.step(a) for a in actions])
  for _ in range(2):
    # Balls are drawn anew in the midst of it.
    environment.set_state(state)
    actual = contract.stack([environment.step(a) for a in actions])
    contract.assert_equal(expected, actual)


def test_it_renders_the_first_board():
  environment = make(render=True)
  environment.reset()
  image = environment.render()
  assert image.dtype == np.uint8
  assert image.shape == (160, 80, 3)
  assert (image[::16, ::16].any(axis=-1)).sum() == 2


def test_an_option_of_another_suite_is_refused():
  with pytest.raises(ValueError, match=r'^--noop_max=5 has no effect on catch'):
    make(noop_max=5)
  with pytest.raises(
    ValueError, match=r'^--num_action_repeats=4 has no effect'
  ):
    make(num_action_repeats=4)
