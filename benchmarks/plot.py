"""Learning curves of one or more runs.

  python benchmarks/plot.py --logdir=logs/pong --output=curve.png

Mean return of the last 100 episodes, over environment frames and over wall
clock, one line for each level of each run.
"""

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence

# Run as a script, Python looks for packages in this folder only.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import matplotlib

matplotlib.use('Agg')

import matplotlib.pyplot as plt
import matplotlib.ticker
import numpy as np

from scalable_agent.reports import episode_log

WINDOW = 100


def read_run(logdir: str) -> list[episode_log.Episode]:
  """Returns the episodes of a run.

  Raises:
    ValueError: there is no episodes.csv, it cannot be read, or it is empty.
  """
  path = os.path.join(logdir, 'episodes.csv')
  try:
    episodes = episode_log.read(path)
  except FileNotFoundError as error:
    raise ValueError(
      f'--logdir={logdir} has no episodes.csv. Give the --logdir that '
      'experiment.py was run with.'
    ) from error
  if not episodes:
    raise ValueError(
      f'--logdir={logdir}: no episode of this run has finished yet; {path} is '
      'empty. Train for longer.'
    )
  return episodes


def running_mean(values: Sequence[float], window: int = WINDOW) -> np.ndarray:
  """Returns the mean of the last `window` values, of fewer at the start.

  Args:
    values: [N].
    window: number of values.
  """
  sums = np.concatenate([[0.0], np.cumsum(values)])
  ends = np.arange(1, len(values) + 1)
  starts = np.maximum(ends - window, 0)
  return (sums[ends] - sums[starts]) / (ends - starts)


def names_of(logdirs: Sequence[str]) -> list[str]:
  """Returns as much of each path's end as it takes to tell them apart."""
  parts = [pathlib.Path(os.path.abspath(logdir)).parts for logdir in logdirs]
  longest = max(map(len, parts))
  for length in range(1, longest + 1):
    names = ['/'.join(part[-length:]) for part in parts]
    if len(set(names)) == len(names):
      return names
  return list(logdirs)


def plot(logdirs: Sequence[str], output: str) -> None:
  """Draws the learning curves of runs into an image.

  Args:
    logdirs: folders of the runs.
    output: path of the image; its ending is its format.

  Raises:
    ValueError: a run has nothing to draw, or the image cannot be written.
  """
  runs = [read_run(logdir) for logdir in logdirs]
  figure, (by_frames, by_time) = plt.subplots(
    1, 2, figsize=(11, 4), sharey=True, layout='constrained'
  )
  for name, run in zip(names_of(logdirs), runs, strict=True):
    levels = sorted({episode.level for episode in run})
    for level in levels:
      episodes = [episode for episode in run if episode.level == level]
      label = name if len(levels) == 1 else f'{name}: {level}'
      returns = running_mean([e.episode_return for e in episodes])
      by_frames.plot([e.frames for e in episodes], returns, lw=1, label=label)
      by_time.plot(
        [e.seconds / 60 for e in episodes], returns, lw=1, label=label
      )
  by_frames.set_xlabel('environment frames')
  by_frames.xaxis.set_major_formatter(matplotlib.ticker.EngFormatter(sep=''))
  by_time.set_xlabel('wall clock (minutes)')
  by_frames.set_ylabel(f'mean return of the last {WINDOW} episodes')
  for axes in (by_frames, by_time):
    axes.grid(alpha=0.3)
  by_frames.legend()
  try:
    figure.savefig(output, dpi=150)
  except (OSError, ValueError) as error:
    raise ValueError(
      f'--output={output} cannot be written: {error}. Choose a .png, .svg or '
      '.pdf in a folder that exists.'
    ) from error
  finally:
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
  """Parses the command line and plots."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    '--logdir',
    action='append',
    required=True,
    help='Folder of a run; give it once for each run.',
  )
  parser.add_argument(
    '--output', default='curve.png', help='Image to write. Default: curve.png.'
  )
  options = parser.parse_args(arguments)
  try:
    plot(options.logdir, options.output)
  except ValueError as error:
    sys.exit(f'plot.py: {error}')
  print(f'Wrote {options.output}')


if __name__ == '__main__':
  main()
