"""What a training leaves behind and tells, and how often."""

import dataclasses
from typing import Any

from scalable_agent.options.declaration import Part, option

_EVERY: dict[str, Any] = {
  'unit': 'seconds',
  'minimum': 0,
  'part': Part.PROCESS,
}


@dataclasses.dataclass(frozen=True)
class ReportOptions:
  """Reports."""

  save_checkpoint_secs: float = option(
    60.0, 'Time between two checkpoints.', **_EVERY
  )
  keep_checkpoints: int = option(
    3,
    'Newest checkpoints to keep, besides the best.',
    unit='checkpoints',
    minimum=1,
    part=Part.PROCESS,
  )
  summary_secs: float = option(
    10.0, 'Time between two TensorBoard summaries.', **_EVERY
  )
  progress_secs: float = option(
    2.0,
    'Time between two progress lines.',
    idle_with={'log_format': ('pytorch_a3c', 'ga3c')},
    **_EVERY,
  )
  log_format: str = option(
    'auto',
    'What is printed of the progress: auto = a line every --progress_secs; '
    'pytorch_a3c = the line that pytorch-a3c prints of each evaluation; ga3c = '
    "that of GA3C's own program, and its results.txt in the logdir.",
    choices=('auto', 'pytorch_a3c', 'ga3c'),
    part=Part.PROCESS,
  )
