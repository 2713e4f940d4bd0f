"""What GA3C's own program wrote: its progress line and results.txt.

For whoever has programs that read them, letter for letter as in its
ProcessStats.py. Numbers are what they say: that program counted one agent step
too many per trajectory.
"""

import collections
import contextlib
import datetime
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

from scalable_agent.reports import console, episode_log
from scalable_agent.storage import files

_LINE = (
  '[Time: %8d] [Episode: %8d Score: %10.4f] [RScore: %10.4f RPPS: %5d] '
  '[PPS: %5d TPS: %5d] [NT: %2d NP: %2d NA: %2d]'
)


class GA3CLog(console.Console):
  """Writes a row for each episode, and a line for some; not thread-safe.

  PPS are predictions, so agent steps, and TPS updates per second since the
  start of the process, rounded up; RPPS and RScore are those of the latest
  episodes.
  """

  def __init__(
    self,
    path: str,
    own: bool,
    counts: Callable[[], tuple[int, int, int]],
    every: int = 1,
    window: int = 1000,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
    now: Callable[[], datetime.datetime] = datetime.datetime.now,
  ):
    """Initialises; `open` begins.

    Args:
      path: of results.txt.
      own: whether it is of this run alone: a file that others write to, too,
        is only ever added to.
      counts: returns the numbers of trainers, predictors and agents.
      every: episodes between two lines.
      window: episodes that RScore and RPPS are taken over.
      stream: of the lines; default: standard output.
      clock: seconds, monotonic.
      now: the local time.
    """
    self._path = path
    self._own = own
    self._counts = counts
    self._every = every
    self._stream = stream or sys.stdout
    self._clock = clock
    self._now = now
    self._steps = 0
    self._scores: collections.deque[float] = collections.deque(maxlen=window)
    # When so many agent steps had been taken, after the episodes before those
    # of the window and after each of them.
    self._points: collections.deque[tuple[float, int]] = collections.deque(
      maxlen=window + 1
    )

  def open(self, episodes: int, updates: int) -> None:
    """Starts the clock, and goes on with the file.

    Args:
      episodes: of the run so far; rows beyond them were written after the
        checkpoint that it goes on from, and are cut off from a file of its
        own.
      updates: of the run so far.

    Raises:
      files.WriteError: the file cannot be written.
    """
    self._start = self._clock()
    self._points.append((self._start, 0))
    self._episodes = episodes
    self._updates_before = updates
    with self._writing():
      os.makedirs(os.path.dirname(self._path), exist_ok=True)
      # What is no text counts as rows, too.
      self._file = open(  # noqa: SIM115
        self._path, 'a+', encoding='utf-8', errors='surrogateescape'
      )
      if self._own:
        self._file.seek(0)
        for _ in range(episodes):
          self._file.readline()
        self._file.truncate(self._file.tell())

  @property
  def counts_steps(self) -> bool:
    """See base class."""
    return True

  def add(
    self, steps: int, episodes: Sequence[episode_log.Episode], updates: int
  ) -> None:
    """See base class."""
    self._steps += steps
    for episode in episodes:
      with self._writing():
        date = self._now().strftime('%Y-%m-%d %H:%M:%S')
        score = episode.episode_return
        if math.isfinite(score):
          score = int(score)
        self._file.write(f'{date}, {score}, {episode.episode_length}\n')
        self._file.flush()
      self._episodes += 1
      self._scores.append(episode.episode_return)
      self._points.append((self._clock(), self._steps))
      if self._episodes % self._every == 0:
        print(
          self._line(episode.episode_return, updates),
          file=self._stream,
          flush=True,
        )

  def _line(self, score: float, updates: int) -> str:
    elapsed = self._clock() - self._start
    (then, steps_then), (now, steps) = self._points[0], self._points[-1]
    return _LINE % (
      elapsed,
      self._episodes,
      score,
      sum(self._scores) / len(self._scores),
      _rate(steps - steps_then, now - then),
      math.ceil(_rate(self._steps, elapsed)),
      math.ceil(_rate(updates - self._updates_before, elapsed)),
      *self._counts(),
    )

  def close(self) -> None:
    """Closes the file."""
    with self._writing():
      self._file.close()

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    try:
      yield
    except OSError as error:
      raise files.write_error(self._path, error) from error


def _rate(count: float, seconds: float) -> float:
  return count / seconds if seconds > 0 else 0.0
