"""What only workers that learn by themselves, A3C's, can choose."""

import dataclasses

from scalable_agent.options.declaration import Line, option


@dataclasses.dataclass(frozen=True)
class WorkerOptions:
  """Workers."""

  shared_statistics: bool = option(
    True,
    'All workers share the statistics of the optimizer (mean squares, '
    'momenta); else each has its own.',
    by_preset=True,
    line=Line.OPTIMIZER,
  )
