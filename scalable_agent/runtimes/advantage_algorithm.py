"""What A3C and A2C have in common: the loss."""

import functools
from collections.abc import Callable
from typing import Any

from scalable_agent.options import AdvantageOptions, Config
from scalable_agent.runtimes.local_algorithm import LocalAlgorithm


class AdvantageAlgorithm(LocalAlgorithm):
  """An advantage actor-critic (Mnih et al., 2016), whoever acts and learns."""

  def make_loss(self, config: Config) -> Callable[..., Any]:
    """See base class."""
    from scalable_agent import objectives

    return functools.partial(
      objectives.advantage_loss, config.of(AdvantageOptions)
    )
