"""ViZDoom: small screens, numbers of one size, ends, processes."""

import os
import signal

import numpy as np
import psutil
import pytest
from gymnasium import spaces

from scalable_agent import action_spaces, environments, structures
from scalable_agent.structures import FIRST, LAST
from tests.configs import make_environment
from tests.environments import contract

pytest.importorskip('vizdoom')

from scalable_agent.environments import vizdoom_factory

U8, F32 = np.dtype(np.uint8), np.dtype(np.float32)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
  """An empty working directory, which must be left so."""
  monkeypatch.chdir(tmp_path)
  yield tmp_path
  assert os.listdir(tmp_path) == []


@pytest.fixture
def make():
  """Makes environments that are closed in the end."""
  made = []

  def make(name='VizdoomBasic-v1', num_envs=2, seed=3, **options):
    made.append(make_environment(name, num_envs, seed, **options))
    return made[-1]

  yield make
  for environment in made:
    environment.close()


def engines():
  """Returns the processes of the games of this process."""
  children = psutil.Process().children(recursive=True)
  return [child for child in children if child.name() == 'vizdoom']


class TestVizDoom(contract.Contract):
  @pytest.fixture
  def subject(self):
    return contract.Subject(
      make=lambda seed: make_environment('VizdoomBasic-v1', 2, seed), steps=80
    )


class TestButtons(contract.Contract):
  @pytest.fixture
  def subject(self):
    return contract.Subject(
      make=lambda seed: make_environment(
        'VizdoomBasic-MultiBinary-v1', 2, seed
      ),
      steps=80,
    )


def test_games_are_processes_already():
  with pytest.raises(
    ValueError,
    match=r'^--env_processes=1 is not for ViZDoom .* Leave it out\.$',
  ):
    make_environment('VizdoomBasic-v1', 1, 1, env_processes=1)


def test_what_is_seen_is_a_small_screen_and_numbers(make):
  environment = make()
  assert environment.spec.observation == {
    'screen': structures.TensorSpec((72, 96, 3), U8),
    'gamevariables': structures.TensorSpec((1,), F32),
  }
  assert environment.spec.action_space == action_spaces.Discrete(4)
  assert environment.spec.frames_per_step == 4
  output = environment.reset()
  assert output.observation['screen'].std() > 10
  # Of 50 rounds.
  np.testing.assert_allclose(
    output.observation['gamevariables'], np.log1p([[50], [50]]), rtol=1e-6
  )


def test_the_size_is_the_users(make):
  environment = make(height=200, width=150)
  assert environment.spec.observation['screen'].shape == (200, 150, 3)


@pytest.mark.parametrize(
  ('height', 'width', 'expected'),
  [
    (72, 96, 'RES_160X120'),
    (120, 160, 'RES_160X120'),
    (121, 8, 'RES_200X150'),
    (8, 161, 'RES_200X150'),
    (4000, 4000, 'RES_1600X1200'),
  ],
)
def test_the_engine_draws_no_more_than_is_needed(height, width, expected):
  assert vizdoom_factory._resolution(height, width) == expected


def test_a_limit_of_time_truncates_and_the_last_screen_stays(make):
  environment = make('VizdoomBasic-v1', num_envs=1)
  output = environment.reset()
  steps = 0
  while output.step_type[0] != LAST:
    before, output = output, environment.step(np.array([0]))
    steps += 1
  assert steps == 300 // 4
  assert output.discount[0] == 1
  contract.assert_equal(output.observation, before.observation)
  assert environment.step(np.array([0])).step_type[0] == FIRST


def test_death_terminates(make):
  environment = make('VizdoomHealthGathering-v1', num_envs=1)
  output = environment.reset()
  health = output.observation['gamevariables'][0, 0]
  while output.step_type[0] != LAST:
    output = environment.step(np.array([0]))
    assert output.observation['gamevariables'][0, 0] <= health + 1e-6
    health = output.observation['gamevariables'][0, 0]
  assert output.info.episode_step[0] < 2100 // 4
  assert output.discount[0] == 0
  assert output.reward[0] == 4 - 100


def test_a_saved_state_goes_on_as_if_nothing_had_been(make):
  environment, resumed = (make(seed=s, replayable=True) for s in (3, 9))
  environment.reset()
  actions = contract.random_actions(environment, 160)
  played = [environment.step(one) for one in actions[:80]]
  assert (contract.stack(played).step_type == LAST).any()
  resumed.set_state(environment.get_state())
  for one in actions[80:]:
    contract.assert_equal(environment.step(one), resumed.step(one))


def test_an_episode_is_cut_off_after_agent_steps(make):
  environment = make(num_envs=1, max_episode_length=5)
  environment.reset()
  types = [environment.step(np.array([0])).step_type[0] for _ in range(5)]
  assert types.index(LAST) == 4


def test_sound_and_text_and_maps_are_parts(make):
  audio = make('VizdoomBasicAudio-v1', num_envs=1)
  outputs = contract.stack(contract.play(audio, 30))
  sound = outputs.observation['audio']
  assert sound.shape[1:] == (1, 2 * 1260 * 4 * 1)
  # Silence, where there is no device.
  assert np.abs(sound).max() <= 1
  told = make('VizdoomBasicNotifications-v1', num_envs=1)
  assert isinstance(told.spec.observation['notifications'], structures.TextSpec)
  contract.play(told, 30)
  played = make('VizdoomFreedoom1E1M1-S1-v0', num_envs=1)
  assert played.spec.observation['automap'].shape == (72, 96, 3)
  contract.play(played, 3)


def test_numbers_are_of_one_size(make):
  doom = make('VizdoomHealthGathering-v1', num_envs=1)._envs.envs[0].env
  assert isinstance(doom, vizdoom_factory.Doom)
  sound = spaces.Box(-32768, 32767, (2,), np.int16)
  np.testing.assert_array_equal(
    doom._encode('audio', sound, np.array([-32768, 16384], np.int16)), [-1, 0.5]
  )
  numbers = doom._encode(
    'gamevariables', spaces.Box(-9, 9, (3,)), np.array([0, 100, -1], np.float32)
  )
  np.testing.assert_allclose(numbers, [0, np.log(101), -np.log(2)], rtol=1e-6)


def test_labels_keep_their_numbers(make):
  doom = make('VizdoomHealthGathering-v1', num_envs=1)._envs.envs[0].env
  labels = np.zeros([120, 160, 1], np.uint8)
  labels[:, 80:] = 200
  space = spaces.Box(0, 255, labels.shape, np.uint8)
  small = doom._encode('labels', space, labels)
  assert small.shape == (72, 96, 1)
  assert set(np.unique(small)) == {0, 200}
  labels[::2] = 100
  mixed = doom._encode('depth', space, labels)
  assert len(np.unique(mixed)) > 2


@pytest.mark.parametrize(
  ('name', 'said'),
  [
    ('VizdoomDeathmatch-v1', r'has the action space Dict\(.*but only Discrete'),
    (
      'VizdoomDoom2MAP01-S1-v0',
      r'needs doom2\.wad, .*sold\. Copy it to .*Free',
    ),
  ],
)
def test_what_cannot_be_played_says_why(make, name, said):
  with pytest.raises(ValueError, match=f'^{name} {said}'):
    make(name)


def test_close_ends_the_games(make):
  environment = make(num_envs=2)
  assert engines() == []
  environment.reset()
  assert len(engines()) == 2
  environment.close()
  psutil.wait_procs(engines(), timeout=30)
  assert engines() == []


def test_signals_to_the_whole_group_leave_the_games_alone(make):
  environment = make(num_envs=1)
  environment.reset()
  before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
  assert not before & {signal.SIGINT, signal.SIGTERM}
  (engine,) = engines()
  engine.send_signal(signal.SIGINT)
  engine.terminate()
  environment.step(np.array([0]))
  assert engine.is_running()


def test_it_renders_the_screen(make):
  environment = make(num_envs=1, render=True)
  environment.reset()
  image = environment.render()
  assert image.shape == (120, 160, 3)
  assert image.std() > 10


def test_all_ids_are_levels():
  names = [n for n in environments.level_names() if n.startswith('Vizdoom')]
  assert {'VizdoomBasic-v1', 'VizdoomHealthGathering-MultiBinary-v1'} < set(
    names
  )
  for name in names[:5]:
    assert environments.parse_level(name).suite.name == 'vizdoom'
