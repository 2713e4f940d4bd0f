"""What several suites let one choose; a suite takes what it can do.

The options of a suite are a dataclass that inherits those of these groups that
mean something to it, and adds its own.
"""

import dataclasses

from scalable_agent.options.declaration import Line, Part, option


@dataclasses.dataclass(frozen=True)
class NoOptions:
  """Environment."""


@dataclasses.dataclass(frozen=True)
class RepeatOptions:
  """Environment."""

  num_action_repeats: int = option(
    1,
    'Frames for which an action is repeated.',
    unit='frames',
    by_preset=True,
    minimum=1,
    part=Part.ACTING,
    fixed=True,
    line=Line.LEVEL,
  )


@dataclasses.dataclass(frozen=True)
class LengthOptions:
  """Environment."""

  max_episode_length: int = option(
    0,
    'Agent steps after which an episode is cut off, if nothing else does so '
    'before. Its future still counts for the learner, unlike after a '
    'natural end; 0 = never.',
    unit='agent steps',
    by_preset=True,
    minimum=0,
    part=Part.ACTING,
    free_in_test=True,
  )


@dataclasses.dataclass(frozen=True)
class FrameOptions:
  """Environment."""

  height: int = option(
    84,
    'Height of a frame.',
    unit='pixels',
    by_preset=True,
    minimum=8,
    part=Part.ACTING,
    fixed=True,
    line=Line.LEVEL,
  )
  width: int = option(
    84,
    'Width of a frame.',
    unit='pixels',
    by_preset=True,
    minimum=8,
    part=Part.ACTING,
    fixed=True,
    line=Line.LEVEL,
  )


@dataclasses.dataclass(frozen=True)
class ActionOptions:
  """Environment."""

  action_bounds: str = option(
    'clip',
    'How the numbers that a policy draws are brought within the bounds of '
    'continuous actions: clip cuts them off there, squash takes tanh.',
    by_preset=True,
    choices=('clip', 'squash'),
    part=Part.ACTING,
    fixed=True,
  )


@dataclasses.dataclass(frozen=True)
class TextOptions:
  """Environment."""

  instruction_length: int = option(
    32,
    'Most words that a text among the observations may have.',
    unit='words',
    by_preset=True,
    minimum=1,
    part=Part.ACTING,
    fixed=True,
  )
