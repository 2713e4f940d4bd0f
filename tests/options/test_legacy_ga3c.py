"""GA3C's own command line: every option of its Config.py."""

import pytest

from scalable_agent.options import legacy_ga3c, validate
from tests.configs import CATALOG, make_config, resolve

# Its Config.py, names and defaults.
CONFIG = {
  'ATARI_GAME': 'PongDeterministic-v0',
  'PLAY_MODE': False,
  'TRAIN_MODELS': True,
  'LOAD_CHECKPOINT': False,
  'LOAD_EPISODE': 0,
  'AGENTS': 32,
  'PREDICTORS': 2,
  'TRAINERS': 2,
  'DEVICE': 'gpu:0',
  'DYNAMIC_SETTINGS': True,
  'DYNAMIC_SETTINGS_STEP_WAIT': 20,
  'DYNAMIC_SETTINGS_INITIAL_WAIT': 10,
  'DISCOUNT': 0.99,
  'TIME_MAX': 5,
  'REWARD_MIN': -1,
  'REWARD_MAX': 1,
  'MAX_QUEUE_SIZE': 100,
  'PREDICTION_BATCH_SIZE': 128,
  'STACKED_FRAMES': 4,
  'IMAGE_WIDTH': 84,
  'IMAGE_HEIGHT': 84,
  'EPISODES': 400000,
  'ANNEALING_EPISODE_COUNT': 400000,
  'BETA_START': 0.01,
  'BETA_END': 0.01,
  'LEARNING_RATE_START': 0.0003,
  'LEARNING_RATE_END': 0.0003,
  'RMSPROP_DECAY': 0.99,
  'RMSPROP_MOMENTUM': 0.0,
  'RMSPROP_EPSILON': 0.1,
  'DUAL_RMSPROP': False,
  'USE_GRAD_CLIP': False,
  'GRAD_CLIP_NORM': 40.0,
  'LOG_EPSILON': 1e-6,
  'TRAINING_MIN_BATCH_SIZE': 0,
  'TENSORBOARD': False,
  'TENSORBOARD_UPDATE_FREQUENCY': 1000,
  'SAVE_MODELS': True,
  'SAVE_FREQUENCY': 1000,
  'PRINT_STATS_FREQUENCY': 1,
  'STAT_ROLLING_MEAN_WINDOW': 1000,
  'RESULTS_FILENAME': 'results.txt',
  'NETWORK_NAME': 'network',
  'MIN_POLICY': 0.0,
  'USE_LOG_SOFTMAX': False,
}
# What does not say how a training goes, or has no option.
NO_SETTING = (
  'ATARI_GAME',
  'DEVICE',
  'GRAD_CLIP_NORM',
  'LOAD_CHECKPOINT',
  'LOAD_EPISODE',
  'NETWORK_NAME',
  'PLAY_MODE',
  'SAVE_FREQUENCY',
  'SAVE_MODELS',
  'TENSORBOARD',
  'TENSORBOARD_UPDATE_FREQUENCY',
  'TRAIN_MODELS',
)


def translate(*arguments):
  return legacy_ga3c.translate(arguments)[0]


def test_all_45_options_are_known_with_their_defaults():
  assert len(CONFIG) == 45
  assert {k: v.default for k, v in legacy_ga3c.TABLE.items()} == CONFIG
  assert {k: type(v.default) for k, v in legacy_ga3c.TABLE.items()} == {
    k: type(v) for k, v in CONFIG.items()
  }


def test_what_is_not_given_is_as_in_the_original():
  _, implied = legacy_ga3c.translate([])
  assert implied == {
    'preset': 'paper',
    'level_name': 'PongDeterministic-v0',
    'log_format': 'ga3c',
  }
  config = make_config(algorithm='ga3c', **implied)
  config = resolve(config, 'atari', {'sticky_actions': 0.25})
  validate(config)
  settings = [name for name in CONFIG if name not in NO_SETTING]
  assert len(settings) == 45 - 12
  for name in settings:
    (values,) = [legacy_ga3c.TABLE[name].convert(CONFIG[name], {})]
    assert len(values) == 1, name
    assert config.pick(values) == values, name


@pytest.mark.parametrize('name', [n for n in CONFIG if n not in NO_SETTING])
def test_every_setting_has_an_option_of_its_type(name):
  default = CONFIG[name]
  text = {bool: 'True', int: '7', float: '0.25', str: 'x'}[type(default)]
  values = translate(f'{name}={text}')
  if name == 'USE_GRAD_CLIP':
    assert values.pop('clip_gradient_norm') == 40.0
  ((option, value),) = values.items()
  assert CATALOG.options[option].fits(value)
  CATALOG.make(**{option: value})


def test_a_command_line_of_the_original():
  assert translate(
    'ATARI_GAME=BreakoutDeterministic-v4',
    'TRAINERS=4',
    'DYNAMIC_SETTINGS=',
    'LEARNING_RATE_START=1e-3',
    'NETWORK_NAME=my_net',
    'LOAD_CHECKPOINT=True',
  ) == {
    'level_name': 'BreakoutDeterministic-v4',
    'num_trainers': 4,
    'dynamic_settings': False,
    'learning_rate': 1e-3,
    'logdir': 'logs/my_net',
  }


def test_no_two_settings_are_one_option():
  assert translate(
    'AGENTS=1',
    'PREDICTORS=2',
    'TRAINERS=3',
    'TIME_MAX=4',
    'IMAGE_WIDTH=5',
    'IMAGE_HEIGHT=6',
    'EPISODES=7',
    'ANNEALING_EPISODE_COUNT=8',
    'BETA_START=0.1',
    'BETA_END=0.2',
    'LEARNING_RATE_START=0.3',
    'LEARNING_RATE_END=0.4',
    'RMSPROP_DECAY=0.5',
    'RMSPROP_MOMENTUM=0.6',
    'RMSPROP_EPSILON=0.7',
    'REWARD_MIN=-8',
    'REWARD_MAX=9',
    'DYNAMIC_SETTINGS_STEP_WAIT=10',
    'DYNAMIC_SETTINGS_INITIAL_WAIT=11',
    'LOG_EPSILON=0.12',
    'MIN_POLICY=0.13',
    'PRINT_STATS_FREQUENCY=14',
    'STAT_ROLLING_MEAN_WINDOW=15',
    'MAX_QUEUE_SIZE=16',
    'PREDICTION_BATCH_SIZE=17',
  ) == {
    'num_actors': 1,
    'inference_threads': 2,
    'num_trainers': 3,
    'unroll_length': 4,
    'width': 5,
    'height': 6,
    'total_episodes': 7,
    'annealing_episode_count': 8,
    'entropy_cost': 0.1,
    'entropy_cost_end': 0.2,
    'learning_rate': 0.3,
    'learning_rate_end': 0.4,
    'decay': 0.5,
    'momentum': 0.6,
    'epsilon': 0.7,
    'reward_min': -8.0,
    'reward_max': 9.0,
    'dynamic_settings_step_wait': 10.0,
    'dynamic_settings_initial_wait': 11.0,
    'log_epsilon': 0.12,
    'min_policy': 0.13,
    'print_stats_frequency': 14,
    'stat_rolling_mean_window': 15,
    'queue_capacity': 16,
    'inference_maximum_batch_size': 17,
  }


def test_clipping_is_by_the_norm_that_the_optimizer_had():
  assert translate('USE_GRAD_CLIP=True', 'GRAD_CLIP_NORM=3') == {
    'clip_gradient_norm': 3.0,
    'clip_gradient_by': 'average_norm',
  }
  assert translate('DUAL_RMSPROP=True', 'USE_GRAD_CLIP=True') == {
    'dual_rmsprop': True,
    'clip_gradient_norm': 40.0,
    'clip_gradient_by': 'tensor_norm',
  }
  assert translate('USE_GRAD_CLIP=') == {'clip_gradient_norm': 0.0}
  with pytest.raises(ValueError, match='no effect without USE_GRAD_CLIP=True'):
    translate('USE_GRAD_CLIP=', 'GRAD_CLIP_NORM=3')


@pytest.mark.parametrize(
  ('text', 'value'),
  [
    ('True', True),
    ('true', True),
    ('1', True),
    ('', False),
    ('False', False),
    ('false', False),
    ('0', False),
  ],
)
def test_words_for_true_and_false(text, value):
  assert translate(f'USE_LOG_SOFTMAX={text}') == {'use_log_softmax': value}


def test_what_it_took_for_whole_numbers_may_be_any_here():
  assert translate(
    'REWARD_MIN=-0.5', 'DYNAMIC_SETTINGS_STEP_WAIT=0.25', 'REWARD_MAX=2'
  ) == {
    'reward_min': -0.5,
    'dynamic_settings_step_wait': 0.25,
    'reward_max': 2.0,
  }


def test_a_value_may_have_an_equals_sign():
  assert translate('NETWORK_NAME=a=b') == {'logdir': 'logs/a=b'}


def test_a_batch_has_more_transitions_than_were_asked_for():
  # `while batch_size <= TRAINING_MIN_BATCH_SIZE`.
  assert translate('TRAINING_MIN_BATCH_SIZE=20') == {
    'training_min_batch_size': 21
  }
  assert translate('TRAINING_MIN_BATCH_SIZE=0') == {
    'training_min_batch_size': 0
  }


def test_playing_forces_what_the_original_forced():
  values, implied = legacy_ga3c.translate(
    [
      'PLAY_MODE=True',
      'AGENTS=8',
      'PREDICTORS=3',
      'TRAINERS=3',
      'DYNAMIC_SETTINGS=True',
      'LOAD_CHECKPOINT=',
      'TRAIN_MODELS=',
      'SAVE_MODELS=',
    ]
  )
  assert values == {'mode': 'play'}
  assert 'log_format' not in implied
  # Its player took the most probable action.
  assert implied['test_policy'] == 'greedy'


@pytest.mark.parametrize(
  ('argument', 'message'),
  [
    ('TRAINER=4', r'^TRAINER=4 is no option of GA3C\. Write NAME=VALUE'),
    ('TRAINERS', r'^TRAINERS is no option of GA3C'),
    ('TRAINERS=', r'^TRAINERS= must be a whole number, like 2\.$'),
    ('TRAINERS=2.5', r'must be a whole number'),
    ('DISCOUNT=much', r'^DISCOUNT=much must be a number, like 0\.99\.$'),
    ('PLAY_MODE=yes', r'^PLAY_MODE=yes must be True, or empty for False\.$'),
    ('TRAIN_MODELS=', r'--mode=test'),
    ('LOAD_CHECKPOINT=', r'choose another --logdir'),
    ('LOAD_EPISODE=5000', r'--checkpoint=best'),
    ('TRAINING_MIN_BATCH_SIZE=-2', r'must be at least 0'),
    ('EPISODES=0', r'nothing to learn from\. Make it at least 1'),
    ('DEVICE=cpu:0', r'CUDA_VISIBLE_DEVICES'),
    ('TENSORBOARD_UPDATE_FREQUENCY=10', r'--summary_secs'),
    ('SAVE_MODELS=', r'--save_checkpoint_secs'),
    ('SAVE_FREQUENCY=10', r'--save_checkpoint_secs'),
    ('GRAD_CLIP_NORM=10', r'no effect without USE_GRAD_CLIP=True'),
  ],
)
def test_what_cannot_be_done_is_answered_by_what_can(argument, message):
  with pytest.raises(ValueError, match=message) as raised:
    translate(argument)
  assert '\n' not in str(raised.value)
  assert str(raised.value).startswith(argument.partition('=')[0])


@pytest.mark.parametrize(
  'argument',
  [
    'PLAY_MODE=',
    'TENSORBOARD=True',
    'TENSORBOARD=',
    'TENSORBOARD_UPDATE_FREQUENCY=1000',
    'SAVE_MODELS=True',
    'SAVE_FREQUENCY=1000',
    'LOAD_CHECKPOINT=True',
    'LOAD_EPISODE=0',
    'DEVICE=gpu:0',
  ],
)
def test_what_is_always_done_is_accepted(argument):
  assert translate(argument) == {}
