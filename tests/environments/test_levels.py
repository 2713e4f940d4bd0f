"""Names of levels, understood or refused with something to go on."""

import re

import pytest

from scalable_agent import environments, options
from scalable_agent.environments import extras, gymnasium_registry
from scalable_agent.suites import atari57
from tests.configs import CATALOG, make_config


@pytest.mark.parametrize(
  ('level_name', 'suite', 'name'),
  [
    ('catch', 'catch', 'catch'),
    ('catch_hidden', 'catch', 'catch_hidden'),
    ('CartPole-v1', 'gymnasium', 'CartPole-v1'),
    (
      'tests.environments.toys:Toys/Gray-v0',
      'gymnasium',
      'tests.environments.toys:Toys/Gray-v0',
    ),
  ],
)
def test_a_name_leads_to_its_suite(level_name, suite, name):
  level = environments.parse_level(level_name)
  assert (level.suite.name, level.name, level.options) == (suite, name, {})
  assert environments.parse_level(level.name) == level


@pytest.mark.parametrize(
  ('level_name', 'similar'),
  [
    ('pongg', 'pong'),
    ('mspackman', 'ms_pacman'),
    ('cach', 'catch'),
    ('CartPol-v1', 'CartPole-v1'),
    ('CartPole', 'CartPole-v1'),
    ('CartPole-v7', 'CartPole-v1'),
    ('ALE/Pog-v5', 'ALE/Pong-v5'),
    ('ALE/Pong-v4', 'ALE/Pong-v5'),
  ],
)
def test_an_unknown_name_brings_up_similar_ones(level_name, similar):
  with pytest.raises(
    ValueError,
    match=rf'no level {level_name}\..* Similar: .*{similar}.*level_names\(\)',
  ):
    environments.parse_level(level_name)


@pytest.mark.parametrize('level_name', ['', 'x y', 'no/such/thing', 'zzzzz'])
def test_nonsense_is_refused_as_well(level_name):
  with pytest.raises(ValueError, match='There is no level'):
    environments.parse_level(level_name)


@pytest.mark.parametrize('module', ['nowhere', '.', '.nowhere'])
def test_a_module_that_is_not_there_is_named(module):
  with pytest.raises(
    ValueError,
    match=rf'module {re.escape(module)} cannot be imported .* PYTHONPATH',
  ):
    environments.parse_level(f'{module}:Env-v0')


@pytest.mark.parametrize(
  ('level_name', 'extra'),
  [
    ('MiniGrid-Empty-5x5-v0', 'minigrid'),
    ('BabyAI-GoToObj-v0', 'minigrid'),
    ('mine:MiniGrid-Mine-v0', 'minigrid'),
    ('VizdoomBasic-v1', 'vizdoom'),
    ('HalfCheetah-v5', 'mujoco'),
    ('envpool:Pong-v5', 'envpool'),
    ('envpool:CartPole-v1', 'envpool'),
  ],
)
def test_what_is_not_installed_is_said_in_one_line(
  level_name, extra, monkeypatch
):
  installed = extras.is_installed
  monkeypatch.setattr(
    extras, 'is_installed', lambda name: name != extra and installed(name)
  )
  monkeypatch.setattr(extras, '_LEAST_PYTHON', {})
  with pytest.raises(ValueError, match='not installed') as error:
    environments.parse_level(level_name)
  assert str(error.value) == (
    f'{level_name} needs {extra}, which is not installed. Install it by '
    f"pip install '.[{extra}]' or make setup EXTRAS={extra}."
  )
  assert level_name in environments.level_names() or extra != 'mujoco'


def test_what_this_python_cannot_have_is_not_offered(monkeypatch):
  monkeypatch.setattr(extras, 'is_installed', lambda name: False)
  monkeypatch.setattr(extras, '_LEAST_PYTHON', {'envpool': (3, 99)})
  with pytest.raises(
    ValueError,
    match=r'^envpool:Pong-v5 needs envpool, which needs Python 3\.99 or newer'
    r'.* PYTHON=python3\.99 EXTRAS=envpool\.$',
  ):
    environments.parse_level('envpool:Pong-v5')


def test_without_the_extras_their_levels_are_not_listed(monkeypatch):
  monkeypatch.setattr(extras, 'is_installed', lambda name: False)
  names = environments.level_names()
  assert not [
    n for n in names if n.startswith(('MiniGrid', 'Baby', 'Vizd', 'envpool'))
  ]


@pytest.mark.parametrize('extra', ['json', 'no_such_module'])
def test_what_is_installed_can_be_imported(extra):
  assert extras.is_installed(extra) == (extra == 'json')


def test_a_reason_is_said_once():
  pytest.importorskip('minigrid')
  with pytest.raises(ValueError, match='no level nowhere:MiniGrid') as error:
    environments.parse_level('nowhere:MiniGrid-Mine-v0')
  assert str(error.value).count('cannot be imported') == 1


def test_several_names_are_levels_in_their_order():
  assert environments.parse_levels('pong') == (
    environments.parse_level('pong'),
  )
  levels = environments.parse_levels('seaquest,ALE/Pong-v5,Breakout')
  assert [level.name for level in levels] == ['seaquest', 'pong', 'breakout']
  assert levels[1] == environments.parse_level('ALE/Pong-v5')


def test_atari57_is_the_57_games():
  levels = environments.parse_levels('atari57')
  assert tuple(level.name for level in levels) == atari57.GAMES
  # A game of ale-py that is none of them.
  assert len(environments.parse_levels('tetris,atari57')) == 58


@pytest.mark.parametrize(
  ('level_name', 'said'),
  [
    ('', 'has an empty name'),
    ('pong,', 'has an empty name'),
    ('pong,,breakout', 'has an empty name'),
    ('pong,breakout,pong', 'has pong twice'),
    ('pong,ALE/Pong-v5', 'has pong twice'),
    ('breakout,atari57', 'has breakout twice'),
    ('catch,pong', ': catch is of the suite catch and pong of atari'),
    ('pong,breakout,CartPole-v1', ': pong is .* CartPole-v1 of gymnasium'),
  ],
)
def test_levels_that_are_no_list_are_refused(level_name, said):
  with pytest.raises(ValueError, match=f'^--level_name={level_name}.*{said}'):
    environments.parse_levels(level_name)


def test_each_name_of_a_list_is_understood_or_refused():
  with pytest.raises(ValueError, match=r'no level pog\..* Similar: .*pong'):
    environments.parse_levels('breakout,pog')


@pytest.mark.parametrize(
  ('level_name', 'implied'),
  [
    ('catch,catch_hidden', {}),
    ('pong,BreakoutNoFrameskip-v4', {'sticky_actions': 0.0}),
    # The first id leaves its repeat to the suite, where it is 4.
    (
      'PongNoFrameskip-v0,ALE/Breakout-v5',
      {'sticky_actions': 0.25, 'num_action_repeats': 4},
    ),
  ],
)
def test_levels_may_imply_the_same(level_name, implied):
  levels = environments.parse_levels(level_name)
  assert environments.implied_options(levels, make_config()) == implied


@pytest.mark.parametrize(
  ('level_name', 'option', 'values'),
  [
    ('pong,seaquest,ALE/Breakout-v5', 'sticky_actions', (0.0, 0.25)),
    ('pong,SpaceInvadersDeterministic-v4', 'num_action_repeats', (4, 3)),
    ('SpaceInvadersDeterministic-v4,pong', 'num_action_repeats', (3, 4)),
  ],
)
def test_levels_that_imply_different_things_need_a_word_of_the_user(
  level_name, option, values
):
  levels = environments.parse_levels(level_name)
  with pytest.raises(
    ValueError,
    match=rf'^--level_name={level_name}: {levels[0].name} implies '
    rf'--{option}={values[0]} and {levels[-1].name} --{option}={values[1]}\. '
    rf'Set --{option} for all\.$',
  ):
    environments.implied_options(levels, make_config(level_name=level_name))
  given = make_config(level_name=level_name, **{option: values[0]})
  environments.implied_options(levels, given)


@pytest.mark.parametrize(
  ('level_shares', 'expected'),
  [
    ('', [0, 1, 2]),
    ('seaquest:1', [0, 1, 2]),
    ('ALE/Seaquest-v5:3,pong:2', [0, 1, 2, 0, 1, 0]),
  ],
)
def test_levels_are_dealt_by_their_shares_and_all_of_them_first(
  level_shares, expected
):
  levels = environments.parse_levels('seaquest,pong,breakout')
  assert list(environments.deal(levels, level_shares)) == expected


def test_levels_of_gymnasium_have_shares_too():
  name = 'tests.environments.toys:Toys/Gray-v0'
  levels = environments.parse_levels(f'{name},CartPole-v1')
  assert environments.deal(levels, f'{name}:2') == (0, 1, 0)


@pytest.mark.parametrize(
  ('level_shares', 'said'),
  [
    ('pong', 'pong is no name and number from 1 to 1000'),
    ('pong:', 'pong: is no name and number'),
    (':2', ':2 is no name and number'),
    ('pong:0', 'pong:0 is no name and number'),
    ('pong:1001', 'pong:1001 is no name and number'),
    ('pong:1.5', 'pong:1.5 is no name and number'),
    ('pong:2,', ' is no name and number'),
    ('seaquest:2', 'seaquest is not played'),
    ('pong:2,pong:3', 'pong stands there twice'),
    ('atari57:2', 'atari57 stands for several levels'),
  ],
)
def test_shares_that_are_none_are_refused(level_shares, said):
  levels = environments.parse_levels('pong,breakout')
  with pytest.raises(
    ValueError, match=f'^--level_shares={level_shares}: .*{said}'
  ):
    environments.deal(levels, level_shares)


def test_shares_of_one_level_are_refused():
  levels = environments.parse_levels('pong')
  with pytest.raises(
    ValueError, match=r'no effect with one level, pong\. Leav'
  ):
    environments.deal(levels, 'pong:2')


def test_all_listed_names_are_levels():
  names = environments.level_names()
  assert {'pong', 'catch', 'CartPole-v1'} <= set(names)
  assert not any(name.startswith('ALE/') for name in names)
  for name in names:
    if _needs_mujoco(name) and not extras.is_installed('mujoco'):
      # Gymnasium has their names without it.
      with pytest.raises(ValueError, match='needs mujoco, which is not inst'):
        environments.parse_level(name)
    else:
      environments.parse_level(name)


def _needs_mujoco(name):
  return gymnasium_registry.entry_point(name).startswith(
    'gymnasium.envs.mujoco'
  )


def test_every_option_of_a_suite_is_among_those_there_are():
  of_suites = [
    {option.name for option in options.declared_by(suite.options)}
    for suite in environments.SUITES
  ]
  assert all(names <= set(CATALOG.options) for names in of_suites)
  names = [suite.name for suite in environments.SUITES]
  assert names == [
    'catch',
    'dmlab',
    'atari',
    'envpool_atari',
    'envpool',
    'envpool_classic',
    'envpool_mujoco',
    'minigrid',
    'vizdoom',
    'control',
    'mujoco',
    'gymnasium',
  ]


def test_what_the_user_says_goes_before_what_the_level_implies():
  level = environments.parse_level('ALE/Pong-v5')
  defaults = environments.options_of(level)
  assert (defaults.sticky_actions, defaults.num_action_repeats) == (0.25, 4)
  said = environments.options_of(
    level, sticky_actions=0.0, num_action_repeats=1
  )
  assert (said.sticky_actions, said.num_action_repeats) == (0.0, 1)


@pytest.mark.parametrize(
  ('name', 'value'), [('width', 96), ('sticky_actions', 0.25)]
)
def test_an_option_without_effect_is_refused(name, value):
  level = environments.parse_level('CartPole-v1')
  said = f'^--{name}={value} has no effect on CartPole-v1, a level of the '
  with pytest.raises(ValueError, match=said + 'gymnasium suite; .*atari.*at'):
    options.check_suite(
      make_config(**{name: value}), {name}, level.suite, level.name
    )
  with pytest.raises(
    ValueError, match=f'^--{name}={value} has no effect on Cart'
  ):
    environments.options_of(level, **{name: value})
  default = CATALOG.options[name].default
  options.check_suite(
    make_config(**{name: default}), {name}, level.suite, level.name
  )


def test_an_option_of_another_suite_is_answered_with_its_own():
  level = environments.parse_level('pong')
  with pytest.raises(
    ValueError,
    match=r'^--env_processes=1 has no effect on pong, .* atari suite; it is '
    r'for .*gymnasium\. Leave it at 0\.$',
  ):
    options.check_suite(
      make_config(env_processes=1),
      {'env_processes'},
      level.suite,
      level.name,
    )


def test_options_of_another_suite_are_refused():
  pong = environments.parse_level('pong')
  with pytest.raises(ValueError, match=r'CartPole-v1.*takes GymnasiumOptions'):
    environments.make(
      environments.parse_level('CartPole-v1'),
      1,
      environments.options_of(pong, emulator_threads=2),
      0,
    )
