"""Environments: everything that can be played, in one shape.

```python
level = environments.parse_level('pong')
environment = environments.make(
  level, num_envs=32, options=environments.options_of(level), seed=1)
output = environment.reset()
while True:
  output = environment.step(actions)
```

A suite is one object: what is to be said of it stands in `*_suite.py`, which
`--help` reads, what plays its levels in another file.
"""

from typing import TYPE_CHECKING, Any

from scalable_agent.environments.levels import (
  SUITES,
  deal,
  implied_options,
  level_names,
  parse_level,
  parse_levels,
)
from scalable_agent.environments.suite import (
  TEST_SEEDS,
  Level,
  Purpose,
  Suite,
  UnknownLevel,
  make,
  options_of,
)

if TYPE_CHECKING:
  from scalable_agent.environments.batched import Arrival, BatchedEnvironment

__all__ = (
  'SUITES',
  'TEST_SEEDS',
  'Arrival',
  'BatchedEnvironment',
  'Level',
  'Purpose',
  'Suite',
  'UnknownLevel',
  'deal',
  'implied_options',
  'level_names',
  'make',
  'options_of',
  'parse_level',
  'parse_levels',
)


def __getattr__(name: str) -> Any:
  # Not at once: they need NumPy, and --help does not.
  if name in ('Arrival', 'BatchedEnvironment'):
    from scalable_agent.environments import batched

    return getattr(batched, name)
  raise AttributeError(f'module {__name__} has no attribute {name}')
