"""A torso that does not read: what instructions are worth (docs/results).

  python experiment.py --level_name=MiniGrid-GoToObject-6x6-N2-v0 \
    --network=benchmarks.deaf:Deaf
"""

from typing import Any

import sonnet as snt
import tensorflow as tf

from scalable_agent import networks, structures


class Deaf(snt.Module):
  """The default torso of a dict of observations, but for its texts."""

  def __init__(self, observation: dict[str, structures.TensorSpec]):
    """See `scalable_agent.networks.torsos`."""
    super().__init__(name='deaf')
    self._heard = {
      name: spec
      for name, spec in observation.items()
      if not isinstance(spec, structures.TextSpec)
    }
    self._torso = networks.make_torso('auto', self._heard)

  def __call__(self, observation: dict[str, Any]) -> tf.Tensor:
    """Returns [N, features]."""
    return self._torso({name: observation[name] for name in self._heard})
