"""Compares the algorithms on one machine: the IMPALA paper's Table 1 on yours.

  python benchmarks/family.py --output=family.json

Same game, network, unroll and cores for all; transitions of an update are as
many, too, and so are environments, but for A2C, whose updates are of all of
them. Each is what a user would start, `experiment.py`,
in a process of its own; they take turns, `--rounds` times, because a shared
machine changes its speed by the minute, and the medians are compared. What they
do is read from their TensorBoard events; agent steps per second (times the
action repeat: frames).

With `--settings=auto` each algorithm has its own settings for a small machine
instead.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import NamedTuple

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np
import psutil
import tensorflow as tf
from absl import app, flags, logging
from rich import box, console, table
from tensorboard.backend.event_processing import event_accumulator

_EXPERIMENT = os.path.join(
  os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'experiment.py'
)
# Seconds between two looks, and between two of a training's summaries.
_TICK, _SUMMARY = 0.25, 0.5
# Seconds that a training may take to begin, and to end.
_START_TIMEOUT, _STOP_TIMEOUT = 300.0, 60.0

_ACTORS, _ENVS, _UNROLL = 2, 32, 20
_TRAJECTORIES = 32
_SAME = (f'--unroll_length={_UNROLL}',)
_OF_ACTORS = (f'--num_actors={_ACTORS}', f'--envs_per_actor={_ENVS}')

# Name, algorithm's own flags, those that make all alike.
ROWS = {
  'a3c': (
    # No evaluator on the same cores.
    ('--algorithm=a3c', '--evaluation_secs=0'),
    (*_OF_ACTORS,),
  ),
  'a2c': (
    ('--algorithm=a2c',),
    (f'--envs_per_actor={_TRAJECTORIES}',),
  ),
  'ga3c': (
    ('--algorithm=ga3c',),
    (
      *_OF_ACTORS,
      '--num_predictors=1',
      '--num_trainers=1',
      f'--training_min_batch_size={_TRAJECTORIES * _UNROLL}',
    ),
  ),
  'impala_unbatched': (
    ('--algorithm=impala', '--batcher=none'),
    (*_OF_ACTORS, f'--batch_size={_TRAJECTORIES}'),
  ),
  'impala_batched': (
    ('--algorithm=impala',),
    (*_OF_ACTORS, f'--batch_size={_TRAJECTORIES}'),
  ),
}

_LEVEL = flags.DEFINE_string('level_name', 'pong', 'What to play.')
_SETTINGS = flags.DEFINE_enum(
  'settings', 'same', ('same', 'auto'), "The same for all, or each one's own."
)
_ONLY = flags.DEFINE_list('rows', list(ROWS), 'Rows of the table.')
_SECONDS = flags.DEFINE_float('seconds', 20.0, 'Measured seconds per row.')
_WARM_UP = flags.DEFINE_float('warm_up', 10.0, 'Seconds before, per row.')
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Turns of each row.')
_OUTPUT = flags.DEFINE_string('output', '', 'JSON file for the results.')


class Measured(NamedTuple):
  """What a training did in the measured seconds.

  Attributes:
    steps_per_second: agent steps learned from.
    cpu_ms_per_step: milliseconds of all cores for one of them.
    policy_lag: mean age of what was learned from, in updates.
    inference_rows: mean rows of an evaluation of the policy.
  """

  steps_per_second: float
  cpu_ms_per_step: float
  policy_lag: float
  inference_rows: float


def _command(name: str, logdir: str) -> list[str]:
  own, same = ROWS[name]
  options = (*own, *(_SAME + same if _SETTINGS.value == 'same' else ()))
  return [
    sys.executable,
    _EXPERIMENT,
    f'--level_name={_LEVEL.value}',
    *options,
    f'--logdir={logdir}',
    '--total_environment_frames=1e12',
    '--learning_rate_schedule=constant',
    f'--summary_secs={_SUMMARY}',
    '--progress_secs=1e9',
    '--save_checkpoint_secs=1e9',
  ]


def _measure(name: str) -> Measured:
  """Starts a training, looks at it for a while, and ends it."""
  with tempfile.TemporaryDirectory() as logdir:
    with tempfile.TemporaryFile() as log:
      process = subprocess.Popen(
        _command(name, logdir), stdout=log, stderr=subprocess.STDOUT
      )
      try:
        clock, cpu = _watch(process, logdir)
      finally:
        process.terminate()
        try:
          process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
          process.kill()
          raise
      if clock is None:
        log.seek(0)
        text = log.read().decode(errors='replace')
        sys.exit(f'{name} failed:\n{text[-4000:]}')
    return _read(logdir, clock, cpu)


def _watch(
  process: subprocess.Popen, logdir: str
) -> tuple[Sequence[float] | None, Sequence[float]]:
  """Returns times and the CPU seconds used until then; None if it ended."""
  deadline = time.time() + _START_TIMEOUT
  while not _frames(logdir):
    if process.poll() is not None or time.time() > deadline:
      return None, ()
    time.sleep(_TICK)
  clock, cpu = [], []
  start = time.time() + _WARM_UP.value
  one = psutil.Process(process.pid)
  while time.time() < start + _SECONDS.value + 2 * _SUMMARY:
    if process.poll() is not None:
      return None, ()
    if time.time() >= start:
      times = one.cpu_times()
      clock.append(time.time())
      cpu.append(times.user + times.system)
    time.sleep(_TICK)
  return clock, cpu


def _events(logdir: str) -> event_accumulator.EventAccumulator:
  return event_accumulator.EventAccumulator(
    logdir, size_guidance={event_accumulator.TENSORS: 0}
  ).Reload()


def _frames(logdir: str) -> bool:
  """Whether something was learned."""
  if not any(name.startswith('events') for name in os.listdir(logdir)):
    return False
  events = _events(logdir)
  return 'policy_lag' in events.Tags()['tensors']


def _read(
  logdir: str, clock: Sequence[float], cpu: Sequence[float]
) -> Measured:
  """Returns what the events between the first and the last time tell."""
  events = _events(logdir)

  def within(tag):
    if tag not in events.Tags()['tensors']:
      return []
    return [
      event
      for event in events.Tensors(tag)
      if clock[0] <= event.wall_time <= clock[-1]
    ]

  def mean(tag):
    arrays = [tf.make_ndarray(event.tensor_proto) for event in within(tag)]
    return float(np.mean(arrays)) if arrays else 0.0

  with open(os.path.join(logdir, 'config.json'), encoding='utf-8') as file:
    config = json.load(file)
  # Frames of an agent step.
  repeats = config.get('num_action_repeats', 1)
  lags = within('policy_lag')
  if not lags:
    sys.exit(f'Nothing was learned in --seconds={_SECONDS.value}: raise it.')
  first, last = lags[0], lags[-1]
  steps = (last.step - first.step) / repeats
  seconds = last.wall_time - first.wall_time
  if seconds <= 0:
    sys.exit(
      f'Only {len(lags)} reports in --seconds={_SECONDS.value}: raise it.'
    )
  used = np.interp([first.wall_time, last.wall_time], clock, cpu)
  return Measured(
    steps_per_second=steps / seconds,
    cpu_ms_per_step=1000 * float(used[1] - used[0]) / steps,
    policy_lag=mean('policy_lag'),
    # Who has no batcher evaluates what one actor's environments show.
    inference_rows=(
      mean('batcher/mean_batch_size')
      if 'batcher/mean_batch_size' in events.Tags()['tensors']
      else config['envs_per_actor']
    ),
  )


def main(argv: list[str]) -> None:
  del argv
  # TensorBoard tells of each look at a file.
  logging.set_verbosity(logging.WARNING)
  unknown = set(_ONLY.value) - set(ROWS)
  if unknown:
    sys.exit(f'--rows={",".join(unknown)}: choose from {", ".join(ROWS)}.')
  results: dict[str, list[Measured]] = {name: [] for name in _ONLY.value}
  for _ in range(_ROUNDS.value):
    for name in results:
      results[name].append(_measure(name))
      print(f'{name}: {results[name][-1]}', flush=True)
  medians = {
    name: Measured(*(statistics.median(x) for x in zip(*rows, strict=True)))
    for name, rows in results.items()
  }
  _print(medians)
  if _OUTPUT.value:
    summary = {
      'level_name': _LEVEL.value,
      'settings': _SETTINGS.value,
      'cores': len(os.sched_getaffinity(0)),
      'medians': {k: v._asdict() for k, v in medians.items()},
      'rounds': {k: [v._asdict() for v in vs] for k, vs in results.items()},
    }
    with open(_OUTPUT.value, 'w', encoding='utf-8') as file:
      json.dump(summary, file, indent=2)


def _print(medians: dict[str, Measured]) -> None:
  rows = table.Table(
    title=f'{_LEVEL.value}, --settings={_SETTINGS.value}', box=box.SIMPLE
  )
  rows.add_column('algorithm')
  for title in ('agent steps/s', 'CPU-ms per step', 'policy lag', 'rows'):
    rows.add_column(title, justify='right')
  for name, one in medians.items():
    rows.add_row(
      name,
      f'{one.steps_per_second:,.0f}',
      f'{one.cpu_ms_per_step:.2f}',
      f'{one.policy_lag:.1f}',
      f'{one.inference_rows:.1f}',
    )
  console.Console().print(rows)


if __name__ == '__main__':
  app.run(main)
