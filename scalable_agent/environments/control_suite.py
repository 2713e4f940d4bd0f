"""The suite of small tasks of continuous control: declarations only."""

import dataclasses
from typing import Any

from scalable_agent.environments.gymnasium_suite import (
  CONTINUOUS,
  Gymnasium,
  GymnasiumOptions,
)
from scalable_agent.environments.presets import make_presets
from scalable_agent.environments.suite import Level


def continuous_presets(**changes: Any) -> dict[str, Any]:
  """Returns those of all algorithms, with some values changed."""
  return make_presets(
    {
      'total_environment_frames': 1e6,
      'num_actors': 2,
      'envs_per_actor': 16,
      'normalise_numbers': True,
      # Rewards are costs and speeds, of which 1 is no bound.
      'reward_clipping': 'none',
      'reward_scale': 0.1,
      'baseline_cost': 0.5,
      # The deviation of a number needs no bonus to stay above zero.
      'entropy_cost': 0.0,
      'optimizer': 'adam',
      'learning_rate': 3e-3,
      'epsilon': 1e-5,
      **changes,
    },
    impala={'batch_size': 16, 'lambda_': 0.95},
    advantage={
      'unroll_length': 20,
      'gae_lambda': 0.95,
      'clip_gradient_norm': 40.0,
    },
    ga3c={},
  )


@dataclasses.dataclass(frozen=True)
class ControlOptions(GymnasiumOptions):
  """Continuous control."""


class Control(Gymnasium):
  name = 'control'
  help = "Gymnasium's small tasks of continuous control: Pendulum-v1."
  options = ControlOptions
  # Found on Pendulum-v1: with 0.95, A3C learns nothing in a million frames.
  presets = continuous_presets(discounting=0.9)

  def parse(self, level_name: str) -> Level | None:
    return super().parse(level_name) if level_name in CONTINUOUS else None

  def level_names(self) -> tuple[str, ...]:
    return CONTINUOUS


CONTROL = Control()
