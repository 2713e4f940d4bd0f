"""What the measured parts of a training say, for each number of cores."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box, console, table

PARTS = ('environment', 'inference', 'learner', 'training')
# Of what there is, from which on it is taken for saturated.
_FULL = 0.9
# What moves a stage that is saturated.
REMEDIES = {
  'environment': '--num_actors, or more threads of their emulators',
  'inference': '--inference_threads or --intra_op_threads, or a GPU',
  'learner': '--intra_op_threads, a larger --batch_size, or a GPU',
  "Python's lock": '--envs_per_actor, for fewer and larger calls, or actor '
  'processes (--job_name)',
}
# Cores that others may use before a measurement is not what it says.
_OTHERS = 0.1
# CPU-ms per step, below which a kind of thread is not shown.
_LITTLE = 0.0005


def summarise(
  cores: int, rounds: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
  """Returns medians, and what they come to.

  Args:
    cores: that the parts could use.
    rounds: results of each of `PARTS`; see `parts.measure`.
  """
  rates = _medians(rounds, 'steps_per_second')
  training = rounds['training']
  busy, cpu = (_medians_within(training, name) for name in ('busy', 'cpu'))
  of_parts = 1 / sum(1 / rates[part] for part in PARTS[:3])
  # At least: the threads of inference and learner hold it for a part of their
  # time, too. At most: copies of large arrays need no lock.
  busy["Python's lock"] = cpu.get('actor', 0.0)
  summary = {
    'cores': cores,
    'num_actors': training[0]['num_actors'],
    'envs_per_actor': training[0]['envs_per_actor'],
    'steps_per_second': rates,
    'cpu_ms_per_step': _medians(rounds, 'cpu_ms_per_step'),
    'cpu_ms_per_step_by_thread': {
      kind: 1000 * value / rates['training'] for kind, value in cpu.items()
    },
    'cores_used': statistics.median(one['cores_used'] for one in training),
    'used_by_others': max(
      one['used_by_others'] for results in rounds.values() for one in results
    ),
    'busy': busy,
    'sum_of_parts': of_parts,
    'training_to_sum_of_parts': rates['training'] / of_parts,
    'training_to_environment': rates['training'] / rates['environment'],
    'training_peak_rss_mib': max(one['peak_rss_mib'] for one in training),
    'rounds': rounds,
  }
  return summary | {'saturated_first': saturated_first(summary)}


def _medians(rounds, name: str) -> dict[str, float]:
  return {
    part: statistics.median(one[name] for one in results)
    for part, results in rounds.items()
  }


def _medians_within(results, name: str) -> dict[str, float]:
  kinds = dict.fromkeys(kind for one in results for kind in one[name])
  return {
    kind: statistics.median(one[name].get(kind, 0.0) for one in results)
    for kind in kinds
  }


def saturated_first(summary: Mapping[str, Any]) -> str:
  """Returns what a training has no more of, and what moves that.

  Args:
    summary: of `summarise`.
  """
  cores, used = summary['cores'], summary['cores_used']
  if used >= _FULL * cores:
    costs = summary['cpu_ms_per_step']
    part = max(PARTS[:3], key=lambda one: costs[one])
    return (
      f'the cores: {used:.2f} of {cores} work all the time, most for the '
      f'{part} ({costs[part]:.2f} CPU-ms of {costs["training"]:.2f} per step); '
      'more cores move it'
    )
  stage = max(summary['busy'], key=lambda one: summary['busy'][one])
  share = summary['busy'][stage]
  text = (
    f'{stage}: {share:.2f} of all seconds, where {used:.2f} of {cores} cores '
    f'work; it is moved by {REMEDIES[stage]}'
  )
  if share < _FULL:
    text = f'nothing; next is {text}'
  return text


def show(summary: Mapping[str, Any]) -> None:
  """Prints rates, what they cost, and what saturates first."""
  screen = console.Console(width=100, soft_wrap=True)
  columns = summary['by_cores']
  title = f'{summary["level_name"]}, --preset={summary["preset"]}'
  rates = _table(f'{title}: agent steps per second', columns)
  for part in PARTS:
    rates.add_row(
      part, *(f'{one["steps_per_second"][part]:,.0f}' for one in columns)
    )
  rates.add_row(
    'sum of parts', *(f'{one["sum_of_parts"]:,.0f}' for one in columns)
  )
  for name in ('training_to_sum_of_parts', 'training_to_environment'):
    rates.add_row(
      name.replace('_to_', ' / ').replace('_', ' '),
      *(f'{one[name]:.3f}' for one in columns),
    )
  rates.add_row(
    'efficiency, to the first',
    *(f'{_efficiency(columns[0], one):.2f}' for one in columns),
  )
  rates.add_row(
    'actors x environments',
    *(f'{one["num_actors"]} x {one["envs_per_actor"]}' for one in columns),
  )
  rates.add_row(
    'peak RSS of training, MiB',
    *(f'{one["training_peak_rss_mib"]:,.0f}' for one in columns),
  )
  screen.print(rates)
  screen.print(_costs(columns))
  for one in columns:
    print(f'{one["cores"]} core(s), saturated first: {one["saturated_first"]}.')
    if one['used_by_others'] > _OTHERS:
      print(
        f'{one["cores"]} core(s): other processes used up to '
        f'{one["used_by_others"]:.2f} cores meanwhile. End them, and repeat.'
      )


def _costs(columns: Sequence[Mapping[str, Any]]) -> table.Table:
  costs = _table('CPU-ms per agent step', columns)
  for part in PARTS:
    name = part if part == 'training' else f'{part} alone'
    costs.add_row(
      name, *(f'{one["cpu_ms_per_step"][part]:.3f}' for one in columns)
    )
  kinds = dict.fromkeys(
    kind
    for one in columns
    for kind, value in one['cpu_ms_per_step_by_thread'].items()
    if value >= _LITTLE
  )
  for kind in kinds:
    costs.add_row(
      f'  training: {kind} threads',
      *(
        f'{one["cpu_ms_per_step_by_thread"].get(kind, 0):.3f}'
        for one in columns
      ),
    )
  costs.add_section()
  costs.add_row('busy, seconds per second:')
  for stage in dict.fromkeys(stage for one in columns for stage in one['busy']):
    costs.add_row(
      f'  {stage}', *(f'{one["busy"].get(stage, 0):.2f}' for one in columns)
    )
  costs.add_row('  cores', *(f'{one["cores_used"]:.2f}' for one in columns))
  return costs


def _efficiency(first: Mapping[str, Any], one: Mapping[str, Any]) -> float:
  """Returns the training's rate per core, as a share of the first column's."""
  per_core, per_core_of_first = (
    each['steps_per_second']['training'] / each['cores']
    for each in (one, first)
  )
  return per_core / per_core_of_first


def _table(title: str, columns: Sequence[Mapping[str, Any]]) -> table.Table:
  rows = table.Table(title=title, box=box.SIMPLE)
  rows.add_column('')
  for one in columns:
    rows.add_column(f'{one["cores"]} core(s)', justify='right')
  return rows
