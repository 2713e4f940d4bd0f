"""The suite of Atari 2600 games: declarations only; see `atari`."""

import dataclasses
import functools
import re
from typing import Any

from scalable_agent.environments.presets import make_presets
from scalable_agent.environments.suite import Level, Purpose, Suite
from scalable_agent.options import (
  FrameOptions,
  LengthOptions,
  Line,
  Part,
  RepeatOptions,
  option,
)
from scalable_agent.suites import atari57

# ALE ships these for two players only and refuses to play them alone.
_TWO_PLAYERS = frozenset({'combat', 'joust', 'maze_craze', 'warlords'})

DEFAULTS = {'frame_stack': 4, 'num_action_repeats': 4}

# Found with two cores and half an hour: see docs/results.
SCREENS: dict[str, Any] = {
  # A third of the work of three convolutions.
  'network': 'shallow',
  # Two, as the policy lag in updates is the larger the smaller the batches.
  'num_actors': 2,
  'entropy_cost': 0.01,
  'optimizer': 'adam',
  'learning_rate': 4e-4,
  'learning_rate_schedule': 'late_linear',
  'epsilon': 1e-5,
}
OF_ALGORITHMS: dict[str, dict[str, Any]] = {
  'impala': {'batch_size': 8, 'lambda_': 0.95},
  # Updates of as many transitions as IMPALA's would leave most of the time to
  # the calls of the network.
  'advantage': {'envs_per_actor': 16, 'unroll_length': 20, 'gae_lambda': 0.95},
  # A batch is what one actor hands in, and nothing corrects for its age: as
  # many environments as IMPALA's, and batches as small as a lag of few updates
  # allows.
  'ga3c': {'num_actors': 4, 'envs_per_actor': 16, 'unroll_length': 20},
}
PRESETS = make_presets(
  {**SCREENS, 'total_environment_frames': 15e6, 'fire_reset': True},
  **OF_ALGORITHMS,
)

_LISTS = {'atari57': atari57.GAMES}


@dataclasses.dataclass(frozen=True)
class AtariOptions(FrameOptions, LengthOptions, RepeatOptions):
  """Atari."""

  grayscale: bool = option(
    True,
    'Grey frames instead of colour.',
    by_preset=True,
    part=Part.ACTING,
    fixed=True,
  )
  sticky_actions: float = option(
    0.0,
    'Probability that the emulator repeats the previous action. Default: what '
    'the level id implies (0.25 for ALE/*-v5 and *-v0, else 0).',
    by_preset=True,
    minimum=0,
    maximum=1,
    part=Part.ACTING,
    free_in_test=True,
    line=Line.LEVEL,
  )
  noop_max: int = option(
    30,
    'An episode starts with a random number of no-ops, uniform from 0 to this.',
    unit='frames',
    by_preset=True,
    minimum=0,
    part=Part.ACTING,
    free_in_test=True,
    line=Line.LEVEL,
  )
  life_loss_is_terminal: bool = option(
    True,
    'A lost life ends the episode for the learner; the game goes on.',
    by_preset=True,
    part=Part.ACTING,
    line=Line.LEVEL,
  )
  fire_reset: bool = option(
    False,
    'Press FIRE at the first step of an episode and after a lost life, '
    'whatever the agent chose, where the game has it: some wait for it.',
    by_preset=True,
    part=Part.ACTING,
  )
  full_action_space: bool = option(
    False,
    'All 18 actions instead of the minimal set of the game.',
    part=Part.ACTING,
    fixed=True,
  )
  max_episode_frames: int = option(
    108000,
    'Frames, after the no-ops, until an episode is cut off.',
    unit='frames',
    minimum=1,
    part=Part.ACTING,
    free_in_test=True,
  )

  @property
  def frame_limit(self) -> int:
    """Frames, after the no-ops, until an episode is cut off for any reason."""
    steps = self.max_episode_length * self.num_action_repeats
    return min(self.max_episode_frames, steps or self.max_episode_frames)


@dataclasses.dataclass(frozen=True)
class ArcadeOptions(AtariOptions):
  """Atari."""

  emulator_threads: int = option(
    1,
    'C++ threads that step the games of one actor. Default: on one machine, '
    'the cores divided by the actors; else 1.',
    unit='threads',
    minimum=1,
    part=Part.PROCESS,
    free_in_test=True,
  )


class Atari(Suite):
  name = 'atari'
  help = (
    'Atari games (pong, ALE/Pong-v5, PongNoFrameskip-v4); atari57 stands for '
    '57 of them.'
  )
  options = ArcadeOptions
  defaults = DEFAULTS
  presets = PRESETS
  lists = _LISTS
  # Of the emulator.
  fps = 60
  remedy_for_actions = 'Set --full_action_space'
  frees_the_interpreter = True
  threads_option = 'emulator_threads'

  def parse(self, level_name: str) -> Level | None:
    """Returns the level of an Atari name or id, None if it is not one.

    | name                                      | sticky actions | repeats |
    |-------------------------------------------|----------------|---------|
    | pong, Pong                                | 0              | 4       |
    | ALE/Pong-v5                               | 0.25           | 4       |
    | PongNoFrameskip-v0, PongDeterministic-v0  | 0.25           | 4       |
    | PongNoFrameskip-v4, PongDeterministic-v4  | 0              | 4       |

    ale-py no longer registers the Deterministic ids; their repeat was 4 but for
    Space Invaders, where it was 3. NoFrameskip ids are played with a repeat of
    4 because everybody wraps them so. Pong-v0 and Pong-v4 repeat an action for
    a random 2 to 4 frames, which the vector environment cannot do.

    Args:
      level_name: what the user wrote.

    Raises:
      ValueError: for ids with random repeats.
    """
    by_name = {game.replace('_', ''): game for game in games()}
    game = by_name.get(level_name.lower().replace('_', ''))
    if game is not None:
      return Level(self, game, {'sticky_actions': 0.0})
    by_id = {game_id(game): game for game in games()}
    match = re.fullmatch(r'ALE/(\w+)-v5', level_name)
    if match is not None and match[1] in by_id:
      implied = {'sticky_actions': 0.25, 'num_action_repeats': 4}
      return Level(self, by_id[match[1]], implied)
    match = re.fullmatch(
      r'([A-Za-z0-9]+?)(NoFrameskip|Deterministic|)-v([04])', level_name
    )
    if match is None or match[1] not in by_id:
      return None
    game, kind, version = by_id[match[1]], match[2], match[3]
    if not kind:
      raise ValueError(
        f'{level_name} repeats each action for a random 2 to 4 frames, which '
        f'is not supported. Use {match[1]}Deterministic-v{version}: the same '
        'game with a fixed action repeat.'
      )
    implied = {'sticky_actions': 0.25 if version == '0' else 0.0}
    if kind == 'Deterministic':
      implied['num_action_repeats'] = 3 if game == 'space_invaders' else 4
    return Level(self, game, implied)

  def level_names(self) -> tuple[str, ...]:
    return games()

  def other_names(self) -> tuple[str, ...]:
    return tuple(f'ALE/{game_id(game)}-v5' for game in games())

  def make(
    self, level: Level, num_envs: int, options: Any, seed: int, purpose: Purpose
  ):
    from scalable_agent.environments import atari

    return atari.AtariEnvironment(level, num_envs, options, seed, purpose)

  def are_alike(self, options: AtariOptions) -> bool:
    return options.full_action_space

  def human_normalized_score(
    self, level_name: str, mean_return: float
  ) -> float | None:
    if level_name not in atari57.HUMAN_SCORES:
      return None
    return atari57.human_normalized_score(level_name, mean_return)


@functools.cache
def games() -> tuple[str, ...]:
  """Returns the names of all games that ale-py brings along."""
  from ale_py import roms

  return tuple(sorted(set(roms.get_all_rom_ids()) - _TWO_PLAYERS))


def game_id(game: str) -> str:
  """Returns the name in Gymnasium's ids, e.g. 'MsPacman' for 'ms_pacman'."""
  from ale_py import registration

  return registration.rom_id_to_name(game)


ATARI = Atari()
