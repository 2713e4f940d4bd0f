"""What an agent scores while it is trained: evaluations.csv and lines."""

import os
from typing import Any

from scalable_agent.reports import episode_log


def pytorch_a3c_line(
  seconds: float, num_steps: int, episode_return: float, length: int
) -> str:
  """Returns the line that pytorch-a3c's test process prints.

  Args:
    seconds: of the run; hours go beyond 23, where those of the original begin
      anew.
    num_steps: agent steps learned from.
    episode_return: sum of the raw rewards.
    length: agent steps.
  """
  minutes, whole_seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return (
    f'Time {hours:02d}h {minutes:02d}m {whole_seconds:02d}s, '
    f'num steps {num_steps}, FPS {num_steps / max(seconds, 1e-9):.0f}, '
    f'episode reward {episode_return}, episode length {length}'
  )


class Evaluations:
  """The episodes of evaluations; not thread-safe.

  Attributes:
    count: episodes so far.
    latest: return of the latest one, None before the first.
    lines: whether each is printed, as pytorch-a3c does.
  """

  def __init__(self, logdir: str, lines: bool):
    """Initialises; the file is opened for the first episode.

    Args:
      logdir: folder of evaluations.csv, of the form of episodes.csv.
      lines: see there.
    """
    self.latest: float | None = None
    self.lines = lines
    self._path = os.path.join(logdir, 'evaluations.csv')
    self._log: episode_log.EpisodeLog | None = None
    self.count = 0
    self._frames = 0

  def add(self, episode: episode_log.Episode, num_steps: int) -> None:
    """Adds an episode.

    Args:
      episode: its frames are those that its weights had learned from.
      num_steps: agent steps learned from by its end.

    Raises:
      files.WriteError: it may be missing in the file.
    """
    if self._log is None:
      self._log = episode_log.EpisodeLog(self._path, self._frames, self.count)
      self.count = self._log.kept
    self._log.append([episode])
    self.count += 1
    self.latest = episode.episode_return
    if self.lines:
      print(
        pytorch_a3c_line(
          episode.seconds,
          num_steps,
          episode.episode_return,
          episode.episode_length,
        ),
        flush=True,
      )

  def close(self) -> None:
    """Closes the file; raises files.WriteError if rows are still missing."""
    if self._log is not None:
      self._log.close()

  def get_state(self) -> dict[str, Any]:
    """Returns what must survive a restart, as JSON-able data."""
    return {'count': self.count, 'latest': self.latest}

  def set_state(self, state: dict[str, Any], frames: int) -> None:
    """Continues a run; before the first episode only.

    Args:
      state: what `get_state` returned.
      frames: learned from; rows of more are cut off.
    """
    self.count, self.latest = state['count'], state['latest']
    self._frames = frames
