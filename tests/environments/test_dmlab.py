"""DeepMind Lab's levels, on a stand-in for its engine."""

import contextlib
import importlib.util
import pathlib
import sys

import numpy as np
import pytest

from scalable_agent import action_spaces, environments, networks, structures
from scalable_agent.environments import (
  dmlab_actions,
  dmlab_engine,
  dmlab_suite,
  instructions,
)
from scalable_agent.structures import FIRST, LAST, MID
from scalable_agent.suites import dmlab30
from tests.configs import make_environment
from tests.environments import contract

FAKES = pathlib.Path(__file__).parent / 'fakes'
SMALL = {'width': 16, 'height': 12}
ENOUGH = 12  # Agent steps of four frames, of which an episode has 18 to 39.


@pytest.fixture
def lab(monkeypatch):
  """The stand-in's module, also for processes that are started."""
  monkeypatch.syspath_prepend(str(FAKES))
  monkeypatch.delitem(sys.modules, 'deepmind_lab', raising=False)
  import deepmind_lab

  yield deepmind_lab
  sys.modules.pop('deepmind_lab', None)


def make(name='rooms_watermaze', num_envs=2, seed=3, **values):
  return contextlib.closing(
    make_environment(name, num_envs, seed, **SMALL | values)
  )


def make_engine(level='rooms_watermaze', test=False, **values):
  options = dmlab_suite.DmLabOptions(
    **SMALL | {'num_action_repeats': 4} | values
  )
  return contextlib.closing(dmlab_engine.Factory(level, options, test)())


@pytest.mark.usefixtures('lab')
class TestContract(contract.Contract):
  @pytest.fixture
  def subject(self):
    return contract.Subject(
      make=lambda seed: make_environment('rooms_watermaze', 3, seed, **SMALL),
      steps=ENOUGH,
    )


if importlib.util.find_spec('deepmind_lab') is None:

  def test_the_engine_keeps_the_contract():
    pytest.skip('DeepMind Lab is not installed')

else:

  class TestContractOfTheEngine(contract.Contract):
    @pytest.fixture
    def subject(self):
      return contract.Subject(
        make=lambda seed: make_environment('seekavoid_arena_01', 2, seed),
        # Of an episode of 20 seconds, and some more.
        steps=320,
      )


def test_what_is_seen_and_done_needs_no_engine():
  with make(probe=True, width=96, height=72) as environment:
    spec = environment.spec
  assert spec.observation == {
    'RGB_INTERLEAVED': structures.TensorSpec((72, 96, 3), np.dtype(np.uint8)),
    'INSTR': instructions.make_spec(32),
  }
  assert spec.action_space == action_spaces.Discrete(9)
  assert spec.frames_per_step == 4


@pytest.mark.parametrize(
  ('network', 'count'), [('deep', 1_628_010), ('shallow', 1_230_426)]
)
def test_agents_are_of_the_size_of_the_paper(network, count):
  with make(probe=True, width=96, height=72) as environment:
    agent = networks.Agent(
      environment.spec,
      network=network,
      lstm=True,
      last_action_reward=True,
      normalise_pixels=False,
    )
  assert sum(np.prod(v.shape) for v in agent.trainable_variables) == count


@pytest.mark.usefixtures('lab')
def test_a_step_is_of_four_frames_or_of_those_that_are_left():
  with make(num_envs=1) as environment:
    outputs = contract.stack(contract.play(environment, ENOUGH))
  frame, _, length = np.moveaxis(
    outputs.observation['RGB_INTERLEAVED'][:, 0, 0, 0], -1, 0
  ).astype(int)
  (last,) = np.flatnonzero(outputs.step_type[:, 0] == LAST)
  assert frame[:last].tolist() == list(range(0, 4 * last, 4))
  # What is seen at the end is what was seen before it.
  assert frame[last] == frame[last - 1]
  assert 0 < length[0] - frame[last] <= 4
  assert outputs.discount[last, 0] == 0
  assert outputs.step_type[last + 1, 0] == FIRST
  assert frame[last + 1] == 0
  # Another map, and the number of the next episode.
  assert length[last + 1] != length[0]
  episodes = outputs.observation['RGB_INTERLEAVED'][:, 0, 0, 2, 0]
  assert episodes.tolist() == [0] * (last + 1) + [1] * (ENOUGH - last)


@pytest.mark.usefixtures('lab')
def test_rewards_of_the_frames_are_added_up():
  actions = list(dmlab_actions.ACTION_SETS['impala'])
  rewards = {}
  for name in 'forward', 'backward', 'fire':
    with make(num_envs=1) as environment:
      environment.reset()
      output = environment.step(np.array([actions.index(name)]))
    rewards[name] = float(output.reward[0])
  assert rewards['forward'] - rewards['fire'] == 4
  assert rewards['backward'] - rewards['fire'] == -4


@pytest.mark.usefixtures('lab')
@pytest.mark.parametrize('repeats', [1, 7])
def test_the_number_of_repeats_is_an_option(repeats):
  with make(num_envs=1, num_action_repeats=repeats) as environment:
    environment.reset()
    output = environment.step(np.array([0]))
  assert environment.spec.frames_per_step == repeats
  assert output.observation['RGB_INTERLEAVED'][0, 0, 0, 0] == repeats


@pytest.mark.usefixtures('lab')
def test_an_episode_that_is_too_long_is_cut_off_and_has_a_future():
  with make(num_envs=1, max_episode_length=3) as environment:
    outputs = contract.stack(contract.play(environment, 8))
  types = outputs.step_type[:, 0].tolist()
  assert types == [FIRST, MID, MID, LAST] * 2 + [FIRST]
  assert (outputs.discount == 1).all()
  # Here the engine does show what it looks like.
  frames = outputs.observation['RGB_INTERLEAVED'][:, 0, 0, 0, 0]
  assert frames.tolist() == [0, 4, 8, 12] * 2 + [0]


@pytest.mark.usefixtures('lab')
def test_instructions_are_hashed():
  with make('language_select_described_object', num_envs=1) as environment:
    output = environment.reset()
  length = output.observation['RGB_INTERLEAVED'][0, 0, 0, 2]
  np.testing.assert_array_equal(
    output.observation['INSTR'][0], instructions.encode(f'go to {length}', 32)
  )


@pytest.mark.usefixtures('lab')
@pytest.mark.parametrize('name', ['rooms_watermaze', 'tests/empty_room_test'])
def test_no_instruction_is_an_empty_one(name):
  with make(name, num_envs=1, instruction_length=5) as environment:
    output = environment.reset()
  assert output.observation['INSTR'].tolist() == [[0] * 5]


def test_instructions_may_be_bytes(lab, monkeypatch):
  look = lab.Lab.observations
  monkeypatch.setattr(
    lab.Lab, 'observations', lambda self: look(self) | {'INSTR': b'go on'}
  )
  with make_engine() as engine:
    observation, _ = engine.reset(seed=1)
  np.testing.assert_array_equal(
    observation['INSTR'], instructions.encode('go on', 32)
  )


def test_an_error_of_the_engine_is_no_missing_instruction(lab, monkeypatch):
  def refuse(*args, **kwargs):
    raise ValueError('Unknown observation')

  monkeypatch.setattr(lab, 'Lab', refuse)
  with (
    make_engine() as engine,
    pytest.raises(ValueError, match=r'^Unknown observation$'),
  ):
    engine.reset(seed=1)


@pytest.mark.parametrize(
  ('name', 'path', 'folder'),
  [
    ('rooms_watermaze', 'contributed/dmlab30/rooms_watermaze', None),
    ('seekavoid_arena_01', 'seekavoid_arena_01', None),
    ('/home/me/my_level', 'my_level', '/home/me'),
  ],
)
def test_the_engine_is_told_what_to_play_in_its_own_words(name, path, folder):
  options = dmlab_suite.DmLabOptions(width=96, height=72, dataset_path='/data')
  factory = dmlab_engine.Factory(name, options, test=False)
  assert factory.path() == path
  config = {
    'width': '96',
    'height': '72',
    'datasetPath': '/data',
    'logLevel': 'WARN',
  }
  if folder:
    config['levelDirectory'] = folder
  assert factory.config() == config
  factory = dmlab_engine.Factory(name, options, test=True)
  assert factory.config() == config | {
    'allowHoldOutLevels': 'true',
    # 0x600D5EED, the mixer seed of 2018.
    'mixerSeed': '1611489005',
  }


@pytest.mark.usefixtures('lab')
def test_a_test_plays_what_no_training_does():
  first = {}
  for test in False, True:
    with make(num_envs=1, test=test) as environment:
      first[test] = environment.reset().observation['RGB_INTERLEAVED'][0]
  assert [first[test][0, 1, 0] for test in (False, True)] == [0, 1]
  assert first[True][0, 0, 2] != first[False][0, 0, 2]


@pytest.mark.usefixtures('lab')
def test_renderer_and_cache_are_handed_on(tmp_path):
  folder = tmp_path / 'cache'
  lengths = []
  for _ in range(2):  # The second time the maps are there.
    with make(
      num_envs=1, dmlab_renderer='hardware', level_cache=str(folder)
    ) as environment:
      seen = environment.reset().observation['RGB_INTERLEAVED'][0]
    assert seen[0, 1].tolist() == [0, 1, 1]
    lengths.append(seen[0, 0, 2])
    assert len(list(folder.iterdir())) == 1
  assert lengths[0] == lengths[1]


@pytest.mark.usefixtures('lab')
def test_the_screen_is_what_the_first_environment_shows():
  with make(render=True) as environment:
    output = environment.reset()
    for actions in contract.random_actions(environment, ENOUGH):
      np.testing.assert_array_equal(
        environment.render(), output.observation['RGB_INTERLEAVED'][0]
      )
      output = environment.step(actions)


@pytest.mark.usefixtures('lab')
def test_a_state_is_played_again():
  with (
    make(replayable=True) as environment,
    make(replayable=True, seed=9) as other,
  ):
    environment.reset()
    actions = contract.random_actions(environment, 2 * ENOUGH)
    for one in actions[:ENOUGH]:
      environment.step(one)
    other.set_state(environment.get_state())
    for one in actions[ENOUGH:]:
      contract.assert_equal(environment.step(one), other.step(one))


def test_actions_are_those_of_the_papers():
  impala = np.array(list(dmlab_actions.ACTION_SETS['impala'].values()))
  # Table D.2 of the IMPALA paper.
  expected = [
    (0, 0, 0, 1, 0, 0, 0),
    (0, 0, 0, -1, 0, 0, 0),
    (0, 0, -1, 0, 0, 0, 0),
    (0, 0, 1, 0, 0, 0, 0),
    (-20, 0, 0, 0, 0, 0, 0),
    (20, 0, 0, 0, 0, 0, 0),
    (-20, 0, 0, 1, 0, 0, 0),
    (20, 0, 0, 1, 0, 0, 0),
    (0, 0, 0, 0, 1, 0, 0),
  ]
  np.testing.assert_array_equal(impala, expected)
  with make(num_envs=15, probe=True, action_set='r2d2') as environment:
    assert environment.spec.action_space == action_spaces.Discrete(15)
    assert len(set(environment.spec.action_meanings)) == 15


@pytest.mark.parametrize('action_set', sorted(dmlab_actions.ACTION_SETS))
def test_the_engine_takes_every_action(lab, action_set):
  del lab
  actions = dmlab_actions.ACTION_SETS[action_set]
  with make_engine(action_set=action_set, num_action_repeats=1) as engine:
    seen = []
    for number in range(len(actions)):
      engine.reset(seed=1)
      observation, *_ = engine.step(number)
      seen.append(int(observation['RGB_INTERLEAVED'][0, 0, 1]))
  # The stand-in shows a weighted sum of the action.
  weights = np.arange(1, 8)
  assert seen == [
    int(a @ weights) % 256 for a in map(np.array, actions.values())
  ]


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.usefixtures('lab')
def test_a_level_that_is_not_there_says_what_the_engine_says():
  with (
    make('contributed/nothing/here') as environment,
    pytest.raises(
      RuntimeError,
      match=r"(?s)reset failed.*Invalid levelName flag 'contributed/nothing/he",
    ),
  ):
    environment.reset()


@pytest.mark.usefixtures('lab')
def test_a_level_of_ones_own_is_named_by_its_path(tmp_path):
  (tmp_path / 'my_level.lua').touch()
  for name in f'{tmp_path}/my_level', f'{tmp_path}/my_level.lua':
    with make(name, num_envs=1) as environment:
      environment.reset()
    assert environment.level.name == f'{tmp_path}/my_level'
  with pytest.raises(ValueError, match=r'no file .*/other\.lua\. Correct it'):
    make(f'{tmp_path}/other')


@pytest.mark.usefixtures('lab')
def test_a_folder_of_pictures_must_be_one(tmp_path):
  for path in (str(tmp_path), 'dummy'):
    make(dataset_path=path).thing.close()
  with pytest.raises(
    ValueError, match=r'^--dataset_path=/no/where is no folder. Give that of'
  ):
    make(dataset_path='/no/where')


@pytest.mark.parametrize('probe', [False, True])
@pytest.mark.parametrize('name', ['width', 'height'])
def test_a_picture_that_the_engine_has_not_is_refused(name, probe):
  with pytest.raises(
    ValueError, match=rf'^--{name}=42 of rooms_watermaze: .* Set --{name}=44\.$'
  ):
    make(probe=probe, **{name: 42})


def test_without_deepmind_lab_one_is_told_how_to_get_it(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(
    ValueError,
    match=r'^rooms_watermaze needs DeepMind Lab.* in no registry.*build a wheel'
    r'.*Python 3\.13.* pip install dmlab-gym .*pip install dm-env .*whl.*'
    r'docs/dmlab\.md\.$',
  ):
    make()


def test_the_stand_in_is_as_strict_as_the_engine(lab):
  level, config = 'contributed/dmlab30/rooms_watermaze', {'width': '16'}
  noop = np.zeros([7], np.intc)
  for arguments, error in (
    (('rooms_watermaze', ['INSTR'], config), RuntimeError),
    ((level, ('INSTR',), config), TypeError),
    ((level, ['INSTR'], {'width': 16}), TypeError),
    ((level, ['INSTR'], [config]), TypeError),
    ((level, ['DEPTH'], config), ValueError),
    ((level, ['INSTR'], {'height': '30'}), RuntimeError),
    ((level, ['INSTR'], config, 'fast'), RuntimeError),
  ):
    with pytest.raises(error):
      lab.Lab(*arguments)
  with contextlib.closing(lab.Lab(level, ['INSTR'], config)) as one:
    with pytest.raises(RuntimeError, match='Failed to connect'):
      lab.Lab(level, ['INSTR'], config)
    assert [spec['name'] for spec in one.action_spec()][:2] == [
      'LOOK_LEFT_RIGHT_PIXELS_PER_FRAME',
      'LOOK_DOWN_UP_PIXELS_PER_FRAME',
    ]
    for call in one.observations, lambda: one.step(noop):
      with pytest.raises(RuntimeError, match='wrong status'):
        call()
    for seed in np.int64(3), 'three':
      with pytest.raises(ValueError, match="'seed' must be int"):
        one.reset(seed=seed)
    one.reset(seed=3)
    for action in noop.astype(int), noop[:6], np.full([7], 2, np.intc):
      with pytest.raises(ValueError, match=r'dtype|shape|is not in'):
        one.step(action)
    with pytest.raises(ValueError, match='memory'):
      one.step(noop, 0)
    one.step(noop, num_steps=100)
    assert not one.is_running()
    assert 18 <= one.num_steps() < 40
    with pytest.raises(RuntimeError, match='wrong status'):
      one.observations()
  assert not one.close()


class TestNames:
  @pytest.mark.parametrize(
    ('level_name', 'name'),
    [
      *((level, level) for level in sorted(dmlab30.ALL_LEVELS)),
      ('contributed/dmlab30/rooms_watermaze', 'rooms_watermaze'),
      ('seekavoid_arena_01', 'seekavoid_arena_01'),
      ('contributed/psychlab/harlow', 'contributed/psychlab/harlow'),
      ('demos/random_maze', 'demos/random_maze'),
      ('/a/level.lua', '/a/level'),
    ],
  )
  def test_levels_are_named_in_short_in_full_or_by_path(self, level_name, name):
    level = environments.parse_level(level_name)
    assert (level.suite.name, level.name) == ('dmlab', name)
    assert environments.parse_level(level.name) == level

  def test_a_typo_is_answered_with_what_is_similar(self):
    for typo in 'room_watermaze', 'contributed/dmlab30/room_watermaze':
      with pytest.raises(
        ValueError, match=rf'no level {typo}\..* Similar: .*rooms_watermaze'
      ):
        environments.parse_level(typo)
    with pytest.raises(ValueError, match=r'DMLab-30 has no zzz\.'):
      environments.parse_level('contributed/dmlab30/zzz')

  def test_names_of_others_are_left_to_them(self):
    for name in 'pong', 'CartPole-v1', 'ALE/Pong-v5', 'Toys/Gray-v0', '':
      assert dmlab_suite.DMLAB.parse(name) is None

  def test_dmlab30_stands_for_its_levels_and_in_a_test_for_others(self):
    def names(**arguments):
      levels = environments.parse_levels('dmlab30', **arguments)
      return [level.name for level in levels]

    assert names() == list(dmlab30.LEVEL_MAPPING)
    assert names(test=True) == list(dmlab30.LEVEL_MAPPING.values())
    assert names() != names(test=True)
    # A level by its own name is tested as it is.
    (level,) = environments.parse_levels(
      'rooms_collect_good_objects_train', test=True
    )
    assert level.name == 'rooms_collect_good_objects_train'


def test_scores_of_a_test_need_all_test_levels():
  suite = dmlab_suite.DMLAB
  human = {k: [v, v] for k, v in dmlab30.HUMAN_SCORES.items()}
  assert suite.test_scores(human) == pytest.approx(
    {'No cap.': 100, 'Cap 100': 100}
  )
  assert suite.test_scores(dict(list(human.items())[1:])) is None
