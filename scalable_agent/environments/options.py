"""How a level is presented to the agent."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from scalable_agent import config
from scalable_agent.environments.batched import Level


@dataclasses.dataclass(frozen=True)
class EnvironmentOptions:
  """Options of all suites; `OPTIONS_OF_SUITE` tells which ones matter where.

  Attributes:
    num_action_repeats: frames for which an action is repeated. None: what the
      level implies, else 4 for Atari and 1 elsewhere.
    width: of an Atari frame, in pixels.
    height: of an Atari frame, in pixels.
    grayscale: Atari frames are [height, width, 1], else [height, width, 3].
    sticky_actions: probability that the Atari emulator repeats the previous
      action. None: what the level implies, else 0.
    noop_max: most no-ops, in frames, at the start of an Atari episode; their
      number is uniform from 0 to it.
    life_loss_is_terminal: a lost life has discount 0; the game goes on.
    full_action_space: all 18 actions instead of those that the game uses.
    fire_reset: press FIRE at the start of an Atari episode.
    max_episode_frames: frames after the no-ops until an Atari episode is cut.
    num_threads: threads that run the emulators of one batched environment.
    env_processes: Gymnasium; 0 runs the environments in the caller's thread,
      anything else each of them in a process of its own.
    render: allows `BatchedEnvironment.render`.
    replayable: allows `BatchedEnvironment.get_state`, which Catch always does.
      Episodes are others than without.
  """

  num_action_repeats: int | None = None
  width: int = 84
  height: int = 84
  grayscale: bool = True
  sticky_actions: float | None = None
  noop_max: int = 30
  life_loss_is_terminal: bool = True
  full_action_space: bool = False
  fire_reset: bool = False
  max_episode_frames: int = 108000
  num_threads: int = 1
  env_processes: int = 0
  render: bool = False
  replayable: bool = False


OPTIONS_OF_SUITE: Mapping[str, frozenset[str]] = {
  'atari': frozenset(
    {
      'num_action_repeats',
      'width',
      'height',
      'grayscale',
      'sticky_actions',
      'noop_max',
      'life_loss_is_terminal',
      'full_action_space',
      'fire_reset',
      'max_episode_frames',
      'num_threads',
      'render',
      'replayable',
    }
  ),
  'gymnasium': frozenset(
    {'num_action_repeats', 'env_processes', 'render', 'replayable'}
  ),
  'catch': frozenset({'render', 'replayable'}),
}

_ACTION_REPEATS_OF_SUITE = {'atari': 4, 'gymnasium': 1, 'catch': 1}


def options_without_effect(level: Level) -> frozenset[str]:
  """Returns the names of the options that mean nothing to a level."""
  names = {field.name for field in dataclasses.fields(EnvironmentOptions)}
  return frozenset(names - OPTIONS_OF_SUITE[level.suite])


def resolve(level: Level, options: EnvironmentOptions) -> EnvironmentOptions:
  """Returns `options` with every None replaced by what `level` implies."""
  implied = {
    'num_action_repeats': _ACTION_REPEATS_OF_SUITE[level.suite],
    'sticky_actions': 0.0,
  } | level.options
  unset = {k: v for k, v in implied.items() if getattr(options, k) is None}
  return dataclasses.replace(options, **unset)


def implied_options(
  levels: Sequence[Level], given: config.Config
) -> dict[str, Any]:
  """Returns the options that the names of a run's levels imply.

  Args:
    levels: of the run, of one suite.
    given: options as given; what the user set need not be agreed on.

  Raises:
    ValueError: the levels imply different values of an unset option.
  """
  implied: dict[str, Any] = {}
  for level in levels:
    implied |= level.options
  for name in implied:
    if getattr(given, name) is not None:
      continue
    values = [getattr(resolve(x, EnvironmentOptions()), name) for x in levels]
    for level, value in zip(levels, values, strict=True):
      if value != values[0]:
        raise ValueError(
          f'--level_name={given.level_name}: {levels[0].name} implies '
          f'{_flag(name)}={values[0]} and {level.name} {_flag(name)}={value}. '
          f'Set {_flag(name)} for all.'
        )
  return implied


def check(level: Level, options: EnvironmentOptions) -> None:
  """Raises ValueError for a bad value or one without effect on `level`.

  Args:
    level: the level that the options are for.
    options: resolved options.
  """
  neutral = resolve(Level(level.suite, level.name, {}), EnvironmentOptions())
  for name in sorted(options_without_effect(level)):
    value, default = getattr(options, name), getattr(neutral, name)
    if value != default:
      raise ValueError(
        f'{_flag(name)}={value} has no effect on {level.name}, a level of the '
        f'{level.suite} suite. Leave it at {default}.'
      )
  minima = {
    'num_action_repeats': 1,
    'width': 1,
    'height': 1,
    'noop_max': 0,
    'max_episode_frames': 1,
    'num_threads': 0,
    'env_processes': 0,
  }
  for name, minimum in minima.items():
    value = getattr(options, name)
    if value < minimum:
      raise ValueError(f'{_flag(name)}={value} must be at least {minimum}.')
  if not 0 <= options.sticky_actions <= 1:
    raise ValueError(
      f'--sticky_actions={options.sticky_actions} must lie between 0 and 1.'
    )


def _flag(name: str) -> str:
  """Returns an option as the user wrote it; some can be set in code only."""
  return f'--{name}' if name in config.FIELDS else name
