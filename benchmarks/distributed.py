"""Measures one learner with several actor processes beside the single machine.

  python benchmarks/distributed.py --output=distributed.json

Every setting runs in processes of its own, as `experiment.py` starts them, and
the settings take turns, `--rounds` times; medians are compared. CPU time is
that of all processes of a setting, bytes are those that crossed the loopback
device, both ways and with all headers: nothing else should use it meanwhile.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np
import psutil
import tensorflow as tf
from absl import app, flags, logging
from rich import box, console, table

from scalable_agent import environments, options, runtimes
from scalable_agent.distribution import cluster as cluster_lib
from scalable_agent.runtimes import (
  assembly,
  cores,
  impala_actor,
  impala_learner,
  impala_local,
  threads,
)
from scalable_agent.transport import learner_link

# Seconds that a setting may take besides those asked for: starting, tracing.
_TIMEOUT = 300.0

_LEVEL = flags.DEFINE_string('level_name', 'pong', 'What to play.')
_PRESET = flags.DEFINE_enum(
  'preset',
  'auto',
  ('paper', 'auto'),
  'See --help of experiment.py.',
)
_ACTORS = flags.DEFINE_list(
  'actors', ['1', '2', '4', '8'], 'Numbers of actor processes.'
)
_SECONDS = flags.DEFINE_float('seconds', 15.0, 'Measured seconds per setting.')
_WARM_UP = flags.DEFINE_float('warm_up', 8.0, 'Seconds before, per setting.')
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Turns of each setting.')
_PORT = flags.DEFINE_integer('port', 8700, 'Port of the learner.')
_OUTPUT = flags.DEFINE_string('output', '', 'JSON file for the results.')
_PART = flags.DEFINE_enum(
  'part', None, ('single', 'learner', 'actor'), 'Is this process only.'
)
_NUM = flags.DEFINE_integer('num_actors', 0, 'Actor processes of the setting.')
_TASK = flags.DEFINE_integer('task', 0, 'Of this actor.')


def _config(logdir: str = 'unused'):
  levels = environments.parse_levels(_LEVEL.value)
  catalog = runtimes.make_catalog()
  default = options.resolve(catalog.make(), levels[0].suite)
  config = catalog.make(
    level_name=_LEVEL.value,
    preset=_PRESET.value,
    # That of a training, also beside the paper's other settings.
    network=default.agent.network,
    logdir=logdir,
    total_environment_frames=1e12,
    learning_rate_schedule='constant',
    summary_secs=5.0,
    progress_secs=1e9,
  )
  config = options.resolve(config, levels[0].suite, levels[0].options)
  if _NUM.value:
    config = config.replace(num_actors=_NUM.value, task=0)
  return assembly.resolve(config, levels), levels


def _cluster(job_name: str, task: int) -> cluster_lib.Cluster:
  address = f'localhost:{_PORT.value}'
  return cluster_lib.Cluster((address,), (), job_name, task, _NUM.value)


# The processes of a setting. Learners tell the main process when the window
# begins and ends.


def _measure(run, config: options.Config, gauges=dict) -> None:
  """Trains, and tells counters at both ends of the window."""
  training = run._training
  lags: list[np.ndarray] = []
  update = training.learner.update

  def record(batch):
    lags.append(training.updates() - batch.policy_version)
    return update(batch)

  training.learner.update = record

  def tell() -> None:
    values = {
      'frames': run.frames(),
      'frames_per_step': config.values['num_action_repeats'],
      'time': time.monotonic(),
      'busy': training.learner_seconds,
      'lags': np.concatenate(lags).tolist() if lags else [],
      **gauges(),
    }
    lags.clear()
    print(json.dumps(values), flush=True)

  with threads.ThreadGroup() as group:
    group.on_stop(run.stop)
    group.start('training', run.train)
    # Tracing is no part of it.
    while not training.learner_seconds and not group.wait_for_stop(0.01):
      pass
    for seconds in (_WARM_UP.value, _SECONDS.value):
      if group.wait_for_stop(seconds):
        return
      tell()


def _single() -> None:
  with tempfile.TemporaryDirectory() as logdir:
    config, levels = _config(logdir)
    _measure(impala_local.Run(config, levels), config)


def _learner() -> None:
  with tempfile.TemporaryDirectory() as logdir:
    config, levels = _config(logdir)
    run = impala_learner.Run(
      config, levels, _cluster('learner', 0), tf.distribute.get_strategy()
    )
    _measure(run, config, run._service.gauges)


def _actor() -> None:
  config, levels = _config()
  process = psutil.Process()
  link = learner_link.LearnerLink
  fetch, seconds, ready_after = link.update_weights, [], []

  def timed(self):
    start = time.perf_counter()
    version = fetch(self)
    seconds.append(time.perf_counter() - start)
    if not ready_after:
      ready_after.append(time.time() - process.create_time())
    return version

  link.update_weights = timed
  impala_actor.act(config, levels, _cluster('actor', _TASK.value))
  memory = process.memory_full_info()
  values = {
    'weights_seconds': statistics.median(seconds),
    'ready_seconds': ready_after[0],
    'rss_mib': memory.rss / 2**20,
    'private_mib': memory.uss / 2**20,
  }
  print(json.dumps(values))


# The main process.


def _start(part: str, num_actors: int, task: int = 0) -> subprocess.Popen:
  command = [sys.executable, os.path.abspath(__file__), f'--part={part}']
  command += [f'--num_actors={num_actors}', f'--task={task}']
  command += [
    f'--{flag.name}={flag.value}'
    for flag in (_LEVEL, _PRESET, _SECONDS, _WARM_UP, _PORT)
  ]
  return subprocess.Popen(
    command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  )


def _cpu_seconds(processes: list[subprocess.Popen]) -> float:
  times = [psutil.Process(p.pid).cpu_times() for p in processes]
  return sum(t.user + t.system for t in times)


def _loopback_bytes() -> int:
  # What is sent there is received there: one of both.
  return psutil.net_io_counters(pernic=True)['lo'].bytes_sent


def _run_setting(num_actors: int) -> dict:
  """Returns the measurements of one setting; 0 actors: a single machine."""
  learner = _start('learner' if num_actors else 'single', num_actors)
  actors = [_start('actor', num_actors, task) for task in range(num_actors)]
  processes = [learner, *actors]
  try:
    ends = []
    deadline = time.monotonic() + _TIMEOUT
    while len(ends) < 2 and time.monotonic() < deadline:
      line = learner.stdout.readline()
      if not line:
        raise RuntimeError(f'the learner ended:\n{learner.stderr.read()}')
      if line.startswith('{'):
        values = json.loads(line)
        values['cpu'] = _cpu_seconds(processes)
        values['bytes'] = _loopback_bytes()
        ends.append(values)
    for process in actors:
      process.send_signal(signal.SIGTERM)
    outputs = [p.communicate(timeout=60)[0] for p in actors]
    learner.communicate(timeout=60)
  finally:
    for process in processes:
      process.kill()
  return _summarize(*ends, outputs)


def _summarize(begin: dict, end: dict, outputs: list[str]) -> dict:
  seconds = end['time'] - begin['time']
  steps = (end['frames'] - begin['frames']) / end['frames_per_step']
  lags = np.array(end['lags'])
  result = {
    'steps_per_second': steps / seconds,
    'cpu_ms_per_step': 1000 * (end['cpu'] - begin['cpu']) / steps,
    'lag_mean': float(lags.mean()),
    'lag_p99': float(np.percentile(lags, 99)),
    'learner_idle': 1 - (end['busy'] - begin['busy']) / seconds,
  }
  if outputs:
    actors = [json.loads(output.splitlines()[-1]) for output in outputs]
    sent = end['actors/agent_steps'] - begin['actors/agent_steps']
    for name in ('unroll', 'weight'):
      key = f'actors/{name}_bytes'
      result[f'{name}_bytes_per_step'] = (end[key] - begin[key]) / sent
    result['wire_bytes_per_step'] = (end['bytes'] - begin['bytes']) / sent
    for key in actors[0]:
      result[f'actor_{key}'] = statistics.median(a[key] for a in actors)
  return result


def main(argv: list[str]) -> None:
  del argv
  logging.set_verbosity(logging.ERROR)
  if _PART.value:
    {'single': _single, 'learner': _learner, 'actor': _actor}[_PART.value]()
    return
  settings = [0, *map(int, _ACTORS.value)]
  rounds: dict[int, list[dict]] = {n: [] for n in settings}
  for _ in range(_ROUNDS.value):
    for num_actors in settings:
      rounds[num_actors].append(_run_setting(num_actors))
  medians = {
    n: {key: statistics.median(r[key] for r in rows) for key in rows[0]}
    for n, rows in rounds.items()
  }
  summary = {
    'level_name': _LEVEL.value,
    'preset': _PRESET.value,
    'cores': cores.usable_cores(),
    'settings': medians,
    'rounds': rounds,
  }
  _print(summary)
  if _OUTPUT.value:
    with open(_OUTPUT.value, 'w', encoding='utf-8') as file:
      json.dump(summary, file, indent=2)


_ROWS = (
  ('agent steps/s', 'steps_per_second', '{:,.0f}'),
  ('CPU-ms per agent step', 'cpu_ms_per_step', '{:.3f}'),
  ('wire: unroll bytes per step', 'unroll_bytes_per_step', '{:,.0f}'),
  ('wire: weight bytes per step', 'weight_bytes_per_step', '{:,.0f}'),
  ('wire: all bytes per step', 'wire_bytes_per_step', '{:,.0f}'),
  ('policy lag, mean (updates)', 'lag_mean', '{:.1f}'),
  ('policy lag, 99% (updates)', 'lag_p99', '{:.0f}'),
  ('learner idle', 'learner_idle', '{:.0%}'),
  ('actor: seconds for weights', 'actor_weights_seconds', '{:.4f}'),
  ('actor: seconds to start', 'actor_ready_seconds', '{:.1f}'),
  ('actor: RSS (MiB)', 'actor_rss_mib', '{:,.0f}'),
  ('actor: of it private (MiB)', 'actor_private_mib', '{:,.0f}'),
)


def _print(summary: dict) -> None:
  settings = summary['settings']
  rows = table.Table(
    title=f'{summary["level_name"]}, --preset={summary["preset"]}, '
    f'{summary["cores"]} cores',
    box=box.SIMPLE,
  )
  rows.add_column('')
  for num_actors in settings:
    name = f'{num_actors} actors' if num_actors else 'single machine'
    rows.add_column(name.replace('1 actors', '1 actor'), justify='right')
  for title, key, form in _ROWS:
    cells = [
      form.format(values[key]) if key in values else ''
      for values in settings.values()
    ]
    rows.add_row(title, *cells)
  console.Console(width=110).print(rows)
  single = settings[0]['steps_per_second']
  rates = {n: v['steps_per_second'] for n, v in settings.items() if n}
  best = max(rates, key=lambda n: rates[n])
  costs = [settings[n]['cpu_ms_per_step'] for n in rates]
  print(
    f'best distributed / single machine: {rates[best] / single:.3f} '
    f'({best} actors)\n'
    f'cost per step, {max(rates)} actors / {min(rates)}: '
    f'{costs[-1] / costs[0]:.3f}'
  )


if __name__ == '__main__':
  app.run(main)
