"""The meaning of every tensor that travels between actors and learner.

Everything is time-major: `[E]` for one step of an actor with E environments,
`[T + 1, E]` in an unroll of T agent steps, `[T + 1, B]` in a learner batch.

```
column t               0       1       2           3            4
env_outputs            o0      r1,o1   r2,o2 LAST  o3 FIRST     r4,o4
agent_outputs          (prev)  a0      a1          (ignored)    a3
real transition t->t+1 yes     yes     no          yes
```

`agent_outputs[t + 1]` holds the action that led from column t to column t + 1,
and the last column of an unroll is the first column of the next one.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tree

from scalable_agent.action_spaces import ActionSpace

FIRST = 0
MID = 1
LAST = 2


class EpisodeInfo(NamedTuple):
  """What has happened in the episode so far, up to and including this step.

  Attributes:
    episode_return: [...] float32, sum of the raw (unclipped) rewards.
    episode_step: [...] int32, number of agent steps taken; 0 at FIRST.
  """

  episode_return: Any
  episode_step: Any


class StepOutput(NamedTuple):
  """What an environment answers, in the conventions of dm_env.

  Attributes:
    step_type: [...] int32, FIRST, MID or LAST. LAST carries the final
      observation of an episode; the next column is FIRST of the next one, and
      the action given in between is ignored.
    reward: [...] float32, raw reward received on arriving here, 0 at FIRST.
    discount: [...] float32, 0 where the future after this observation is worth
      nothing (termination, or a lost life where that ends an episode for the
      learner), else 1; in particular 1 at a LAST by truncation.
    observation: nest of [..., ...], as the environment gives it.
    info: EpisodeInfo, or () where nothing reads it.
  """

  step_type: Any
  reward: Any
  discount: Any
  observation: Any
  info: Any


class AgentOutput(NamedTuple):
  """What the policy answers.

  Attributes:
    action: [..., *shape] of the action space: int32 where one of several is
      chosen, float32 where numbers are.
    policy_logits: [..., A] float32, the distribution that the action was drawn
      from, of the weights that acted: unnormalised log-probabilities, or means
      and logarithms of deviations; see `actions`.
    baseline: [...] float32, the value estimate V.
  """

  action: Any
  policy_logits: Any
  baseline: Any


class AgentState(NamedTuple):
  """What an agent carries from one step to the next.

  Attributes:
    frames: state of the frame stack, [B, ...]; () without one.
    core: LSTM state (hidden, cell), [B, ...]; () without one.
  """

  frames: Any
  core: Any


class ActorOutput(NamedTuple):
  """One unroll of one actor; also, with B in place of E, a learner batch.

  Attributes:
    agent_state: nest of [E, ...], the recurrent state before column 0.
    env_outputs: StepOutput of [T + 1, E, ...].
    agent_outputs: AgentOutput of [T + 1, E, ...].
    policy_version: [E] int64, learner updates done when the unroll began.
    level: [E] int32, index of the level in the run's list of levels.
  """

  agent_state: Any
  env_outputs: StepOutput
  agent_outputs: AgentOutput
  policy_version: Any
  level: Any


def map_columns(
  function: Callable[..., Any], *unrolls: ActorOutput
) -> ActorOutput:
  """Returns what a function makes of each array of unrolls.

  Without paths, which took most of the time of small batches.

  Args:
    function: from the axis of the columns, 1 of what has a time axis, 0 of the
      rest, and the array of each unroll to a new one.
    *unrolls: of one structure.
  """
  one = unrolls[0]
  axes = [0] * len(tree.flatten(one.agent_state))
  axes += [1] * len(tree.flatten((one.env_outputs, one.agent_outputs)))
  axes += [0] * len(tree.flatten((one.policy_version, one.level)))
  arrays = zip(axes, *map(tree.flatten, unrolls), strict=True)
  return tree.unflatten_as(one, [function(*each) for each in arrays])


def slice_columns(unroll: ActorOutput, start: int, stop: int) -> ActorOutput:
  """Returns the columns from `start` up to `stop`, [T + 1, stop - start]."""

  def cut(axis, x):
    return x[:, start:stop] if axis else x[start:stop]

  return map_columns(cut, unroll)


@dataclasses.dataclass(frozen=True)
class TensorSpec:
  """Shape and dtype of one tensor, without leading time and batch axes.

  Of an observation: bytes of three axes are an image, all else is numbers. A
  leaf to tree.map_structure, which is why it is no NamedTuple.
  """

  shape: tuple[int, ...]
  dtype: np.dtype


@dataclasses.dataclass(frozen=True)
class CategorySpec(TensorSpec):
  """Integers that name things, each from 0 to num_values - 1.

  An agent sees each as one-hot.
  """

  num_values: int


@dataclasses.dataclass(frozen=True)
class TextSpec(TensorSpec):
  """Words, int32 [length]: 1 to num_buckets for each, then 0 for none."""

  num_buckets: int


class EnvironmentSpec(NamedTuple):
  """What an agent must know of an environment.

  Attributes:
    observation: nest of TensorSpec. Images are uint8 [height, width, channels];
      one frame each, stacking is the agent's.
    action_space: what actions are.
    frames_per_step: emulator frames of one agent step (the action repeat).
    action_meanings: names of discrete actions, the same name for the same
      action in all levels of a suite; None where the environment gives none.
  """

  observation: Any
  action_space: ActionSpace
  frames_per_step: int
  action_meanings: tuple[str, ...] | None = None


def step_output_spec(spec: EnvironmentSpec) -> StepOutput:
  """Returns the StepOutput of TensorSpecs for one environment."""
  f, i = np.dtype(np.float32), np.dtype(np.int32)
  return StepOutput(
    step_type=TensorSpec((), i),
    reward=TensorSpec((), f),
    discount=TensorSpec((), f),
    observation=spec.observation,
    info=EpisodeInfo(TensorSpec((), f), TensorSpec((), i)),
  )


def agent_output_spec(space: ActionSpace) -> AgentOutput:
  """Returns the AgentOutput of TensorSpecs for actions of a space."""
  f = np.dtype(np.float32)
  return AgentOutput(
    action=TensorSpec(space.shape, space.dtype),
    policy_logits=TensorSpec((space.num_parameters,), f),
    baseline=TensorSpec((), f),
  )
