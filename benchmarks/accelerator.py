"""Checks and measures what only a GPU can show; without one, small on the CPU.

  python benchmarks/accelerator.py --output=accelerator.json
  python benchmarks/accelerator.py --sections=learner --seconds=2

Whether an update is the same on the GPU and on the CPU; whether several
processes can share the GPU; the latency of inference by rows; updates with and
without XLA and bfloat16; whole trainings; an update on all GPUs at once. Each
case runs in a process of its own: one that fails, for want of memory or of
something in TensorFlow, is a row that says why. Without a GPU the same cases
run with few rows, and those that make no sense there are `unmeasured`.
"""

import json
import os
import pathlib
import sys
import tempfile
import traceback

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
# As experiment.py does: processes share a GPU.
os.environ.setdefault('TF_FORCE_GPU_ALLOW_GROWTH', 'true')
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from absl import app, flags

from benchmarks import accelerator_cases as cases_lib
from benchmarks import children, settings

# Seconds that a case may take besides those asked for: tracing, XLA.
_TIMEOUT = 900.0

_SECTIONS = flags.DEFINE_list(
  'sections', list(cases_lib.SECTIONS), 'What to do.'
)
_SECONDS = flags.DEFINE_float(
  'seconds', 5.0, 'Measured seconds per case.', lower_bound=0.01
)
_WARM_UP = flags.DEFINE_float(
  'warm_up', 10.0, 'Seconds before a training is measured.', lower_bound=0
)
_LEVEL = flags.DEFINE_string('level_name', 'pong', 'What to play: images.')
_SMALL = flags.DEFINE_bool(
  'small', None, 'Few rows and columns. Default: without a GPU.'
)
_OUTPUT = flags.DEFINE_string('output', '', 'JSON file for the results.')
_CASE = flags.DEFINE_string('case', None, 'JSON; runs this case only.')


def _run_case(case: dict) -> dict:
  from benchmarks import devices

  try:
    return devices.FUNCTIONS[case['function']](case)
  except Exception as error:
    # With what TensorFlow adds, a message may have a hundred lines.
    traceback.print_exc()
    reason = str(error).strip().partition('\n')[0]
    return {'failed': f'{type(error).__name__}: {reason}'}


def _spawn(case: dict) -> dict:
  try:
    return children.run(
      __file__,
      [f'--case={json.dumps(case)}'],
      _TIMEOUT + _SECONDS.value + _WARM_UP.value,
    )
  except children.Failure as failure:
    lines = str(failure).splitlines()
    return {'failed': lines[-1] if lines else 'no reason given'}


def _plan(found: dict, folder: str) -> cases_lib.Plan:
  gpus = len(found['gpus'])
  small = not gpus if _SMALL.value is None else _SMALL.value
  return cases_lib.Plan(
    level_name=_LEVEL.value,
    gpus=gpus,
    small=small,
    seconds=_SECONDS.value,
    warm_up=_WARM_UP.value,
    folder=folder,
    choices=settings.choices_of(('precision', 'jit_compile')),
  )


def main(argv: list[str]) -> None:
  if argv[1:]:
    sys.exit(f'accelerator.py: unexpected arguments: {" ".join(argv[1:])}.')
  if _CASE.value:
    print(json.dumps(_run_case(json.loads(_CASE.value))))
    return
  unknown = sorted(set(_SECTIONS.value) - set(cases_lib.SECTIONS))
  if unknown:
    sys.exit(
      f'accelerator.py: --sections={",".join(_SECTIONS.value)}: there is no '
      f'{unknown[0]}. Choose from: {", ".join(cases_lib.SECTIONS)}.'
    )
  found = _spawn({'function': 'find'})
  if 'failed' in found:
    sys.exit(f'accelerator.py: no TensorFlow: {found["failed"]}')
  results: dict = {**found, 'level_name': _LEVEL.value, 'sections': {}}
  with tempfile.TemporaryDirectory() as folder:
    try:
      plan = _plan(found, folder)
    except ValueError as error:
      sys.exit(f'accelerator.py: {error}')
    results['small'] = plan.small
    for name in _SECTIONS.value:
      rows = cases_lib.SECTIONS[name](plan, _spawn)
      results['sections'][name] = rows
      cases_lib.show(name, rows, found['gpus'], plan.small)
  if _OUTPUT.value:
    text = json.dumps(results, indent=2)
    pathlib.Path(_OUTPUT.value).write_text(text, encoding='utf-8')
  failed = [
    row
    for rows in results['sections'].values()
    for row in rows
    if 'failed' in row
  ]
  if failed:
    sys.exit(f'accelerator.py: {len(failed)} case(s) failed, see above.')


if __name__ == '__main__':
  app.run(main)
