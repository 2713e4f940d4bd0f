"""What the levels of a run are: who plays which, and their environments.

Nothing here imports TensorFlow, so that a process of environments alone starts
at once.
"""

import collections
from collections.abc import Sequence
from typing import Any

import tree

from scalable_agent import environments, options, structures
from scalable_agent.transport import protocol

# Levels that a message names.
_SHOWN = 4


def make_environment(
  config: options.Config,
  level: environments.Level,
  num_envs: int,
  seed: int,
  **purpose: bool,
) -> environments.BatchedEnvironment:
  """Returns `num_envs` environments of `level` that step together."""
  suite_options: Any = config.of(level.suite.options)
  return environments.make(level, num_envs, suite_options, seed, **purpose)


def deal(
  config: options.Config, levels: Sequence[environments.Level]
) -> tuple[int, ...]:
  """Returns the levels that actors take turns with; see `environments.deal`."""
  return environments.deal(
    levels, config.run.level_shares, config.catalog.suites
  )


def check_levels(
  config: options.Config, levels: Sequence[environments.Level]
) -> None:
  """Checks that the actors can play all levels, and one agent any of them.

  Args:
    config: resolved.
    levels: of the run, of one suite.

  Raises:
    ValueError: --level_shares is wrong, there are fewer actors than levels, the
      levels differ in their observations or in what their actions are (in their
      space, where an environment has no names for them), or one cannot be made.
  """
  deal(config, levels)
  if len(levels) == 1:
    return
  # Each learner is to see all levels.
  least = len(levels) * config.cluster.num_learners
  if not config.catalog.has_effect('num_actors', config.run.algorithm):
    raise ValueError(
      f'--algorithm={config.run.algorithm} plays one level, and --level_name='
      f'{config.run.level_name} names {len(levels)}. Train on each in a run of '
      'its own, or choose --algorithm=a3c, whose workers share them.'
    )
  if config.actors.num_actors < least:
    raise ValueError(
      f'--num_actors={config.actors.num_actors} cannot play the {len(levels)} '
      f'levels of --level_name={config.run.level_name}, as every actor plays '
      f'one. Set --num_actors={least} or more, or name fewer levels.'
    )
  suite = levels[0].suite
  if suite.are_alike(config.of(suite.options)):
    return  # To make 57 of them takes ten seconds.
  first = find_spec(config, levels[0])
  for level in levels[1:]:
    spec = find_spec(config, level)
    pair = (
      f'--level_name={config.run.level_name}: {levels[0].name} and {level.name}'
    )
    if spec.observation != first.observation:
      seen = ' and '.join(
        describe_observation(one.observation) for one in (first, spec)
      )
      raise ValueError(
        f'{pair} differ in their observations, {seen}. Wrap them to be alike, '
        'or train on each in a run of its own.'
      )
    difference = _difference_of_actions(first, spec)
    if difference:
      remedy = (
        suite.remedy_for_actions
        or 'Wrap them to be alike, or train on each in a run of its own'
      )
      raise ValueError(f'{pair} differ in their {difference}. {remedy}.')


def _difference_of_actions(
  one: structures.EnvironmentSpec, other: structures.EnvironmentSpec
) -> str | None:
  """Returns what differs between the actions of two levels, if anything."""
  if one.action_space != other.action_space:
    return f'kinds of actions, {one.action_space} and {other.action_space}'
  if one.action_meanings is None or other.action_meanings is None:
    return None
  pairs = zip(one.action_meanings, other.action_meanings, strict=True)
  for number, (first, second) in enumerate(pairs):
    if first != second:
      return f'actions, of which number {number} is {first} and {second}'
  return None


def describe_shares(
  config: options.Config, levels: Sequence[environments.Level]
) -> str | None:
  """Returns who plays what where levels have unequal numbers of actors.

  Args:
    config: resolved and validated, num_learners as it is.
    levels: of the run.
  """
  num_actors = max(config.actors.num_actors, 1)
  dealt = deal(config, levels)
  played = collections.Counter(
    protocol.level_of(task, config.cluster.num_learners, dealt)
    for task in range(num_actors)
  )
  names: dict[int, list[str]] = collections.defaultdict(list)
  for index, count in sorted(played.items()):
    names[count].append(levels[index].name)
  if len(names) < 2:
    return None
  shares = (
    f'{count} ({count / num_actors:.1%}) for {_listed(names[count])}'
    for count in sorted(names, reverse=True)
  )
  reason = f'is no multiple of {len(levels)} levels, each'
  if config.run.level_shares:
    reason = f'with --level_shares={config.run.level_shares}: each'
  return (
    f'--num_actors={num_actors} {reason} actor plays one: {"; ".join(shares)}. '
    'Levels with more actors are learned from more.'
  )


def _listed(names: list[str]) -> str:
  """Returns names, and of many their number."""
  if len(names) == 1:
    return names[0]
  shown = ', '.join(names[:_SHOWN]) + (', ...' if len(names) > _SHOWN else '')
  return f'each of {len(names)} ({shown})'


def find_spec(
  config: options.Config, level: environments.Level
) -> structures.EnvironmentSpec:
  """Makes a level once, as only then it is known what it shows."""
  environment = make_environment(config, level, 1, config.run.seed, probe=True)
  environment.close()
  return environment.spec


def describe_observation(observation: Any) -> str:
  """Returns types and shapes of what a level shows, a nest of specs."""
  parts = tree.flatten_with_path(observation)
  return ', '.join(
    ''.join(f'{key}: ' for key in path) + f'{one.dtype} {list(one.shape)}'
    for path, one in parts
  )
