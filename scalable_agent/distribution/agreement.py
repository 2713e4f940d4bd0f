"""What processes that share every update do next, all of them the same.

One that learned or stopped alone would wait for the others for ever, or have
them wait.
"""

import enum

from scalable_agent.distribution import replicas


class Step(enum.IntEnum):
  """What a process does next; one that wants a greater one decides for all.

  Values are such that no number of processes that want one of them adds up to
  the next.
  """

  LEARN = 0
  WAIT = 1
  STOP = 1 << 24
  # Stop, as this process cannot go on.
  FAIL = 1 << 48


def agree(all_replicas: replicas.Replicas, step: Step) -> Step:
  """Returns the same step in each process; all must call it.

  Args:
    all_replicas: of these processes.
    step: what this process wants to do.

  Raises:
    tf.errors.OpError: a process is gone, see `Learner.update`.
  """
  total = all_replicas.sum(step)
  return next(s for s in sorted(Step, reverse=True) if total >= s)
