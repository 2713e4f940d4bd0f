"""Learning curves of one or more runs.

  python benchmarks/plot.py --logdir=logs/pong --output=curve.png

Mean return of the last 100 episodes, over environment frames and over wall
clock, one line for each level of each run. With --panels=frames or
--panels=minutes each level has a panel of its own.
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
# What returns are drawn over.
AXES = {
  'frames': lambda episode: episode.frames,
  'minutes': lambda episode: episode.seconds / 60,
}


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
  """Draws the learning curves of runs, over frames and over wall clock.

  Args:
    logdirs: folders of the runs.
    output: path of the image; its ending is its format.

  Raises:
    ValueError: a run has nothing to draw, or the image cannot be written.
  """
  runs = [read_run(logdir) for logdir in logdirs]
  names = names_of(logdirs)
  figure, axes = plt.subplots(
    1, 2, figsize=(11, 4), sharey=True, layout='constrained'
  )
  for one, over in zip(axes, AXES, strict=True):
    for name, run in zip(names, runs, strict=True):
      levels = levels_of([run])
      for level in levels:
        label = name if len(levels) == 1 else f'{name}: {level}'
        _draw(one, run, level, over, label=label)
    _describe(one, over)
  axes[0].set_ylabel(f'mean return of the last {WINDOW} episodes')
  axes[0].legend()
  _save(figure, output)


def plot_panels(logdirs: Sequence[str], output: str, over: str) -> None:
  """Draws a panel for each level, as their returns have scales of their own.

  Args:
    logdirs: folders of the runs, which may share levels.
    output: path of the image; its ending is its format.
    over: one of `AXES`.

  Raises:
    ValueError: a run has nothing to draw, or the image cannot be written.
  """
  runs = [read_run(logdir) for logdir in logdirs]
  names, levels = names_of(logdirs), levels_of(runs)
  columns = min(len(levels), 3)
  rows = -(-len(levels) // columns)
  figure, grid = plt.subplots(
    rows,
    columns,
    figsize=(11, 1 + 2.5 * rows),
    squeeze=False,
    layout='constrained',
  )
  for axes, level in zip(grid.flat, levels, strict=False):
    for index, (name, run) in enumerate(zip(names, runs, strict=True)):
      # A run has one colour in all panels.
      _draw(axes, run, level, over, label=name, color=f'C{index}')
    axes.set_title(level)
    _describe(axes, over)
    if len(axes.lines) > 1:
      axes.legend(fontsize='small')
  for axes in grid.flat[len(levels) :]:
    axes.set_visible(False)
  figure.supylabel(f'mean return of the last {WINDOW} episodes')
  _save(figure, output)


def levels_of(runs: Sequence[Sequence[episode_log.Episode]]) -> list[str]:
  """Returns the names of the levels that were played, sorted."""
  return sorted({episode.level for run in runs for episode in run})


def _draw(axes, run, level: str, over: str, **style) -> None:
  episodes = [episode for episode in run if episode.level == level]
  if not episodes:
    return
  x = [AXES[over](episode) for episode in episodes]
  returns = running_mean([episode.episode_return for episode in episodes])
  axes.plot(x, returns, lw=1, **style)


def _describe(axes, over: str) -> None:
  if over == 'frames':
    axes.set_xlabel('environment frames')
    axes.xaxis.set_major_formatter(matplotlib.ticker.EngFormatter(sep=''))
  else:
    axes.set_xlabel('wall clock (minutes)')
  axes.grid(alpha=0.3)


def _save(figure, output: str) -> None:
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
  parser.add_argument(
    '--panels',
    choices=AXES,
    help='A panel for each level, over frames or minutes.',
  )
  options = parser.parse_args(arguments)
  try:
    if options.panels:
      plot_panels(options.logdir, options.output, options.panels)
    else:
      plot(options.logdir, options.output)
  except ValueError as error:
    sys.exit(f'plot.py: {error}')
  print(f'Wrote {options.output}')


if __name__ == '__main__':
  main()
