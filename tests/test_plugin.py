"""A suite, an algorithm, options and a torso join without an edit."""

import dataclasses
import json

import pytest

import experiment
from scalable_agent import environments, options, runtimes
from tests import plugin
from tests.processes import checkpoints, episodes, flags, run

CATALOG = runtimes.make_catalog('tests.plugin')

OPTIONS = {
  'plugin': 'tests.plugin',
  'level_name': 'up',
  'network': 'tests.plugin:Affine',
  'algorithm': 'onestep',
  'counting_length': 5,
  'onestep_greeting': 'goodbye',
  'envs_per_actor': 4,
  'unroll_length': 10,
  'total_environment_frames': 1200,
}


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  logdir = tmp_path_factory.mktemp('trained')
  return logdir, run(*flags(logdir, OPTIONS))


def test_all_of_them_train_together(trained):
  logdir, result = trained
  assert result.status == 0, result.output
  # 10 steps of 4 environments count three frames each, but for the column
  # from an end to the next start.
  assert checkpoints(logdir)[-1] >= 1200
  assert result.output.splitlines()[-1].startswith('goodbye 1')
  assert {episode['level'] for episode in episodes(logdir)} == {'up'}
  assert {int(episode['episode_length']) for episode in episodes(logdir)} == {5}


def test_their_options_are_told_and_saved_like_all_others(trained):
  logdir, result = trained
  assert 'level_name=up* num_action_repeats=3 ' in result.output
  assert 'counting_length=5*' in result.output
  assert 'onestep_greeting=goodbye*' in result.output
  saved = json.loads((logdir / 'config.json').read_text())
  for name, value in OPTIONS.items():
    assert saved[name] == value, name


def test_presets_come_in_layers(trained):
  saved = json.loads((trained[0] / 'config.json').read_text())
  assert saved['batch_size'] == 4  # The algorithm's.
  assert saved['num_action_repeats'] == 3  # The suite's.
  assert saved['learning_rate'] == 0.25  # The suite's for the algorithm.
  assert saved['discounting'] == 0.99  # The option's own.


def test_of_presets_the_more_special_one_decides():
  algorithm, suite = plugin.OneStep(), plugin.Counting()
  names = ['discounting', 'lambda_', 'entropy_cost', 'baseline_cost']
  algorithm.presets = {'auto': dict.fromkeys(names, 0.1)}
  suite.defaults = dict.fromkeys(names[1:], 0.2)
  suite.presets = {'onestep': {'auto': dict.fromkeys(names[2:], 0.3)}}
  config = options.Catalog([suite], [algorithm]).make(algorithm='onestep')
  config = options.resolve(config, suite, dict.fromkeys(names[3:], 0.4))
  assert [config.values[name] for name in names] == [0.1, 0.2, 0.3, 0.4]


def test_the_agent_is_tested_as_any_other(trained):
  logdir, _ = trained
  result = run(
    *flags(logdir, {'plugin': 'tests.plugin', 'mode': 'test'}),
    '--test_num_episodes=2',
  )
  assert result.status == 0, result.output
  assert len(list((logdir / 'tests').iterdir())) == 1


def test_without_the_plugin_its_run_says_so(trained):
  result = run(*flags(trained[0], {'mode': 'test'}))
  assert result.status == 1
  assert '--plugin=tests.plugin: give it again' in result.output
  assert 'Traceback' not in result.output


def test_help_shows_them_in_their_place():
  text = ' '.join(options.format_help(CATALOG).split())
  assert (
    'Counting: --counting_length=<agent steps> Steps of an episode. Unit: '
    'agent steps. Default: 4. Only with levels of counting.'
  ) in text
  assert 'Only with --algorithm=onestep.' in text
  assert 'No effect with --inference=actor.' in text
  assert '|onestep Member of the actor-critic family.' in text
  assert 'counting: up and down.' in text


def check(**values):
  """Checks options as a training does."""
  config = CATALOG.make(**values)
  options.validate(config)
  levels = environments.parse_levels(config.run.level_name, CATALOG.suites)
  suite = levels[0].suite
  options.check_suite(config, set(values), suite, levels[0].name)
  config = options.resolve(config, suite)
  options.validate(config)
  options.check_given(config, set(values))


@pytest.mark.parametrize(
  ('values', 'said'),
  [
    ({'counting_length': 0}, r'--counting_length=0 must be at least 1\.'),
    (
      {'counting_length': 5, 'level_name': 'catch'},
      '--counting_length=5 has no effect on catch, a level of the catch suite; '
      r'it is for counting\. Leave it at 4\.',
    ),
    (
      {'onestep_greeting': 'x', 'level_name': 'up'},
      '--onestep_greeting=x has no effect with --algorithm=impala. Leave it '
      'out, or change --algorithm.',
    ),
    (
      {'algorithm': 'onestep', 'level_name': 'up', 'task': 0},
      '--task=0 has no effect with --algorithm=onestep',
    ),
    ({'algorithm': 'twostep'}, 'Choose one of: impala, .*onestep'),
    ({'level_name': 'upp'}, 'Similar: .*up'),
  ],
)
def test_their_options_are_checked_like_all_others(values, said):
  with pytest.raises(ValueError, match=said):
    check(**values)


def test_the_options_of_all_may_be_used_together():
  check(**OPTIONS)


@pytest.mark.parametrize(
  ('name', 'said'),
  [
    ('nowhere', 'nowhere cannot be imported'),
    ('.nowhere', 'nowhere cannot be imported'),
    ('json', 'json has neither SUITES nor ALGORITHMS'),
    ('tests.plugin,tests.plugin', 'there are two of the suite counting'),
  ],
)
def test_a_plugin_that_adds_nothing_new_is_refused(name, said):
  with pytest.raises(ValueError, match=f'^--plugin=.*{said}'):
    runtimes.make_catalog(name)


@pytest.mark.parametrize(
  'suites', [plugin.Counting(), (plugin.Counting,), 'catch', (None,)]
)
def test_what_a_plugin_adds_is_a_tuple_of_objects(monkeypatch, suites):
  monkeypatch.setattr(plugin, 'SUITES', suites)
  with pytest.raises(
    ValueError, match=r'^--plugin=tests\.plugin: its SUITES is .* of Suite\.$'
  ):
    runtimes.make_catalog('tests.plugin')


@dataclasses.dataclass(frozen=True)
class Clashing:
  """Clashing."""

  task: int = options.option(3, 'Another task.')


@dataclasses.dataclass(frozen=True)
class Dangling:
  """Dangling."""

  dangling: int = options.option(3, 'Three.', idle_with={'nothing': (1,)})


def test_an_option_that_refers_to_none_is_refused():
  algorithm = plugin.OneStep()
  algorithm.options = (Dangling,)
  with pytest.raises(ValueError, match='dangling is idle with nothing, which'):
    options.Catalog(environments.SUITES, [algorithm])


@pytest.mark.parametrize(
  ('kind', 'default', 'declaration', 'said'),
  [
    (tuple, (), {}, r'the option mine is a tuple of default \(\)\.'),
    (int, 'x', {}, "the option mine is a int of default 'x'"),
    (str, 'c', {'choices': ('a', 'b')}, '--mine=c is not known.*: a, b'),
    (int, 3, {'minimum': 5}, '--mine=3 must be at least 5'),
  ],
)
def test_a_default_that_is_none_is_refused(kind, default, declaration, said):
  algorithm = plugin.OneStep()
  mine = options.option(default, 'Mine.', **declaration)
  algorithm.options = (
    dataclasses.make_dataclass('Mine', [('mine', kind, mine)], frozen=True),
  )
  with pytest.raises(ValueError, match=f'^{said}'):
    options.Catalog(environments.SUITES, [algorithm])


@dataclasses.dataclass(frozen=True)
class Anew(options.FrameOptions):
  """Anew."""

  height: int = options.option(64, 'Height with a default of its own.')


def test_an_inherited_option_cannot_be_declared_anew():
  suite = plugin.Counting()
  suite.options = Anew
  with pytest.raises(
    ValueError, match='option height is declared by FrameOptions and by Anew'
  ):
    options.Catalog([*environments.SUITES, suite], [plugin.OneStep()])


@pytest.mark.parametrize('name', ['learning_rte', 'correction'])
def test_a_preset_of_what_presets_do_not_decide_is_refused(name):
  algorithm, suite = plugin.OneStep(), plugin.Counting()
  said = f'^the presets of {{}} have {name}, which is no option that presets'
  suite.defaults = {name: 1}
  with pytest.raises(ValueError, match=said.format('counting')):
    options.Catalog([suite], [algorithm])
  suite.defaults, suite.presets = {}, {'onestep': {'auto': {name: 1}}}
  with pytest.raises(ValueError, match=said.format('counting')):
    options.Catalog([suite], [algorithm])
  suite.presets, algorithm.presets = {}, {'auto': {name: 1}}
  with pytest.raises(ValueError, match=said.format('onestep')):
    options.Catalog([suite], [algorithm])


def test_two_declarations_of_one_option_are_refused():
  algorithm = plugin.OneStep()
  algorithm.options = (Clashing,)
  with pytest.raises(
    ValueError, match='option task is declared by ClusterOptions and by Clash'
  ):
    options.Catalog(environments.SUITES, [algorithm])


@pytest.mark.parametrize('name', ['verbosity', 'helpfull'])
def test_an_option_with_the_name_of_a_librarys_flag_is_refused(name):
  algorithm = plugin.OneStep()
  mine = options.option(1, 'Mine.')
  algorithm.options = (
    dataclasses.make_dataclass('Mine', [(name, int, mine)], frozen=True),
  )
  catalog = options.Catalog(
    environments.SUITES, [*runtimes.ALGORITHMS, algorithm]
  )
  with pytest.raises(
    ValueError, match=f'^the option {name} of a plugin is a flag of absl'
  ):
    experiment._define_flags(catalog)
