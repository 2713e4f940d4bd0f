"""What the agent is made of."""

import dataclasses
from typing import Any

from scalable_agent.options.declaration import Line, Part, option

_WEIGHTS: dict[str, Any] = {'part': Part.ACTING, 'fixed': True}


@dataclasses.dataclass(frozen=True)
class AgentOptions:
  """Agent."""

  network: str = option(
    'auto',
    'Torso: shallow (two convolutions), nature (three: Mnih et al. 2015), deep '
    '(15), universe (four, for 42 x 42 pixels), small (two, for grids), mlp, '
    'auto (shallow or small for images, mlp for vectors), or your own as '
    'module:Class.',
    by_preset=True,
    line=Line.AGENT,
    **_WEIGHTS,
  )
  normalise_pixels: bool = option(
    True,
    'Pixels of images of bytes are deviations from their mean over the run, in '
    'units of their deviation; else x / 255.',
    by_preset=True,
    line=Line.AGENT,
    **_WEIGHTS,
  )
  normalise_numbers: bool = option(
    False,
    'Numbers among the observations that are no pixels are deviations from '
    'their mean over the run, in units of their deviation; else as they are.',
    by_preset=True,
    line=Line.AGENT,
    **_WEIGHTS,
  )
  lstm: bool = option(
    False,
    'Put an LSTM of 256 units behind the torso.',
    by_preset=True,
    line=Line.AGENT,
    **_WEIGHTS,
  )
  last_action_reward: bool = option(
    False,
    'Feed the last action and the clipped last reward to the agent.',
    by_preset=True,
    line=Line.AGENT,
    **_WEIGHTS,
  )
  min_policy: float = option(
    0.0,
    'Added to the probability of each action before they are made to add up '
    'to 1 again: (p + m) / (1 + m actions). None is ever less probable than '
    'm / (1 + m actions).',
    by_preset=True,
    minimum=0,
    part=Part.ACTING,
    line=Line.AGENT,
  )
  precision: str = option(
    'float32',
    'In what torsos multiply pixels and what becomes of them: float32, or '
    'bfloat16 where the processor can, which is faster (sums are float32, and '
    'so are weights, heads, losses and the optimizer) but may take more frames '
    'to learn, see docs/results. auto = bfloat16 on processors with '
    'AVX512-BF16 or AMX, but float32 with a GPU, a torso of your own or '
    'TF_ENABLE_ONEDNN_OPTS=0.',
    choices=('auto', 'float32', 'bfloat16'),
    part=Part.PROCESS,
    free_in_test=True,
    line=Line.AGENT,
  )
  jit_compile: str = option(
    'auto',
    'What XLA compiles: all = updates, and what makes numbers of pixels; '
    'pixels = only that; none. auto = all with a GPU, pixels on processors, '
    'where XLA multiplies more slowly than TensorFlow.',
    choices=('auto', 'all', 'pixels', 'none'),
    part=Part.PROCESS,
    free_in_test=True,
  )
  frame_stack: int = option(
    1,
    'Latest observations that the agent sees.',
    unit='observations',
    by_preset=True,
    minimum=1,
    line=Line.LEVEL,
    **_WEIGHTS,
  )
