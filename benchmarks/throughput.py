"""Measures the parts of a training alone, and the training, in one run.

  python benchmarks/throughput.py --output=throughput.json
  python benchmarks/throughput.py --cores=1,2,4
  python benchmarks/throughput.py -- --inference_threads=2

Each part runs in a process of its own, on all cores or pinned to as many as
`--cores` says, one number after the other. The parts take turns, `--rounds`
times, because a shared machine changes its speed by the minute; the medians are
compared. Everything is in agent steps per second (times the action repeat:
frames). What follows `--` are options of experiment.py.

The training cannot be faster than its parts one after the other on all cores,
1 / (1 / environment + 1 / inference + 1 / learner).
"""

import json
import os
import sys
from collections.abc import Sequence

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from absl import app, flags

from benchmarks import children, scaling, settings
from scalable_agent.runtimes import cores as cores_lib

# Seconds that a part may take besides those asked for: tracing, building.
_PART_TIMEOUT = 600.0

_LEVEL = flags.DEFINE_string('level_name', 'pong', 'What to play.')
_NETWORK = flags.DEFINE_string(
  'network', '', 'Torso. Default: that of a training.'
)
_PRESET = flags.DEFINE_enum(
  'preset', 'paper', ('paper', 'auto'), "Settings: the paper's, batches of 32."
)
_SECONDS = flags.DEFINE_float(
  'seconds', 15.0, 'Measured seconds per part.', lower_bound=0.01
)
_WARM_UP = flags.DEFINE_float(
  'warm_up', 5.0, 'Seconds before, per part.', lower_bound=0
)
_ROUNDS = flags.DEFINE_integer(
  'rounds', 3, 'Turns of each part.', lower_bound=1
)
_CORES = flags.DEFINE_list(
  'cores', [], 'Numbers of cores to pin the parts to. Default: all, unpinned.'
)
_OUTPUT = flags.DEFINE_string('output', '', 'JSON file for the results.')
_PART = flags.DEFINE_enum(
  'part', None, scaling.PARTS, 'Measures this part only.'
)


def _parse(arguments: Sequence[str]) -> dict:
  given = settings.parse(arguments)
  return given | ({'network': _NETWORK.value} if _NETWORK.value else {})


def _measure_part(part: str, arguments: Sequence[str]) -> dict:
  from benchmarks import parts

  config, level = settings.make_config(
    _LEVEL.value, _PRESET.value, _parse(arguments)
  )
  window = parts.Window(_WARM_UP.value, _SECONDS.value)
  return parts.measure(part, config, level, window)


def _spawn(part: str, num_cores: int | None, arguments: Sequence[str]) -> dict:
  flags_of_parts = _LEVEL, _NETWORK, _PRESET, _SECONDS, _WARM_UP
  return children.run(
    __file__,
    [
      f'--part={part}',
      *(f'--{flag.name}={flag.value}' for flag in flags_of_parts),
      '--',
      *arguments,
    ],
    _PART_TIMEOUT + _WARM_UP.value + _SECONDS.value,
    num_cores,
  )


def _counts() -> list[int | None]:
  """Returns what --cores says; one None for all cores, unpinned."""
  try:
    counts = [int(text) for text in _CORES.value]
  except ValueError:
    raise ValueError(
      f'--cores={",".join(_CORES.value)} must be whole numbers, such as '
      '--cores=1,2,4.'
    ) from None
  for count in counts:
    children.check_cores(count)
  return list(dict.fromkeys(counts)) or [None]


def main(argv: list[str]) -> None:
  if _PART.value:
    print(json.dumps(_measure_part(_PART.value, argv[1:])))
    return
  try:
    counts = _counts()
    # A mistake need not wait for the first part.
    settings.make_config(_LEVEL.value, _PRESET.value, _parse(argv[1:]))
    rounds = {count: {part: [] for part in scaling.PARTS} for count in counts}
    for _ in range(_ROUNDS.value):
      for count in counts:
        for part in scaling.PARTS:
          rounds[count][part].append(_spawn(part, count, argv[1:]))
  except (ValueError, children.Failure) as error:
    sys.exit(f'throughput.py: {error}')
  summary = {
    'level_name': _LEVEL.value,
    'preset': _PRESET.value,
    'options': argv[1:],
    'by_cores': [
      scaling.summarise(count or cores_lib.usable_cores(), of_parts)
      for count, of_parts in rounds.items()
    ],
  }
  scaling.show(summary)
  if _OUTPUT.value:
    with open(_OUTPUT.value, 'w', encoding='utf-8') as file:
      json.dump(summary, file, indent=2)


if __name__ == '__main__':
  app.run(main)
