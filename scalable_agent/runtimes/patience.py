"""How long a learner waits for actors before it gives up."""

import time
from collections.abc import Callable

from absl import logging

from scalable_agent.runtimes import training

# Seconds of silence after which it says that it waits.
_QUIET = 30.0


class Patience:
  """Ends the run of a learner that no actor has talked to for too long."""

  def __init__(
    self,
    seconds: float,
    silence: Callable[[], float],
    clock: Callable[[], float] = time.monotonic,
  ):
    """Initialises; the learner has waited for 0 s by now.

    Args:
      seconds: of --actor_timeout; 0 = for ever.
      silence: returns seconds since any actor was heard of.
      clock: seconds, monotonic.
    """
    self._seconds = seconds
    self._silence = silence
    self._clock = clock
    self._start = clock()
    self._said = False

  def check(self) -> None:
    """Says once in each silence that there are no actors.

    Raises:
      training.RunError: it has lasted for too long.
    """
    waited = min(self._silence(), self._clock() - self._start)
    if 0 < self._seconds <= waited:
      raise training.RunError(
        f'no actor was heard of for --actor_timeout={self._seconds:g} seconds. '
        'Look at how they ended, and run the same commands to go on.'
      )
    quiet = waited >= _QUIET
    if quiet and not self._said:
      logging.warning(
        'No actor was heard of for %.0f s. This learner waits %s.',
        waited,
        f'until it is {self._seconds:g} s (--actor_timeout), then ends'
        if self._seconds
        else 'for ever (--actor_timeout=0)',
      )
    self._said = quiet
