"""What a level name stands for."""

import difflib

from scalable_agent.environments import atari, catch, gymnasium_vector
from scalable_agent.environments.batched import Level
from scalable_agent.suites import atari57, dmlab30

_SUITES = {'atari57': atari57.GAMES}


def parse_levels(level_name: str) -> tuple[Level, ...]:
  """Returns the levels of a run, which all are of one suite.

  Args:
    level_name: names as `parse_level` takes them, separated by commas;
      `atari57` stands for the games of `suites.atari57`.

  Raises:
    ValueError: if a name is empty or unknown, a level is named twice, or the
      levels are of different suites.
  """
  levels: list[Level] = []
  for part in level_name.split(','):
    if not part:
      raise ValueError(
        f'--level_name={level_name} has an empty name. Separate names by one '
        'comma: --level_name=pong,breakout.'
      )
    for name in _SUITES.get(part, (part,)):
      level = parse_level(name)
      if level.name in [other.name for other in levels]:
        raise ValueError(
          f'--level_name={level_name} has {level.name} twice. Name each level '
          'once.'
        )
      levels.append(level)
      if level.suite != levels[0].suite:
        raise ValueError(
          f'--level_name={level_name}: {levels[0].name} is of the suite '
          f'{levels[0].suite} and {level.name} of {level.suite}. Train on '
          'levels of one suite.'
        )
  return tuple(levels)


def parse_level(level_name: str) -> Level:
  """Returns the level that `level_name` names.

  Args:
    level_name: an Atari game or id (`pong`, `ALE/Pong-v5`,
      `PongNoFrameskip-v4`, see `atari.parse`), a Gymnasium id (`CartPole-v1`,
      `my_module:MyEnv-v0`), `catch` or `catch_hidden`.

  Raises:
    ValueError: if nothing has that name; says what looks similar.
  """
  if level_name in catch.NAMES:
    return Level('catch', level_name, {})
  _check_not_dmlab(level_name)
  level = atari.parse(level_name)
  if level is not None:
    return level
  try:
    spec = gymnasium_vector.find_spec(level_name)
  except ValueError as error:
    raise ValueError(
      f'There is no level {level_name}. {error}{_near_misses(level_name)} '
      'scalable_agent.environments.level_names() lists all.'
    ) from error
  module = level_name.rpartition(':')[0]
  name = f'{module}:{spec.id}' if module else spec.id
  return Level('gymnasium', name, {})


def level_names() -> tuple[str, ...]:
  """Returns every level that can be named without importing more modules."""
  return (*catch.NAMES, *atari.games(), *gymnasium_vector.ids())


def _near_misses(level_name: str) -> str:
  ale_ids = [f'ALE/{atari.game_id(game)}-v5' for game in atari.games()]
  candidates = {name.lower(): name for name in (*level_names(), *ale_ids)}
  close = difflib.get_close_matches(level_name.lower(), candidates)
  if not close:
    return ''
  return f' Similar: {", ".join(candidates[name] for name in close)}.'


def _check_not_dmlab(level_name: str) -> None:
  last = level_name.rpartition('/')[2]
  known = {'dmlab30', *dmlab30.LEVEL_MAPPING, *dmlab30.LEVEL_MAPPING.values()}
  if last in known:
    raise ValueError(
      f'{level_name} needs DeepMind Lab, which this version does not support. '
      'It has Atari games (pong), Gymnasium ids (CartPole-v1), catch and '
      'catch_hidden.'
    )
