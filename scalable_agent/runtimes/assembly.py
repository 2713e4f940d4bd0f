"""From a Config to the parts that every runtime is made of."""

import collections
from collections.abc import Collection, Sequence
from typing import Any

import tensorflow as tf
import tree

from dynamic_batching import ops
from scalable_agent import (
  action_spaces,
  environments,
  networks,
  options,
  policies,
  structures,
)
from scalable_agent.runtimes import cores, processor
from scalable_agent.transport import protocol, unroll_codec

# Levels that a message names.
_SHOWN = 4
# Options that mean something to what some levels show or let one do.
_OF_SOME_LEVELS = (
  'action_bounds',
  'instruction_length',
  'log_epsilon',
  'use_log_softmax',
)
# Numbers of rows that XLA may compile something for.
_MOST_SIZES = 8
# Of the dynamic batcher, by --batcher.
_IMPLEMENTATIONS = {'auto': None, 'op': 'op', 'python': 'fallback'}


def resolve_machine(config: options.Config) -> options.Config:
  """Returns `config` with what stands for what this machine is good at.

  That is --intra_op_threads=0, --precision=auto and --jit_compile=auto. All are
  written to config.json, as results differ in their last bits.

  Half of the cores for one operation leaves the other half to the emulators:
  on two cores, one thread trained faster than two.
  """
  threads = config.threads.intra_op_threads or max(1, cores.usable_cores() // 2)
  gpu = bool(tf.config.list_physical_devices('GPU'))
  precision, compiled = config.agent.precision, config.agent.jit_compile
  if precision == 'auto':
    # A torso of the user's, module:Class, may know nothing of bfloat16.
    fit = processor.has_bfloat16() and ':' not in (config.agent.network or '')
    precision = 'bfloat16' if fit and not gpu else 'float32'
  if compiled == 'auto':
    compiled = 'all' if gpu and not _has_replicas(config) else 'pixels'
  return config.replace(
    intra_op_threads=threads, precision=precision, jit_compile=compiled
  )


def _has_replicas(config: options.Config) -> bool:
  """Whether gradients are summed over devices or processes."""
  return config.cluster.num_learners * config.cluster.learner_devices > 1


def use_threads(config: options.Config) -> None:
  """Sets TensorFlow's thread pools; must run before its first operation."""
  tf.config.threading.set_intra_op_parallelism_threads(
    config.threads.intra_op_threads
  )


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
      raise ValueError(
        f'{pair} differ in their observations, {_describe(first.observation)} '
        f'and {_describe(spec.observation)}. Wrap them to be alike, or train '
        'on each in a run of its own.'
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


def describe(
  config: options.Config,
  levels: Sequence[environments.Level],
  given: Collection[str],
) -> None:
  """Prints what decides how a run goes.

  Args:
    config: resolved and validated.
    levels: of the run.
    given: names of the options that the user set.
  """
  print(options.describe(config, given, levels[0].suite))
  print(
    f'  cores:     usable={cores.usable_cores()} '
    f'intra_op_threads={config.threads.intra_op_threads}',
    flush=True,
  )
  shares = describe_shares(config, levels)
  if shares:
    print(shares, flush=True)


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


def _describe(observation: Any) -> str:
  parts = tree.flatten_with_path(observation)
  return ', '.join(
    ''.join(f'{key}: ' for key in path) + f'{one.dtype} {list(one.shape)}'
    for path, one in parts
  )


def resolve_network(
  config: options.Config,
  levels: Sequence[environments.Level],
  given: Collection[str] = (),
) -> options.Config:
  """Returns `config` with the network that --network=auto stands for.

  Args:
    config: resolved.
    levels: of the run.
    given: names of the options that the user set.

  Raises:
    ValueError: the first level cannot be made with these options, or one of
      them means nothing to what it shows or lets one do.
  """
  agent = config.agent
  wanted = {
    'nonormalise_pixels': not agent.normalise_pixels,
    'normalise_numbers': agent.normalise_numbers,
    **{name: name in given for name in _OF_SOME_LEVELS},
  }
  if agent.network != 'auto' and not any(wanted.values()):
    return config
  spec = find_spec(config, levels[0])
  for name, missing in _without_effect(spec).items():
    if wanted[name]:
      value = f'={config.values[name]}' if name in _OF_SOME_LEVELS else ''
      raise ValueError(
        f'--{name}{value} has no effect: {levels[0].name} has no {missing}, but'
        f' {_describe(spec.observation)} to see and {spec.action_space} to do. '
        'Leave it out.'
      )
  return config.replace(
    network=networks.resolve(agent.network, spec.observation)
  )


def _without_effect(spec: structures.EnvironmentSpec) -> dict[str, str]:
  """Returns the options that mean nothing to a level, and what it lacks."""
  seen = spec.observation
  numbers = isinstance(spec.action_space, action_spaces.Box)
  lacks = {
    'nonormalise_pixels': ('images of bytes', networks.are_pixels(seen)),
    'normalise_numbers': ('numbers', networks.are_numbers(seen)),
    'instruction_length': (
      'text',
      any(isinstance(one, structures.TextSpec) for one in tree.flatten(seen)),
    ),
    'action_bounds': ('numbers as actions', numbers),
    # Densities have none.
    'log_epsilon': ('probabilities of actions', not numbers),
    'use_log_softmax': ('probabilities of actions', not numbers),
  }
  return {
    name: what for name, (what, is_there) in lacks.items() if not is_there
  }


def make_agent(
  config: options.Config, spec: structures.EnvironmentSpec
) -> networks.Agent:
  """Returns the agent with all its variables, seeded by --seed."""
  tf.random.set_seed(config.run.seed)
  return networks.Agent(spec, **vars(config.agent))


def check_batcher(config: options.Config) -> None:
  """Raises ValueError where --batcher=op asks for what cannot be had."""
  if config.batching.batcher != 'op':
    return
  try:
    ops.load()
  except ImportError as error:
    raise ValueError(
      f'--batcher=op: {error} Install a C++ compiler (apt-get install g++), or '
      'choose --batcher=auto to do without.'
    ) from error


def make_batched_policy(
  config: options.Config,
  spec: structures.EnvironmentSpec,
  agent: networks.Agent,
  seeds: policies.Seeds,
) -> policies.Batched:
  """Returns what evaluates the agent for all actors together."""
  batching = config.batching
  return policies.Batched(
    policies.make_step(agent, seeds),
    spec,
    agent.initial_state(config.actors.envs_per_actor),
    batching.inference_minimum_batch_size,
    batching.inference_maximum_batch_size,
    batching.inference_timeout_ms,
    _IMPLEMENTATIONS[batching.batcher],
    _batch_sizes(config, spec),
  )


def _batch_sizes(
  config: options.Config, spec: structures.EnvironmentSpec
) -> tuple[int, ...]:
  """Returns the rows that batches are padded to; () where they are not.

  XLA compiles what makes numbers of pixels for each number of rows anew, while
  all actors wait. Few actors come in few numbers.
  """
  compiles = config.agent.jit_compile != 'none' and networks.are_pixels(
    spec.observation
  )
  if not compiles or config.actors.num_actors <= _MOST_SIZES:
    return ()
  sizes = [config.actors.envs_per_actor]
  while sizes[-1] < config.batching.inference_maximum_batch_size:
    sizes.append(2 * sizes[-1])
  return tuple(sizes)


def make_layout(
  config: options.Config,
  spec: structures.EnvironmentSpec,
  agent: networks.Agent,
) -> unroll_codec.Layout:
  """Returns what unrolls between processes consist of."""
  return unroll_codec.Layout(
    spec, agent.initial_state(1), config.actors.unroll_length
  )
