"""A learner of experiment.py that looks at every step it learns from.

  python benchmarks/soaking/checked_learner.py --job_name=learner --task=0 ...

Steps of `worlds` say whose they are: that of another environment, one that is
missing or comes twice, or an action that was not the environment's, ends it.
"""

import collections
import os
import sys

sys.path.insert(
  0, os.path.abspath(os.path.join(os.path.dirname(__file__), *2 * ['..']))
)

import numpy as np
from absl import app

import experiment
from benchmarks.soaking import worlds
from scalable_agent import structures
from scalable_agent.runtimes import training

# Environments that are remembered.
_MOST = 10_000


class Mixed(Exception):
  """Steps are not those of one environment, one after the other."""


class Checker:
  """Knows how far each environment was learned from."""

  def __init__(self):
    self._ends: collections.OrderedDict = collections.OrderedDict()

  def check(self, batch: structures.ActorOutput) -> None:
    """Raises Mixed unless all columns are those of an environment each.

    Args:
      batch: of numpy [T + 1, B, ...].
    """
    shown = batch.env_outputs.observation.astype(np.float64) / worlds.UNIT
    fields = np.moveaxis(shown, -1, 0)  # [fields, T + 1, B]
    level, process, environment, position, step, action = fields
    first = batch.env_outputs.step_type == structures.FIRST
    last = batch.env_outputs.step_type == structures.LAST
    reward = worlds.reward(level, process, last)
    info = batch.env_outputs.info
    _require(
      levels=level == batch.level,
      processes=process == process[0],
      environments=environment == environment[0],
      positions=position - position[0] == np.arange(len(position))[:, None],
      steps=np.where(first[1:], 0, step[:-1] + 1) == step[1:],
      firsts=(step == 0) == first,
      lasts=first[1:] == last[:-1],
      rewards=batch.env_outputs.reward == np.where(first, 0, reward),
      lengths=info.episode_step == step,
      returns=info.episode_return
      == (level + 1) * step + (reward - level - 1) * last,
      actions=first[1:] | (batch.agent_outputs.action[1:] == action[1:]),
    )
    for one, start, end in zip(
      environment[0], position[0], position[-1], strict=True
    ):
      # What is lost on the way leaves a gap, and nothing comes twice.
      if start < self._ends.pop(one, 0):
        raise Mixed(f'environment {one:.0f} goes back to step {start:.0f}')
      self._ends[one] = end
    while len(self._ends) > _MOST:
      self._ends.popitem(last=False)


def _require(**conditions: np.ndarray) -> None:
  for name, holds in conditions.items():
    if not holds.all():
      raise Mixed(f'{name} are mixed up in columns of {holds.shape}: {holds}')


if __name__ == '__main__':
  checker, update = Checker(), training.Training.update

  def checked(self, batch, *arguments):
    checker.check(batch)
    return update(self, batch, *arguments)

  training.Training.update = checked
  app.run(experiment.main, flags_parser=experiment.parse_flags)
