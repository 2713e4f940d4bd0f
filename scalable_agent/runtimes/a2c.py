"""A2C: one thread that steps all environments and learns from all of them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scalable_agent import environments
from scalable_agent.options import (
  AdvantageOptions,
  Config,
  UnrollOptions,
  systems,
)
from scalable_agent.runtimes.advantage_algorithm import AdvantageAlgorithm

if TYPE_CHECKING:
  from scalable_agent.runtimes import local_run


class AdvantageActorCritic(AdvantageAlgorithm):
  name = 'a2c'
  help = (
    'A3C without asynchrony (Mnih et al., 2016; Wu et al., 2017): one thread, '
    'reproducible bit for bit.'
  )
  options = (UnrollOptions, AdvantageOptions)
  presets = {  # noqa: RUF012
    'auto': {'num_actors': 0},
    'paper': systems.general_values('a2c'),
  }

  def make_run(
    self, config: Config, levels: Sequence[environments.Level]
  ) -> 'local_run.LocalRun':
    """See base class."""
    from scalable_agent.runtimes import serial

    return serial.Run(config, levels, config.actors.envs_per_actor)


A2C = AdvantageActorCritic()
