"""Presets of published systems, against what the systems themselves say."""

import pytest

from scalable_agent.options import check_given, describe, systems, validate
from tests.configs import CATALOG, SUITES, make_config, resolve

SYSTEMS = systems.SYSTEMS

# What each system has under its own names, with our option.
PUBLISHED = {
  'impala_atari': {
    'unroll': ('unroll_length', 20),
    'batch': ('batch_size', 32),
    'gamma': ('discounting', 0.99),
    'baseline': ('baseline_cost', 0.5),
    'entropy': ('entropy_cost', 0.01),
    'RMSProp momentum': ('momentum', 0),
    'RMSProp epsilon': ('epsilon', 0.01),
    'learning rate': ('learning_rate', 0.0006),
    'decay': ('learning_rate_schedule', 'linear'),
    'clip': ('clip_gradient_norm', 40),
    'frames': ('total_environment_frames', 200e6),
    'grey': ('grayscale', True),
    'repeat': ('num_action_repeats', 4),
    'stack': ('frame_stack', 4),
    'life loss = episode end': ('life_loss_is_terminal', True),
    'width': ('width', 84),
    'height': ('height', 84),
  },
  'impala_dmlab': {
    '--total_environment_frames': ('total_environment_frames', 1e9),
    '--num_actors': ('num_actors', 4),
    'one environment each': ('envs_per_actor', 1),
    '--batch_size': ('batch_size', 2),
    '--unroll_length': ('unroll_length', 100),
    '--num_action_repeats': ('num_action_repeats', 4),
    '--entropy_cost': ('entropy_cost', 0.00025),
    '--baseline_cost': ('baseline_cost', 0.5),
    '--discounting': ('discounting', 0.99),
    '--reward_clipping': ('reward_clipping', 'abs_one'),
    '--width': ('width', 96),
    '--height': ('height', 72),
    '--learning_rate': ('learning_rate', 0.00048),
    '--decay': ('decay', 0.99),
    '--momentum': ('momentum', 0),
    '--epsilon': ('epsilon', 0.1),
  },
  # The command of its README; all else is as above.
  'impala_dmlab30': {
    '--num_actors': ('num_actors', 150),
    '--batch_size': ('batch_size', 32),
    '--entropy_cost': ('entropy_cost', 0.0033391318945337044),
    '--learning_rate': ('learning_rate', 0.00031866995608948655),
    '--total_environment_frames': ('total_environment_frames', 10000000000),
    '--reward_clipping': ('reward_clipping', 'soft_asymmetric'),
    'one environment each': ('envs_per_actor', 1),
    '--unroll_length': ('unroll_length', 100),
    '--num_action_repeats': ('num_action_repeats', 4),
    '--baseline_cost': ('baseline_cost', 0.5),
    '--discounting': ('discounting', 0.99),
    '--width': ('width', 96),
    '--height': ('height', 72),
    '--decay': ('decay', 0.99),
    '--momentum': ('momentum', 0),
    '--epsilon': ('epsilon', 0.1),
  },
  'a3c_ff': {
    'threads': ('num_actors', 16),
    't_max': ('unroll_length', 5),
    'gamma': ('discounting', 0.99),
    'entropy': ('entropy_cost', 0.01),
    'action repeat': ('num_action_repeats', 4),
    'RMSProp alpha': ('decay', 0.99),
    'eta': ('learning_rate', 7e-4),
    'eta -> 0': ('learning_rate_schedule', 'linear'),
    'RMSProp eps': ('epsilon', 0.1),
    'V-gradient x 0.5': ('baseline_cost', 0.5),
    'one g': ('shared_statistics', True),
    '1 day': ('total_environment_frames', 320e6),
  },
  'a3c_lstm': {
    'threads': ('num_actors', 16),
    'LSTM': ('lstm', True),
    '4 days': ('total_environment_frames', 1e9),
  },
  'a2c': {'all workers': ('envs_per_actor', 16), 't_max': ('unroll_length', 5)},
  'ga3c': {
    'AGENTS': ('num_actors', 32),
    'PREDICTORS': ('inference_threads', 2),
    'TRAINERS': ('num_trainers', 2),
    'DYNAMIC_SETTINGS': ('dynamic_settings', True),
    'DYNAMIC_SETTINGS_STEP_WAIT': ('dynamic_settings_step_wait', 20),
    'DYNAMIC_SETTINGS_INITIAL_WAIT': ('dynamic_settings_initial_wait', 10),
    'DISCOUNT': ('discounting', 0.99),
    'TIME_MAX': ('unroll_length', 5),
    'MAX_QUEUE_SIZE': ('queue_capacity', 100),
    'PREDICTION_BATCH_SIZE': ('inference_maximum_batch_size', 128),
    'STACKED_FRAMES': ('frame_stack', 4),
    'IMAGE_WIDTH': ('width', 84),
    'IMAGE_HEIGHT': ('height', 84),
    'EPISODES': ('total_episodes', 400000),
    'ANNEALING_EPISODE_COUNT': ('annealing_episode_count', 400000),
    'BETA_START': ('entropy_cost', 0.01),
    'BETA_END': ('entropy_cost_end', 0.01),
    'LEARNING_RATE_START': ('learning_rate', 0.0003),
    'LEARNING_RATE_END': ('learning_rate_end', 0.0003),
    'RMSPROP_DECAY': ('decay', 0.99),
    'RMSPROP_MOMENTUM': ('momentum', 0),
    'RMSPROP_EPSILON': ('epsilon', 0.1),
    'DUAL_RMSPROP': ('dual_rmsprop', False),
    'USE_GRAD_CLIP': ('clip_gradient_norm', 0),
    'LOG_EPSILON': ('log_epsilon', 1e-6),
    'TRAINING_MIN_BATCH_SIZE': ('training_min_batch_size', 0),
    'MIN_POLICY': ('min_policy', 0),
    'USE_LOG_SOFTMAX': ('use_log_softmax', False),
  },
  'tf_a3c_gpu': {
    'DISCOUNT_FACTOR': ('discounting', 0.99),
    'LEARNING_RATE': ('learning_rate', 0.00025),
    'DECAY': ('decay', 0.99),
    'GRAD_CLIP': ('clip_gradient_norm', 0.1),
    'average norm': ('clip_gradient_by', 'average_norm'),
    'ENTROPY_BETA': ('entropy_cost', 0.01),
    'NUM_THREADS': ('num_actors', 4),
    'AGENT_PER_THREADS': ('envs_per_actor', 64),
    'UNROLL_STEP': ('unroll_length', 5),
    'means': ('loss_reduction', 'mean'),
    'no EpisodicLifeEnv': ('life_loss_is_terminal', False),
    'no NoopResetEnv': ('noop_max', 0),
  },
  'pytorch_a3c': {
    '--lr': ('learning_rate', 0.0001),
    '--gamma': ('discounting', 0.99),
    '--gae-lambda': ('gae_lambda', 1.0),
    '--entropy-coef': ('entropy_cost', 0.01),
    '--value-loss-coef': ('baseline_cost', 0.5),
    '--max-grad-norm': ('clip_gradient_norm', 50),
    '--num-processes': ('num_actors', 4),
    '--num-steps': ('unroll_length', 20),
    '--max-episode-length': ('max_episode_length', 1000000),
    '--no-shared': ('shared_statistics', True),
    'while True': ('total_environment_frames', 1e12),
    'time.sleep(60)': ('evaluation_secs', 60),
    '42 x 42': ('width', 42),
    'LSTM': ('lstm', True),
    'no EpisodicLifeEnv': ('life_loss_is_terminal', False),
    'no NoopResetEnv': ('noop_max', 0),
  },
  'a3c_blocks': {
    '--max_steps': ('total_environment_frames', 4 * 160000000),
    '--batch_size': ('unroll_length', 32),
    '--num_threads': ('num_actors', 16),
    '--resized_width': ('width', 84),
    '--resized_height': ('height', 84),
    '--agent_history_length': ('frame_stack', 4),
    '--learning_rate': ('learning_rate', 0.0007),
    '--gamma_rate': ('discounting', 0.99),
    '--gradient_clipping': ('clip_gradient_norm', 0),
    'AsyncRMSProp decay': ('decay', 0.99),
    'max_scaling 10': ('epsilon', 0.1),
    'beta': ('entropy_cost', 0.01),
    'no schedule': ('learning_rate_schedule', 'constant'),
    'shared_floatx_zeros_matching': ('rmsprop_initial_slot', 0),
    'resize to 0..1': ('normalise_pixels', False),
    'life loss is no terminal state': ('life_loss_is_terminal', False),
    'no NoopResetEnv': ('noop_max', 0),
  },
}


@pytest.mark.parametrize('name', SYSTEMS)
def test_a_preset_has_the_numbers_of_its_system(name):
  system = SYSTEMS[name]
  config = resolve(make_config(preset=name), system.suite)
  assert PUBLISHED.keys() == SYSTEMS.keys()
  for theirs, (option, value) in PUBLISHED[name].items():
    assert option in system.values, theirs
    assert config.values[option] == value, theirs


@pytest.mark.parametrize('name', SYSTEMS)
def test_every_row_has_a_source_and_an_option_that_it_reaches(name):
  system = SYSTEMS[name]
  names = [option for option, _, _ in system.rows]
  assert len(names) == len(set(names))
  config = resolve(make_config(preset=name), system.suite)
  of_suite = SUITES[system.suite].name
  for option, value, source in system.rows:
    assert source, option
    one = CATALOG.options[option]
    one.check(value)
    assert one.fits(value), option
    assert config.values[option] == value, option
    assert system.algorithm in (
      CATALOG.algorithms_of(option) or [system.algorithm]
    ) or (option, value) == ('num_actors', 0), option
    suites = CATALOG.suites_of(option)
    assert of_suite in (suites or [of_suite]), option


@pytest.mark.parametrize('name', SYSTEMS)
def test_a_preset_implies_its_algorithm_and_is_valid(name):
  system = SYSTEMS[name]
  config = resolve(make_config(preset=name), system.suite)
  assert config.run.algorithm == system.algorithm
  validate(config)
  check_given(config, {'preset', 'algorithm'})
  assert f'preset={name}' in describe(config, (), SUITES[system.suite])


@pytest.mark.parametrize('name', SYSTEMS)
def test_a_system_says_itself_what_defaults_of_others_would_spoil(name):
  # A missing row is the option's default, which is IMPALA's.
  names = {
    'unroll_length',
    'discounting',
    'baseline_cost',
    'entropy_cost',
    'optimizer',
    'learning_rate',
    'learning_rate_schedule',
    'epsilon',
    'clip_gradient_norm',
    'network',
    'normalise_pixels',
    'total_environment_frames',
    'frame_stack',
    'width',
    'height',
  }
  assert names <= SYSTEMS[name].values.keys()


def test_a_flag_wins_over_a_system():
  config = resolve(
    make_config(preset='a3c_ff', learning_rate=0.1, lstm=True), 'atari'
  )
  assert config.optimizer.learning_rate == 0.1
  assert config.agent.lstm
  assert config.optimizer.epsilon == 0.1


def test_a_preset_of_another_algorithm_is_refused():
  with pytest.raises(
    ValueError,
    match=r'^--preset=pytorch_a3c is of --algorithm=a3c, not of impala\. Leave',
  ):
    resolve(make_config(preset='pytorch_a3c', algorithm='impala'), 'atari')


def test_a_preset_of_other_levels_is_refused():
  with pytest.raises(
    ValueError,
    match=r'^--preset=ga3c is for levels of the atari suite, and catch is of '
    r'catch\. Choose auto or paper\.$',
  ):
    resolve(make_config(preset='ga3c', level_name='catch'), 'catch')


@pytest.mark.parametrize('algorithm', systems.PAPERS)
def test_the_paper_preset_is_the_system_of_the_algorithms_paper(algorithm):
  name = systems.PAPERS[algorithm]
  paper = resolve(make_config(preset='paper', algorithm=algorithm), 'atari')
  system = resolve(make_config(preset=name), 'atari')
  for option in SYSTEMS[name].values:
    assert paper.values[option] == system.values[option], option
  # What concerns games only is left out elsewhere.
  other = resolve(make_config(preset='paper', algorithm=algorithm), 'catch')
  assert other.agent.network == 'auto'
