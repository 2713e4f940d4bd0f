"""EnvPool's Atari games: the same games as those of ale-py."""

import ale_py
import numpy as np
import pytest
from ale_py import roms

from scalable_agent import environments
from scalable_agent.environments import atari_suite, envpool_suite
from scalable_agent.structures import FIRST, LAST, MID
from tests.configs import make_environment
from tests.environments import contract

envpool = pytest.importorskip('envpool')
from scalable_agent.environments import envpool_registry  # noqa: E402


def make(name='Breakout-v5', num_envs=2, seed=6, **options):
  return make_environment(f'envpool:{name}', num_envs, seed, **options)


def make_bare(name='Breakout-v5', num_envs=2, seed=6, **settings):
  return envpool_registry.make_pool(
    name,
    name,
    range(seed, seed + num_envs),
    stack_num=1,
    use_fire_reset=False,
    **settings,
  )


@pytest.mark.parametrize('game', ['pong', 'breakout', 'ms_pacman'])
@pytest.mark.parametrize('grayscale', [True, False])
def test_frames_and_rewards_are_those_of_ale_py(game, grayscale):
  """Both start with one no-op, here by chance and there always."""
  name = f'{atari_suite.game_id(game)}-v5'
  mine = make(name, 1, noop_max=1, grayscale=grayscale)
  first = mine.reset().observation
  for seed in range(20):
    other = make_environment(game, 1, seed, noop_max=1, grayscale=grayscale)
    if other._envs.reset(seed=np.array([seed]))[1]['frame_number'][0] == 1:
      break
  np.testing.assert_array_equal(first, other.reset().observation)
  rewards = 0
  for actions in contract.random_actions(mine, 300):
    one, two = mine.step(actions), other.step(actions)
    np.testing.assert_array_equal(one.observation, two.observation)
    np.testing.assert_array_equal(one.reward, two.reward)
    np.testing.assert_array_equal(one.discount, two.discount)
    rewards += np.abs(one.reward).sum()
    if one.step_type[0] == LAST:
      break
  assert rewards > 0


def test_lost_lives_end_the_future_and_not_the_game():
  environment, bare = make(), make_bare()
  outputs = [environment.reset()]
  lives = [bare.reset()[1]['lives']]
  over = [np.array([False, False])]
  for actions in contract.random_actions(environment, 400):
    outputs.append(environment.step(actions))
    _, _, terminated, truncated, info = bare.step(actions)
    assert not truncated.any()
    lives.append(info['lives'])
    over.append(terminated)
  played = contract.stack(outputs)
  ends = 0
  for t in range(1, len(outputs)):
    for i in range(2):
      started = over[t - 1][i]
      lost = not started and lives[t][i] < lives[t - 1][i]
      assert played.discount[t, i] == (0 if lost or over[t][i] else 1)
      expected = LAST if over[t][i] else FIRST if started else MID
      assert played.step_type[t, i] == expected
      ends += over[t][i]
  assert ends >= 2
  assert ((played.discount == 0) & (played.step_type == MID)).sum() >= 4 * ends
  left_alone = make(life_loss_is_terminal=False)
  played = contract.stack(contract.play(left_alone, 400))
  assert (played.step_type == LAST).any()
  np.testing.assert_array_equal(played.discount == 0, played.step_type == LAST)


@pytest.mark.parametrize(
  ('frames', 'steps', 'expected'), [(80, 12, 12), (58, 40, 15), (60, 0, 15)]
)
def test_the_shorter_limit_cuts_an_episode_off_which_has_a_future(
  frames, steps, expected
):
  environment = make(
    'Pong-v5', 1, max_episode_frames=frames, max_episode_length=steps
  )
  contract.assert_cut_off(environment, expected)
  assert environment.step(np.zeros([1], np.int32)).step_type[0] == FIRST


def test_fire_reset_starts_the_ball_of_every_life():
  """Whoever does nothing then loses all five."""

  def lost_lives(fire_reset):
    environment = make(num_envs=4, fire_reset=fire_reset)
    environment.reset()
    steps = (environment.step(np.zeros([4], int)) for _ in range(300))
    return sum(step.discount == 0 for step in steps)

  assert (lost_lives(True) >= 5).all()
  assert (lost_lives(False) == 0).all()


def test_the_emulator_gets_the_options():
  environment = make(
    'Pong-v5',
    width=48,
    height=32,
    grayscale=False,
    full_action_space=True,
    num_action_repeats=3,
    sticky_actions=0.25,
    noop_max=7,
    envpool_threads=2,
  )
  assert environment.reset().observation.shape == (2, 32, 48, 3)
  assert environment.spec.frames_per_step == 3
  config = environment._pools[0].config
  expected = {
    'frame_skip': 3,
    'repeat_action_probability': 0.25,
    'noop_max': 7,
    'num_threads': 2,
    'full_action_space': True,
    'max_episode_steps': 36000,
    'stack_num': 1,
    'episodic_life': False,
    'use_fire_reset': False,
    'reward_clip': False,
  }
  assert {name: config[name] for name in expected} == expected
  assert len(environment.spec.action_meanings) == 18


def test_actions_of_all_games_have_their_names():
  for name in envpool_suite.ENVPOOL_ATARI.level_names():
    spec = make_environment(name, 1, 1).spec
    assert len(spec.action_meanings) == spec.action_space.num_actions
  assert make('Pong-v5').spec.action_meanings == (
    'NOOP',
    'FIRE',
    'RIGHT',
    'LEFT',
    'RIGHTFIRE',
    'LEFTFIRE',
  )


def test_no_no_ops_at_all_are_refused():
  with pytest.raises(
    ValueError,
    match=r'^--noop_max=0 of envpool:MsPacman-v5 must be at least 1: .*'
    r'--level_name=ms_pacman\.$',
  ):
    make('MsPacman-v5', noop_max=0)
  environments.parse_level('ms_pacman')


def test_scores_and_presets_are_those_of_the_game():
  suite = envpool_suite.ENVPOOL_ATARI
  for game, id_ in (('pong', 'Pong-v5'), ('ms_pacman', 'MsPacman-v5')):
    expected = atari_suite.ATARI.human_normalized_score(game, 100)
    assert suite.human_normalized_score(f'envpool:{id_}', 100) == expected
  assert suite.human_normalized_score('envpool:Adventure-v5', 1) is None
  assert suite.presets is atari_suite.ATARI.presets
  level = environments.parse_level('envpool:Pong-v5')
  assert environments.options_of(level).num_action_repeats == 4
  assert suite.are_alike(environments.options_of(level, full_action_space=True))


def test_roms_are_those_of_ale_py():
  name = envpool_registry.rom('MsPacman-v5')
  assert name == 'ms_pacman'
  emulator = ale_py.ALEInterface()
  emulator.loadROM(roms.get_rom_path(name))
