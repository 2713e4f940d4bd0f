"""MiniGrid and BabyAI: names of things, missions, limits of time."""

import numpy as np
import pytest

from scalable_agent import action_spaces, environments, structures
from scalable_agent.environments import instructions
from scalable_agent.structures import LAST, MID
from tests.configs import make_environment
from tests.environments import contract

minigrid = pytest.importorskip('minigrid')

I32 = np.dtype(np.int32)
LEFT, RIGHT, FORWARD = range(3)


def make(name='MiniGrid-Empty-5x5-v0', num_envs=2, seed=3, **options):
  return make_environment(name, num_envs, seed, **options)


class TestBabyAI(contract.Contract):
  @pytest.fixture(params=[0, 1])
  def subject(self, request):
    return contract.Subject(
      make=lambda seed: make(
        'BabyAI-GoToLocal-v0', seed=seed, env_processes=request.param
      ),
      steps=200,
    )


class TestReplayed(contract.Contract):
  @pytest.fixture
  def subject(self):
    return contract.Subject(
      make=lambda seed: make('BabyAI-GoToObj-v0', seed=seed, replayable=True),
      steps=120,
    )


def test_what_is_seen_is_names_and_a_mission():
  environment = make()
  assert environment.spec.observation == {
    'image': structures.CategorySpec((7, 7, 3), I32, 11),
    'direction': structures.CategorySpec((), I32, 4),
    'mission': structures.TextSpec((24,), I32, 1000),
  }
  assert environment.spec.action_space == action_spaces.Discrete(7)
  output = environment.reset()
  mission = instructions.encode('get to the green goal square', 24)
  np.testing.assert_array_equal(output.observation['mission'], [mission] * 2)
  # The agent looks right from the upper left corner of 3 by 3 empty (1) cells,
  # the goal (8) in the lower right one; all else is wall (2) and unseen (0).
  cells = output.observation['image'][0, :, :, 0]
  np.testing.assert_array_equal(
    cells[2:7, 3:],
    [[2, 2, 2, 2], [2, 1, 1, 1], [2, 1, 1, 1], [2, 8, 1, 1], [2, 2, 2, 2]],
  )
  assert (output.observation['direction'] == 0).all()


def test_the_goal_terminates_and_the_limit_of_steps_truncates():
  environment = make(num_envs=1)
  environment.reset()
  way = [FORWARD, FORWARD, RIGHT, FORWARD, FORWARD]
  outputs = [environment.step(np.array([action])) for action in way]
  assert [output.step_type[0] for output in outputs] == [MID] * 4 + [LAST]
  assert outputs[-1].discount[0] == 0
  assert outputs[-1].reward[0] == np.float32(1 - 0.9 * 5 / 100)
  environment.step(np.array([0]))
  for step in range(1, 101):
    output = environment.step(np.array([LEFT]))
    assert (output.step_type[0] == LAST) == (step == 100)
  assert output.discount[0] == 1


def test_a_shorter_limit_is_kept():
  environment = make(num_envs=1, max_episode_length=7)
  environment.reset()
  outputs = [environment.step(np.array([LEFT])) for _ in range(7)]
  assert outputs[-1].step_type[0] == LAST
  assert outputs[-1].discount[0] == 1


def test_the_longest_mission_has_room():
  level = environments.parse_level('BabyAI-BossLevel-v0')
  length = environments.options_of(level).instruction_length
  clause = (
    'put the purple ball in front of you next to the purple ball in front of '
    'you'
  )
  mission = f'{clause} and {clause} after you {clause} and {clause}'
  assert len(mission.split()) == length
  for name in 'BabyAI-SynthSeq-v0', 'BabyAI-MiniBossLevel-v0':
    level = environments.parse_level(name)
    assert environments.options_of(level).instruction_length == length


@pytest.mark.parametrize('name', ['GoToSeq', 'SynthSeq', 'BossLevel'])
def test_missions_fit(name, capsys):
  environment = make(f'BabyAI-{name}-v0', num_envs=1, max_episode_length=1)
  outputs = contract.stack(contract.play(environment, 60))
  words = (outputs.observation['mission'] > 0).sum(axis=-1)
  assert 0 < words.min() < 15 < words.max() <= 72
  # Draws that are rejected are no news.
  assert not capsys.readouterr().out


def test_what_it_renders_are_pixels():
  environment = make(render=True)
  environment.reset()
  image = environment.render()
  assert image.dtype == np.uint8
  assert image.ndim == 3
  assert image.std() > 0


def test_all_ids_are_levels():
  names = environments.level_names()
  names = [name for name in names if name.startswith('MiniGrid-')]
  assert len(names) > 60
  for name in names:
    assert environments.parse_level(name).suite.name == 'minigrid'
