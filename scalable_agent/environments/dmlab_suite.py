"""The suite of DeepMind Lab: declarations only; see `dmlab`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from scalable_agent.environments.suite import (
  Level,
  Purpose,
  Suite,
  UnknownLevel,
)
from scalable_agent.options import (
  FrameOptions,
  LengthOptions,
  Line,
  Part,
  RepeatOptions,
  TextOptions,
  option,
  systems,
)
from scalable_agent.suites import dmlab30

# Those that lie in no folder there.
_OTHERS = (
  'lt_chasm',
  'lt_hallway_slope',
  'lt_horseshoe_color',
  'lt_space_bounce_hard',
  'nav_maze_random_goal_01',
  'nav_maze_random_goal_02',
  'nav_maze_random_goal_03',
  'nav_maze_static_01',
  'nav_maze_static_02',
  'nav_maze_static_03',
  'seekavoid_arena_01',
  'stairway_to_melon',
)
_FOLDERS = ('contributed', 'demos', 'tests')

_IMPALA = systems.SYSTEMS['impala_dmlab'].values
# What it has whatever trains it.
_DEFAULTS = {
  name: _IMPALA[name]
  for name in (
    'width',
    'height',
    'num_action_repeats',
    'network',
    'lstm',
    'last_action_reward',
    'normalise_pixels',
  )
}
# Nothing else was tried here, where there is no engine.
_PRESETS = {'impala': {'auto': _IMPALA, 'paper': _IMPALA}}

_LISTS = {'dmlab30': tuple(dmlab30.LEVEL_MAPPING)}
_TEST_LISTS = {'dmlab30': tuple(dmlab30.LEVEL_MAPPING.values())}


@dataclasses.dataclass(frozen=True)
class DmLabOptions(FrameOptions, LengthOptions, RepeatOptions, TextOptions):
  """DeepMind Lab."""

  action_set: str = option(
    'impala',
    'Actions: the 9 of IMPALA, or the 15 of R2D2, which turns by two speeds '
    'and looks up and down.',
    by_preset=True,
    choices=('impala', 'r2d2'),
    part=Part.ACTING,
    fixed=True,
    line=Line.LEVEL,
  )
  dataset_path: str = option(
    '',
    'Folder of the pictures (brady_konkle_oliva2008) that some psychlab_* '
    'levels show; "dummy" = plain colours instead.',
    part=Part.PROCESS,
    free_in_test=True,
  )
  level_cache: str = option(
    '',
    'Folder that keeps compiled maps, for all processes and runs; empty = '
    'none. Most levels make a new map for each episode, and it grows by each.',
    part=Part.PROCESS,
    free_in_test=True,
  )
  dmlab_renderer: str = option(
    'software',
    'What draws: hardware is a GPU, by EGL or GLX as the wheel was built.',
    choices=('software', 'hardware'),
    part=Part.PROCESS,
    free_in_test=True,
  )


class DmLab(Suite):
  name = 'dmlab'
  help = (
    'DeepMind Lab, which is no part of this package (explore_goal_locations_'
    'small, seekavoid_arena_01, or the path of a level); dmlab30 stands for '
    '30 levels.'
  )
  options = DmLabOptions
  defaults = _DEFAULTS
  presets = _PRESETS
  lists = _LISTS
  test_lists = _TEST_LISTS
  # Of the engine.
  fps = 60

  def parse(self, level_name: str) -> Level | None:
    """Returns the level of a name, None if it is not one.

    | name                                             | level               |
    |--------------------------------------------------|---------------------|
    | rooms_watermaze, contributed/dmlab30/rooms_...   | rooms_watermaze     |
    | seekavoid_arena_01, contributed/psychlab/harlow  | as it is            |
    | /home/me/my_level, /home/me/my_level.lua         | /home/me/my_level   |

    Args:
      level_name: what the user wrote.

    Raises:
      UnknownLevel: it is in the folder of DMLab-30, which has no such level.
    """
    if level_name.startswith('/'):
      return Level(self, level_name.removesuffix('.lua'))
    folder, _, last = level_name.rpartition('/')
    if folder in ('', dmlab30.FOLDER) and last in dmlab30.ALL_LEVELS:
      return Level(self, last)
    if folder == dmlab30.FOLDER:
      raise UnknownLevel(f'DMLab-30 has no {last}.')
    if level_name in _OTHERS or folder.partition('/')[0] in _FOLDERS:
      return Level(self, level_name)
    return None

  def level_names(self) -> tuple[str, ...]:
    return (*sorted(dmlab30.ALL_LEVELS), *_OTHERS)

  def other_names(self) -> tuple[str, ...]:
    return tuple(
      f'{dmlab30.FOLDER}/{level}' for level in sorted(dmlab30.ALL_LEVELS)
    )

  def make(
    self, level: Level, num_envs: int, options: Any, seed: int, purpose: Purpose
  ):
    from scalable_agent.environments import dmlab

    return dmlab.DmLabEnvironment(level, num_envs, options, seed, purpose)

  def are_alike(self, options: Any) -> bool:
    """Options alone decide what is seen and done."""
    del options
    return True

  def human_normalized_score(
    self, level_name: str, mean_return: float
  ) -> float | None:
    if level_name not in dmlab30.ALL_LEVELS:
      return None
    return dmlab30.human_normalized_score(level_name, mean_return)

  def training_scores(
    self, returns: Mapping[str, Sequence[float]]
  ) -> dict[str, float] | None:
    if not all(map(returns.get, dmlab30.LEVEL_MAPPING)):
      return None
    return dmlab30.training_scores(returns)

  def test_scores(
    self, returns: Mapping[str, Sequence[float]]
  ) -> dict[str, float] | None:
    if not all(map(returns.get, dmlab30.LEVEL_MAPPING.values())):
      return None
    return dmlab30.test_scores(returns)


DMLAB = DmLab()
