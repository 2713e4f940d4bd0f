"""episodes.csv: one row for every finished episode of a run."""

import csv
import os
from collections.abc import Iterable
from typing import NamedTuple

from absl import logging

from scalable_agent.storage import files


class Episode(NamedTuple):
  """One row of episodes.csv.

  Attributes:
    frames: environment frames that the learner had seen.
    seconds: wall clock of the run, over all its starts.
    level: name of the level.
    episode_return: sum of the raw rewards.
    episode_length: agent steps.
    episode_frames: environment frames of the episode.
  """

  frames: int
  seconds: float
  level: str
  episode_return: float
  episode_length: int
  episode_frames: int

  @classmethod
  def from_row(cls, row: list[str]) -> 'Episode':
    """Returns the episode of a row; raises ValueError if it is not whole."""
    if len(row) != len(cls._fields):
      raise ValueError(f'{len(row)} fields instead of {len(cls._fields)}')
    frames, seconds, level, episode_return, length, episode_frames = row
    return cls(
      int(frames),
      float(seconds),
      level,
      float(episode_return),
      int(length),
      int(episode_frames),
    )


def read(path: str) -> list[Episode]:
  """Returns all episodes of a file; a half-written last row is left out.

  Raises:
    ValueError: the file is no episodes.csv, or a row before the last is bad.
    FileNotFoundError: there is no such file.
  """
  episodes, damage = _read_intact(path)
  if damage:
    raise ValueError(damage)
  return episodes


def _read_intact(path: str) -> tuple[list[Episode], str]:
  """Returns the episodes before any damage, and what that is; '' if none."""
  with open(path, newline='', encoding='utf-8', errors='replace') as file:
    text = file.read()
  lines = text[: text.rfind('\n') + 1].splitlines()
  if not lines or lines[0] != ','.join(Episode._fields):
    header = ','.join(Episode._fields)
    return [], f'{path} does not begin with the header {header}'
  episodes: list[Episode] = []
  rows = csv.reader(lines[1:])
  while True:
    try:
      episodes.append(Episode.from_row(next(rows)))
    except StopIteration:
      return episodes, ''
    except (ValueError, csv.Error) as error:
      return episodes, f'{path}, line {len(episodes) + 2}: {error}'


def _carry_over(path: str, episodes: int) -> list[Episode]:
  """Returns the first rows of a file; sets it aside if some are not there."""
  try:
    rows, damage = files.read(_read_intact, path)
  except FileNotFoundError:
    logging.warning('%s is not there; a new one begins.', path)
    return []
  if len(rows) < episodes:
    logging.warning(
      '%s. It has %d of the %d rows that the checkpoint knows of, which are '
      'kept; the file itself is now %s.',
      damage or f'{path} is too short',
      len(rows),
      episodes,
      files.set_aside(path),
    )
  return rows[:episodes]


class EpisodeLog:
  """Appends to episodes.csv; not thread-safe.

  Attributes:
    kept: rows that were there and are still.
  """

  def __init__(self, path: str, frames: int, episodes: int):
    """Opens `path`, cut back to where the run continues.

    A file that is damaged, or has lost rows, as after a power cut, is renamed
    with a warning; the intact rows at its beginning are carried over.

    Args:
      path: of the file; made if there is none.
      frames: rows beyond them are cut off: they were written after the
        checkpoint that the run continues from.
      episodes: number of rows to keep at most, for the same reason.

    Raises:
      files.WriteError: the file cannot be written, or may not be read.
      files.UnreadableError: it cannot be read now.
    """
    self._path = path
    try:
      kept = _carry_over(path, episodes) if episodes > 0 else []
      kept = [row for row in kept if row.frames <= frames]
      # Replaced as a whole, so that neither a kill nor a power cut here loses
      # anything.
      scratch = f'{path}.tmp'
      self._file = open(scratch, 'w', newline='', encoding='utf-8')  # noqa: SIM115
      self._writer = csv.writer(self._file, lineterminator='\n')
      self._writer.writerow(Episode._fields)
      self.append(kept)
      files.sync(scratch)
      os.replace(scratch, path)
    except (files.WriteError, files.UnreadableError):
      raise
    except OSError as error:
      raise files.write_error(path, error) from error
    self.kept = len(kept)

  def append(self, episodes: Iterable[Episode]) -> None:
    """Adds rows; they survive a kill of the process from here on.

    Raises:
      files.WriteError: some of them may be missing.
    """
    try:
      self._writer.writerows(
        (frames, f'{seconds:.3f}', *rest) for frames, seconds, *rest in episodes
      )
      self._file.flush()
    except OSError as error:
      raise files.write_error(self._path, error) from error

  def close(self) -> None:
    """Closes the file; raises files.WriteError if rows are still missing."""
    try:
      self._file.close()
    except OSError as error:
      raise files.write_error(self._path, error) from error
