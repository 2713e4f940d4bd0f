"""How many cores this process may use: its affinity and its cgroups' quotas."""

import math
import os
from collections.abc import Iterator


def usable_cores() -> int:
  """Returns the number of cores that this process may use, at least 1.

  A quota that is no whole number, as `docker run --cpus=2.5` sets, is rounded
  down: a thread more would be stopped for a part of its time.
  """
  if hasattr(os, 'sched_getaffinity'):
    cores = len(os.sched_getaffinity(0))
  else:
    cores = os.cpu_count() or 1
  quota = cgroup_quota()
  return cores if quota is None else max(1, min(cores, math.floor(quota)))


def cgroup_quota(proc: str = '/proc/self') -> float | None:
  """Returns the cores that cgroups, of version 1 or 2, allow; None: any number.

  Args:
    proc: folder of this process in procfs.
  """
  try:
    folders = list(_cgroup_folders(proc))
  except (OSError, ValueError, IndexError):
    return None  # No Linux, or none with cgroups.
  quotas = [quota for quota in map(_quota_of, folders) if quota is not None]
  return min(quotas, default=None)


def _cgroup_folders(proc: str) -> Iterator[str]:
  """Yields the folders of this process's cgroups and of all above them."""
  with open(os.path.join(proc, 'cgroup'), encoding='utf-8') as file:
    paths = {}
    for line in file:
      _, controllers, path = line.rstrip('\n').split(':', 2)
      if controllers == '':
        paths['cgroup2'] = path
      elif 'cpu' in controllers.split(','):
        paths['cgroup'] = path
  with open(os.path.join(proc, 'mountinfo'), encoding='utf-8') as file:
    for line in file:
      before, _, after = line.partition(' - ')
      root, mount = before.split()[3:5]
      kind, _, options = after.split()[:3]
      if kind not in paths:
        continue
      if kind == 'cgroup' and 'cpu' not in options.split(','):
        continue
      # Inside of a container, the path may be one of the host.
      below = os.path.relpath(paths[kind], root)
      folder = mount if below.startswith('..') else os.path.join(mount, below)
      folder = os.path.normpath(folder)
      while folder.startswith(mount):
        yield folder
        folder = os.path.dirname(folder)


def _quota_of(folder: str) -> float | None:
  """Returns the cores that one cgroup allows, None for any number."""
  for names in (('cpu.max',), ('cpu.cfs_quota_us', 'cpu.cfs_period_us')):
    words: list[str] = []
    try:
      for name in names:
        with open(os.path.join(folder, name), encoding='utf-8') as file:
          words += file.read().split()
      quota, period = words
      microseconds = float(quota)  # 'max' in version 2, -1 in version 1: any.
      if microseconds > 0:
        return microseconds / float(period)
    except (OSError, ValueError):
      continue
  return None
