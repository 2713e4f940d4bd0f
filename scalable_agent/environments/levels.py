"""What a level name stands for."""

import difflib
from collections.abc import Sequence
from typing import Any

from scalable_agent import options as options_lib
from scalable_agent.environments.atari_suite import ATARI
from scalable_agent.environments.catch_suite import CATCH
from scalable_agent.environments.control_suite import CONTROL
from scalable_agent.environments.dmlab_suite import DMLAB
from scalable_agent.environments.envpool_suite import (
  ENVPOOL,
  ENVPOOL_ATARI,
  ENVPOOL_CLASSIC,
  ENVPOOL_MUJOCO,
)
from scalable_agent.environments.gymnasium_suite import GYMNASIUM
from scalable_agent.environments.minigrid_suite import MINIGRID
from scalable_agent.environments.mujoco_suite import MUJOCO
from scalable_agent.environments.suite import (
  Level,
  Suite,
  UnknownLevel,
  options_of,
)
from scalable_agent.environments.vizdoom_suite import VIZDOOM

# All there are. EnvPool's prefix looks like a module to those that follow, and
# Gymnasium is the last to be asked for a name: it imports modules to find out.
SUITES: tuple[Suite, ...] = (
  CATCH,
  DMLAB,
  ATARI,
  ENVPOOL_ATARI,
  ENVPOOL,
  ENVPOOL_CLASSIC,
  ENVPOOL_MUJOCO,
  MINIGRID,
  VIZDOOM,
  CONTROL,
  MUJOCO,
  GYMNASIUM,
)


def parse_levels(
  level_name: str,
  suites: Sequence[Suite] = SUITES,
  test: bool = False,
) -> tuple[Level, ...]:
  """Returns the levels of a run, which all are of one suite.

  Args:
    level_name: names as `parse_level` takes them, separated by commas; some
      stand for several levels, see `Suite.lists`.
    suites: to look in, in this order.
    test: whether it is a test; see `Suite.test_lists`.

  Raises:
    ValueError: if a name is empty or unknown, a level is named twice, or the
      levels are of different suites.
  """
  levels: list[Level] = []
  lists = {name: names for s in suites for name, names in s.lists.items()}
  if test:
    lists |= {n: names for s in suites for n, names in s.test_lists.items()}
  for part in level_name.split(','):
    if not part:
      raise ValueError(
        f'--level_name={level_name} has an empty name. Separate names by one '
        'comma: --level_name=pong,breakout.'
      )
    for name in lists.get(part, (part,)):
      level = parse_level(name, suites)
      if level.name in [other.name for other in levels]:
        raise ValueError(
          f'--level_name={level_name} has {level.name} twice. Name each level '
          'once.'
        )
      levels.append(level)
      if level.suite is not levels[0].suite:
        raise ValueError(
          f'--level_name={level_name}: {levels[0].name} is of the suite '
          f'{levels[0].suite.name} and {level.name} of {level.suite.name}. '
          'Train on levels of one suite.'
        )
  return tuple(levels)


def parse_level(level_name: str, suites: Sequence[Suite] = SUITES) -> Level:
  """Returns the level that `level_name` names.

  Args:
    level_name: an Atari game or id (`pong`, `ALE/Pong-v5`,
      `PongNoFrameskip-v4`, see `atari_suite`), a Gymnasium id (`CartPole-v1`,
      `my_module:MyEnv-v0`; those of some simulators have suites of their own),
      `catch` or `catch_hidden`; or what other suites know.
    suites: to look in, in this order.

  Raises:
    ValueError: if nothing has that name; says what looks similar.
  """
  reasons: list[UnknownLevel] = []
  for suite in suites:
    try:
      level = suite.parse(level_name)
    except UnknownLevel as error:
      reasons.append(error)
      continue
    if level is not None:
      return level
  raise ValueError(
    f'There is no level {level_name}. '
    f'{" ".join(dict.fromkeys(map(str, reasons)))}'
    f'{_near_misses(level_name, suites)} '
    'scalable_agent.environments.level_names() lists all.'
  ) from (reasons[-1] if reasons else None)


def deal(
  levels: Sequence[Level],
  level_shares: str = '',
  suites: Sequence[Suite] = SUITES,
) -> tuple[int, ...]:
  """Returns the indices of levels with which actors take turns.

  All levels come first, then again those that have a greater share, and so on:
  as many actors as levels play all of them.

  Args:
    levels: of the run.
    level_shares: of --level_shares.
    suites: to look in for names.

  Raises:
    ValueError: it names no level of the run, one twice, or a share that is no
      number of actors.
  """
  if level_shares and len(levels) == 1:
    raise ValueError(
      f'--level_shares={level_shares} has no effect with one level, '
      f'{levels[0].name}. Leave it out.'
    )
  names = [level.name for level in levels]
  shares: dict[str, int] = {}
  for part in level_shares.split(',') if level_shares else ():
    # Ids of Gymnasium may have a colon.
    level_name, _, share = part.rpartition(':')
    if not level_name or not share.isdecimal() or not 0 < int(share) <= 1000:
      raise ValueError(
        f'--level_shares={level_shares}: {part} is no name and number from 1 '
        'to 1000. Write them as in pong:2,breakout:3.'
      )
    if any(level_name in suite.lists for suite in suites):
      raise ValueError(
        f'--level_shares={level_shares}: {level_name} stands for several '
        'levels. Name each that is to have another share than 1.'
      )
    name = parse_level(level_name, suites).name
    if name not in names or name in shares:
      problem = 'stands there twice' if name in shares else 'is not played'
      raise ValueError(
        f'--level_shares={level_shares}: {level_name} {problem}. Name levels '
        'of --level_name, each at most once.'
      )
    shares[name] = int(share)
  most = max(shares.values(), default=1)
  return tuple(
    index
    for turn in range(most)
    for index, name in enumerate(names)
    if turn < shares.get(name, 1)
  )


def level_names(suites: Sequence[Suite] = SUITES) -> tuple[str, ...]:
  """Returns every level that can be named without importing more modules."""
  return tuple(name for suite in suites for name in suite.level_names())


def _near_misses(level_name: str, suites: Sequence[Suite]) -> str:
  other = (name for suite in suites for name in suite.other_names())
  candidates = {name.lower(): name for name in (*level_names(suites), *other)}
  close = difflib.get_close_matches(level_name.lower(), candidates)
  if not close:
    return ''
  return f' Similar: {", ".join(candidates[name] for name in close)}.'


def implied_options(
  levels: Sequence[Level], given: options_lib.Config
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
    if given.values[name] is not None:
      continue
    values = [getattr(options_of(level), name) for level in levels]
    for level, value in zip(levels, values, strict=True):
      if value != values[0]:
        raise ValueError(
          f'--level_name={given.run.level_name}: {levels[0].name} implies '
          f'--{name}={values[0]} and {level.name} --{name}={value}. Set '
          f'--{name} for all.'
        )
  return implied
