"""Measures one learner with several actor processes beside the single machine.

  python benchmarks/distributed.py --output=distributed.json
  python benchmarks/distributed.py --network=deep --actors=2

Every setting, a way of inference and a number of actors, runs in processes of
its own, and the settings take turns, `--rounds` times; medians are compared.
Actors are those of `experiment.py` (`timed_actor.py`). Bytes are those that
crossed the loopback device, both ways and with all headers: nothing else should
use it meanwhile.
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
  impala_learner,
  impala_local,
  threads,
)
from scalable_agent.transport import credentials

# Seconds that a setting may take besides those asked for: starting, tracing.
_TIMEOUT = 300.0
_TIMED_ACTOR = os.path.join(os.path.dirname(__file__), 'timed_actor.py')

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
_INFERENCE = flags.DEFINE_list(
  'inference', ['actor', 'learner'], 'Who evaluates the agent.'
)
_NETWORK = flags.DEFINE_string(
  'network', '', 'Torso; default: that of a training.'
)
_SECONDS = flags.DEFINE_float('seconds', 15.0, 'Measured seconds per setting.')
_WARM_UP = flags.DEFINE_float('warm_up', 8.0, 'Seconds before, per setting.')
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Turns of each setting.')
_PORT = flags.DEFINE_integer('port', 8700, 'Port of the learner.')
_OUTPUT = flags.DEFINE_string('output', '', 'JSON file for the results.')
_PART = flags.DEFINE_enum(
  'part', None, ('single', 'learner'), 'Is this process only.'
)
_NUM = flags.DEFINE_integer('num_actors', 0, 'Actor processes of the setting.')


def _config(logdir: str):
  levels = environments.parse_levels(_LEVEL.value)
  catalog = runtimes.make_catalog()
  default = options.resolve(catalog.make(), levels[0].suite)
  config = catalog.make(
    level_name=_LEVEL.value,
    preset=_PRESET.value,
    # That of a training, also beside the paper's other settings.
    network=_NETWORK.value or default.agent.network,
    logdir=logdir,
    total_environment_frames=1e12,
    learning_rate_schedule='constant',
    summary_secs=5.0,
    progress_secs=1e9,
  )
  config = options.resolve(config, levels[0].suite, levels[0].options)
  if _NUM.value:
    config = config.replace(
      num_actors=_NUM.value, task=0, inference=_INFERENCE.value[0]
    )
  return assembly.resolve(config, levels), levels


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
    address = f'localhost:{_PORT.value}'
    run = impala_learner.Run(
      config,
      levels,
      cluster_lib.Cluster((address,), (), 'learner', 0, _NUM.value),
      credentials.NONE,
      tf.distribute.get_strategy(),
    )

    def gauges() -> dict:
      values = run._service.gauges()
      if run._policy is not None:
        statistics_ = run._policy.statistics()
        values |= {'rows': statistics_.rows, 'batches': statistics_.batches}
      return values

    _measure(run, config, gauges)


# The main process.


def _start(command: list[str]) -> subprocess.Popen:
  return subprocess.Popen(
    [sys.executable, *command],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def _start_learner(inference: str, num_actors: int) -> subprocess.Popen:
  part = 'learner' if num_actors else 'single'
  command = [os.path.abspath(__file__), f'--part={part}']
  command += [f'--num_actors={num_actors}', f'--inference={inference}']
  command += [
    f'--{flag.name}={flag.value}'
    for flag in (_LEVEL, _PRESET, _NETWORK, _SECONDS, _WARM_UP, _PORT)
  ]
  return _start(command)


def _start_actor(num_actors: int, task: int) -> subprocess.Popen:
  command = [_TIMED_ACTOR, '--job_name=actor', f'--task={task}']
  command += [f'--num_actors={num_actors}', '--insecure_loopback']
  command += [f'--learner_address=localhost:{_PORT.value}']
  command += [f'--level_name={_LEVEL.value}', f'--preset={_PRESET.value}']
  # What the learner resolves to be another one than the preset's.
  return _start(
    [*command, '--network=auto', '--learning_rate_schedule=constant']
  )


def _cpu_seconds(processes: list[subprocess.Popen]) -> float:
  times = [psutil.Process(p.pid).cpu_times() for p in processes]
  return sum(t.user + t.system for t in times)


def _loopback_bytes() -> int:
  # What is sent there is received there: one of both.
  return psutil.net_io_counters(pernic=True)['lo'].bytes_sent


def _run_setting(inference: str, num_actors: int) -> dict:
  """Returns the measurements of one setting; 0 actors: a single machine."""
  learner = _start_learner(inference, num_actors)
  actors = [_start_actor(num_actors, task) for task in range(num_actors)]
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
        values['cpu_learner'] = _cpu_seconds([learner])
        values['cpu_actors'] = _cpu_seconds(actors)
        values['bytes'] = _loopback_bytes()
        ends.append(values)
    for process in actors:
      process.send_signal(signal.SIGTERM)
    outputs = [p.communicate(timeout=60) for p in actors]
    learner.communicate(timeout=60)
  finally:
    for process in processes:
      process.kill()
  for process, (_, errors) in zip(actors, outputs, strict=True):
    if process.returncode:
      raise RuntimeError(f'an actor failed:\n{errors}')
  return _summarize(*ends, [output for output, _ in outputs])


def _summarize(begin: dict, end: dict, outputs: list[str]) -> dict:
  seconds = end['time'] - begin['time']
  steps = (end['frames'] - begin['frames']) / end['frames_per_step']
  lags = np.array(end['lags'])
  learner = 1000 * (end['cpu_learner'] - begin['cpu_learner']) / steps
  actors_ = 1000 * (end['cpu_actors'] - begin['cpu_actors']) / steps
  result = {
    'steps_per_second': steps / seconds,
    'cpu_ms_per_step': learner + actors_,
    'learner_cpu_ms_per_step': learner,
    'actors_cpu_ms_per_step': actors_,
    'lag_mean': float(lags.mean()),
    'lag_p99': float(np.percentile(lags, 99)),
    'learner_idle': 1 - (end['busy'] - begin['busy']) / seconds,
  }
  if not outputs:
    return result
  # Of their last line: progress may stand before it.
  actors = [json.loads(output.splitlines()[-1]) for output in outputs]
  sent = end['actors/agent_steps'] - begin['actors/agent_steps']
  for name in ('unroll', 'observation', 'weight'):
    key = f'actors/{name}_bytes'
    if key in end:
      result[f'{name}_bytes_per_step'] = (end[key] - begin[key]) / sent
  result['wire_bytes_per_step'] = (end['bytes'] - begin['bytes']) / sent
  if 'rows' in end:
    batches = end['batches'] - begin['batches']
    result['inference_batch'] = (end['rows'] - begin['rows']) / batches
  for key in actors[0]:
    result[f'actor_{key}'] = statistics.median(a[key] for a in actors)
  return result


def main(argv: list[str]) -> None:
  del argv
  logging.set_verbosity(logging.ERROR)
  if _PART.value:
    {'single': _single, 'learner': _learner}[_PART.value]()
    return
  settings = [('', 0)]
  settings += [(i, int(n)) for i in _INFERENCE.value for n in _ACTORS.value]
  rounds: dict[tuple[str, int], list[dict]] = {s: [] for s in settings}
  for _ in range(_ROUNDS.value):
    for setting in settings:
      inference, num_actors = setting
      rounds[setting].append(_run_setting(inference or 'actor', num_actors))
  medians = {
    _name(*setting): {k: statistics.median(r[k] for r in rows) for k in rows[0]}
    for setting, rows in rounds.items()
  }
  summary = {
    'level_name': _LEVEL.value,
    'preset': _PRESET.value,
    'network': _NETWORK.value or 'default',
    'cores': cores.usable_cores(),
    'settings': medians,
    'rounds': {_name(*setting): rows for setting, rows in rounds.items()},
  }
  _print(summary)
  if _OUTPUT.value:
    with open(_OUTPUT.value, 'w', encoding='utf-8') as file:
      json.dump(summary, file, indent=2)


def _name(inference: str, num_actors: int) -> str:
  if not num_actors:
    return 'single machine'
  return f'{inference}, {num_actors}'


_ROWS = (
  ('agent steps/s', 'steps_per_second', '{:,.0f}'),
  ('CPU-ms per agent step', 'cpu_ms_per_step', '{:.3f}'),
  ('  of the learner', 'learner_cpu_ms_per_step', '{:.3f}'),
  ('  of the actors', 'actors_cpu_ms_per_step', '{:.3f}'),
  ('bytes per step: unrolls', 'unroll_bytes_per_step', '{:,.0f}'),
  ('  observations', 'observation_bytes_per_step', '{:,.0f}'),
  ('  weights', 'weight_bytes_per_step', '{:,.0f}'),
  ('  all on the wire', 'wire_bytes_per_step', '{:,.0f}'),
  ('policy lag, mean (updates)', 'lag_mean', '{:.1f}'),
  ('policy lag, 99% (updates)', 'lag_p99', '{:.0f}'),
  ('learner idle', 'learner_idle', '{:.0%}'),
  ('rows of an inference', 'inference_batch', '{:.0f}'),
  ('round trip, p50 (ms)', 'actor_round_trip_ms', '{:.1f}'),
  ('round trip, p99 (ms)', 'actor_round_trip_p99_ms', '{:.1f}'),
  ('actor: seconds to start', 'actor_ready_seconds', '{:.1f}'),
  ('actor: RSS (MiB)', 'actor_rss_mib', '{:,.0f}'),
  ('actor: of it private (MiB)', 'actor_private_mib', '{:,.0f}'),
)


def _print(summary: dict) -> None:
  settings = summary['settings']
  rows = table.Table(
    title=f'{summary["level_name"]}, --preset={summary["preset"]}, network '
    f'{summary["network"]}, {summary["cores"]} cores; --inference, actors',
    box=box.SIMPLE,
  )
  rows.add_column('')
  for name in settings:
    rows.add_column(name, justify='right')
  for title, key, form in _ROWS:
    cells = [
      form.format(values[key]) if key in values else ''
      for values in settings.values()
    ]
    rows.add_row(title, *cells)
  console.Console(width=160).print(rows)
  single = settings['single machine']['steps_per_second']
  for inference in _INFERENCE.value:
    of = {n: settings[_name(inference, int(n))] for n in _ACTORS.value}
    best = max(of, key=lambda n: of[n]['steps_per_second'])
    first, *_, last = [*of, *of]
    cost = of[last]['cpu_ms_per_step'] / of[first]['cpu_ms_per_step']
    print(
      f'--inference={inference}: best / single machine '
      f'{of[best]["steps_per_second"] / single:.3f} ({best} actors); cost per '
      f'step, {last} actors / {first}: {cost:.3f}'
    )


if __name__ == '__main__':
  app.run(main)
