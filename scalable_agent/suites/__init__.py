"""Suites of levels: names, human and random scores, normalised scores."""

from collections.abc import Mapping, Sequence

from scalable_agent.suites import atari57, dmlab30


def human_normalized_score(
  suite: str, level: str, mean_return: float
) -> float | None:
  """Returns 0 for random play and 100 for a human, in percent.

  Args:
    suite: of the level.
    level: its name.
    mean_return: mean raw return of whole games.

  Returns:
    None for a level without published scores.
  """
  if suite == 'atari' and level in atari57.HUMAN_SCORES:
    return atari57.human_normalized_score(level, mean_return)
  if suite == 'dmlab' and level in dmlab30.ALL_LEVELS:
    return dmlab30.human_normalized_score(level, mean_return)
  return None


def training_scores(
  suite: str, returns: Mapping[str, Sequence[float]]
) -> dict[str, float] | None:
  """Returns what a suite reports of a training, by TensorBoard tag.

  Args:
    suite: of the levels.
    returns: of the episodes of each level since this was not None.

  Returns:
    None where the suite has nothing of its own, or not all its levels have
    returns.
  """
  if suite == 'dmlab' and all(map(returns.get, dmlab30.LEVEL_MAPPING)):
    return dmlab30.training_scores(returns)
  return None
