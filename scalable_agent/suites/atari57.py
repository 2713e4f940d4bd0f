"""The 57 Atari games of the literature: human and random scores.

Human scores are those of Wang et al. (2016), random ones those of van Hasselt
et al. (2015). The literature has two random scores of video_pinball, 16256.9
(here) and 0.0; the *means* of the IMPALA and A3C papers come out with 0.0 only,
medians do not care. Publish medians, or say which one it was.
"""

from collections.abc import Mapping
from typing import NamedTuple

VIDEO_PINBALL_RANDOM_OF_IMPALA = 0.0

HUMAN_SCORES = {
  'alien': 7127.7,
  'amidar': 1719.5,
  'assault': 742.0,
  'asterix': 8503.3,
  'asteroids': 47388.7,
  'atlantis': 29028.1,
  'bank_heist': 753.1,
  'battle_zone': 37187.5,
  'beam_rider': 16926.5,
  'berzerk': 2630.4,
  'bowling': 160.7,
  'boxing': 12.1,
  'breakout': 30.5,
  'centipede': 12017.0,
  'chopper_command': 7387.8,
  'crazy_climber': 35829.4,
  'defender': 18688.9,
  'demon_attack': 1971.0,
  'double_dunk': -16.4,
  'enduro': 860.5,
  'fishing_derby': -38.7,
  'freeway': 29.6,
  'frostbite': 4334.7,
  'gopher': 2412.5,
  'gravitar': 3351.4,
  'hero': 30826.4,
  'ice_hockey': 0.9,
  'jamesbond': 302.8,
  'kangaroo': 3035.0,
  'krull': 2665.5,
  'kung_fu_master': 22736.3,
  'montezuma_revenge': 4753.3,
  'ms_pacman': 6951.6,
  'name_this_game': 8049.0,
  'phoenix': 7242.6,
  'pitfall': 6463.7,
  'pong': 14.6,
  'private_eye': 69571.3,
  'qbert': 13455.0,
  'riverraid': 17118.0,
  'road_runner': 7845.0,
  'robotank': 11.9,
  'seaquest': 42054.7,
  'skiing': -4336.9,
  'solaris': 12326.7,
  'space_invaders': 1668.7,
  'star_gunner': 10250.0,
  'surround': 6.5,
  'tennis': -8.3,
  'time_pilot': 5229.2,
  'tutankham': 167.6,
  'up_n_down': 11693.2,
  'venture': 1187.5,
  'video_pinball': 17667.9,
  'wizard_of_wor': 4756.5,
  'yars_revenge': 54576.9,
  'zaxxon': 9173.3,
}

RANDOM_SCORES = {
  'alien': 227.8,
  'amidar': 5.8,
  'assault': 222.4,
  'asterix': 210.0,
  'asteroids': 719.1,
  'atlantis': 12850.0,
  'bank_heist': 14.2,
  'battle_zone': 2360.0,
  'beam_rider': 363.9,
  'berzerk': 123.7,
  'bowling': 23.1,
  'boxing': 0.1,
  'breakout': 1.7,
  'centipede': 2090.9,
  'chopper_command': 811.0,
  'crazy_climber': 10780.5,
  'defender': 2874.5,
  'demon_attack': 152.1,
  'double_dunk': -18.6,
  'enduro': 0.0,
  'fishing_derby': -91.7,
  'freeway': 0.0,
  'frostbite': 65.2,
  'gopher': 257.6,
  'gravitar': 173.0,
  'hero': 1027.0,
  'ice_hockey': -11.2,
  'jamesbond': 29.0,
  'kangaroo': 52.0,
  'krull': 1598.0,
  'kung_fu_master': 258.5,
  'montezuma_revenge': 0.0,
  'ms_pacman': 307.3,
  'name_this_game': 2292.3,
  'phoenix': 761.4,
  'pitfall': -229.4,
  'pong': -20.7,
  'private_eye': 24.9,
  'qbert': 163.9,
  'riverraid': 1338.5,
  'road_runner': 11.5,
  'robotank': 2.2,
  'seaquest': 68.4,
  'skiing': -17098.1,
  'solaris': 1236.3,
  'space_invaders': 148.0,
  'star_gunner': 664.0,
  'surround': -10.0,
  'tennis': -23.8,
  'time_pilot': 3568.0,
  'tutankham': 11.4,
  'up_n_down': 533.4,
  'venture': 0.0,
  'video_pinball': 16256.9,
  'wizard_of_wor': 563.5,
  'yars_revenge': 3092.9,
  'zaxxon': 32.5,
}

GAMES = tuple(HUMAN_SCORES)


class Aggregate(NamedTuple):
  """Human-normalised score over all games, in percent."""

  median: float
  mean: float


def human_normalized_score(
  game: str, mean_return: float, random_score: float | None = None
) -> float:
  """Returns 100 for the human's score and 0 for random play, in percent.

  Args:
    game: one of GAMES.
    mean_return: mean raw return of whole games.
    random_score: in place of the one in RANDOM_SCORES.

  Raises:
    ValueError: for a game that is not among the 57.
  """
  if game not in HUMAN_SCORES:
    raise ValueError(
      f'{game} is not one of the 57 games with a published human score; '
      'scalable_agent.suites.atari57.GAMES lists them.'
    )
  random = RANDOM_SCORES[game] if random_score is None else random_score
  return (mean_return - random) / (HUMAN_SCORES[game] - random) * 100


def aggregate(
  mean_returns: Mapping[str, float],
  random_scores: Mapping[str, float] = RANDOM_SCORES,
) -> Aggregate:
  """Returns median and mean score over all 57 games, in percent.

  Args:
    mean_returns: mean raw return of each game.
    random_scores: random score of each game; to compare *means* with those of
      the IMPALA paper, set video_pinball to VIDEO_PINBALL_RANDOM_OF_IMPALA.

  Raises:
    ValueError: if a game is missing.
  """
  import numpy as np  # Here, as --help imports this file.

  missing = [game for game in GAMES if game not in mean_returns]
  if missing:
    raise ValueError(
      f'mean_returns lacks {len(missing)} of 57 games: {missing}'
    )
  scores = [
    human_normalized_score(game, mean_returns[game], random_scores[game])
    for game in GAMES
  ]
  return Aggregate(median=float(np.median(scores)), mean=float(np.mean(scores)))
