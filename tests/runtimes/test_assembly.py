"""Every option reaches the part of a run that it is for."""

import collections
import dataclasses
import functools
import inspect
import os
from unittest import mock

import pytest
import tensorflow as tf

from scalable_agent import (
  actor,
  environments,
  learner,
  networks,
  optimizers,
  options,
  policies,
  unroll_queue,
)
from scalable_agent.reports import metrics
from scalable_agent.runtimes import (
  assembly,
  impala_local,
  processor,
  worlds,
)
from scalable_agent.storage import checkpointing
from tests.configs import CATALOG, make_config, resolve

REAL_BATCHED = policies.Batched

PARTS = (
  (actor, 'Actor'),
  (checkpointing, 'Checkpointer'),
  (environments, 'make'),
  (learner, 'Learner'),
  (metrics, 'Metrics'),
  (networks, 'Agent'),
  (optimizers, 'learning_rate_schedule'),
  (optimizers, 'make_optimizer'),
  (policies, 'Batched'),
  (policies, 'Seeds'),
  (policies, 'make_step'),
  (tf.config.threading, 'set_intra_op_parallelism_threads'),
  (tf.random, 'set_seed'),
  (unroll_queue, 'UnrollQueue'),
)

# Part, option, a value that is no default, and the name of the argument where
# it is not that of the option.
REACHED = (
  ('Actor', 'unroll_length', 7),
  ('Agent', 'frame_stack', 5),
  ('Agent', 'last_action_reward', True),
  ('Agent', 'lstm', True),
  ('Agent', 'min_policy', 0.1),
  ('Agent', 'network', 'deep'),
  ('Agent', 'normalise_pixels', True),
  ('Agent', 'precision', 'bfloat16'),
  ('Agent', 'jit_compile', 'none'),
  ('Agent', 'normalise_numbers', True),
  ('Batched', 'batcher', 'op', 'implementation'),
  ('Batched', 'inference_maximum_batch_size', 77, 'maximum_batch_size'),
  ('Batched', 'inference_minimum_batch_size', 7, 'minimum_batch_size'),
  ('Batched', 'inference_timeout_ms', 7, 'timeout_ms'),
  ('Checkpointer', 'keep_checkpoints', 7, 'keep'),
  ('Checkpointer', 'logdir', 'elsewhere'),
  ('make', 'action_bounds', 'squash'),
  ('make', 'action_set', 'r2d2'),
  ('make', 'dataset_path', '/pictures'),
  ('make', 'dmlab_renderer', 'hardware'),
  ('make', 'env_processes', 1),
  ('make', 'fire_reset', True),
  ('make', 'full_action_space', True),
  ('make', 'grayscale', False),
  ('make', 'height', 77),
  ('make', 'instruction_length', 7),
  ('make', 'level_cache', '/maps'),
  ('make', 'life_loss_is_terminal', False),
  ('make', 'max_episode_frames', 77),
  ('make', 'max_episode_length', 77),
  ('make', 'noop_max', 7),
  ('make', 'num_action_repeats', 7),
  ('make', 'sticky_actions', 0.7),
  ('make', 'width', 77),
  ('Learner', 'clip_gradient_by', 'tensor_norm'),
  ('Learner', 'clip_gradient_norm', 7.0),
  ('Learner', 'updates_per_batch', 7),
  ('Learner', 'baseline_cost', 0.7),
  ('Learner', 'clip_pg_rho_threshold', 7.0),
  ('Learner', 'clip_rho_threshold', 7.0),
  ('Learner', 'correction', 'epsilon'),
  ('Learner', 'discounting', 0.7),
  ('Learner', 'entropy_cost', 0.7),
  ('Learner', 'lambda_', 0.7),
  ('Learner', 'reward_clipping', 'none'),
  ('Learner', 'reward_scale', 0.7),
  ('Metrics', 'logdir', 'elsewhere'),
  ('Metrics', 'progress_secs', 7.0),
  ('Metrics', 'summary_secs', 7.0),
  ('Metrics', 'total_environment_frames', 7e7, 'total_frames'),
  ('Seeds', 'seed', 7),
  ('UnrollQueue', 'batch_size', 7),
  ('UnrollQueue', 'queue_capacity', 7, 'capacity'),
  ('learning_rate_schedule', 'learning_rate', 0.7),
  ('learning_rate_schedule', 'learning_rate_schedule', 'constant', 'decay'),
  ('learning_rate_schedule', 'total_environment_frames', 7e7),
  ('make', 'envs_per_actor', 7, 'num_envs'),
  ('make', 'seed', 7),
  ('make', 'emulator_threads', 7),
  ('make_optimizer', 'decay', 0.7),
  ('make_optimizer', 'epsilon', 0.7),
  ('make_optimizer', 'momentum', 0.7),
  ('make_optimizer', 'optimizer', 'adam'),
  ('make_optimizer', 'rmsprop_initial_slot', 0.7),
  (
    'set_intra_op_parallelism_threads',
    'intra_op_threads',
    7,
    'num_threads',
  ),
  ('set_seed', 'seed', 7),
)

# By suite, the first that has an option.
LEVELS = {
  'atari': 'pong',
  'gymnasium': 'CartPole-v1',
  'dmlab': 'rooms_watermaze',
}

# They choose what is run, or have tests of their own, or `validate` refuses
# every value but the default.
OTHERS = {
  'envpool_threads',
  'algorithm',
  'actor_timeout',
  'checkpoint',
  'cluster_proxy',
  'cluster_token_file',
  'inference',
  'inference_threads',
  'insecure_loopback',
  'job_name',
  'learner_address',
  'learner_devices',
  'level_name',
  'level_shares',
  'listen_address',
  'log_format',
  'mode',
  'num_actors',
  'num_learners',
  'plugin',
  'preset',
  'reconnect_timeout',
  'save_checkpoint_secs',
  'task',
  'test_num_episodes',
  'test_policy',
  'tls_authority',
  'tls_certificate',
  'tls_key',
  'tls_name',
  'video_dir',
}


@pytest.fixture
def assemble(monkeypatch, tmp_path):
  """Makes a run of nothing; returns what each part was made of."""
  # Where no run of the user's has left its logs.
  monkeypatch.chdir(tmp_path)
  made = collections.defaultdict(list)

  def replace(module, name):
    signature = inspect.signature(getattr(module, name))
    part = mock.MagicMock()
    part.restore.return_value = None

    def make(*args, **kwargs):
      bound = signature.bind(*args, **kwargs)
      arguments = {**bound.arguments, **bound.kwargs}
      for value in bound.arguments.values():
        if isinstance(value, functools.partial):
          arguments |= value.keywords
          value = value.args[0] if value.args else None
        if dataclasses.is_dataclass(value):
          arguments |= vars(value)  # A group of options.
      made[name].append(arguments)
      return part

    monkeypatch.setattr(module, name, make)

  def run(**options):
    options = {'level_name': 'pong', 'preset': 'paper'} | options
    config = make_config(**options)
    levels = environments.parse_levels(config.run.level_name)
    config = resolve(config, levels[0].suite)
    made.clear()
    assembly.use_threads(assembly.resolve_machine(config))
    impala_local.Run(config, levels)._prepare()
    return made

  for module, name in PARTS:
    replace(module, name)
  return run


@pytest.mark.parametrize(
  ('part', 'option', 'value', 'argument'),
  [(*row, row[1])[:4] for row in REACHED],
  ids=[f'{row[1]}-{row[0]}' for row in REACHED],
)
def test_an_option_reaches_its_part(assemble, part, option, value, argument):
  suites = CATALOG.suites_of(option) or LEVELS
  level = next(level for suite, level in LEVELS.items() if suite in suites)
  made = assemble(level_name=level)
  assert made[part][0].get(argument) != value
  made = assemble(level_name=level, **{option: value})
  assert made[part][0][argument] == value


@pytest.mark.parametrize(
  ('usable', 'threads'), [({1, 4, 5, 6, 7, 9}, 3), ({4}, 1)]
)
def test_half_of_the_cores_that_may_be_used_are_for_one_operation(
  assemble, monkeypatch, usable, threads
):
  # A system without this function lets a process use all.
  monkeypatch.setattr(
    os, 'sched_getaffinity', lambda process: usable, raising=False
  )
  made = assemble()['set_intra_op_parallelism_threads']
  assert made == [{'num_threads': threads}]


def test_every_actor_has_environments_of_its_own(assemble):
  made = assemble(num_actors=3, envs_per_actor=5)
  assert len(made['Actor']) == 3
  assert [call['seed'] for call in made['make']] == [1, 6, 11]


def test_actors_take_turns_at_the_levels(assemble):
  made = assemble(
    level_name='pong,breakout', full_action_space=True, num_actors=3
  )
  names = [call['level'].name for call in made['make']]
  assert names == ['pong', 'breakout', 'pong']
  assert [call['level'] for call in made['Actor']] == [0, 1, 0]
  assert made['Metrics'][0]['levels'] == ['pong', 'breakout']


def test_levels_may_have_unequal_shares_of_the_actors(assemble):
  made = assemble(
    level_name='pong,breakout',
    level_shares='breakout:2',
    full_action_space=True,
    num_actors=6,
  )
  names = [call['level'].name for call in made['make']]
  assert names == ['pong', 'breakout', 'breakout'] * 2
  assert [call['level'] for call in made['Actor']] == [0, 1, 1] * 2


def test_no_option_is_forgotten():
  reached = {row[1] for row in REACHED}
  of_impala = {
    name
    for name in CATALOG.options
    if 'impala' in (CATALOG.algorithms_of(name) or ['impala'])
  }
  assert not of_impala - reached - OTHERS
  assert of_impala >= OTHERS
  assert not reached & OTHERS


@pytest.mark.parametrize('network', ['auto', 'mlp'])
def test_pixels_cannot_be_left_as_they_are_where_there_are_none(network):
  levels = environments.parse_levels('catch')
  config = resolve(
    make_config(level_name='catch', network=network, normalise_pixels=False),
    'catch',
  )
  with pytest.raises(
    ValueError,
    match='^--nonormalise_pixels has no effect: catch has no images of bytes, '
    r'but float32 \[.*\] to see and 3 actions to do\. Leave it out\.$',
  ):
    assembly.resolve_network(config, levels)


@pytest.mark.parametrize(
  ('level', 'name', 'value', 'missing'),
  [
    ('CartPole-v1', 'action_bounds', 'squash', 'numbers as actions'),
    ('CartPole-v1', 'instruction_length', 3, 'text'),
    ('FrozenLake-v1', 'normalise_numbers', True, 'numbers'),
    ('Pendulum-v1', 'log_epsilon', 0.1, 'probabilities of actions'),
    ('Pendulum-v1', 'use_log_softmax', True, 'probabilities of actions'),
  ],
)
@pytest.mark.parametrize('network', ['auto', 'mlp'])
def test_what_means_nothing_to_a_level_is_refused(
  level, name, value, missing, network
):
  levels = environments.parse_levels(level)
  options = {'algorithm': 'ga3c', 'network': network, name: value}
  config = resolve(make_config(level_name=level, **options), levels[0].suite)
  with pytest.raises(
    ValueError, match=rf'^--{name}.* has no effect: {level} has no {missing}'
  ):
    assembly.resolve_network(config, levels, {name})


@pytest.mark.parametrize(
  ('level', 'name'),
  [('Pendulum-v1', 'action_bounds'), ('CartPole-v1', 'log_epsilon')],
)
def test_what_means_something_to_a_level_is_not(level, name):
  levels = environments.parse_levels(level)
  config = resolve(
    make_config(level_name=level, algorithm='ga3c'), levels[0].suite
  )
  assert assembly.resolve_network(config, levels, {name}) is not None


@pytest.mark.parametrize(
  ('has', 'gpu', 'given', 'network', 'expected'),
  [
    (True, False, 'auto', None, 'bfloat16'),
    (True, False, 'auto', 'deep', 'bfloat16'),
    (True, False, 'auto', 'my.module:Torso', 'float32'),
    (True, True, 'auto', None, 'float32'),
    (False, False, 'auto', None, 'float32'),
    (True, False, 'float32', None, 'float32'),
    (False, True, 'bfloat16', 'my.module:Torso', 'bfloat16'),
  ],
)
def test_the_precision_follows_the_processor(
  monkeypatch, has, gpu, given, network, expected
):
  monkeypatch.setattr(processor, 'has_bfloat16', lambda: has)
  monkeypatch.setattr(
    tf.config, 'list_physical_devices', lambda kind: [1][:gpu]
  )
  config = make_config(precision=given, network=network)
  resolved = assembly.resolve_machine(config)
  assert resolved.agent.precision == expected
  # What was resolved, and stands in a config.json, is not looked up again.
  monkeypatch.setattr(processor, 'has_bfloat16', lambda: not has)
  assert assembly.resolve_machine(resolved).agent.precision == expected


@pytest.mark.parametrize(
  ('gpu', 'given', 'learners', 'devices', 'expected'),
  [
    (False, 'auto', 1, 1, 'pixels'),
    (True, 'auto', 1, 1, 'all'),
    (True, 'auto', 2, 1, 'pixels'),
    (True, 'auto', 1, 2, 'pixels'),
    (True, 'none', 1, 1, 'none'),
    (False, 'all', 1, 1, 'all'),
  ],
)
def test_what_xla_compiles_follows_the_devices(
  monkeypatch, gpu, given, learners, devices, expected
):
  monkeypatch.setattr(
    tf.config, 'list_physical_devices', lambda kind: [1][:gpu]
  )
  config = make_config(
    jit_compile=given, num_learners=learners, learner_devices=devices
  )
  assert assembly.resolve_machine(config).agent.jit_compile == expected


@pytest.mark.parametrize(
  ('gpu', 'given', 'expected'),
  [
    (False, 'auto', 'actor'),
    (True, 'auto', 'learner'),
    (True, 'actor', 'actor'),
    (False, 'learner', 'learner'),
  ],
)
def test_who_evaluates_the_agent_follows_the_devices(
  monkeypatch, gpu, given, expected
):
  monkeypatch.setattr(
    tf.config, 'list_physical_devices', lambda kind: [1][:gpu]
  )
  config = assembly.resolve_machine(make_config(inference=given, task=0))
  assert config.batching.inference == expected


def test_on_a_single_machine_nobody_else_evaluates_it():
  config = assembly.resolve_machine(make_config())
  assert config.batching.inference == 'auto'


def test_xla_compiles_no_update_of_several_devices():
  config = make_config(jit_compile='all', learner_devices=2, level_name='pong')
  with pytest.raises(ValueError, match='Choose --jit_compile=pixels'):
    options.validate(resolve(config, environments.parse_level('pong').suite))


@pytest.mark.parametrize(
  ('actors', 'jit_compile', 'level', 'sizes'),
  [
    (9, 'pixels', 'pong', (3, 6, 12, 24, 48, 96)),
    (9, 'all', 'pong', (3, 6, 12, 24, 48, 96)),
    (9, 'none', 'pong', ()),
    (8, 'pixels', 'pong', ()),
    (9, 'pixels', 'catch', ()),
  ],
)
def test_many_actors_do_not_have_xla_compile_for_each_number_of_rows(
  monkeypatch, actors, jit_compile, level, sizes
):
  made = mock.MagicMock()
  monkeypatch.setattr(policies, 'Batched', made)
  config = make_config(
    level_name=level,
    num_actors=actors,
    envs_per_actor=3,
    inference_maximum_batch_size=50,
    jit_compile=jit_compile,
  )
  (one,) = environments.parse_levels(level)
  config = resolve(config, one.suite)
  spec = worlds.find_spec(config, one)
  assembly.make_batched_policy(
    config, spec, mock.MagicMock(), policies.Seeds(1)
  )
  bound = inspect.signature(REAL_BATCHED).bind(*made.call_args.args)
  assert bound.arguments['allowed_batch_sizes'] == sizes
