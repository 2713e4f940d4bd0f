"""From a Config to the parts that every runtime is made of."""

from collections.abc import Collection, Sequence

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
from scalable_agent.runtimes import cores, processor, worlds
from scalable_agent.transport import unroll_codec

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


def resolve(
  config: options.Config,
  levels: Sequence[environments.Level],
  given: Collection[str] = (),
) -> options.Config:
  """Returns `config` with what machine and levels decide; sets threads.

  Must run before TensorFlow's first operation.

  Args:
    config: resolved but for that.
    levels: of the run.
    given: names of the options that the user set.

  Raises:
    ValueError: see `resolve_network`.
  """
  config = resolve_machine(config)
  use_threads(config)
  return resolve_network(config, levels, given)


def resolve_machine(config: options.Config) -> options.Config:
  """Returns `config` with what stands for what this machine is good at.

  That is --intra_op_threads=0, --precision=auto, --jit_compile=auto and
  --inference=auto. All are written to config.json, as results differ in their
  last bits.

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
  values = {
    'intra_op_threads': threads,
    'precision': precision,
    'jit_compile': compiled,
  }
  if config.cluster.task >= 0 and config.batching.inference == 'auto':
    values['inference'] = 'learner' if gpu else 'actor'
  return config.replace(**values)


def _has_replicas(config: options.Config) -> bool:
  """Whether gradients are summed over devices or processes."""
  return config.cluster.num_learners * config.cluster.learner_devices > 1


def use_threads(config: options.Config) -> None:
  """Sets TensorFlow's thread pools; must run before its first operation."""
  tf.config.threading.set_intra_op_parallelism_threads(
    config.threads.intra_op_threads
  )


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
  shares = worlds.describe_shares(config, levels)
  if shares:
    print(shares, flush=True)


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
  spec = worlds.find_spec(config, levels[0])
  for name, missing in _without_effect(spec).items():
    if wanted[name]:
      value = f'={config.values[name]}' if name in _OF_SOME_LEVELS else ''
      seen = worlds.describe_observation(spec.observation)
      raise ValueError(
        f'--{name}{value} has no effect: {levels[0].name} has no {missing}, but'
        f' {seen} to see and {spec.action_space} to do. Leave it out.'
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
