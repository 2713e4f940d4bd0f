"""Atari games: the emulator's truth against what the learner is told."""

import numpy as np
import pytest
from ale_py import Action, vector_env

from scalable_agent import environments
from scalable_agent.environments import atari, atari_suite
from scalable_agent.structures import FIRST, LAST, MID
from tests.configs import make_environment
from tests.environments import contract


def make(name='breakout', num_envs=2, seed=6, **options):
  return make_environment(name, num_envs, seed, **options)


def make_bare(name='breakout', num_envs=2, **kwargs):
  """Returns ale-py's environment with the settings of the paper."""
  settings = {
    'stack_num': 1,
    'num_threads': 1,
    'reward_clipping': False,
    'use_fire_reset': False,
    'noop_max': 31,  # Its numbers end before it.
  }
  return vector_env.AtariVectorEnv(name, num_envs, **(settings | kwargs))


FULL_ACTION_MEANINGS = tuple(Action(number).name for number in range(18))


class FakeVectorEnv:
  """Stands in for ale-py's; plays a list of (lives, terminated, truncated)."""

  script: tuple = ()

  def __init__(self, game, num_envs, **kwargs):
    del game, kwargs
    assert num_envs == 1
    self.single_action_space = atari.vector_env.Discrete(4)
    self.ale = self
    self._t = 0

  def get_action_set(self):
    return [Action(number) for number in range(4)]

  def _info(self):
    return {'lives': np.array([self.script[self._t][0]], np.int32)}

  def reset(self, seed):
    del seed
    return np.zeros([1, 1, 84, 84], np.uint8), self._info()

  def send(self, actions):
    del actions
    self._t += 1

  def recv(self):
    _, terminated, truncated = self.script[self._t]
    return (
      np.zeros([1, 1, 84, 84], np.uint8),
      np.array([1], np.int32),
      np.array([terminated]),
      np.array([truncated]),
      self._info(),
    )

  def close(self):
    pass


def play_script(monkeypatch, *script, **options):
  monkeypatch.setattr(FakeVectorEnv, 'script', script)
  monkeypatch.setattr(atari.vector_env, 'AtariVectorEnv', FakeVectorEnv)
  environment = make(num_envs=1, **options)
  outputs = [environment.reset()]
  outputs += [environment.step(np.array([0])) for _ in script[1:]]
  return contract.stack(outputs)


class TestAtari(contract.Contract):
  @pytest.fixture(params=[{}, {'grayscale': False, 'width': 40, 'height': 30}])
  def subject(self, request):
    return contract.Subject(
      make=lambda seed: make(seed=seed, max_episode_frames=80, **request.param),
      steps=45,
    )


@pytest.mark.parametrize(
  ('level_name', 'game', 'implied'),
  [
    ('pong', 'pong', {'sticky_actions': 0.0}),
    ('Pong', 'pong', {'sticky_actions': 0.0}),
    ('ms_pacman', 'ms_pacman', {'sticky_actions': 0.0}),
    ('MsPacman', 'ms_pacman', {'sticky_actions': 0.0}),
    ('ALE/Pong-v5', 'pong', {'sticky_actions': 0.25, 'num_action_repeats': 4}),
    (
      'ALE/MsPacman-v5',
      'ms_pacman',
      {'sticky_actions': 0.25, 'num_action_repeats': 4},
    ),
    ('PongNoFrameskip-v4', 'pong', {'sticky_actions': 0.0}),
    ('PongNoFrameskip-v0', 'pong', {'sticky_actions': 0.25}),
    (
      'PongDeterministic-v4',
      'pong',
      {'sticky_actions': 0.0, 'num_action_repeats': 4},
    ),
    (
      'PongDeterministic-v0',
      'pong',
      {'sticky_actions': 0.25, 'num_action_repeats': 4},
    ),
    (
      'SpaceInvadersDeterministic-v4',
      'space_invaders',
      {'sticky_actions': 0.0, 'num_action_repeats': 3},
    ),
    (
      'ALE/TicTacToe3D-v5',
      'tic_tac_toe_3d',
      {'sticky_actions': 0.25, 'num_action_repeats': 4},
    ),
  ],
)
def test_a_level_name_means_a_game_and_its_settings(level_name, game, implied):
  level = environments.parse_level(level_name)
  assert level == environments.Level(atari_suite.ATARI, game, implied)


@pytest.mark.parametrize('version', ['v0', 'v4'])
def test_random_repeats_are_refused_with_an_alternative(version):
  with pytest.raises(ValueError, match=f'Use PongDeterministic-{version}'):
    environments.parse_level(f'Pong-{version}')


def test_every_game_has_a_canonical_name_and_an_id():
  assert len(atari_suite.games()) > 100
  for game in atari_suite.games():
    assert environments.parse_level(game).name == game
    by_id = environments.parse_level(f'ALE/{atari_suite.game_id(game)}-v5')
    assert by_id.name == game


@pytest.mark.parametrize(
  ('level_name', 'explicit', 'sticky'),
  [
    ('pong', None, 0.0),
    ('ALE/Pong-v5', None, 0.25),
    ('ALE/Pong-v5', 0.0, 0.0),
    ('PongNoFrameskip-v4', None, 0.0),
    ('PongNoFrameskip-v4', 0.1, 0.1),
  ],
)
def test_the_emulator_gets_the_papers_settings(
  monkeypatch, level_name, explicit, sticky
):
  received = {}

  class Recorder(FakeVectorEnv):
    def __init__(self, game, num_envs, **kwargs):
      super().__init__(game, num_envs)
      received.update(kwargs, game=game)

  monkeypatch.setattr(atari.vector_env, 'AtariVectorEnv', Recorder)
  make(level_name, num_envs=1, sticky_actions=explicit)
  assert received == {
    'game': 'pong',
    'num_threads': 1,
    'max_num_frames_per_episode': 108000,
    'repeat_action_probability': sticky,
    'full_action_space': False,
    'autoreset_mode': atari.AutoresetMode.NEXT_STEP,
    'img_height': 84,
    'img_width': 84,
    'grayscale': True,
    'stack_num': 1,
    'frameskip': 4,
    'maxpool': True,
    'noop_max': 31,
    'episodic_life': False,
    'life_loss_info': False,
    'reward_clipping': False,
    'use_fire_reset': False,
  }


def test_a_frame_is_the_maximum_of_the_last_two_of_four():
  """What flickers at 30 Hz stays in sight, and no frame is skipped."""
  game, size = 'asteroids', {'img_height': 210, 'img_width': 160}
  environment = make(
    game, num_envs=1, sticky_actions=0.0, noop_max=0, height=210, width=160
  )
  single = make_bare(
    game, 1, noop_max=0, frameskip=1, maxpool=False, grayscale=True, **size
  )
  environment.reset()
  single.reset(seed=6)
  flickers = 0
  for (action,) in contract.random_actions(environment, 12):
    frames = [single.step(np.array([action]))[0][0, 0] for _ in range(4)]
    seen = environment.step(np.array([action])).observation[0, ..., 0]
    np.testing.assert_array_equal(seen, np.maximum(*frames[2:]))
    flickers += (seen != frames[3]).any()
  assert flickers > 0


@pytest.mark.parametrize(
  ('level_name', 'explicit', 'probability'),
  [
    ('breakout', None, 0.0),
    ('ALE/Breakout-v5', None, 0.25),
    ('breakout', 1, 1),
  ],
)
def test_sticky_actions_are_those_of_the_emulator(
  level_name, explicit, probability
):
  environment = make(level_name, sticky_actions=explicit)
  bares = {p: make_bare(repeat_action_probability=p) for p in (0, 0.25, 1)}
  outputs = {p: [bare.reset(seed=6)[0]] for p, bare in bares.items()}
  frames = [environment.reset().observation]
  # Moves all the time, so that it shows when one is taken late.
  for actions in np.random.default_rng(0).integers(2, 4, [16, 2]):
    frames.append(environment.step(actions).observation)
    for p, bare in bares.items():
      outputs[p].append(bare.step(actions)[0])
  for p, expected in outputs.items():
    same = np.array_equal(np.array(frames)[..., 0], np.array(expected)[:, :, 0])
    assert same == (p == probability)


def test_frames_are_those_that_ale_stacks():
  environment = make(max_episode_frames=60)
  bare = make_bare(stack_num=4, max_num_frames_per_episode=60)
  output = environment.reset()
  expected, _ = bare.reset(seed=6)
  stack = np.zeros([2, 84, 84, 4], np.uint8)
  ends = 0
  for actions in contract.random_actions(environment, 50):
    first = output.step_type == FIRST
    ends += first[0]
    older = np.where(first[:, None, None, None], 0, stack[..., 1:])
    stack = np.concatenate([older, output.observation], axis=-1)
    np.testing.assert_array_equal(stack, np.moveaxis(expected, 1, -1))
    output = environment.step(actions)
    expected = bare.step(actions)[0]
  assert ends >= 3


@pytest.mark.parametrize(
  ('frames', 'steps', 'expected'), [(80, 12, 12), (60, 40, 15), (60, 0, 15)]
)
def test_the_shorter_limit_cuts_an_episode_off_which_has_a_future(
  frames, steps, expected
):
  environment = make(
    'pong', 1, max_episode_frames=frames, max_episode_length=steps
  )
  output = contract.assert_cut_off(environment, expected)
  assert output.info.episode_step[0] == expected
  environment.close()


def test_lost_lives_end_the_future_and_not_the_game():
  environment, bare = make(), make_bare()
  outputs = [environment.reset()]
  lives = [bare.reset(seed=6)[1]['lives']]
  over, rewards = [np.array([False, False])], [np.zeros([2])]
  for actions in contract.random_actions(environment, 300):
    outputs.append(environment.step(actions))
    _, reward, terminated, truncated, info = bare.step(actions)
    assert not truncated.any()
    lives.append(info['lives'])
    over.append(terminated)
    rewards.append(reward)
  played = contract.stack(outputs)
  ends = 0
  for t in range(1, 301):
    for i in range(2):
      started = over[t - 1][i]
      lost = not started and lives[t][i] < lives[t - 1][i]
      assert played.discount[t, i] == (0 if lost or over[t][i] else 1)
      ends += over[t][i]
      expected = LAST if over[t][i] else FIRST if started else MID
      assert played.step_type[t, i] == expected
  np.testing.assert_array_equal(played.reward, rewards)
  assert ends >= 2
  in_game = (played.discount == 0) & (played.step_type == MID)
  # Five lives: four are lost in the middle of each whole game.
  assert in_game.sum() >= 4 * ends
  # Returns are those of whole games: points of earlier lives count.
  assert (played.info.episode_return[in_game] > 0).any()


def test_lives_can_be_left_to_the_game():
  environment = make(life_loss_is_terminal=False)
  played = contract.stack(contract.play(environment, 200))
  assert (played.step_type == LAST).any()
  np.testing.assert_array_equal(played.discount == 0, played.step_type == LAST)


def test_an_extra_life_is_no_loss_and_the_next_loss_counts_from_it(monkeypatch):
  played = play_script(
    monkeypatch,
    (3, False, False),
    (4, False, False),
    (4, False, False),
    (3, False, False),
    (3, False, False),
  )
  np.testing.assert_array_equal(played.discount[:, 0], [1, 1, 1, 0, 1])


def test_fewer_lives_in_the_next_game_are_no_loss(monkeypatch):
  played = play_script(
    monkeypatch,
    (5, False, False),
    (5, False, True),
    (3, False, False),
    (3, False, False),
  )
  np.testing.assert_array_equal(
    played.step_type[:, 0], [FIRST, LAST, FIRST, MID]
  )
  np.testing.assert_array_equal(played.discount[:, 0], [1, 1, 1, 1])


def test_the_frame_cap_truncates_with_a_future():
  played = contract.stack(
    contract.play(make('pong', max_episode_frames=48), 14)
  )
  expected = [FIRST] + [MID] * 11 + [LAST, FIRST, MID]
  np.testing.assert_array_equal(played.step_type, np.transpose([expected] * 2))
  assert (played.discount == 1).all()


def test_rewards_are_raw():
  environment = make('ms_pacman', num_envs=1)
  played = contract.stack(contract.play(environment, 130))
  assert set(np.unique(played.reward)) >= {0.0, 10.0}


def test_threads_of_emulators_make_no_difference():
  # The second has more than there are games.
  one, two = (make(num_envs=3, emulator_threads=n) for n in (1, 8))
  contract.assert_equal(
    contract.stack(contract.play(one, 50)),
    contract.stack(contract.play(two, 50)),
  )


def test_colour_size_and_actions_follow_the_options():
  environment = make(
    'pong', width=48, height=32, grayscale=False, full_action_space=True
  )
  assert environment.spec.action_space.num_actions == 18
  assert environment.spec.observation.shape == (32, 48, 3)
  assert environment.reset().observation.shape == (2, 32, 48, 3)
  assert make('pong').spec.action_space.num_actions == 6
  assert make('pong', num_action_repeats=2).spec.frames_per_step == 2


def test_the_video_shows_environment_zero_in_every_episode():
  environment = make(
    'ALE/Breakout-v5',
    width=160,
    height=210,
    grayscale=False,
    max_episode_frames=60,
    render=True,
  )
  output = environment.reset()
  for actions in contract.random_actions(environment, 50):
    np.testing.assert_array_equal(environment.render(), output.observation[0])
    output = environment.step(actions)


@pytest.mark.parametrize(
  ('name', 'full_action_space'),
  [('breakout', False), ('breakout', True), ('ALE/Breakout-v5', False)],
)
def test_fire_reset_starts_the_ball_of_every_life(name, full_action_space):
  """Whoever does nothing then loses all five, also with sticky actions."""
  num_envs = 8

  def lost_lives(fire_reset):
    environment = make(
      name,
      num_envs=num_envs,
      fire_reset=fire_reset,
      full_action_space=full_action_space,
    )
    environment.reset()
    steps = (environment.step(np.zeros([num_envs], int)) for _ in range(300))
    return sum(step.discount == 0 for step in steps)

  assert (lost_lives(True) >= 5).all()
  assert (lost_lives(False) == 0).all()


@pytest.mark.parametrize('fire_reset', [False, True])
def test_fire_is_pressed_at_starts_and_after_lost_lives_alone(
  monkeypatch, fire_reset
):
  pressed = []
  monkeypatch.setattr(
    FakeVectorEnv,
    'send',
    lambda self, actions: (
      pressed.append(int(actions[0])) or setattr(self, '_t', self._t + 1)
    ),
  )
  play_script(
    monkeypatch,
    (5, False, False),
    (5, False, False),  # Served.
    (4, False, False),
    (4, False, False),  # Served.
    (4, False, True),
    (3, False, False),  # Another game, whatever was pressed.
    (3, False, False),  # Served.
    (3, False, False),
    fire_reset=fire_reset,
  )
  fire = Action.FIRE.value
  expected = [fire, 0, fire, 0, 0, fire, 0] if fire_reset else [0] * 7
  assert pressed == expected


def test_fire_reset_leaves_games_without_fire_alone():
  with_it, without = (make('freeway', fire_reset=on) for on in (True, False))
  frames = [e.reset().observation for e in (with_it, without)]
  np.testing.assert_array_equal(*frames)
  for actions in contract.random_actions(with_it, 20):
    frames = [e.step(actions).observation for e in (with_it, without)]
    np.testing.assert_array_equal(*frames)


def test_fire_after_a_lost_life_is_part_of_a_replay():
  options = {'fire_reset': True, 'num_envs': 2, 'replayable': True}
  environment = make(**options)
  environment.reset()
  lost = False
  while not lost:
    lost = (environment.step(np.array([0, 3])).discount == 0).any()
  resumed = make(**options)
  resumed.set_state(environment.get_state())
  for actions in contract.random_actions(environment, 20):
    one, two = environment.step(actions), resumed.step(actions)
    np.testing.assert_array_equal(one.observation, two.observation)


def test_seeds_beyond_those_of_ale_are_refused():
  with pytest.raises(ValueError, match=r'^--seed=2147483647 .* between 0 and'):
    make(seed=2**31 - 1)
  with pytest.raises(ValueError, match=r'num_envs=0 .* at least 1'):
    make(num_envs=0)


@pytest.mark.parametrize('fire_reset', [False, True])
@pytest.mark.parametrize('noop_max', [0, 1, 2])
def test_episodes_start_with_up_to_noop_max_no_ops(noop_max, fire_reset):
  """All numbers of them occur, the greatest and none as well."""
  environment = make(num_envs=12, noop_max=noop_max, fire_reset=fire_reset)
  noops = environment._envs.reset(seed=np.arange(12))[1]['frame_number']
  assert sorted(set(noops.tolist())) == list(range(noop_max + 1))


@pytest.mark.parametrize(
  'bad',
  [
    {'sticky_actions': 1.5},
    {'width': 0},
    {'noop_max': -1},
    {'num_action_repeats': 0},
    {'env_processes': 1},
    {'emulator_threads': 0},
  ],
)
def test_a_bad_option_is_named_with_its_value(bad):
  ((name, value),) = bad.items()
  with pytest.raises(ValueError, match=f'{name}={value} '):
    make(**bad)


def test_the_full_action_space_is_the_same_in_every_game():
  for game in ('pong', 'skiing', 'lost_luggage', 'surround'):
    environment = make(game, num_envs=1, full_action_space=True)
    assert environment.spec.action_space.num_actions == 18
    assert environment.spec.action_meanings == FULL_ACTION_MEANINGS
    environment.close()


def test_actions_have_their_names():
  assert make('pong').spec.action_meanings == (
    'NOOP',
    'FIRE',
    'RIGHT',
    'LEFT',
    'RIGHTFIRE',
    'LEFTFIRE',
  )
  meanings = make('qbert').spec.action_meanings
  assert meanings == ('NOOP', 'FIRE', 'UP', 'RIGHT', 'LEFT', 'DOWN')


def test_what_a_game_forbids_is_no_action(monkeypatch):
  environment = make('skiing', num_envs=1, full_action_space=True)
  legal = [action.name for action in environment._envs.ale.get_action_set()]
  send, sent = environment._envs.send, []

  def record(actions):
    sent.append(legal[actions[0]])
    send(actions)

  monkeypatch.setattr(environment._envs, 'send', record)
  environment.reset()
  for number in range(18):
    environment.step(np.array([number]))
  names = [Action(number).name for number in range(18)]
  assert sent == ['NOOP' if 'FIRE' in name else name for name in names]
  assert sent.count('NOOP') == 10
