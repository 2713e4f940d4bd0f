"""Measures the parts of a training alone, and the training, in one run.

  python benchmarks/throughput.py --output=throughput.json

Each part runs in a process of its own and may use all cores: environments in
one thread per actor, inference in one thread per actor, the learner with one
operation spread over all cores. The parts take turns, `--rounds` times, because
a shared machine changes its speed by the minute; the medians are compared.
Everything is in agent steps per second (times the action repeat: frames).

The training cannot be faster than its parts one after the other on all cores,
1 / (1 / environment + 1 / inference + 1 / learner).
"""

import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np
import tensorflow as tf
import tree
from absl import app, flags
from rich import box, console, table

from scalable_agent import actor as actor_lib
from scalable_agent import (
  environments,
  options,
  policies,
  runtimes,
  structures,
)
from scalable_agent.runtimes import (
  assembly,
  cores,
  impala_local,
  threads,
  training,
)

PARTS = ('environment', 'inference', 'learner', 'training')
# Seconds that a part may take besides those asked for: tracing, building.
_PART_TIMEOUT = 600.0

_LEVEL = flags.DEFINE_string('level_name', 'pong', 'What to play.')
_NETWORK = flags.DEFINE_string(
  'network', '', 'Torso. Default: that of a training, with either preset.'
)
_PRESET = flags.DEFINE_enum(
  'preset', 'paper', ('paper', 'auto'), "Settings: the paper's, batches of 32."
)
_SECONDS = flags.DEFINE_float('seconds', 15.0, 'Measured seconds per part.')
_WARM_UP = flags.DEFINE_float('warm_up', 5.0, 'Seconds before, per part.')
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Turns of each part.')
_OUTPUT = flags.DEFINE_string('output', '', 'JSON file for the results.')
_PART = flags.DEFINE_enum('part', None, PARTS, 'Measures this part only.')


def _config() -> tuple[options.Config, environments.Level]:
  level = environments.parse_level(_LEVEL.value)
  catalog = runtimes.make_catalog()
  default = options.resolve(catalog.make(), level.suite)
  config = catalog.make(
    level_name=_LEVEL.value,
    network=_NETWORK.value or default.agent.network,
    logdir='unused',
    total_environment_frames=1e12,
    learning_rate_schedule='constant',
    preset=_PRESET.value,
    summary_secs=5.0,
    progress_secs=1e9,
  )
  config = options.resolve(config, level.suite, level.options)
  # As experiment.py does.
  return (
    options.follow_cores(config, level.suite, (), cores.usable_cores()),
    level,
  )


def _rate(step, num_threads: int) -> float:
  """Calls `step(thread)`, which returns agent steps, in several threads."""
  counts = np.zeros(num_threads)

  def run(index: int) -> None:
    while not group.stopping:
      counts[index] += step(index)

  with threads.ThreadGroup() as group:
    for index in range(num_threads):
      group.start(f'worker_{index}', functools.partial(run, index))
    return _measure(group, counts.sum)


def _measure(group: threads.ThreadGroup, count) -> float:
  """Returns the increase of `count()` per second, after the warm-up.

  When a thread fails it returns early, for the group to raise the failure.
  """
  start_count = count()
  # Tracing and building are no part of it.
  while count() == start_count and not group.wait_for_stop(0.01):
    pass
  group.wait_for_stop(_WARM_UP.value)
  start, start_count = time.perf_counter(), count()
  group.wait_for_stop(_SECONDS.value)
  return (count() - start_count) / (time.perf_counter() - start)


def _environments(config, level):
  return [
    assembly.make_environment(
      config, level, config.actors.envs_per_actor, seed=i
    )
    for i in range(config.actors.num_actors)
  ]


def _environment(config, level) -> float:
  envs = _environments(config, level)
  generators = [np.random.default_rng(i) for i in range(len(envs))]
  for env in envs:
    env.reset()

  def step(index: int) -> int:
    env = envs[index]
    env.step(env.spec.action_space.sample(generators[index], env.num_envs))
    return env.num_envs

  return _rate(step, len(envs))


def _inference(config, level) -> float:
  env = _environments(config, level)[0]
  agent = assembly.make_agent(config, env.spec)
  policy = policies.Direct(policies.make_step(agent, policies.Seeds(1)))
  output = env.reset()
  action = np.zeros([env.num_envs], np.int32)
  states = [agent.initial_state(env.num_envs)] * config.actors.num_actors

  def step(index: int) -> int:
    answer, states[index] = policy(output, action, states[index])
    np.asarray(answer.action)
    return env.num_envs

  return _rate(step, config.actors.num_actors)


def _learner(config, level) -> float:
  env = _environments(config, level)[0]
  agent = assembly.make_agent(config, env.spec)
  learner = training.make_learner(config, agent, env.spec)
  batch = actor_lib.Actor(
    env,
    policies.Direct(policies.make_step(agent, policies.Seeds(1))),
    agent.initial_state(env.num_envs),
    config.actors.unroll_length,
  ).unroll()
  batch = tree.map_structure_with_path(
    lambda path, x: _columns(path, x, config.batches.batch_size), batch
  )

  def step(_) -> int:
    int(learner.update(batch)['updates'])
    return config.batches.batch_size * config.actors.unroll_length

  return _rate(step, 1)


def _columns(path, x: np.ndarray, size: int) -> np.ndarray:
  axis = structures.column_axis(path)
  return np.take(x, np.arange(size) % x.shape[axis], axis)


def _training(config, level) -> float:
  with tempfile.TemporaryDirectory() as logdir:
    config = config.replace(logdir=logdir)
    run = impala_local.Run(config, [level])
    with threads.ThreadGroup() as group:
      group.on_stop(run.stop)
      group.start('training', run.train)
      return _measure(group, run.frames) / run.spec.frames_per_step


def _measure_part(part: str) -> None:
  config, level = _config()
  if part == 'learner':
    tf.config.threading.set_intra_op_parallelism_threads(cores.usable_cores())
  else:
    assembly.use_threads(assembly.resolve_machine(config))
  function = {
    'environment': _environment,
    'inference': _inference,
    'learner': _learner,
    'training': _training,
  }[part]
  rate = function(config, level)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  print(json.dumps({'steps_per_second': rate, 'peak_rss_mib': peak}))


def _spawn(part: str) -> dict:
  command = [sys.executable, os.path.abspath(__file__), f'--part={part}']
  command += [
    f'--{flag.name}={flag.value}'
    for flag in (_LEVEL, _NETWORK, _PRESET, _SECONDS, _WARM_UP)
  ]
  timeout = _PART_TIMEOUT + _WARM_UP.value + _SECONDS.value
  try:
    result = subprocess.run(
      command, capture_output=True, text=True, timeout=timeout
    )
  except subprocess.TimeoutExpired:
    sys.exit(f'{part} did not end within {timeout:.0f} s')
  if result.returncode:
    sys.exit(f'{part} failed:\n{result.stderr[-4000:]}')
  return json.loads(result.stdout.splitlines()[-1])


def main(argv: list[str]) -> None:
  del argv
  if _PART.value:
    _measure_part(_PART.value)
    return
  results = {part: [] for part in PARTS}
  for _ in range(_ROUNDS.value):
    for part in PARTS:
      results[part].append(_spawn(part))
  rates = {
    part: statistics.median(r['steps_per_second'] for r in rows)
    for part, rows in results.items()
  }
  actors = _config()[0].actors
  of_parts = 1 / sum(1 / rates[part] for part in PARTS[:3])
  summary = {
    'level_name': _LEVEL.value,
    'preset': _PRESET.value,
    'cores': cores.usable_cores(),
    'num_actors': actors.num_actors,
    'envs_per_actor': actors.envs_per_actor,
    'steps_per_second': rates,
    'sum_of_parts': of_parts,
    'training_to_sum_of_parts': rates['training'] / of_parts,
    'training_to_environment': rates['training'] / rates['environment'],
    'training_peak_rss_mib': max(
      r['peak_rss_mib'] for r in results['training']
    ),
    'rounds': results,
  }
  _print(summary)
  if _OUTPUT.value:
    with open(_OUTPUT.value, 'w', encoding='utf-8') as file:
      json.dump(summary, file, indent=2)


def _print(summary: dict) -> None:
  level, cores = summary['level_name'], summary['cores']
  rows = table.Table(
    title=f'{level}, --preset={summary["preset"]}, {cores} cores, '
    f'{summary["num_actors"]} actors of {summary["envs_per_actor"]} '
    'environments: agent steps per second',
    box=box.SIMPLE,
  )
  rows.add_column('part')
  rows.add_column('steps/s', justify='right')
  rows.add_column('of the environment alone', justify='right')
  values = summary['steps_per_second'] | {
    'sum of parts': summary['sum_of_parts']
  }
  for name, value in values.items():
    share = value / values['environment']
    rows.add_row(name, f'{value:,.0f}', f'{share:.2f}')
  console.Console().print(rows)
  print(
    f'training / sum of parts: {summary["training_to_sum_of_parts"]:.3f}\n'
    f'training / environment:  {summary["training_to_environment"]:.3f}\n'
    f'peak RSS of training:    {summary["training_peak_rss_mib"]:,.0f} MiB'
  )


if __name__ == '__main__':
  app.run(main)
