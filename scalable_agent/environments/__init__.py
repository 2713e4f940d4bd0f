"""Environments: everything that can be played, in one shape.

```python
level = environments.parse_level('pong')
environment = environments.make(
  level, num_envs=32, options=environments.EnvironmentOptions(), seed=1)
output = environment.reset()
while True:
  output = environment.step(actions)
```
"""

from scalable_agent.environments import (
  atari,
  batched,
  catch,
  gymnasium_vector,
)
from scalable_agent.environments import options as options_lib
from scalable_agent.environments.batched import (
  TEST_SEEDS,
  Arrival,
  BatchedEnvironment,
  Level,
)
from scalable_agent.environments.levels import (
  level_names,
  parse_level,
  parse_levels,
)
from scalable_agent.environments.options import (
  OPTIONS_OF_SUITE,
  EnvironmentOptions,
  implied_options,
  options_without_effect,
)

__all__ = (
  'OPTIONS_OF_SUITE',
  'TEST_SEEDS',
  'Arrival',
  'BatchedEnvironment',
  'EnvironmentOptions',
  'Level',
  'implied_options',
  'level_names',
  'make',
  'options_without_effect',
  'parse_level',
  'parse_levels',
)


def make(
  level: Level, num_envs: int, options: EnvironmentOptions, seed: int
) -> BatchedEnvironment:
  """Makes E environments of a level.

  Args:
    level: from `parse_level`.
    num_envs: E.
    options: how the level is presented; None in a field leaves the choice to
      the level.
    seed: environment i is seeded with seed + i.

  Raises:
    ValueError: if an option has a bad value or no effect on this level, or if
      the level's actions or observations are not supported.
  """
  options = options_lib.resolve(level, options)
  options_lib.check(level, options)
  batched.check_arguments(level, num_envs, seed)
  if level.suite == 'atari':
    return atari.AtariEnvironment(level, num_envs, options, seed)
  if level.suite == 'catch':
    return catch.CatchEnvironment(level, num_envs, seed, options.render)
  return gymnasium_vector.GymnasiumEnvironment(level, num_envs, options, seed)
