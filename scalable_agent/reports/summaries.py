"""TensorBoard events of a run, over environment frames."""

import collections
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from scalable_agent import structures
from scalable_agent.storage import files

# Of the learner's metrics: the x-axis, and what Reporter writes itself.
_NOT_SUMMARISED = (
  'frames',
  'updates',
  'policy_lag',
  'max_policy_lag',
  'skipped_steps',
)
_LOSSES = ('loss', 'entropy')
# A histogram of more samples looks the same.
_MAXIMUM_SAMPLES = 10_000


def tag(name: str) -> str:
  """Returns the TensorBoard tag of a learner metric.

  Args:
    name: of the metric. 'learning_rate' and 'total_loss' (the tags of 2018)
      stay as they are, and so do names with a slash.
  """
  if name in ('learning_rate', 'total_loss') or '/' in name:
    return name
  if 'rho' in name:
    return f'rho/{name}'
  if name.endswith(_LOSSES):
    return f'loss/{name}'
  return f'learner/{name}'


class Summaries:
  """Owns the event file; not thread-safe.

  All methods raise files.WriteError if the file cannot be written.
  """

  def __init__(self, logdir: str):
    """Opens a new event file.

    Args:
      logdir: folder of the event files.
    """
    self._logdir = logdir
    with self._writing():
      self._writer = tf.summary.create_file_writer(logdir)
    self._batch_sizes: collections.Counter = collections.Counter()

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    try:
      yield
    except tf.errors.OpError as error:
      path = f'the TensorBoard events in {self._logdir}'
      raise files.write_error(path, error) from error

  def scalars(self, frames: int, values: Mapping[str, Any]) -> None:
    """Writes scalars; tags as given, None is left out."""
    with self._writing(), self._writer.as_default(step=frames):
      for name, value in values.items():
        if value is not None:
          tf.summary.scalar(name, float(value))

  def learner(self, frames: int, metrics: Mapping[str, Any]) -> None:
    """Writes the learner's scalar metrics; waits for their tensors."""
    self.scalars(
      frames,
      {
        tag(name): value
        for name, value in metrics.items()
        if name not in _NOT_SUMMARISED
      },
    )

  def episodes(
    self, frames: int, level: str, episodes: Sequence[tuple[float, int]]
  ) -> None:
    """Writes the means over some episodes of a level.

    Args:
      frames: environment frames.
      level: name of the level.
      episodes: (return, environment frames) of each episode.
    """
    if episodes:
      episode_return, episode_frames = np.mean(episodes, axis=0)
      self.scalars(
        frames,
        {
          f'{level}/episode_return': episode_return,
          f'{level}/episode_frames': episode_frames,
        },
      )

  def actions(
    self, frames: int, action: np.ndarray, step_type: np.ndarray
  ) -> None:
    """Writes the histogram of the actions that were taken.

    Args:
      frames: environment frames.
      action: [T, E, ...], the actions that led to each column.
      step_type: [T, E] int32; what leads to a FIRST was ignored.
    """
    taken = action[step_type != structures.FIRST]
    if taken.size:
      with self._writing(), self._writer.as_default(step=frames):
        tf.summary.histogram('action', taken)

  def batcher(self, frames: int, statistics: Any) -> None:
    """Writes what a dynamic batcher has done.

    Args:
      frames: environment frames.
      statistics: dynamic_batching.Statistics; counts since its start, so that
        the histogram is of the batches since the last call.
    """
    values = statistics._asdict()
    sizes = collections.Counter(values.pop('batch_sizes'))
    new = sizes - self._batch_sizes
    self._batch_sizes = sizes
    if new.total():
      values['mean_batch_size'] = (
        sum(rows * count for rows, count in new.items()) / new.total()
      )
      step = -(-new.total() // _MAXIMUM_SAMPLES)
      samples = np.repeat(list(new), list(new.values()))[::step]
      with self._writing(), self._writer.as_default(step=frames):
        tf.summary.histogram('batcher/batch_size', samples)
    self.scalars(frames, {f'batcher/{k}': v for k, v in values.items()})

  def flush(self) -> None:
    """Hands everything to the operating system."""
    with self._writing():
      self._writer.flush()

  def close(self) -> None:
    """Closes the event file."""
    with self._writing():
      self._writer.close()
