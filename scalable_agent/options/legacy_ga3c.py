"""GA3C's own command line, NAME=VALUE, in options of this package.

  python experiment.py --algorithm=ga3c -- ATARI_GAME=PongDeterministic-v4

One table: every option of its Config.py, and what it is here.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Values = dict[str, Any]
# Of its options, those that were given to those of this package. Raises
# ValueError with what to do instead.
_Conversion = Callable[[Any, Mapping[str, Any]], Values]


class Legacy(NamedTuple):
  """One of its options.

  Attributes:
    default: that of Config.py; values are of its type.
    convert: from the value, and all that were given, to options.
  """

  default: Any
  convert: _Conversion


def _to(name: str) -> _Conversion:
  return lambda value, given: {name: value}


def _nothing(value: Any, given: Mapping[str, Any]) -> Values:
  """What it asks for is always done."""
  return {}


def _at_least_one_more(value: int, given: Mapping[str, Any]) -> Values:
  """It went on while the transitions were not more than so many."""
  if value < 0:
    raise ValueError('it must be at least 0')
  return {'training_min_batch_size': value + 1 if value else 0}


def _only(wanted: Any, otherwise: str) -> _Conversion:
  def convert(value: Any, given: Mapping[str, Any]) -> Values:
    if value != wanted:
      raise ValueError(otherwise)
    return {}

  return convert


def _episodes(value: int, given: Mapping[str, Any]) -> Values:
  if value < 1:
    raise ValueError('there is nothing to learn from. Make it at least 1')
  return {'total_episodes': value}


def _play(value: bool, given: Mapping[str, Any]) -> Values:
  return {'mode': 'play'} if value else {}


def _clip(value: bool, given: Mapping[str, Any]) -> Values:
  if not value:
    return {'clip_gradient_norm': 0.0}
  dual = given.get('DUAL_RMSPROP', False)
  return {
    'clip_gradient_norm': given.get('GRAD_CLIP_NORM', 40.0),
    'clip_gradient_by': 'tensor_norm' if dual else 'average_norm',
  }


def _clip_norm(value: float, given: Mapping[str, Any]) -> Values:
  if not given.get('USE_GRAD_CLIP'):
    raise ValueError('it has no effect without USE_GRAD_CLIP=True. Add that')
  return {}


TABLE: dict[str, Legacy] = {
  'ATARI_GAME': Legacy('PongDeterministic-v0', _to('level_name')),
  'PLAY_MODE': Legacy(False, _play),
  'TRAIN_MODELS': Legacy(
    True, _only(True, 'an agent that does not learn is one of --mode=test')
  ),
  'LOAD_CHECKPOINT': Legacy(
    False,
    _only(
      True,
      'a run always goes on from the newest checkpoint of its --logdir. To '
      'begin anew, choose another --logdir and leave this out',
    ),
  ),
  'LOAD_EPISODE': Legacy(
    0,
    _only(
      0,
      'checkpoints are not kept for all episodes. The newest is loaded; '
      '--mode=test --checkpoint=best plays the best',
    ),
  ),
  'AGENTS': Legacy(32, _to('num_actors')),
  'PREDICTORS': Legacy(2, _to('inference_threads')),
  'TRAINERS': Legacy(2, _to('num_trainers')),
  'DEVICE': Legacy(
    'gpu:0',
    _only(
      'gpu:0',
      'a GPU is used where there is one. Set the environment variable '
      'CUDA_VISIBLE_DEVICES to choose another, or to -1 for none',
    ),
  ),
  'DYNAMIC_SETTINGS': Legacy(True, _to('dynamic_settings')),
  'DYNAMIC_SETTINGS_STEP_WAIT': Legacy(20, _to('dynamic_settings_step_wait')),
  'DYNAMIC_SETTINGS_INITIAL_WAIT': Legacy(
    10, _to('dynamic_settings_initial_wait')
  ),
  'DISCOUNT': Legacy(0.99, _to('discounting')),
  'TIME_MAX': Legacy(5, _to('unroll_length')),
  'REWARD_MIN': Legacy(-1, _to('reward_min')),
  'REWARD_MAX': Legacy(1, _to('reward_max')),
  'MAX_QUEUE_SIZE': Legacy(100, _to('queue_capacity')),
  'PREDICTION_BATCH_SIZE': Legacy(128, _to('inference_maximum_batch_size')),
  'STACKED_FRAMES': Legacy(4, _to('frame_stack')),
  'IMAGE_WIDTH': Legacy(84, _to('width')),
  'IMAGE_HEIGHT': Legacy(84, _to('height')),
  'EPISODES': Legacy(400_000, _episodes),
  'ANNEALING_EPISODE_COUNT': Legacy(400_000, _to('annealing_episode_count')),
  'BETA_START': Legacy(0.01, _to('entropy_cost')),
  'BETA_END': Legacy(0.01, _to('entropy_cost_end')),
  'LEARNING_RATE_START': Legacy(3e-4, _to('learning_rate')),
  'LEARNING_RATE_END': Legacy(3e-4, _to('learning_rate_end')),
  'RMSPROP_DECAY': Legacy(0.99, _to('decay')),
  'RMSPROP_MOMENTUM': Legacy(0.0, _to('momentum')),
  'RMSPROP_EPSILON': Legacy(0.1, _to('epsilon')),
  'DUAL_RMSPROP': Legacy(False, _to('dual_rmsprop')),
  'USE_GRAD_CLIP': Legacy(False, _clip),
  'GRAD_CLIP_NORM': Legacy(40.0, _clip_norm),
  'LOG_EPSILON': Legacy(1e-6, _to('log_epsilon')),
  'TRAINING_MIN_BATCH_SIZE': Legacy(0, _at_least_one_more),
  'TENSORBOARD': Legacy(
    False,
    # They are written whatever it says, which takes nothing from anybody.
    _nothing,
  ),
  'TENSORBOARD_UPDATE_FREQUENCY': Legacy(
    1000,
    _only(1000, 'events are written by the clock. Use --summary_secs'),
  ),
  'SAVE_MODELS': Legacy(
    True,
    _only(
      True, 'a run always saves. Leave it out; --save_checkpoint_secs says when'
    ),
  ),
  'SAVE_FREQUENCY': Legacy(
    1000,
    _only(1000, 'a run saves by the clock. Use --save_checkpoint_secs'),
  ),
  'PRINT_STATS_FREQUENCY': Legacy(1, _to('print_stats_frequency')),
  'STAT_ROLLING_MEAN_WINDOW': Legacy(1000, _to('stat_rolling_mean_window')),
  'RESULTS_FILENAME': Legacy('results.txt', _to('results_filename')),
  'NETWORK_NAME': Legacy(
    'network', lambda value, given: {'logdir': f'logs/{value}'}
  ),
  'MIN_POLICY': Legacy(0.0, _to('min_policy')),
  'USE_LOG_SOFTMAX': Legacy(False, _to('use_log_softmax')),
}

# What it set itself to play.
_FORCED_IN_PLAY = (
  'AGENTS',
  'PREDICTORS',
  'TRAINERS',
  'DYNAMIC_SETTINGS',
  'LOAD_CHECKPOINT',
  'TRAIN_MODELS',
  'SAVE_MODELS',
)
_FALSE = ('', 'False', 'false', '0')
_TRUE = ('True', 'true', '1')


def translate(arguments: Sequence[str]) -> tuple[Values, Values]:
  """Returns the options that GA3C's arguments stand for.

  Args:
    arguments: NAME=VALUE; an empty value is False.

  Returns:
    Those that were given, and those that its program implies where nothing
    else is said: its defaults, its game and its log.

  Raises:
    ValueError: one is no option of it, or cannot be done; the message is whole
      but for the program's name.
  """
  given: dict[str, Any] = {}
  for argument in arguments:
    name, _, text = argument.partition('=')
    if '=' not in argument or name not in TABLE:
      raise ValueError(
        f'{argument} is no option of GA3C. Write NAME=VALUE after --, with one '
        f'of these names: {", ".join(TABLE)}.'
      )
    given[name] = _parse(name, text)
  if given.get('PLAY_MODE'):
    given = {k: v for k, v in given.items() if k not in _FORCED_IN_PLAY}
  values: Values = {}
  for name, value in given.items():
    try:
      values |= TABLE[name].convert(value, given)
    except ValueError as error:
      raise ValueError(f'{name}={value}: {error}.') from error
  implied = {'preset': 'paper', 'level_name': TABLE['ATARI_GAME'].default}
  if given.get('PLAY_MODE'):
    # It took the most probable action.
    implied['test_policy'] = 'greedy'
  else:
    implied['log_format'] = 'ga3c'
  return values, implied


def _parse(name: str, text: str) -> Any:
  default = TABLE[name].default
  if isinstance(default, bool):
    if text not in (*_FALSE, *_TRUE):
      raise ValueError(f'{name}={text} must be True, or empty for False.')
    return text in _TRUE
  kind = type(default)
  # What it took for whole numbers may be any here.
  if name.startswith(('REWARD_', 'DYNAMIC_SETTINGS_')):
    kind = float
  try:
    return kind(text)
  except ValueError as error:
    noun = {int: 'a whole number', float: 'a number'}[kind]
    raise ValueError(
      f'{name}={text} must be {noun}, like {default}.'
    ) from error
