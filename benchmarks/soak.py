"""Breaks what a distributed training can meet, ten thousand times.

  python benchmarks/soak.py --faults=10000 --seed=0
  python benchmarks/soak.py --faults=500 --inference=learner --tls=no

Learner and actors are processes of experiment.py, restarted as a supervisor
would. At any time, only that is lost which docs/distributed.md names; the first
thing that is not as it must be ends the soak with status 1, the last faults and
what the processes printed. Full disks need root, for a small file system.
"""

import os
import pathlib
import shutil
import signal
import sys
import tempfile
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from absl import app, flags

from benchmarks.soaking import processes, run, strangers

_FAULTS = flags.DEFINE_integer('faults', 10_000, 'To inject, of all parts.')
_SEED = flags.DEFINE_integer('seed', 0, 'Of the choice of faults.')
_SECONDS = flags.DEFINE_float(
  'seconds', 0.0, 'Within which, about, of all parts; 0: see --pause.'
)
_PAUSE = flags.DEFINE_float('pause', 0.15, 'Mean seconds between two faults.')
_INFERENCE = flags.DEFINE_enum(
  'inference', 'both', ('actor', 'learner', 'both'), 'Who evaluates the agent.'
)
_TLS = flags.DEFINE_enum(
  'tls', 'both', ('yes', 'no', 'both'), 'Bits are flipped with TLS only.'
)
_ACTORS = flags.DEFINE_integer(
  'actors', 0, 'Default: 6 with --inference=learner, else 2.'
)
_DEADLINE = flags.DEFINE_float(
  'deadline', 120.0, 'Seconds in which what must happen has to.'
)
_FOLDER = flags.DEFINE_string('folder', '', 'To keep what was written.')


def _parts() -> list[run.Settings]:
  inferences = (
    ['actor', 'learner'] if _INFERENCE.value == 'both' else [_INFERENCE.value]
  )
  encrypted = {'yes': [True], 'no': [False], 'both': [False, True]}[_TLS.value]
  number = len(inferences) * len(encrypted)
  pause = _PAUSE.value
  if _SECONDS.value:
    pause = _SECONDS.value / max(_FAULTS.value, 1)
  return [
    run.Settings(
      inference,
      tls,
      -(-_FAULTS.value // number),
      seed=_SEED.value * number + i,
      pause=pause,
      actors=_ACTORS.value,
      deadline=_DEADLINE.value,
    )
    for i, (inference, tls) in enumerate(
      (inference, tls) for inference in inferences for tls in encrypted
    )
  ]


def main(_: Any) -> None:
  # So that all that it has started ends with it.
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  folder = pathlib.Path(_FOLDER.value or tempfile.mkdtemp(prefix='soak'))
  summaries = []
  for i, settings in enumerate(_parts()):
    print(f'{settings}: {settings.faults} faults, in {folder}', flush=True)
    part = folder / str(i)
    part.mkdir(parents=True)
    soak = run.Soak(settings, part)
    try:
      soak.run()
    except (processes.Violation, strangers.Accepted) as error:
      print(f'\n{soak.summary()}\n\nsoak.py: {str(error)[-5000:]}')
      sys.exit(1)
    except KeyboardInterrupt:
      sys.exit(f'\n{soak.summary()}\n\nsoak.py: stopped')
    summaries.append(soak.summary())
  print('\n\n'.join(['', *summaries]))
  if not _FOLDER.value:
    shutil.rmtree(folder)


if __name__ == '__main__':
  app.run(main)
