"""The sections of `accelerator.py`: which cases there are, and their tables.

A row of results has what the case was, under the names of its columns, and what
came of it; `failed` and why, or `unmeasured` and why.
"""

import dataclasses
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from rich import box, console, table

Row = dict[str, Any]
# Runs a case of `devices` in a process of its own.
Spawn = Callable[[dict], dict]

_NETWORKS = ('shallow', 'deep')
_ROWS = (1, 8, 32, 64, 128, 256, 512)
_FEW_ROWS = (1, 8)
_COLUMNS = (32, 256)
_FEW_COLUMNS = (4,)
_PRESETS = ('paper', 'auto')
# Of an update's change of the weights, and of its loss: products of float32 in
# the GPU's TF32 have errors of 1e-3.
_TOLERANCE = 0.02
_TRAINING_SECONDS = 4.0
_NEEDS_GPU = 'needs a GPU'


@dataclasses.dataclass(frozen=True)
class Plan:
  """What to measure.

  Attributes:
    level_name: to play.
    gpus: how many there are.
    small: whether few rows and columns do.
    seconds: measured, of each case.
    warm_up: seconds before a training is measured.
    folder: for files.
    choices: values of options by name.
  """

  level_name: str
  gpus: int
  small: bool
  seconds: float
  warm_up: float
  folder: str
  choices: Mapping[str, Sequence[str]]

  def case(
    self, function: str, options: Mapping[str, Any], **more: Any
  ) -> dict:
    """Returns a case for a function of `devices`."""
    return {
      'function': function,
      'level_name': self.level_name,
      'seconds': self.seconds,
      'options': dict(options),
      **more,
    }


def check(plan: Plan, spawn: Spawn) -> list[Row]:
  """The same update twice; several processes on one GPU."""
  return [_compare(plan, spawn), _share(plan, spawn)]


def _compare(plan: Plan, spawn: Spawn) -> Row:
  if plan.gpus:
    row = {'check': 'an update on the CPU and on the GPU'}
    pair = [('CPU', 'none'), ('GPU', 'auto')]
  else:
    row = {'check': 'an update without and with XLA'}
    pair = [('CPU', 'none'), ('CPU', 'all')]
  results, files = [], []
  for index, (device, jit_compile) in enumerate(pair):
    files.append(os.path.join(plan.folder, f'update_{index}.npz'))
    case = plan.case(
      'update',
      {'jit_compile': jit_compile, 'precision': 'float32', 'batch_size': 4},
      preset='paper',
      device=device,
      file=files[-1],
    )
    results.append(spawn(case))
    if 'failed' in results[-1]:
      return row | {'failed': results[-1]['failed']}
  if plan.gpus and 'GPU' not in results[1]['device']:
    return row | {'failed': f'the weights were on {results[1]["device"]}'}
  return row | compare_updates(results[0]['loss'], results[1]['loss'], *files)


def compare_updates(
  one: Mapping[str, float], other: Mapping[str, float], *files: str
) -> Row:
  """Returns how far apart two updates are.

  Args:
    one: metrics of the first.
    other: metrics of the second.
    *files: of what each has changed the weights by; see `devices.update`.
  """
  changes = []
  for file in files:
    with np.load(file) as arrays:
      changes.append(np.concatenate([arrays[k].ravel() for k in arrays.files]))
  norm = np.linalg.norm(changes[0])
  difference = float(np.linalg.norm(changes[1] - changes[0]) / norm)
  names = ('gradient_norm', 'loss/total')
  of_loss = max(
    abs(other[name] - one[name]) / max(abs(one[name]), 1e-6)
    for name in names
    if name in one
  )
  row: Row = {'difference': difference, 'of_loss': of_loss}
  # Written so that NaN fails as well.
  if not max(difference, of_loss) <= _TOLERANCE:
    row['failed'] = (
      f'the changes of the weights differ by {difference:.2%}, the loss by '
      f'{of_loss:.2%}; at most {_TOLERANCE:.0%} is rounding'
    )
  return row


def _share(plan: Plan, spawn: Spawn) -> Row:
  row = {'check': 'three processes use the GPU at a time'}
  if not plan.gpus:
    return row | {'unmeasured': _NEEDS_GPU}
  return row | spawn({'function': 'hold', 'others': 2})


def inference(plan: Plan, spawn: Spawn) -> list[Row]:
  """Networks by rows."""
  precisions = plan.choices['precision'] if not plan.small else ('auto',)
  rows = []
  for network, precision, size in itertools.product(
    _NETWORKS, precisions, _FEW_ROWS if plan.small else _ROWS
  ):
    row = {'network': network, 'precision': precision, 'rows': size}
    options = {'network': network, 'precision': precision}
    rows.append(row | spawn(plan.case('inference', options, rows=size)))
  return rows


def learner(plan: Plan, spawn: Spawn) -> list[Row]:
  """Updates by columns, precision and what XLA compiles."""
  rows = []
  for network, columns, precision, jit_compile in itertools.product(
    _NETWORKS[:1] if plan.small else _NETWORKS,
    _FEW_COLUMNS if plan.small else _COLUMNS,
    plan.choices['precision'],
    plan.choices['jit_compile'],
  ):
    row = {
      'network': network,
      'columns': columns,
      'precision': precision,
      'jit_compile': jit_compile,
    }
    options = {k: v for k, v in row.items() if k != 'columns'}
    options['batch_size'] = columns
    rows.append(row | spawn(plan.case('learner', options)))
  return rows


def training(plan: Plan, spawn: Spawn) -> list[Row]:
  """Whole trainings by preset."""
  rows = []
  for preset in _PRESETS:
    case = plan.case('whole', {}, preset=preset, warm_up=plan.warm_up)
    if plan.small:
      case['warm_up'] = 0
    # Of several updates.
    case['seconds'] = max(plan.seconds, _TRAINING_SECONDS)
    result = spawn(case)
    if 'failed' not in result:
      result['per_second'] = result.pop('steps_per_second')
      stage, share = max(result['busy'].items(), key=lambda item: item[1])
      result['busiest'] = f'{stage} {share:.2f}'
    rows.append({'preset': preset, **result})
  return rows


def mirrored(plan: Plan, spawn: Spawn) -> list[Row]:
  """One learner on more and more devices, each with as many columns."""
  most = plan.gpus or 2  # Of the CPU, in its two halves.
  columns = (_FEW_COLUMNS if plan.small else _COLUMNS)[0]
  rows = []
  for devices in sorted({1, most}):
    row = {'devices': devices, 'columns': columns * devices}
    options = {
      'batch_size': columns * devices,
      'learner_devices': devices,
      # XLA compiles no sums over devices.
      'jit_compile': 'pixels',
    }
    rows.append(row | spawn(plan.case('learner', options, devices=devices)))
  if most == 1:
    rows.append({'devices': 2, 'unmeasured': 'needs several GPUs'})
  return rows


SECTIONS: dict[str, Callable[[Plan, Spawn], list[Row]]] = {
  one.__name__: one for one in (check, inference, learner, training, mirrored)
}

# Columns of a result, and how they are written.
_FORMATS = {
  'difference': ('difference', '{:.1e}'),
  'p50_ms': ('p50 ms', '{:.2f}'),
  'p99_ms': ('p99 ms', '{:.2f}'),
  'per_second': ('rows or steps/s', '{:,.0f}'),
  'cpu_ms_per_step': ('CPU-ms per step', '{:.3f}'),
  'busiest': ('busy, s/s', '{}'),
  'first_call_s': ('first call s', '{:.1f}'),
  'peak_mib': ('peak MiB', '{:,.0f}'),
}
# Of a case, whatever section it is of.
_KEYS = (
  'check',
  'preset',
  'network',
  'devices',
  'columns',
  'precision',
  'jit_compile',
  'rows',
)


def show(
  name: str, rows: Sequence[Row], gpus: Sequence[str], small: bool
) -> None:
  """Prints the table of a section.

  Args:
    name: of the section.
    rows: of it.
    gpus: their names.
    small: whether its cases were.
  """
  where = ', '.join(gpus) or 'CPU, no GPU'
  lines = table.Table(
    title=f'{name} on {where}{", small" if small else ""}', box=box.SIMPLE
  )
  keys = [key for key in _KEYS if any(key in row for row in rows)]
  values = [key for key in _FORMATS if any(key in row for row in rows)]
  for key in keys:
    lines.add_column(key)
  for key in values:
    lines.add_column(_FORMATS[key][0], justify='right')
  lines.add_column('')
  for row in rows:
    notes = [
      f'{kind}: {row[kind]}' for kind in ('failed', 'unmeasured') if kind in row
    ]
    lines.add_row(
      *(str(row.get(key, '')) for key in keys),
      *(
        _FORMATS[key][1].format(row[key]) if key in row else ''
        for key in values
      ),
      *(notes or ['']),
    )
  console.Console(width=120).print(lines)
