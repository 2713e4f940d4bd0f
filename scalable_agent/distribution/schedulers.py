"""What TF_CONFIG or Slurm say about a cluster and this process.

Without TensorFlow, which actors may lack.
"""

import itertools
import json
import os
import re
import subprocess
from collections.abc import Iterator
from typing import Any, NamedTuple

from absl import logging

from scalable_agent.distribution import addresses

# The first port of the first learner on a host.
BASE_PORT = 8000

# Jobs of Slurm that share a host have ports of their own, which follow from
# the job's number: these many, and as many for collectives. All of them are
# below 32768, where Linux takes those of outgoing connections from.
PORTS_PER_JOB = 10
_PLACES = addresses.COLLECTIVE_OFFSET // PORTS_PER_JOB
NUM_PORT_RANGES = 12 * _PLACES

_SCONTROL_SECONDS = 10.0

# What a job of TF_CONFIG is here: by our names, and by those that TensorFlow's
# own programs and Kubeflow's TFJob have, the latter also as Chief and Worker.
_ROLES = {
  'learner': 'learner',
  'chief': 'learner',
  'master': 'learner',
  'actor': 'actor',
  'worker': 'actor',
}


class Placement(NamedTuple):
  """A cluster and the place of this process in it.

  Attributes:
    source: who says so, for messages.
    learners: host:port where each learner listens to its actors.
    num_actors: None where the source does not know.
    job_name: 'learner' or 'actor'; None where the source does not know.
    task: index among the learners or actors; None likewise.
  """

  source: str
  learners: tuple[str, ...]
  num_actors: int | None = None
  job_name: str | None = None
  task: int | None = None


def from_tf_config() -> Placement | None:
  """Returns what TF_CONFIG says, None without one that has learners.

  Raises:
    ValueError: it is malformed, or this task has no part in it.
  """
  text = os.environ.get('TF_CONFIG')
  if not text:
    return None
  try:
    value = json.loads(text)
    named = {
      name.lower(): _tasks_of(job)
      for name, job in value.get('cluster', {}).items()
    }
    kind, index = (value.get('task', {}).get(key) for key in ('type', 'index'))
    job_name = None if kind is None else _ROLES.get(kind.lower(), '')
    task = None if index is None else int(str(index))
    is_sparse = 'sparseCluster' in value
  except (ValueError, TypeError, AttributeError) as error:
    raise ValueError(
      f'TF_CONFIG={text} cannot be read: {error}. Correct or unset it.'
    ) from error
  if is_sparse:
    raise ValueError(
      f'TF_CONFIG={text}: a sparseCluster does not say where the learner is. '
      'Leave enableDynamicWorker of the TFJob out.'
    )
  jobs = _by_role(named)
  is_for_one = 'learner' not in named and not jobs.get('actor')
  if is_for_one or not jobs.get('learner'):
    if named:
      # Platforms set one for every program, also where it is the only one.
      logging.log_first_n(
        logging.WARNING,
        'TF_CONFIG has the job(s) %s but no job "learner", nor "chief" and '
        '"worker": it is ignored.',
        1,
        ', '.join(sorted(named)),
      )
    return None
  learners = [address for address in jobs['learner'] if address is not None]
  if len(learners) < len(jobs['learner']):
    raise ValueError(
      f'TF_CONFIG: learner {jobs["learner"].index(None)} has no address. List '
      'all of them.'
    )
  if job_name == '':
    raise ValueError(
      f'TF_CONFIG: the task has the type {kind!r}, which has nothing to do '
      'here. Start only "learner" and "actor", or "chief" and "worker".'
    )
  num_actors = len(jobs['actor']) if 'actor' in jobs else None
  return Placement('TF_CONFIG', tuple(learners), num_actors, job_name, task)


def _by_role(
  named: dict[str, tuple[str | None, ...]],
) -> dict[str, tuple[str | None, ...]]:
  """Returns the tasks of learners and actors, whatever the jobs are called."""
  jobs: dict[str, tuple[str | None, ...]] = {}
  for name, tasks in named.items():
    role = _ROLES.get(name)
    if role in jobs:
      raise ValueError(
        f'TF_CONFIG has the jobs {", ".join(named)}: two of them are {role}s. '
        'Leave one of them out.'
      )
    if role:
      jobs[role] = tasks
  return jobs


def _tasks_of(job: Any) -> tuple[str | None, ...]:
  """Returns the addresses of a job, a list or by index, None for gaps."""
  if isinstance(job, dict):
    tasks = {int(index): address for index, address in job.items()}
  elif isinstance(job, list):
    tasks = dict(enumerate(job))
  else:
    raise TypeError(f'{job!r} is no list of addresses')
  for address in tasks.values():
    if not isinstance(address, str):
      raise TypeError(f'{address!r} is no address')
  return tuple(tasks.get(index) for index in range(max(tasks, default=-1) + 1))


def from_slurm(num_learners: int) -> Placement:
  """Returns the cluster of a Slurm step: learners first, then actors.

  Args:
    num_learners: tasks of the step that are learners.

  Raises:
    ValueError: this process is not part of a step, the step has no task for
      an actor, or its tasks are not distributed block by block.
  """
  option = '--learner_address=slurm'
  try:
    rank = int(_read('SLURM_PROCID'))
    num_tasks = int(_read('SLURM_STEP_NUM_TASKS'))
    hosts = expand_hosts(_read('SLURM_STEP_NODELIST'))
    counts = list(_expand_counts(_read('SLURM_STEP_TASKS_PER_NODE')))
    # Each component of a heterogeneous job has a number of its own.
    port = base_port(
      int(os.environ.get('SLURM_JOB_ID_HET_GROUP_0') or _read('SLURM_JOB_ID'))
    )
    if len(hosts) != len(counts) or sum(counts) != num_tasks:
      raise ValueError(
        f'SLURM_STEP_NUM_TASKS={num_tasks}, but {len(hosts)} host(s) have '
        f'{counts} tasks'
      )
    if not 0 <= rank < num_tasks:
      raise ValueError(f'SLURM_PROCID={rank} of {num_tasks} tasks')
  except ValueError as error:
    raise ValueError(
      f'{option}: this is no step of Slurm ({error}). Start all processes with '
      'one srun.'
    ) from error
  if num_tasks <= num_learners:
    raise ValueError(
      f'{option}: SLURM_STEP_NUM_TASKS={num_tasks} leaves no task for an actor '
      f'beside --num_learners={num_learners}. Raise --ntasks of srun.'
    )
  places = [
    (host, index)
    for host, count in zip(hosts, counts, strict=True)
    for index in range(count)
  ]
  host, index = places[rank]
  node = os.environ.get('SLURMD_NODENAME', host)
  local = os.environ.get('SLURM_LOCALID', str(index))
  if (node, local) != (host, str(index)):
    raise ValueError(
      f'{option}: SLURM_PROCID={rank} runs on SLURMD_NODENAME={node}, not on '
      f'{host}, or is SLURM_LOCALID={local}, not {index}, there. Give srun '
      '--distribution=block, or list the addresses in --learner_address.'
    )
  is_learner = rank < num_learners
  return Placement(
    f'Slurm (SLURM_PROCID={rank}, SLURM_STEP_NUM_TASKS={num_tasks})',
    tuple(f'{host}:{port + index}' for host, index in places[:num_learners]),
    num_tasks - num_learners,
    'learner' if is_learner else 'actor',
    rank if is_learner else rank - num_learners,
  )


def _read(name: str) -> str:
  if name not in os.environ:
    raise ValueError(f'{name} is not set')
  return os.environ[name]


def base_port(job: int) -> int:
  """Returns the first port of a job of Slurm on each of its hosts.

  Args:
    job: SLURM_JOB_ID. Jobs whose numbers differ by a multiple of
      NUM_PORT_RANGES have the same ports.
  """
  thousand, place = divmod(job % NUM_PORT_RANGES, _PLACES)
  # In every other thousand are the collectives.
  return (
    BASE_PORT
    + thousand * 2 * addresses.COLLECTIVE_OFFSET
    + place * PORTS_PER_JOB
  )


def expand_hosts(hosts: str) -> list[str]:
  """Returns all names in a list of hosts of Slurm, such as 'a,n[1-2,07]-ib'.

  By Slurm itself where it is: it may be set up to name hosts in other ways.

  Raises:
    ValueError: it is malformed.
  """
  try:
    shown = subprocess.run(
      ['scontrol', 'show', 'hostnames', hosts],
      capture_output=True,
      check=True,
      text=True,
      timeout=_SCONTROL_SECONDS,
    )
    return shown.stdout.split()
  except (OSError, subprocess.SubprocessError):  # As in most containers.
    return list(_expand_names(hosts))


def _expand_names(hosts: str) -> Iterator[str]:
  # At commas that no bracket closes behind before one opens.
  for name in re.split(r',(?![^\[]*\])', hosts):
    texts_and_numbers = re.split(r'\[([\d,-]+)\]', name)
    if not name or set('[]') & set(''.join(texts_and_numbers)):
      raise ValueError(f'{hosts!r} is no list of hosts')
    choices = [
      list(_expand_numbers(part)) if is_numbers else [part]
      for part, is_numbers in zip(
        texts_and_numbers, itertools.cycle((False, True)), strict=False
      )
    ]
    yield from map(''.join, itertools.product(*choices))


def _expand_numbers(numbers: str) -> Iterator[str]:
  """Yields 1, 2, 07, 08 for '1-2,07-08'."""
  for part in numbers.split(','):
    match = re.fullmatch(r'(\d+)(?:-(\d+))?', part)
    if not match:
      raise ValueError(f'[{numbers}] is no list of numbers')
    for number in range(int(match[1]), int(match[2] or match[1]) + 1):
      yield str(number).zfill(len(match[1]))


def _expand_counts(counts: str) -> Iterator[int]:
  """Yields 2, 2, 1 for '2(x2),1'."""
  for part in counts.split(','):
    match = re.fullmatch(r'(\d+)(?:\(x(\d+)\))?', part)
    if not match:
      raise ValueError(f'SLURM_STEP_TASKS_PER_NODE={counts} cannot be read')
    yield from itertools.repeat(int(match[1]), int(match[2] or 1))
