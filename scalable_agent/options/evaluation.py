"""How a training is evaluated while it goes on."""

import dataclasses

from scalable_agent.options.declaration import Part, option


@dataclasses.dataclass(frozen=True)
class EvaluationOptions:
  """Evaluation."""

  evaluation_secs: float = option(
    60.0,
    'Time between two episodes that are played, by the most probable actions, '
    'to see how well the agent does; 0 = none.',
    unit='seconds',
    minimum=0,
    part=Part.PROCESS,
  )
