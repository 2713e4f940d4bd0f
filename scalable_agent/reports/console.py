"""What a run says where it was started."""

from collections.abc import Sequence

from scalable_agent.reports import episode_log


class Console:
  """Is told everything, and says some of it; this one says nothing.

  Once it is open, Metrics calls `add` under one lock and the others under
  another one.

  Attributes:
    secs: seconds between two calls of `show`.
  """

  secs: float = 10.0

  def open(self, episodes: int, updates: int) -> None:
    """Begins.

    Args:
      episodes: of the run so far.
      updates: likewise.

    Raises:
      files.WriteError: a file of it cannot be written, here and below.
    """

  @property
  def counts_steps(self) -> bool:
    """Whether it is to be told of unrolls in which no episode ends, too."""
    return False

  def add(
    self, steps: int, episodes: Sequence[episode_log.Episode], updates: int
  ) -> None:
    """Takes what an actor did.

    Args:
      steps: agent steps.
      episodes: that ended in them.
      updates: of the run so far.
    """

  def evaluated(self, episode: episode_log.Episode, num_steps: int) -> None:
    """Takes an episode that was played to see how well the agent does.

    Args:
      episode: see `Evaluations.add`.
      num_steps: agent steps learned from by its end.
    """

  def show(self, text: str) -> None:
    """Takes the progress in a line, of `progress.format_progress`."""

  def close(self) -> None:
    """Ends; nothing is called any more."""
