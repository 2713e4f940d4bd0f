"""Whether some settings learn, on several levels: short serial trainings.

  python benchmarks/probe.py --levels=pong,breakout,qbert --seeds=1,2 \\
    --frames=5e5 -- --entropy_cost=0.01

What follows `--` goes to experiment.py. A table tells, over the last tenth of
the frames, which share of the variance of its targets the baseline explains
(the first thing that is learned, long before returns rise), the entropy of the
policy in nats, and the mean return of the last 100 episodes. Serial trainings
are the same bit for bit each time, and so are their returns. The other two are
means over reports, which come by the clock: the load of the machine decides
which updates each is made of, and may move them a little.
"""

import argparse
import concurrent.futures
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import NamedTuple

# Run as a script, Python looks for packages in this folder only.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import numpy as np
from rich import box, console, table
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.util import tensor_util

from scalable_agent.reports import episode_log, scores

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Of a training's frames, at its end.
_SHARE = 0.1
# Often, as a probe is short.
_SUMMARY_SECS = 0.5


class Probe(NamedTuple):
  """What a short training came to.

  Attributes:
    level: name of the level.
    seed: of the training.
    explained_variance: of the targets by the baseline, a mean over the end.
    entropy: of the policy in nats, likewise.
    episode_return: mean of the last 100 episodes; NaN if none has ended.
  """

  level: str
  seed: int
  explained_variance: float
  entropy: float
  episode_return: float


def run(
  level: str, seed: int, frames: float, arguments: Sequence[str] = ()
) -> Probe:
  """Trains for a while and returns what came of it.

  Args:
    level: name of the level.
    seed: of the training.
    frames: environment frames to train for.
    arguments: further ones of experiment.py.

  Raises:
    RuntimeError: the training failed, and what it wrote; or it told too little.
  """
  with tempfile.TemporaryDirectory() as logdir:
    command = [
      sys.executable,
      str(ROOT / 'experiment.py'),
      f'--logdir={logdir}',
      f'--level_name={level}',
      f'--seed={seed}',
      f'--total_environment_frames={frames}',
      '--num_actors=0',
      # What a long training is like at its start.
      '--learning_rate_schedule=constant',
      f'--summary_secs={_SUMMARY_SECS}',
      *arguments,
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if result.returncode:
      raise RuntimeError(f'{" ".join(command)} failed:\n{result.stderr}')
    accumulator = event_accumulator.EventAccumulator(
      logdir, size_guidance={event_accumulator.TENSORS: 0}
    )
    accumulator.Reload()
    episodes = episode_log.read(f'{logdir}/episodes.csv')
  returns = [e.episode_return for e in episodes[-scores.RECENT_EPISODES :]]
  return Probe(
    level,
    seed,
    _mean_at_the_end(accumulator, 'learner/explained_variance'),
    _mean_at_the_end(accumulator, 'loss/entropy'),
    float(np.mean(returns)) if returns else float('nan'),
  )


def _mean_at_the_end(accumulator, tag: str) -> float:
  if tag not in accumulator.Tags()['tensors']:
    raise RuntimeError(
      f'the training wrote no {tag}: it ended before its first update. Raise '
      '--frames, or lower --batch_size or --unroll_length.'
    )
  events = accumulator.Tensors(tag)
  start = (1 - _SHARE) * events[-1].step
  values = [
    float(tensor_util.make_ndarray(event.tensor_proto))
    for event in events
    if event.step >= start
  ]
  return float(np.mean(values))


def run_all(
  levels: Sequence[str],
  seeds: Sequence[int],
  frames: float,
  arguments: Sequence[str] = (),
  processes: int = 2,
) -> list[Probe]:
  """Returns the probes of all levels and seeds; see `run`."""
  with concurrent.futures.ThreadPoolExecutor(processes) as executor:
    futures = [
      executor.submit(run, level, seed, frames, arguments)
      for level in levels
      for seed in seeds
    ]
    return [future.result() for future in futures]


def _show(probes: Sequence[Probe]) -> None:
  columns = table.Table(box=box.MARKDOWN)
  for name in Probe._fields:
    columns.add_column(name, justify='right')
  for probe in probes:
    columns.add_row(
      *(f'{x:.2f}' if isinstance(x, float) else str(x) for x in probe)
    )
  console.Console(width=100).print(columns)


def main(arguments: Sequence[str] | None = None) -> None:
  """Parses the command line, trains, and prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    '--levels', default='pong,breakout', help='Names, separated by commas.'
  )
  parser.add_argument('--seeds', default='1', help='Separated by commas.')
  parser.add_argument(
    '--frames', type=float, default=5e5, help='Of each training. 500000.'
  )
  parser.add_argument(
    '--processes', type=int, default=2, help='Trainings at a time. 2.'
  )
  parser.add_argument('--output', help='JSON file for the results.')
  parser.add_argument('arguments', nargs='*', help='Of experiment.py.')
  options = parser.parse_args(arguments)
  seeds = [int(seed) for seed in options.seeds.split(',')]
  try:
    probes = run_all(
      options.levels.split(','),
      seeds,
      options.frames,
      options.arguments,
      options.processes,
    )
  except RuntimeError as error:
    sys.exit(f'probe.py: {error}')
  _show(probes)
  if options.output:
    results = [probe._asdict() for probe in probes]
    pathlib.Path(options.output).write_text(json.dumps(results, indent=1))


if __name__ == '__main__':
  main()
