"""The line that tells how a run is doing, and what holds it up."""

import collections
import os
import shutil
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from absl import logging

from scalable_agent.reports import console, vital_signs

_CLEAR_LINE = '\r\x1b[2K'
_LINE_ABOVE = '\x1b[A'
_SEPARATOR = ' | '


class Rates:
  """Rates of counters over the latest few points in time."""

  def __init__(self, num_points: int = 8):
    """Initialises.

    Args:
      num_points: points that a rate is taken over.
    """
    self._points: collections.deque = collections.deque(maxlen=num_points)

  def add(self, seconds: float, counters: Mapping[str, float]) -> None:
    """Adds the values that counters have at a time in seconds."""
    self._points.append((seconds, dict(counters)))

  def __getitem__(self, name: str) -> float:
    """Returns the rate of a counter per second; 0 while it is not known."""
    points = [(t, c[name]) for t, c in self._points if name in c]
    if len(points) < 2 or points[-1][0] <= points[0][0]:
      return 0.0
    return (points[-1][1] - points[0][1]) / (points[-1][0] - points[0][0])


def bottleneck(busy: Mapping[str, float]) -> str | None:
  """Names the stage that holds the others up: the busiest one.

  How full a queue is does not tell: with few actors it can be empty most of the
  time while the learner hardly waits.

  Args:
    busy: seconds per second that one thread of 'environment', 'inference' and
      'learner' works or waits for its device, as far as known.

  Returns:
    'environment', 'inference', 'learner'; 'actors' where only the learner is
    known, and waits for most of the time; None where nothing is known.
  """
  known = {stage: share for stage, share in busy.items() if share > 0}
  if not known:
    return None
  if set(busy) == {'learner'} and busy['learner'] < 0.5:
    return 'actors'
  return max(known, key=lambda stage: known[stage])


def format_count(value: float) -> str:
  """Returns a count with four digits at most: 950, 12.3k, 4.5M."""
  for limit, unit in ((1e9, 'G'), (1e6, 'M'), (1e4, 'k')):
    if abs(value) >= limit:
      scale = limit if unit != 'k' else 1e3
      return f'{value / scale:.4g}{unit}'
  return f'{value:.0f}'


def format_duration(seconds: float) -> str:
  """Returns hours, minutes and seconds: 1:02:03."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02d}:{seconds:02d}'


def format_progress(
  *,
  frames: int,
  total_frames: float,
  frames_per_second: float,
  returns: str | None,
  updates_per_second: float,
  policy_lag: float | None,
  queue_fill: float | None,
  bottleneck: str | None,
  actors: int | None = None,
  evaluation: float | None = None,
  signs: vital_signs.Signs | None = None,
  episodes: tuple[int, int] | None = None,
  episodes_per_second: float = 0.0,
) -> str:
  """Returns the text of the progress line; None is not mentioned.

  Args:
    frames: environment frames so far.
    total_frames: at which the run ends.
    frames_per_second: of the latest time, as all rates.
    returns: of `Scores.describe`.
    updates_per_second: of the learner.
    policy_lag: mean, in updates.
    queue_fill: 0 to 1.
    bottleneck: of `bottleneck`.
    actors: processes at work.
    evaluation: return of the latest episode that was played to see it.
    signs: of learning, of the latest updates.
    episodes: so far, and those at which the run ends, if it does.
    episodes_per_second: likewise.
  """
  done, total, rate, unit = frames, total_frames, frames_per_second, 'frames'
  parts = []
  if episodes is not None and episodes[0] / episodes[1] >= done / total:
    parts.append(f'{format_count(frames)} frames')
    (done, total), rate, unit = episodes, episodes_per_second, 'episodes'
  parts.insert(
    0,
    f'{format_count(done)}/{format_count(total)} {unit} '
    f'{100 * done / total:.1f}%',
  )
  parts.append(f'{frames_per_second:,.0f} frames/s')
  if returns is not None:
    parts.append(returns)
  if evaluation is not None:
    parts.append(f'evaluation {evaluation:.2f}')
  if signs is not None:
    parts.append(f'entropy {signs.entropy:.2f}')
    parts.append(f'explained variance {signs.explained_variance:.2f}')
  parts.append(f'{updates_per_second:.1f} updates/s')
  if policy_lag is not None:
    parts.append(f'lag {policy_lag:.1f}')
  if actors is not None:
    parts.append(f'{actors} actor{"" if actors == 1 else "s"}')
  if queue_fill is not None:
    parts.append(f'queue {100 * queue_fill:.0f}%')
  if rate > 0:
    parts.append(f'ETA {format_duration(max(total - done, 0) / rate)}')
  if bottleneck is not None:
    parts.append(f'bottleneck {bottleneck}')
  return _SEPARATOR.join(parts)


def wrap(text: str, width: int) -> list[str]:
  """Breaks a text between its items into lines of at most `width`.

  Args:
    text: of `format_progress`.
    width: characters; only an item that is wider is cut.
  """
  lines: list[str] = []
  for item in text.split(_SEPARATOR):
    if lines and len(lines[-1] + _SEPARATOR + item) <= width:
      lines[-1] += _SEPARATOR + item
    else:
      lines.append(item[:width])
  return lines


class ProgressLine(console.Console):
  """Rewritten in place on a terminal, as wide as it; plain lines elsewhere."""

  def __init__(
    self,
    stream: TextIO | None = None,
    secs: float = 2.0,
    plain_secs: float = 10.0,
  ):
    """Initialises.

    Args:
      stream: where to write; default: standard error.
      secs: seconds between two lines on a terminal.
      plain_secs: least seconds between two lines elsewhere.
    """
    self._stream = stream or sys.stderr
    self._terminal = self._stream.isatty()
    self._shown = 0  # Lines on the terminal.
    self.secs = secs if self._terminal else max(secs, plain_secs)
    if self._terminal:
      logging.get_absl_handler().addFilter(self._make_room)

  def _make_room(self, record: Any) -> bool:
    """Clears the line before a log message is written on it."""
    del record
    if self._shown:
      self._clear()
      self._stream.flush()
    return True

  def _clear(self) -> None:
    above = (_LINE_ABOVE + _CLEAR_LINE) * (self._shown - 1)
    self._stream.write(_CLEAR_LINE + above)
    self._shown = 0

  def _columns(self) -> int:
    try:
      columns = os.get_terminal_size(self._stream.fileno()).columns
    except OSError:
      columns = 0
    # Some terminals do not know their size either.
    return columns or shutil.get_terminal_size().columns

  def show(self, text: str) -> None:
    """Shows `text`, of `format_progress`, instead of the one before."""
    if self._terminal:
      lines = wrap(text, self._columns() - 1)
      self._clear()
      self._stream.write('\n'.join(lines))
      self._shown = len(lines)
    else:
      self._stream.write(f'{text}\n')
    self._stream.flush()

  def close(self) -> None:
    """Leaves the last text on a line of its own."""
    if self._terminal:
      logging.get_absl_handler().removeFilter(self._make_room)
    if self._shown:
      self._stream.write('\n')
      self._stream.flush()
      self._shown = 0
