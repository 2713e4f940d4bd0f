"""Options: checks, presets, JSON, flags."""

import json
import pathlib

import pytest
from absl.testing import flagsaver

import experiment
from scalable_agent import environments
from scalable_agent import options as options_lib
from scalable_agent.suites import atari57
from tests.configs import CATALOG, SUITES, make_config, resolve

# The flags of the 2018 code (scalable_agent, experiment.py).
FLAGS_OF_2018 = {
  'logdir': str,
  'mode': str,
  'test_num_episodes': int,
  'task': int,
  'job_name': str,
  'total_environment_frames': float,
  'num_actors': int,
  'batch_size': int,
  'unroll_length': int,
  'num_action_repeats': int,
  'seed': int,
  'entropy_cost': float,
  'baseline_cost': float,
  'discounting': float,
  'reward_clipping': str,
  'dataset_path': str,
  'level_name': str,
  'width': int,
  'height': int,
  'learning_rate': float,
  'decay': float,
  'momentum': float,
  'epsilon': float,
}


# Of all suites and algorithms; test_systems.py has those of one.
PRESETS = ('auto', 'paper')

SIZES = {'num_actors': 3, 'envs_per_actor': 5, 'batch_size': 5}


def options_of(config):
  return dict(config.values)


class TestValidate:
  def test_the_defaults_are_valid_resolved_or_not(self):
    options_lib.validate(make_config())
    for preset in PRESETS:
      for suite in environments.SUITES:
        options_lib.validate(resolve(make_config(preset=preset), suite))

  @pytest.mark.parametrize(
    'name', [n for n, f in CATALOG.options.items() if f.choices]
  )
  def test_an_unknown_choice_is_answered_with_the_known_ones(self, name):
    choices = ', '.join(CATALOG.options[name].choices)
    with pytest.raises(
      ValueError,
      match=rf'^--{name}=bogus is not known\. Choose one of: {choices}\.$',
    ):
      options_lib.validate(make_config(**{name: 'bogus'}))

  @pytest.mark.parametrize(
    'name',
    [
      n
      for n, f in CATALOG.options.items()
      if f.minimum is not None and f.maximum is None
    ],
  )
  def test_a_value_below_the_minimum_is_answered_with_the_minimum(self, name):
    minimum = CATALOG.options[name].minimum
    for bad in minimum - 1, float('nan'):
      with pytest.raises(
        ValueError, match=rf'^--{name}={bad} must be at least {minimum}\.$'
      ):
        options_lib.validate(make_config(**{name: bad}))
    options_lib.validate(make_config(**{name: minimum}))

  @pytest.mark.parametrize(
    'name', [n for n, f in CATALOG.options.items() if f.maximum == 1]
  )
  def test_a_fraction_lies_between_0_and_1(self, name):
    options_lib.validate(make_config(**{name: 0.0}))
    options_lib.validate(make_config(**{name: 1.0}))
    for bad in 1.01, -0.1, float('nan'):
      with pytest.raises(
        ValueError, match=rf'^--{name}={bad} must lie between 0 and 1\.$'
      ):
        options_lib.validate(make_config(**{name: bad}))

  def test_a_seed_leaves_room_for_those_of_tests(self):
    options_lib.validate(make_config(seed=2_000_000_000))
    with pytest.raises(
      ValueError, match=r'^--seed=2000000001 must lie between 0 and 2000000000'
    ):
      options_lib.validate(make_config(seed=2_000_000_001))

  @pytest.mark.parametrize(
    'name', [n for n, f in CATALOG.options.items() if f.kind is int]
  )
  def test_whole_numbers_fit_into_31_bits(self, name):
    with pytest.raises(
      ValueError, match=rf'^--{name}=2147483648 must .* 2000000000\.$'
    ):
      options_lib.validate(make_config(**{name: 2**31}))

  @pytest.mark.parametrize('name', ['learning_rate', 'epsilon'])
  @pytest.mark.parametrize('bad', [0.0, -1e-3, float('nan')])
  def test_what_must_be_positive_is(self, name, bad):
    with pytest.raises(
      ValueError, match=rf'^--{name}={bad} must be greater than 0\.$'
    ):
      options_lib.validate(make_config(**{name: bad}))

  @pytest.mark.parametrize(
    'name',
    [
      'total_environment_frames',
      'learning_rate',
      'epsilon',
      'baseline_cost',
      'summary_secs',
    ],
  )
  def test_an_infinite_number_is_refused(self, name):
    with pytest.raises(ValueError, match=rf'^--{name}=inf must be finite\.$'):
      options_lib.validate(make_config(**{name: float('inf')}))

  @pytest.mark.parametrize(
    ('options', 'message'),
    [
      (
        {'task': 2, 'num_learners': 2},
        r'^--task=2 is no learner of --num_learners=2, .*Lower --task or raise',
      ),
      (
        {'task': 3, 'job_name': 'actor', 'num_actors': 3},
        r'^--task=3 is no actor of --num_actors=3, .*raise --num_actors\.$',
      ),
      (
        {'task': 0, 'num_actors': 0},
        r'^--num_actors=0 is serial mode, .*leave --task and',
      ),
      (
        {'task': 0, 'num_actors': 1, 'num_learners': 2},
        r'^--num_actors=1 leaves some of --num_learners=2 without .*Raise the',
      ),
      (
        {'learner_address': 'slurm', 'num_actors': 0},
        r'^--num_actors=0 is serial mode',
      ),
      (
        {'batch_size': 8, 'num_learners': 2, 'learner_devices': 3},
        r'^--batch_size=8 .*--num_learners=2 times --learner_devices=3\. '
        r'Make it a multiple of 6\.$',
      ),
      ({'env_processes': 2}, r'^--env_processes=2 must be 0 .* or 1 '),
      (
        {
          'inference_minimum_batch_size': 9,
          'inference_maximum_batch_size': 8,
        },
        r'^--inference_minimum_batch_size=9 exceeds '
        r'--inference_maximum_batch_size=8\.$',
      ),
      (
        {'num_actors': 0, 'envs_per_actor': 5, 'batch_size': 6},
        r'^--batch_size=6 cannot be filled: --num_actors=0 with '
        r'--envs_per_actor=5 gives 5 .*Lower the batch size, raise --envs_per_'
        r'actor, or .*--num_actors=1\.$',
      ),
      (
        SIZES | {'inference_maximum_batch_size': 4},
        r'^--inference_maximum_batch_size=4 has no room for the 5 rows .*'
        r'\(--envs_per_actor=5\)\. Raise it or lower the other\.$',
      ),
      (
        SIZES | {'inference_minimum_batch_size': 16},
        r'^--inference_minimum_batch_size=16 cannot be reached: '
        r'--num_actors=3 with --envs_per_actor=5 give 15 .*Lower it or raise',
      ),
    ],
  )
  def test_options_that_do_not_go_together_are_refused(self, options, message):
    with pytest.raises(ValueError, match=message):
      options_lib.validate(make_config(**options))

  @pytest.mark.parametrize(
    'options',
    [
      # Threads fill a batch in several rounds.
      {'num_actors': 3, 'envs_per_actor': 5, 'batch_size': 1000},
      {'num_actors': 0, 'envs_per_actor': 5, 'batch_size': 5},
      {'num_actors': 3, 'batch_size': 10**6},  # Unresolved: not known yet.
      SIZES | {'inference_maximum_batch_size': 5},
      SIZES | {'inference_minimum_batch_size': 15},
      # No batcher, and nothing that could be raised.
      SIZES | {'envs_per_actor': 2000, 'batcher': 'none'},
      SIZES | {'envs_per_actor': 2000, 'algorithm': 'a3c'},
      SIZES | {'num_actors': 0, 'inference_maximum_batch_size': 1},
      {'batch_size': 12, 'num_learners': 2, 'learner_devices': 3},
      # Actors of other processes fill a batch in several rounds.
      SIZES | {'task': 0, 'batch_size': 10**6},
      SIZES | {'task': 0, 'inference_maximum_batch_size': 1},
      SIZES | {'learner_address': 'slurm', 'batch_size': 10**6},
      {'task': 7, 'job_name': 'actor'},
    ],
  )
  def test_options_that_do_go_together_pass(self, options):
    options_lib.validate(make_config(**options))


def test_a_name_of_no_option_is_refused():
  with pytest.raises(ValueError, match=r'^unknown options: sede$'):
    make_config(sede=1)


OF_A_CLUSTER = (
  'num_learners',
  'learner_address',
  'listen_address',
  'cluster_token_file',
  'insecure_loopback',
  'tls_certificate',
  'tls_key',
  'tls_authority',
  'tls_name',
  'cluster_proxy',
  'reconnect_timeout',
  'actor_timeout',
  'inference',
)
OF_SHARED_INFERENCE = (
  'batcher',
  'inference_minimum_batch_size',
  'inference_maximum_batch_size',
  'inference_timeout_ms',
  'inference_threads',
)


class TestCheckGiven:
  @pytest.mark.parametrize(
    ('name', 'owner', 'value'),
    [
      ('checkpoint', 'mode', 'train'),
      ('test_num_episodes', 'mode', 'train'),
      ('test_policy', 'mode', 'train'),
      ('video_dir', 'mode', 'train'),
      ('decay', 'optimizer', 'adam'),
      ('momentum', 'optimizer', 'adam'),
      ('rmsprop_initial_slot', 'optimizer', 'adam'),
      ('clip_gradient_by', 'clip_gradient_norm', 0.0),
      ('clip_rho_threshold', 'correction', 'one_step_is'),
      ('clip_rho_threshold', 'correction', 'epsilon'),
      ('clip_rho_threshold', 'correction', 'none'),
      ('clip_pg_rho_threshold', 'correction', 'epsilon'),
      ('clip_pg_rho_threshold', 'correction', 'none'),
      ('queue_capacity', 'num_actors', 0),
      ('batcher', 'num_actors', 0),
      ('inference_minimum_batch_size', 'num_actors', 0),
      ('inference_maximum_batch_size', 'num_actors', 0),
      ('inference_timeout_ms', 'num_actors', 0),
      *((name, 'task', -1) for name in OF_A_CLUSTER),
      *((name, 'inference', 'actor') for name in OF_SHARED_INFERENCE),
      *((name, 'batcher', 'none') for name in OF_SHARED_INFERENCE[1:]),
    ],
  )
  def test_what_was_set_without_effect_is_refused(self, name, owner, value):
    # The owner itself may mean nothing on a single machine.
    place = {'task': 0} if owner == 'inference' else {}
    config = resolve(make_config(**place, **{owner: value}), 'catch')
    options_lib.check_given(config, {owner})
    with pytest.raises(
      ValueError,
      match=rf'^--{name}={config.values[name]} has no effect with '
      rf'--{owner}={value}\. Leave it out, or change --{owner}\.$',
    ):
      options_lib.check_given(config, {name})

  def test_what_has_an_effect_passes(self):
    config = make_config(mode='test', optimizer='rmsprop')
    config = resolve(config, 'catch')
    of_others = {
      name
      for name in CATALOG.options
      if 'impala' not in (CATALOG.algorithms_of(name) or ['impala'])
    }
    options_lib.check_given(
      config, CATALOG.options.keys() - {*OF_A_CLUSTER} - of_others
    )
    cluster = config.replace(task=0)
    options_lib.check_given(cluster, OF_A_CLUSTER)
    config = config.replace(correction='one_step_is')
    options_lib.check_given(config, {'clip_pg_rho_threshold'})

  @pytest.mark.parametrize('inference', ['auto', 'learner'])
  @pytest.mark.parametrize('task', [-1, 0])
  def test_a_learner_that_acts_has_a_batcher(self, task, inference):
    config = resolve(make_config(task=task, inference=inference), 'catch')
    options_lib.check_given(config, OF_SHARED_INFERENCE)


class TestClusterOptions:
  @pytest.mark.parametrize(
    ('values', 'message'),
    [
      (
        {'insecure_loopback': True, 'cluster_token_file': '/a'},
        r'^--insecure_loopback does without the secret in '
        r'--cluster_token_file=/a\. Leave one of them out\.$',
      ),
      (
        {'tls_certificate': '/a'},
        r'^--tls_certificate=/a and --tls_key= belong together\. Give both',
      ),
      (
        {'tls_key': '/a', 'tls_authority': '/b'},
        r'^--tls_certificate= and --tls_key=/a belong together',
      ),
      # Nothing would be encrypted.
      ({'tls_authority': '/a'}, r'^--tls_authority=/a is of no use to a learn'),
      (
        {'tls_certificate': '/a', 'tls_key': '/b', 'job_name': 'actor'},
        r'^--tls_certificate=/a is of no use to an actor without --tls_auth',
      ),
      (
        {'tls_name': 'a', 'job_name': 'actor'},
        r'^--tls_name=a is of no use to an actor without --tls_authority',
      ),
      (
        {
          'tls_certificate': '/a',
          'tls_key': '/b',
          'num_learners': 2,
          'learner_address': 'a:1,b:1',
        },
        r'^--tls_certificate=/a with --num_learners=2 needs --tls_authority',
      ),
    ],
  )
  def test_what_contradicts_itself_is_refused(self, values, message):
    with pytest.raises(ValueError, match=message):
      options_lib.validate(make_config(task=0, **values))

  @pytest.mark.parametrize(
    'values',
    [
      {},
      {'insecure_loopback': True},
      {'cluster_token_file': '/a'},
      {'tls_authority': '/a', 'job_name': 'actor', 'num_actors': 1},
      {'tls_certificate': '/a', 'tls_key': '/b'},
      {'tls_certificate': '/a', 'tls_key': '/b', 'tls_authority': '/c'},
    ],
  )
  def test_what_does_not_passes(self, values):
    options_lib.validate(make_config(task=0, **values))

  def test_as_long_as_slurm_has_not_said_who_one_is_either_half_passes(self):
    for values in (
      {'tls_authority': '/a'},
      {'tls_certificate': '/a', 'tls_key': '/b', 'num_learners': 2},
    ):
      config = make_config(learner_address='slurm', **values)
      options_lib.validate(config)
      with pytest.raises(ValueError, match=r'of no use|needs --tls_auth'):
        options_lib.validate(config.replace(task=0))

  def test_no_secret_and_no_place_is_compared_or_has_to_be_the_same(self):
    config = resolve(make_config(task=0), 'catch')
    for name in OF_A_CLUSTER:
      compared = name in config.acting()
      assert compared == (name in ('num_learners', 'inference'))
      assert (name in config.learning()) == compared

  def test_who_acts_is_the_learners_to_say(self):
    """An actor's own is the same, or left open."""
    config = resolve(make_config(task=0), 'catch')
    assert config.acting()['inference'] == 'auto'
    with pytest.raises(ValueError, match='--inference=both is not known'):
      options_lib.validate(make_config(inference='both'))


class TestResolve:
  @pytest.mark.parametrize('preset', PRESETS)
  @pytest.mark.parametrize('suite', ['atari', 'gymnasium', 'catch'])
  def test_nothing_stays_unset(self, preset, suite):
    config = resolve(make_config(preset=preset), suite)
    unset = {n for n, v in options_of(config).items() if v is None}
    assert not unset

  def test_games_on_a_small_machine_have_the_smallest_net_by_name(self):
    assert resolve(make_config(), 'atari').agent.network == 'shallow'
    for preset in PRESETS:
      for suite in 'gymnasium', 'catch':
        config = resolve(make_config(preset=preset), suite)
        assert config.agent.network == 'auto'

  def test_what_the_user_says_wins(self):
    given = {
      name: 0 if name == 'num_actors' else 1.0
      for name, one in CATALOG.options.items()
      if one.by_preset and one.kind in (int, float)
    }
    given |= {'logdir': 'mine', 'sticky_actions': 0.5}
    config = resolve(
      make_config(**given), 'atari', {'sticky_actions': 0.25, 'lambda_': 0.7}
    )
    assert {n: config.values[n] for n in given} == given

  @pytest.mark.parametrize(
    ('preset', 'cores', 'shape'),
    [
      ('auto', 1, (2, 32)),
      ('auto', 2, (2, 32)),
      ('auto', 3, (2, 32)),
      ('auto', 4, (4, 16)),
      ('auto', 8, (8, 8)),
      ('auto', 64, (8, 8)),
      ('paper', 2, (3, 32)),
      ('paper', 4, (4, 24)),
      ('paper', 64, (8, 12)),
    ],
  )
  def test_actors_follow_the_cores_and_environments_stay(
    self, preset, cores, shape
  ):
    suite = SUITES['vizdoom']  # Of which those of one actor have one thread.
    config = resolve(make_config(preset=preset), suite)
    total = config.actors.num_actors * config.actors.envs_per_actor
    config = options_lib.follow_cores(config, suite, set(), cores)
    actors = config.actors
    assert (actors.num_actors, actors.envs_per_actor) == shape
    assert actors.num_actors * actors.envs_per_actor == total

  @pytest.mark.parametrize(
    ('options', 'cores', 'shape'),
    [
      ({}, 1, (2, 32, 1)),
      ({}, 2, (2, 32, 1)),
      ({}, 4, (2, 32, 2)),
      ({}, 8, (2, 32, 4)),
      ({}, 16, (2, 32, 8)),
      ({}, 64, (2, 32, 32)),
      ({}, 256, (2, 32, 32)),
      ({'preset': 'paper'}, 16, (3, 32, 6)),
      ({'num_actors': 0}, 2, (0, 32, 2)),
      ({'num_actors': 5}, 4, (5, 32, 1)),
      ({'algorithm': 'a2c'}, 4, (0, 16, 4)),
      ({'algorithm': 'a3c'}, 4, (4, 16, 1)),
      ({'algorithm': 'a3c'}, 16, (8, 16, 2)),
      ({'algorithm': 'ga3c'}, 64, (4, 16, 16)),
    ],
  )
  @pytest.mark.parametrize(
    ('suite', 'name'),
    [('atari', 'emulator_threads'), ('envpool_atari', 'envpool_threads')],
  )
  def test_threads_of_emulators_follow_the_cores_and_actors_stay(
    self, options, cores, shape, suite, name
  ):
    config = resolve(make_config(**options), suite)
    config = options_lib.follow_cores(config, SUITES[suite], options, cores)
    actors = config.actors
    assert (
      actors.num_actors,
      actors.envs_per_actor,
      config.values[name],
    ) == shape

  @pytest.mark.parametrize(
    ('preset', 'cores', 'shape'),
    [('pytorch_a3c', 64, (4, 1, 1)), ('tf_a3c_gpu', 16, (4, 64, 4))],
  )
  def test_threads_of_emulators_follow_the_cores_also_in_published_systems(
    self, preset, cores, shape
  ):
    config = resolve(make_config(preset=preset), 'atari')
    config = options_lib.follow_cores(config, SUITES['atari'], (), cores)
    actors, values = config.actors, config.values
    assert (
      actors.num_actors,
      actors.envs_per_actor,
      values['emulator_threads'],
    ) == shape

  def test_threads_of_emulators_are_those_that_the_user_says(self):
    config = resolve(make_config(emulator_threads=3), 'atari')
    followed = options_lib.follow_cores(
      config, SUITES['atari'], {'emulator_threads'}, 16
    )
    assert followed == config

  @pytest.mark.parametrize(
    ('options', 'cores', 'shape'),
    [
      ({'algorithm': 'a3c'}, 1, (2, 16)),
      ({'algorithm': 'a3c'}, 4, (4, 16)),
      ({'algorithm': 'a3c'}, 64, (8, 16)),
      ({'algorithm': 'a3c', 'preset': 'paper'}, 64, (16, 1)),
      ({'algorithm': 'ga3c'}, 64, (4, 16)),
      ({'algorithm': 'a2c'}, 64, (0, 16)),
      ({'preset': 'tf_a3c_gpu'}, 64, (4, 64)),
      ({'preset': 'pytorch_a3c'}, 64, (4, 1)),
    ],
  )
  def test_cores_do_not_change_what_an_update_learns_from(
    self, options, cores, shape
  ):
    config = resolve(make_config(**options), 'atari')
    followed = options_lib.follow_cores(config, SUITES['atari'], (), cores)
    actors = followed.actors
    assert (actors.num_actors, actors.envs_per_actor) == shape

  @pytest.mark.parametrize(
    ('suite', 'given'),
    [
      ('vizdoom', {'num_actors'}),
      ('vizdoom', {'envs_per_actor'}),
      ('envpool', {'num_actors'}),
      ('catch', set()),
      ('envpool_classic', set()),
      ('gymnasium', set()),
    ],
  )
  def test_cores_do_not_change_what_the_user_set_or_python_environments(
    self, suite, given
  ):
    config = resolve(make_config(), suite)
    followed = options_lib.follow_cores(config, SUITES[suite], given, 16)
    assert followed == config

  def test_cores_do_not_end_serial_mode(self):
    suite = SUITES['vizdoom']
    config = resolve(make_config(), suite).replace(num_actors=0)
    assert options_lib.follow_cores(config, suite, (), 16) == config

  def test_what_the_level_implies_wins_over_the_preset(self):
    config = resolve(
      make_config(), 'atari', {'sticky_actions': 0.25, 'num_action_repeats': 3}
    )
    assert config.values['sticky_actions'] == 0.25
    assert config.values['num_action_repeats'] == 3

  def test_the_paper_preset_is_table_g1(self):
    config = resolve(make_config(preset='paper'), 'atari')
    expected = {
      'network': 'nature',
      'batch_size': 32,
      'unroll_length': 20,
      'discounting': 0.99,
      'baseline_cost': 0.5,
      'entropy_cost': 0.01,
      'optimizer': 'rmsprop',
      'learning_rate': 6e-4,
      'learning_rate_schedule': 'linear',
      'momentum': 0.0,
      'epsilon': 0.01,
      'clip_gradient_norm': 40.0,
      'total_environment_frames': 200e6,
      'width': 84,
      'height': 84,
      'grayscale': True,
      'frame_stack': 4,
      'num_action_repeats': 4,
      'reward_clipping': 'abs_one',
      'life_loss_is_terminal': True,
      'noop_max': 30,
      'correction': 'vtrace',
      'clip_rho_threshold': 1.0,
      'clip_pg_rho_threshold': 1.0,
      'lambda_': 1.0,
    }
    assert {n: config.values[n] for n in expected} == expected

  @pytest.mark.parametrize(
    ('level_name', 'folder'),
    [
      ('pong', 'pong'),
      ('ALE/Pong-v5', 'ALE_Pong-v5'),
      ('my.module:Env-v0', 'my.module_Env-v0'),
      ('pong,ALE/Breakout-v5', 'pong+ALE_Breakout-v5'),
      ('atari57', 'atari57'),
    ],
  )
  def test_the_folder_has_the_name_of_the_level(self, level_name, folder):
    config = resolve(make_config(level_name=level_name), 'catch')
    assert pathlib.Path(config.run.logdir) == pathlib.Path('logs') / folder

  def test_long_lists_have_short_folders_of_their_own(self):
    games = ','.join(atari57.GAMES)
    folders = {
      pathlib.Path(resolve(make_config(level_name=name), 'atari').run.logdir)
      for name in (games, f'{games},tetris')
    }
    assert len(folders) == 2
    for folder in folders:
      assert folder.name.startswith('alien+amidar+assault+')
      assert len(folder.name) < 100


class TestFromDict:
  def test_comes_back_as_it_was(self):
    for config in (
      make_config(),
      resolve(make_config(seed=7, lstm=True, decay=0.5), 'atari'),
    ):
      values = json.loads(json.dumps(options_of(config)))
      assert options_lib.from_dict(CATALOG, values) == config

  def test_unknown_options_are_named(self):
    with pytest.raises(ValueError, match=r'^unknown options: alpha, beta$'):
      options_lib.from_dict(CATALOG, {'beta': 1, 'seed': 3, 'alpha': 2})

  @pytest.mark.parametrize('value', [{'colour': 1}, {'algorithm': 'colour'}])
  def test_what_a_plugin_knows_is_asked_of_it(self, value):
    with pytest.raises(
      ValueError, match=r'^unknown options: .*colour.* --plugin=mine: give it'
    ):
      options_lib.from_dict(CATALOG, {'plugin': 'mine'} | value)

  @pytest.mark.parametrize(
    ('name', 'value'),
    [
      ('envs_per_actor', 'four'),
      ('envs_per_actor', 4.0),
      ('envs_per_actor', True),
      ('lstm', 1),
      ('discounting', '0.99'),
      ('logdir', 3),
      # The preset may leave some open, but not these.
      ('seed', None),
    ],
  )
  def test_values_of_another_type_are_named(self, name, value):
    with pytest.raises(ValueError, match=f'^{name} cannot be {value!r}$'):
      options_lib.from_dict(CATALOG, {name: value})

  def test_a_number_without_a_point_is_a_float(self):
    config = options_lib.from_dict(CATALOG, {'discounting': 1})
    assert config.of(options_lib.LossOptions).discounting == 1

  def test_values_are_validated(self):
    with pytest.raises(ValueError, match=r'^--unroll_length=0 must be '):
      options_lib.from_dict(CATALOG, {'unroll_length': 0})

  @pytest.mark.parametrize('values', [[1], 3, None])
  def test_anything_but_an_object_is_refused(self, values):
    with pytest.raises(ValueError, match='JSON object'):
      options_lib.from_dict(CATALOG, values)


class TestForTest:
  TRAINED = make_config(
    level_name='catch',
    logdir='where/it/was',
    network='mlp',
    lstm=True,
    seed=3,
    checkpoint='best',
    test_num_episodes=99,
  )

  def test_the_agent_is_the_trained_one(self):
    config = options_lib.for_test(
      make_config(mode='test', logdir='here'), self.TRAINED, {'mode', 'logdir'}
    )
    assert config.run.mode == 'test'
    assert config.run.logdir == 'here'
    for name in 'level_name', 'network', 'lstm', 'seed':
      assert config.values[name] == self.TRAINED.values[name]

  def test_how_to_test_is_never_taken_from_the_training(self):
    config = options_lib.for_test(make_config(mode='test'), self.TRAINED, set())
    assert config.test.test_num_episodes == make_config().test.test_num_episodes
    assert config.test.checkpoint == 'newest'

  def test_where_to_test_is_never_taken_from_the_training(self):
    config = make_config(mode='test', logdir='here')
    config = options_lib.for_test(config, self.TRAINED, set())
    assert (config.run.mode, config.run.logdir) == ('test', 'here')

  def test_what_a_test_may_choose_is_taken_from_the_user(self):
    given = {'seed': 8, 'checkpoint': 'best', 'envs_per_actor': 2}
    config = options_lib.for_test(
      make_config(mode='test', **given), self.TRAINED, given.keys()
    )
    assert {n: config.values[n] for n in given} == given

  def test_what_contradicts_the_training_is_refused_all_at_once(self):
    given = {'network': 'deep', 'lstm': False, 'level_name': 'catch'}
    with pytest.raises(
      ValueError,
      match=r'^--logdir=here .* --lstm=False \(trained with True\), '
      r'--network=deep \(trained with mlp\)\. Leave them out, or name another',
    ):
      options_lib.for_test(
        make_config(mode='test', logdir='here', **given),
        self.TRAINED,
        given.keys(),
      )

  def test_a_plugin_of_the_training_is_asked_for(self):
    trained = self.TRAINED.replace(plugin='mine')
    with pytest.raises(
      ValueError, match=r'^--logdir=here .* --plugin=mine: give it again\.$'
    ):
      options_lib.for_test(
        make_config(mode='test', logdir='here'), trained, {'mode', 'logdir'}
      )

  def test_repeating_what_was_trained_is_no_contradiction(self):
    options_lib.for_test(
      make_config(mode='test', network='mlp'), self.TRAINED, {'network'}
    )


def test_describe_marks_what_the_user_set():
  config = make_config(level_name='catch', seed=5, total_environment_frames=2e7)
  config = resolve(config, 'catch')
  text = options_lib.describe(
    config, {'level_name', 'seed'}, environments.SUITES[0]
  )
  assert 'level_name=catch*' in text
  assert 'seed=5*' in text
  assert f'unroll_length={config.actors.unroll_length} ' in text
  assert 'total_environment_frames=20000000 ' in text


def described(level_name, **options):
  """What a user reads at the start of a training."""
  level = environments.parse_level(level_name)
  config = make_config(level_name=level_name, **options)
  config = resolve(config, level.suite, level.options)
  return options_lib.describe(config, {'level_name', *options}, level.suite)


@pytest.mark.parametrize(
  ('level_name', 'shown'),
  [
    ('catch', 'level_name=catch* frame_stack=1'),
    (
      'CartPole-v1',
      'level_name=CartPole-v1* num_action_repeats=1 frame_stack=1',
    ),
    (
      'pong',
      'level_name=pong* num_action_repeats=4 height=84 width=84 frame_stack=4 '
      'sticky_actions=0 noop_max=30 life_loss_is_terminal=True',
    ),
  ],
)
def test_describe_shows_what_concerns_the_level(level_name, shown):
  line = described(level_name).splitlines()[1]
  assert line.removeprefix('  level:').strip() == shown


@pytest.mark.parametrize(
  ('level_name', 'options', 'shown'),
  [
    ('SpaceInvadersDeterministic-v4', {}, 'num_action_repeats=3 '),
    (
      'SpaceInvadersDeterministic-v4',
      {'num_action_repeats': 2},
      'num_action_repeats=2* ',
    ),
    ('ALE/Pong-v5', {}, 'sticky_actions=0.25 '),
    ('ALE/Pong-v5', {'sticky_actions': 0.5}, 'sticky_actions=0.5* '),
    ('pong', {'preset': 'paper'}, 'num_action_repeats=4 '),
    (
      'SpaceInvadersDeterministic-v4',
      {'preset': 'paper'},
      'num_action_repeats=3 ',
    ),
  ],
)
def test_a_flag_wins_over_the_level_and_the_level_over_the_preset(
  level_name, options, shown
):
  assert shown in described(level_name, **options)


class TestFlags:
  def test_every_field_is_a_flag_with_the_same_default(self):
    for name, field in CATALOG.options.items():
      assert experiment.FLAGS[name].default == field.flag_default, name
      assert field.help in experiment.FLAGS[name].help, name

  def test_every_flag_is_a_field(self):
    flags = experiment.FLAGS.flags_by_module_dict()
    (own,) = [f for m, f in flags.items() if m.endswith('experiment.py')] or [
      flags['experiment']
    ]
    aliases = [
      alias for one in CATALOG.options.values() for alias in one.aliases
    ]
    assert len(aliases) == len(set(aliases)) > 1
    assert {f.name for f in own} == {*CATALOG.options, *aliases}

  @pytest.mark.parametrize(
    ('alias', 'name'),
    [('num_agents', 'num_actors'), ('time_max', 'unroll_length')],
  )
  def test_another_name_of_a_flag_sets_the_option(self, alias, name):
    flags = experiment.FLAGS
    with flagsaver.flagsaver():
      flags(['experiment.py', f'--{alias}=7'])
      assert flags[name].value == 7
      assert flags[name].present

  def test_every_field_has_a_help_text(self):
    for name, field in CATALOG.options.items():
      text = field.help
      assert len(text) > 8, name
      assert text.endswith('.'), name

  @pytest.mark.parametrize('name', FLAGS_OF_2018)
  def test_the_flag_of_2018_is_still_there_with_its_type(self, name):
    flag = experiment.FLAGS[name]
    kind = FLAGS_OF_2018[name]
    sample = {int: '3', float: '0.25', str: 'x'}[kind]
    choices = CATALOG.options[name].choices
    sample = choices[-1] if choices else sample
    assert flag.parser.parse(sample) == kind(sample)

  def test_there_were_23_flags_in_2018(self):
    assert len(FLAGS_OF_2018) == 23

  @pytest.mark.parametrize(
    ('name', 'value'),
    [
      ('mode', 'train'),
      ('test_num_episodes', 10),
      ('task', -1),
      ('job_name', 'learner'),
      ('seed', 1),
      ('reward_clipping', 'abs_one'),
      ('decay', 0.99),
      ('momentum', 0.0),
    ],
  )
  def test_the_defaults_of_2018_that_are_still_those(self, name, value):
    assert CATALOG.options[name].default == value
    for suite in ('atari', 'gymnasium'):
      assert resolve(make_config(), suite).values[name] == value

  def test_the_choices_of_2018_are_still_there(self):
    for name, choices in (
      ('mode', {'train', 'test'}),
      ('job_name', {'learner', 'actor'}),
      ('reward_clipping', {'abs_one', 'soft_asymmetric'}),
    ):
      assert choices <= set(CATALOG.options[name].choices)
