"""EnvPool's environments: what it answers against what the learner is told."""

import numpy as np
import pytest
import tree

from scalable_agent import action_spaces, environments, structures
from scalable_agent.environments import envpool_suite, instructions
from scalable_agent.structures import FIRST, LAST, MID
from tests.configs import make_environment
from tests.environments import contract

envpool = pytest.importorskip('envpool')
from scalable_agent.environments import (  # noqa: E402
  envpool_registry,
  envpool_spaces,
)

# One of each kind of observation and action that comes without system files,
# and whether seeds make a difference.
LEVELS = {
  'CartPole-v1': True,
  'Pendulum-v1': True,
  'BabyAI-GoToLocal-v0': True,
  'highway-v0': True,
  'parking-v0': True,
  'Connector-v2': False,
  'CheetahRun-v1': True,
  'Basic-v1': True,
  'Pong-v5': True,
}


def make(name, num_envs=2, seed=6, **options):
  return make_environment(f'envpool:{name}', num_envs, seed, **options)


def make_bare(name, num_envs=2, seed=6, **settings):
  """Returns EnvPool's environments of the same seeds."""
  return envpool_registry.make_pool(
    name, name, range(seed, seed + num_envs), **settings
  )


class TestEnvPool(contract.Contract):
  @pytest.fixture(params=LEVELS)
  def subject(self, request):
    return contract.Subject(
      make=lambda seed: make(request.param, seed=seed, max_episode_length=12),
      steps=40,
      uses_seed=LEVELS[request.param],
    )


class TestReplayed(contract.Contract):
  @pytest.fixture
  def subject(self):
    return contract.Subject(
      make=lambda seed: make(
        'CartPole-v1', seed=seed, max_episode_length=12, replayable=True
      ),
      steps=40,
    )


def balance(observation):
  """Returns the actions that keep CartPole's pole up."""
  weights = np.array([0.1, 0.5, 1, 1], np.float32)
  return (observation @ weights > 0).astype(np.int32)


def test_an_episode_ends_with_its_final_observation_and_none_is_lost():
  environment, bare = make('CartPole-v1', 3), make_bare('CartPole-v1', 3)
  played = contract.stack(contract.play(environment, 120))
  frames = [bare.reset()[0]]
  ends = [np.zeros(3, bool)]
  for actions in contract.random_actions(environment, 120):
    observation, _, terminated, truncated, _ = bare.step(actions)
    assert not truncated.any()
    frames.append(observation)
    ends.append(terminated)
  np.testing.assert_array_equal(played.observation, frames)
  np.testing.assert_array_equal(played.step_type == LAST, ends)
  position, angle = np.abs(played.observation[..., [0, 2]]).transpose(2, 0, 1)
  fallen = (position > 2.4) | (angle > 12 * np.pi / 180)
  np.testing.assert_array_equal(fallen, played.step_type == LAST)
  np.testing.assert_array_equal(fallen, played.discount == 0)
  first = played.observation[played.step_type == FIRST]
  assert (np.abs(first) <= 0.05).all()
  assert len(first) > 6


def test_the_time_limit_of_cartpole_truncates_with_a_future():
  environment = make('CartPole-v1')
  output = environment.reset()
  while not (output.step_type == LAST).any():
    assert output.info.episode_step[0] < 500
    output = environment.step(balance(output.observation))
  np.testing.assert_array_equal(output.step_type, LAST)
  np.testing.assert_array_equal(output.info.episode_step, 500)
  np.testing.assert_array_equal(output.info.episode_return, 500)
  np.testing.assert_array_equal(output.discount, 1)


@pytest.mark.parametrize(
  ('name', 'steps'), [('Pendulum-v1', 200), ('MiniGrid-Empty-5x5-v0', 100)]
)
def test_the_limit_of_a_task_truncates_with_a_future(name, steps):
  environment = make(name)
  environment.reset()
  # Whoever turns left for ever goes nowhere.
  action = np.zeros([2, *environment.spec.action_space.shape], np.int32)
  action = action.astype(environment.spec.action_space.dtype)
  for _ in range(steps - 1):
    assert (environment.step(action).step_type == MID).all()
  output = environment.step(action)
  np.testing.assert_array_equal(output.step_type, LAST)
  np.testing.assert_array_equal(output.discount, 1)
  output = environment.step(action)
  np.testing.assert_array_equal(output.step_type, FIRST)
  np.testing.assert_array_equal(output.reward, 0)


@pytest.mark.parametrize('name', ['TSP-v1', 'highway-v0', 'CartPole-v1'])
def test_what_we_cut_off_has_a_future_and_disturbs_nobody_else(name):
  """Two of these families do not heed the limits that EnvPool is given."""
  limit = 6
  environment = make(name, 3, max_episode_length=limit)
  played = contract.stack(contract.play(environment, 60))
  last = played.step_type == LAST
  cut = last & (played.info.episode_step == limit) & (played.discount == 1)
  assert cut.any()
  assert (played.info.episode_step <= limit).all()
  # Neighbours that are in the midst of an episode go on.
  going = (played.step_type[1:] == MID).any(axis=1)
  alone = make(name, 1, max_episode_length=limit)
  if name != 'CartPole-v1':
    assert (cut[:-1].any(axis=1) & ~cut[:-1].all(axis=1) & going).any()
  output = alone.reset()
  for t, actions in enumerate(contract.random_actions(environment, 60)):
    for one, all_ in zip(
      tree.flatten(output), tree.flatten(played), strict=True
    ):
      np.testing.assert_array_equal(one[0], all_[t, 0])
    output = alone.step(actions[:1])


@pytest.mark.parametrize('name', ['CartPole-v1', 'Breakout-v5', 'Basic-v1'])
def test_a_saved_state_goes_on_as_if_nothing_had_been(name):
  options = {'num_envs': 2, 'max_episode_length': 25, 'replayable': True}
  environment, resumed = make(name, **options), make(name, **options)
  environment.reset()
  actions = contract.random_actions(environment, 80)
  for action in actions[:40]:
    environment.step(action)
  resumed.set_state(environment.get_state())
  for action in actions[40:]:
    contract.assert_equal(environment.step(action), resumed.step(action))


def test_words_are_those_of_the_mission():
  environment, bare = (
    make('BabyAI-GoToLocal-v0'),
    make_bare('BabyAI-GoToLocal-v0'),
  )
  observation = environment.reset().observation
  raw, _ = bare.reset()
  missions = [bytes(text).rstrip(b'\0').decode() for text in raw['mission']]
  assert all(mission.startswith('go to') for mission in missions)
  expected = [instructions.encode(mission, 24) for mission in missions]
  np.testing.assert_array_equal(observation['mission'], expected)
  np.testing.assert_array_equal(observation['image'], raw['image'])
  image = environment.spec.observation['image']
  assert image == structures.CategorySpec((7, 7, 3), np.dtype(np.uint8), 11)
  long = environments.parse_level('envpool:BabyAI-BossLevel-v0')
  assert environments.options_of(long).instruction_length == 72


def test_images_have_their_channels_last_and_are_single():
  environment, bare = make('Basic-v1'), make_bare('Basic-v1')
  observation, raw = environment.reset().observation, bare.reset()[0]
  assert observation.shape == (2, 84, 84, 3)
  for channel in range(3):
    np.testing.assert_array_equal(observation[..., channel], raw[:, channel])


def test_a_step_is_of_as_many_frames_as_the_screen_shows():
  frames = {'Basic-v1': 4, 'Pong-v5': 4, 'CheetahRun-v1': 1, 'CartPole-v1': 1}
  for name, expected in frames.items():
    assert make(name).spec.frames_per_step == expected
  assert make('Pong-v5', num_action_repeats=3).spec.frames_per_step == 3


def test_bytes_below_256_that_are_no_colours_are_names():
  spec = make('Sokoban-v0').spec.observation['grid']
  assert spec == structures.CategorySpec((10, 10, 2), np.dtype(np.uint8), 5)


def test_actions_are_what_the_environment_offers():
  spaces = {
    'CartPole-v1': action_spaces.Discrete(2),
    'Basic-v1': action_spaces.Discrete(6),
    'Tetris-v0': action_spaces.MultiDiscrete((4, 10)),
    'Pendulum-v1': action_spaces.Box((-2.0,), (2.0,)),
    # What dm_control calls 1e10 is no bound.
    'LqrLqr21-v1': action_spaces.Box((-np.inf,), (np.inf,)),
  }
  for name, space in spaces.items():
    assert make(name).spec.action_space == space
  assert make('Pendulum-v1', action_bounds='squash').spec.action_space.squash


def test_whole_numbers_are_choices_from_their_lowest_on():
  box = envpool_spaces.spaces.Box(
    np.array([2, -1]), np.array([4, 0]), dtype=np.int32
  )
  array = structures.TensorSpec((-1, 2), np.dtype(np.int32))
  actions = envpool_spaces.actions_of(box, array, 'toy', 'clip')
  assert actions.space == action_spaces.MultiDiscrete((3, 2))
  given = actions.decode(np.array([[0, 0], [2, 1]]))
  np.testing.assert_array_equal(given, [[2, -1], [4, 0]])
  assert given.dtype == np.int32


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    (
      'Go9x9-v1',
      r'^envpool:Go9x9-v1 is for 2 players, .* Choose an id for one',
    ),
    ('VizdoomCustom-v1', r'^envpool:VizdoomCustom-v1 cannot be made: .* exist'),
    (
      'BabyAI-SynthS5R2-v0',
      r'cannot be played: .* --level_name=BabyAI-SynthS5R2-v0\.$',
    ),
    ('Cig-v1', r'cannot be played: .* --level_name=envpool:D3Battle-v1\.$'),
  ],
)
def test_what_cannot_be_played_is_refused_in_one_line(name, message):
  with pytest.raises(ValueError, match=message) as caught:
    make(name)
  assert '\n' not in str(caught.value)


def test_what_lacks_files_is_refused_before_a_training_starts(monkeypatch):
  def fail(*args, **settings):
    raise RuntimeError('failed to open\na database.')

  monkeypatch.setattr(envpool_registry.envpool, 'make_gymnasium', fail)
  with pytest.raises(
    ValueError, match=r'CartPole-v1 cannot be made: failed to open a database\.'
  ):
    make('CartPole-v1', probe=True)


def test_an_unknown_id_is_refused_with_similar_ones():
  with pytest.raises(
    ValueError,
    match=r'no level envpool:Pong-v4: EnvPool has no id .* Similar: Pong-v5',
  ):
    environments.parse_level('envpool:Pong-v4')
  with pytest.raises(
    ValueError, match=r'has no id xyz\. envpool\.list_all_envs'
  ):
    environments.parse_level('envpool:xyz')


def test_ids_are_levels_of_one_of_four_suites():
  known = set(envpool.list_all_envs())
  atari = envpool_suite.ENVPOOL_ATARI.level_names()
  mujoco = envpool_suite.ENVPOOL_MUJOCO.level_names()
  classic = envpool_suite.ENVPOOL_CLASSIC.level_names()
  other = envpool_suite.ENVPOOL.level_names()
  assert sorted([*atari, *mujoco, *classic, *other]) == sorted(
    f'envpool:{name}' for name in known
  )
  assert len(atari) > 100
  assert len(mujoco) > 1000
  assert set(classic) == {
    'envpool:CartPole-v0',
    'envpool:CartPole-v1',
    'envpool:phys2d/CartPole-v0',
    'envpool:phys2d/CartPole-v1',
    'envpool:Acrobot-v1',
    'envpool:MountainCar-v0',
  }
  level = environments.parse_level('envpool:Pong-v5')
  assert level == environments.Level(envpool_suite.ENVPOOL_ATARI, level.name)
  level = environments.parse_level('envpool:Hopper-v4')
  assert level == environments.Level(envpool_suite.ENVPOOL_MUJOCO, level.name)
  level = environments.parse_level('envpool:CartPole-v1')
  assert level == environments.Level(envpool_suite.ENVPOOL_CLASSIC, level.name)
  level = environments.parse_level('envpool:Taxi-v3')
  assert level == environments.Level(envpool_suite.ENVPOOL, level.name)


@pytest.mark.parametrize(
  'bad', ['num_action_repeats', 'width', 'env_processes']
)
def test_options_of_others_are_refused(bad):
  with pytest.raises(ValueError, match=f'^--{bad}=1 has no effect on envpool:'):
    make('CartPole-v1', **{bad: 1})


def test_a_video_shows_environment_zero():
  environment = make('CartPole-v1', render=True)
  output = environment.reset()
  before = environment.render()
  assert before.shape == (400, 600, 3)
  for _ in range(5):
    environment.step(balance(output.observation))
  assert (environment.render() != before).any()


def test_what_cannot_be_filmed_says_so():
  with pytest.raises(
    ValueError,
    match=r'^envpool:FrozenLake-v1 cannot be filmed: .*not implemented.*'
    r'Leave --video_dir out',
  ):
    make('FrozenLake-v1', render=True)


def test_a_camera_that_ends_its_process_does_not_end_ours(monkeypatch):
  monkeypatch.setattr(envpool_registry, '_RENDER', 'import os; os._exit(3)')
  envpool_registry.check_render.cache_clear()
  with pytest.raises(ValueError, match='cannot be filmed: exit code 3'):
    make('CartPole-v1', render=True)
  monkeypatch.setattr(envpool_registry, '_RENDER', 'while True: pass')
  monkeypatch.setattr(envpool_registry, '_RENDER_TIMEOUT_SECS', 0.2)
  with pytest.raises(ValueError, match=r'no picture within 0\.2 seconds'):
    make('CartPole-v1', render=True)
  envpool_registry.check_render.cache_clear()


def test_threads_make_no_difference():
  one, two = (make('CartPole-v1', 4, envpool_threads=n) for n in (1, 2))
  contract.assert_equal(
    contract.stack(contract.play(one, 50)),
    contract.stack(contract.play(two, 50)),
  )
