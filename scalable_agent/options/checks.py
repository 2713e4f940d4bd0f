"""Whether the options of a run are what they can be, alone and together."""

from collections.abc import Collection, Iterator
from typing import Any

from scalable_agent.options.catalog import Suite
from scalable_agent.options.config import Config
from scalable_agent.options.declaration import Option, Part
from scalable_agent.options.presets import algorithm_of


def validate(config: Config) -> None:
  """Raises ValueError that names the first option with a bad value.

  Args:
    config: options, resolved or not; None passes.
  """
  for name, one in config.catalog.options.items():
    one.check(config.values[name])
  for group in config.catalog.groups:
    values: Any = config.of(group)
    if hasattr(values, 'check'):
      values.check()
  _validate_combinations(config)


def check_given(config: Config, given: Collection[str]) -> None:
  """Raises ValueError that names an option that was set without effect.

  Args:
    config: resolved options.
    given: names of the options that the user set.
  """
  for name, one in config.catalog.options.items():
    if name in given:
      for reason in _reasons_without_effect(one, config):
        raise ValueError(f'--{name}={config.values[name]} {reason}')


def _reasons_without_effect(one: Option, config: Config) -> Iterator[str]:
  idle_with = dict(one.idle_with)
  if one.part is Part.TEST:
    idle_with['mode'] = ('train',)
  if not config.catalog.has_effect(one.name, config.run.algorithm):
    idle_with['algorithm'] = (config.run.algorithm,)
  for owner, values in idle_with.items():
    value = config.values[owner]
    if value in values:
      yield (
        f'has no effect with --{owner}={value}. Leave it out, or change '
        f'--{owner}.'
      )


def check_suite(
  config: Config, given: Collection[str], suite: Suite, level_name: str
) -> None:
  """Raises ValueError that names an option that means nothing to a suite.

  Args:
    config: options, resolved or not.
    given: names of the options that the user set.
    suite: of the levels.
    level_name: of one of them.
  """
  for name, one in config.catalog.options.items():
    suites = config.catalog.suites_of(name)
    value = config.values[name]
    if (
      name in given
      and suites
      and suite.name not in suites
      and value != one.default
    ):
      default = 'empty' if one.default == '' else f'at {one.default}'
      raise ValueError(
        f'--{name}={value} has no effect on {level_name}, a level of the '
        f'{suite.name} suite; it is for {", ".join(suites)}. Leave it '
        f'{default}.'
      )


def _validate_combinations(config: Config) -> None:
  algorithm = algorithm_of(config)
  if config.reports.log_format not in algorithm.log_formats:
    raise ValueError(
      f'--log_format={config.reports.log_format} tells nothing of '
      f'--algorithm={algorithm.name}. Choose one of: '
      f'{", ".join(algorithm.log_formats)}.'
    )
  algorithm.check(config)
  if config.cluster.is_distributed:
    _validate_distributed(config)
    if config.batching.inference != 'learner':
      return
  actors = config.actors
  has_batcher = config.catalog.has_effect('batcher', algorithm.name)
  if not has_batcher or config.batching.batcher == 'none':
    return
  # The other options mean nothing without several actors.
  if actors.num_actors and actors.envs_per_actor is not None:
    num_actors = actors.num_actors // config.cluster.num_learners
    _validate_inference(config, num_actors * actors.envs_per_actor)


def _validate_distributed(config: Config) -> None:
  """Refuses a run without actors and a process that is not part of it."""
  num_actors, cluster = config.actors.num_actors, config.cluster
  if num_actors == 0:
    raise ValueError(
      '--num_actors=0 is serial mode, which is for a single machine. Give the '
      'number of actor processes, or leave --task and --learner_address out.'
    )
  if num_actors is not None and num_actors < cluster.num_learners:
    raise ValueError(
      f'--num_actors={num_actors} leaves some of --num_learners='
      f'{cluster.num_learners} without an actor, and all learners wait for '
      'each other. Raise the first or lower the other.'
    )
  name = f'num_{cluster.job_name}s'
  peers = config.values[name]
  if peers is not None and cluster.task >= peers:
    raise ValueError(
      f'--task={cluster.task} is no {cluster.job_name} of --{name}={peers}, '
      f'which count from 0. Lower --task or raise --{name}.'
    )


def _validate_inference(config: Config, rows: int) -> None:
  """Refuses batches that the actors, with `rows` in all, cannot make."""
  batching, actors = config.batching, config.actors
  most = batching.inference_maximum_batch_size
  if most is not None and most < actors.envs_per_actor:
    raise ValueError(
      f'--inference_maximum_batch_size={most} has no room for the '
      f'{actors.envs_per_actor} rows of one actor (--envs_per_actor='
      f'{actors.envs_per_actor}). Raise it or lower the other.'
    )
  if batching.inference_minimum_batch_size > rows:
    raise ValueError(
      '--inference_minimum_batch_size='
      f'{batching.inference_minimum_batch_size} cannot be reached: '
      f'--num_actors={actors.num_actors} with --envs_per_actor='
      f'{actors.envs_per_actor} give {rows} rows at a time. Lower it or raise '
      'one of the others.'
    )
