"""The suite of DeepMind Lab: levels that this version cannot make yet."""

from collections.abc import Mapping, Sequence

from scalable_agent.environments.suite import Level, Suite
from scalable_agent.suites import dmlab30


class DmLab(Suite):
  name = 'dmlab'
  help = 'DeepMind Lab, which this version does not support.'

  def parse(self, level_name: str) -> Level | None:
    last = level_name.rpartition('/')[2]
    if last != 'dmlab30' and last not in dmlab30.ALL_LEVELS:
      return None
    raise ValueError(
      f'{level_name} needs DeepMind Lab, which this version does not support. '
      'It has Atari games (pong), Gymnasium ids (CartPole-v1), catch and '
      'catch_hidden.'
    )

  def human_normalized_score(
    self, level_name: str, mean_return: float
  ) -> float | None:
    if level_name not in dmlab30.ALL_LEVELS:
      return None
    return dmlab30.human_normalized_score(level_name, mean_return)

  def training_scores(
    self, returns: Mapping[str, Sequence[float]]
  ) -> dict[str, float] | None:
    if not all(map(returns.get, dmlab30.LEVEL_MAPPING)):
      return None
    return dmlab30.training_scores(returns)


DMLAB = DmLab()
