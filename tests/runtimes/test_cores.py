"""The cores that a process may use, in whatever container it is."""

import os

import pytest

from scalable_agent.runtimes import cores


@pytest.fixture
def proc(tmp_path):
  """Returns a function that lays out a procfs and cgroup file systems."""

  def lay_out(cgroup, mounts, files):
    """Args:
    cgroup: lines of /proc/self/cgroup.
    mounts: (root, mount point, kind, options) of each file system.
    files: contents by path below `tmp_path`.
    """
    for path, content in files.items():
      (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
      (tmp_path / path).write_text(content)
    (tmp_path / 'cgroup').write_text(''.join(f'{line}\n' for line in cgroup))
    (tmp_path / 'mountinfo').write_text(
      ''.join(
        f'31 23 0:28 {root} {tmp_path}/{mount} rw shared:9 - {kind} none '
        f'{options}\n'
        for root, mount, kind, options in mounts
      )
    )
    return str(tmp_path)

  return lay_out


V1 = ('/', 'v1/cpu', 'cgroup', 'rw,cpu,cpuacct')
V2 = ('/', 'v2', 'cgroup2', 'rw')


@pytest.mark.parametrize(
  ('content', 'quota'),
  [('250000 100000\n', 2.5), ('max 100000\n', None), ('50000 100000', 0.5)],
)
def test_version_two(proc, content, quota):
  folder = proc(['0::/a/b'], [V2], {'v2/a/b/cpu.max': content})
  assert cores.cgroup_quota(folder) == quota


@pytest.mark.parametrize(
  ('content', 'quota'), [('250000\n', 2.5), ('-1\n', None)]
)
def test_version_one(proc, content, quota):
  files = {
    'v1/cpu/a/cpu.cfs_quota_us': content,
    'v1/cpu/a/cpu.cfs_period_us': '100000\n',
  }
  cgroups = ['3:cpu,cpuacct:/a', '2:cpuset:/b', '1:memory:/m', '0::/']
  folder = proc(cgroups, [V1, V2], files)
  assert cores.cgroup_quota(folder) == quota


def test_the_least_of_all_above_counts(proc):
  files = {
    'v2/cpu.max': 'max 100000',
    'v2/a/cpu.max': '300000 100000',
    'v2/a/b/cpu.max': '800000 100000',
    'cpu.max': '100000 100000',  # Of somebody else.
  }
  assert cores.cgroup_quota(proc(['0::/a/b'], [V2], files)) == 3


def test_in_a_container_the_path_may_be_the_hosts(proc):
  files = {'v2/cpu.max': '400000 100000'}
  for root, path in (
    ('/', '/../../other'),
    ('/docker/1', '/docker/1'),
    ('/docker/1', '/docker/2'),
  ):
    folder = proc([f'0::{path}'], [(root, 'v2', 'cgroup2', 'rw')], files)
    assert cores.cgroup_quota(folder) == 4


def test_without_cgroups_there_is_no_quota(proc, tmp_path):
  assert cores.cgroup_quota(str(tmp_path / 'nothing')) is None
  assert cores.cgroup_quota(proc(['garbage'], [], {})) is None
  assert cores.cgroup_quota(proc(['0::/'], [V2], {})) is None


@pytest.mark.parametrize(
  ('affinity', 'quota', 'usable'),
  [(8, None, 8), (8, 2.9, 2), (2, 16.0, 2), (4, 0.5, 1)],
)
def test_affinity_and_quota_both_bound(monkeypatch, affinity, quota, usable):
  monkeypatch.setattr(
    os, 'sched_getaffinity', lambda process: set(range(affinity)), raising=False
  )
  monkeypatch.setattr(cores, 'cgroup_quota', lambda: quota)
  assert cores.usable_cores() == usable
