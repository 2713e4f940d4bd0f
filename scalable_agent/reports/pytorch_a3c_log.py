"""What pytorch-a3c's own program wrote: a line for each evaluation."""

from scalable_agent.reports import console, episode_log


class PytorchA3CLog(console.Console):
  """Prints what its test process does."""

  def evaluated(self, episode: episode_log.Episode, num_steps: int) -> None:
    """See base class."""
    print(
      format_line(
        episode.seconds,
        num_steps,
        episode.episode_return,
        episode.episode_length,
      ),
      flush=True,
    )


def format_line(
  seconds: float, num_steps: int, episode_return: float, length: int
) -> str:
  """Returns the line of an evaluation.

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
