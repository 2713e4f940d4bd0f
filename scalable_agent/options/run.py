"""What is run."""

import dataclasses

from scalable_agent.options import systems
from scalable_agent.options.declaration import ALGORITHMS, Line, Part, option


@dataclasses.dataclass(frozen=True)
class RunOptions:
  """The run."""

  mode: str = option(
    'train',
    'Train an agent, test the one in --logdir, or play: a test that can be '
    'watched, in a window, or where there is no display in a video.',
    choices=('train', 'test', 'play'),
    free_in_test=True,
  )
  algorithm: str = option(
    'impala',
    'Member of the actor-critic family. Default: impala, or that of --preset.',
    by_preset=True,
    choices=ALGORITHMS,
    part=Part.ACTING,
    fixed=True,
    line=Line.RUN,
  )
  level_name: str = option(
    'pong',
    'What to play: a level, see below. Several of one suite, separated by '
    'commas, take turns among the actors.',
    part=Part.ACTING,
    fixed=True,
    line=Line.LEVEL,
  )
  level_shares: str = option(
    '',
    'How many actors some levels have for each of another one: names and whole '
    'numbers, as in pong:2,breakout:3.',
    part=Part.ACTING,
  )
  preset: str = option(
    'auto',
    'Where unset options come from: auto = settings found for a single level '
    "on a small machine; paper = those of the algorithm's paper; or those of a "
    'published system: docs/family.md.',
    choices=('auto', 'paper', *systems.SYSTEMS),
    line=Line.RUN,
  )
  total_environment_frames: float = option(
    10e6,
    'Frames (agent steps x action repeat) after which training stops and a '
    'decaying learning rate reaches zero.',
    unit='frames',
    by_preset=True,
    minimum=1,
    maximum=1e15,
    line=Line.RUN,
  )
  seed: int = option(
    1,
    'Seed of weights, environments and action sampling. Exact reproduction '
    'needs one thread: --algorithm=a2c, or impala with --num_actors=0. Tests '
    'play other episodes than any training.',
    minimum=0,
    # Leaves room for an index of each environment below those of tests.
    maximum=2_000_000_000,
    free_in_test=True,
    line=Line.RUN,
  )
  logdir: str = option(
    None,
    'Folder of checkpoints, TensorBoard events, episodes.csv and config.json. '
    'Default: logs/<level_name>, with a + for each comma.',
    by_preset=True,
    part=Part.PLACE,
    free_in_test=True,
    line=Line.RUN,
  )
  plugin: str = option(
    '',
    'Modules of your own, separated by commas, whose SUITES and ALGORITHMS '
    'are added to those below.',
    part=Part.ACTING,
  )
