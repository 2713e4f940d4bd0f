"""What a level name stands for."""

import difflib

from scalable_agent.environments import atari, catch, gymnasium_vector
from scalable_agent.environments.batched import Level
from scalable_agent.suites import dmlab30


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
  if level_name == 'atari57':
    raise ValueError(
      'atari57 is a suite of games, and this version trains on one level at a '
      'time. Name a game, e.g. pong; scalable_agent.suites.atari57.GAMES lists '
      'them.'
    )
