"""The episodes.csv of a soak: whose episodes came, and whether all can be."""

import csv
import os
import pathlib
from collections.abc import Iterator

from benchmarks.soaking import worlds
from benchmarks.soaking.processes import Violation


class Episodes:
  """What was read of episodes.csv."""

  def __init__(self, logdir: pathlib.Path, num_levels: int):
    self._path = logdir / 'episodes.csv'
    self._levels = {worlds.level_name(i): i for i in range(num_levels)}
    self._rows: list[str] = []
    self._inode = self._offset = 0
    self._rest = ''
    self.frames = 0

  def __len__(self) -> int:
    return len(self._rows)

  def before(self, frames: int) -> int:
    """Returns how many rows are of fewer frames."""
    return sum(int(row.split(',')[0]) < frames for row in self._rows)

  def read(self, least: int) -> Iterator[tuple[int, int]]:
    """Yields level and process of each new row.

    Args:
      least: rows that must be left where the file was replaced.
    """
    try:
      with open(self._path, encoding='utf-8') as file:
        inode = os.fstat(file.fileno()).st_ino
        replaced = inode != self._inode
        if replaced:
          self._inode, self._offset, self._rest = inode, 0, ''
        file.seek(self._offset)
        text = self._rest + file.read()
        self._offset = file.tell()
    except FileNotFoundError:
      return
    *lines, self._rest = text.split('\n')
    if replaced and lines:
      lines = self._compare(lines[1:], least)
    elif replaced:
      self._inode = 0  # Not even its header is there yet.
    for line in lines:
      yield self._take(line)

  def _compare(self, lines: list[str], least: int) -> list[str]:
    """Returns what is new in a file that has replaced another."""
    kept = 0
    for old, new in zip(self._rows, lines, strict=False):
      if old != new:
        break
      kept += 1
    if kept < least:
      raise Violation(
        f'{kept} of {len(self._rows)} episodes are left, at least {least} were '
        f'before the checkpoint: {self._rows[kept : kept + 1]} became '
        f'{lines[kept : kept + 1]}'
      )
    del self._rows[kept:]
    self.frames = int(self._rows[-1].split(',')[0]) if self._rows else 0
    return lines[kept:]

  def _take(self, line: str) -> tuple[int, int]:
    try:
      ((frames, _, name, score, length, _),) = csv.reader([line])
      level, process = self._levels[name], int(float(score))
      if int(frames) < self.frames:
        raise ValueError(f'frames run backwards, from {self.frames}')
      if not worlds.is_possible(level, float(score), int(length)):
        raise ValueError('no such episode')
    except (ValueError, KeyError) as error:
      raise Violation(f'episodes.csv has {line!r}: {error!r}') from error
    self.frames = int(frames)
    self._rows.append(line)
    return level, process // worlds.GENERATION
