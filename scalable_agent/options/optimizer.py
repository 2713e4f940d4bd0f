"""How the learner follows its gradients."""

import dataclasses
from typing import Any

from scalable_agent.options.declaration import Line, Part, option

_RMSPROP: dict[str, Any] = {'idle_with': {'optimizer': ('adam',)}}


@dataclasses.dataclass(frozen=True)
class OptimizerOptions:
  """Optimizer."""

  optimizer: str = option(
    'rmsprop',
    'Optimizer.',
    by_preset=True,
    choices=('rmsprop', 'adam'),
    fixed=True,
    line=Line.OPTIMIZER,
  )
  learning_rate: float = option(
    6e-4,
    'Learning rate at the first frame.',
    by_preset=True,
    above=0,
    line=Line.OPTIMIZER,
  )
  learning_rate_schedule: str = option(
    'linear',
    'linear = to zero at --total_environment_frames; late_linear = the same, '
    'but constant for the first three quarters; or constant.',
    by_preset=True,
    choices=('linear', 'late_linear', 'constant'),
    line=Line.OPTIMIZER,
  )
  decay: float = option(
    0.99,
    'Discount of the mean square per update.',
    by_preset=True,
    minimum=0,
    maximum=1,
    **_RMSPROP,
  )
  momentum: float = option(
    0.0,
    'Momentum, on the scaled gradients.',
    by_preset=True,
    minimum=0,
    **_RMSPROP,
  )
  epsilon: float = option(
    0.1,
    'RMSProp: added to the mean square inside the root. Adam: added to the '
    'root. They are not the same number.',
    by_preset=True,
    above=0,
    line=Line.OPTIMIZER,
  )
  rmsprop_initial_slot: float = option(
    1.0,
    'Value at which the mean square starts: 1 as in TensorFlow 1, 0 as in '
    'Keras 3.',
    by_preset=True,
    minimum=0,
    **_RMSPROP,
  )
  clip_gradient_norm: float = option(
    40.0,
    'Norm to which gradients are clipped; 0 = no clipping.',
    by_preset=True,
    minimum=0,
    line=Line.OPTIMIZER,
    part=Part.GRADIENTS,
  )
  clip_gradient_by: str = option(
    'global_norm',
    'The norm: of all gradients together, of each tensor, or of each tensor '
    'divided by its number of elements (TensorFlow 1: clip_by_average_norm).',
    by_preset=True,
    choices=('global_norm', 'tensor_norm', 'average_norm'),
    idle_with={'clip_gradient_norm': (0.0,)},
    part=Part.GRADIENTS,
  )
