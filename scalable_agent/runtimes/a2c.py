"""A2C: one thread that steps all environments and learns from all of them."""

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from scalable_agent import environments
from scalable_agent.options import (
  AdvantageOptions,
  Config,
  UnrollOptions,
  systems,
)
from scalable_agent.runtimes.local_algorithm import LocalAlgorithm

if TYPE_CHECKING:
  from scalable_agent.runtimes import local_run


class AdvantageActorCritic(LocalAlgorithm):
  name = 'a2c'
  help = (
    'A3C without asynchrony (Mnih et al., 2016; Wu et al., 2017): one thread, '
    'reproducible bit for bit.'
  )
  options: tuple[type, ...] = (UnrollOptions, AdvantageOptions)
  presets = {  # noqa: RUF012
    'auto': {'num_actors': 0},
    'paper': systems.general_values('a2c'),
  }

  def make_loss(self, config: Config) -> Callable[..., Any]:
    """See base class."""
    from scalable_agent import objectives

    return functools.partial(
      objectives.advantage_loss, config.of(AdvantageOptions)
    )

  def make_run(
    self, config: Config, levels: Sequence[environments.Level]
  ) -> 'local_run.LocalRun':
    """See base class."""
    from scalable_agent.runtimes import serial

    return serial.Run(config, levels, config.actors.envs_per_actor)


A2C = AdvantageActorCritic()
