"""What an agent scores while it is trained: evaluations.csv."""

import os
from typing import Any

from scalable_agent.reports import episode_log


class Evaluations:
  """The episodes of evaluations; not thread-safe.

  Attributes:
    count: episodes so far.
    latest: return of the latest one, None before the first.
  """

  def __init__(self, logdir: str):
    """Initialises; the file is opened for the first episode.

    Args:
      logdir: folder of evaluations.csv, of the form of episodes.csv.
    """
    self.latest: float | None = None
    self._path = os.path.join(logdir, 'evaluations.csv')
    self._log: episode_log.EpisodeLog | None = None
    self.count = 0
    self._frames = 0

  def add(self, episode: episode_log.Episode) -> None:
    """Adds an episode.

    Args:
      episode: its frames are those that its weights had learned from.

    Raises:
      files.WriteError: it may be missing in the file.
    """
    if self._log is None:
      self._log = episode_log.EpisodeLog(self._path, self._frames, self.count)
      self.count = self._log.kept
    self._log.append([episode])
    self.count += 1
    self.latest = episode.episode_return

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
