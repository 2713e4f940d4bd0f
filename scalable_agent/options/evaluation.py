"""How a training is evaluated while it goes on."""

import dataclasses

from scalable_agent.options.declaration import Part, option


@dataclasses.dataclass(frozen=True)
class EvaluationOptions:
  """Evaluation."""

  evaluation_secs: float = option(
    0.0,
    'Time between two episodes that are played, by the most probable actions, '
    'to see how well the agent does; 0 = none. They take their time from the '
    'workers.',
    unit='seconds',
    by_preset=True,
    minimum=0,
    part=Part.PROCESS,
  )
