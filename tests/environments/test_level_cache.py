"""Maps that one process has compiled, for all others."""

import errno
import multiprocessing
import shutil

import pytest
from absl import logging

from scalable_agent.environments import level_cache


@pytest.fixture
def pk3(tmp_path):
  """Path of what the engine has compiled."""
  path = tmp_path / 'engine.pk3'
  path.write_bytes(b'map')
  return path


@pytest.fixture
def warnings(monkeypatch):
  """What was warned of."""
  said = []
  monkeypatch.setattr(
    logging, 'warning', lambda text, *values: said.append(text % values)
  )
  return said


def test_what_was_written_is_fetched(tmp_path, pk3, warnings):
  folder = tmp_path / 'deep' / 'cache'
  cache = level_cache.LevelCache(str(folder))
  wanted = tmp_path / 'wanted.pk3'
  assert not cache.fetch('key', str(wanted))
  assert not wanted.exists()
  cache.write('key', str(pk3))
  assert level_cache.LevelCache(str(folder)).fetch('key', str(wanted))
  assert wanted.read_bytes() == b'map'
  assert not cache.fetch('other', str(wanted))
  # By its key, as in caches of other programs, and nothing besides.
  assert [path.name for path in folder.iterdir()] == ['key']
  assert not warnings


def test_a_map_that_is_there_stays_as_it_is(tmp_path, pk3):
  cache = level_cache.LevelCache(str(tmp_path))
  (tmp_path / 'key').write_bytes(b'first')
  cache.write('key', str(pk3))
  assert (tmp_path / 'key').read_bytes() == b'first'


@pytest.mark.parametrize('key', ['../key', 'a/b', '', '.', 'k' * 200, 'a b'])
def test_a_key_that_is_no_name_of_a_file_is_one_all_the_same(
  tmp_path, pk3, key
):
  folder = tmp_path / 'cache'
  cache = level_cache.LevelCache(str(folder))
  cache.write(key, str(pk3))
  (path,) = folder.iterdir()
  assert len(path.name) == 64
  assert cache.fetch(key, str(tmp_path / 'wanted'))


def test_a_full_disk_is_told_once_and_leaves_nothing(
  tmp_path, pk3, warnings, monkeypatch
):
  def no_space(source, target):
    with open(target, 'wb') as file:
      file.write(b'ma')
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(shutil, 'copyfile', no_space)
  folder = tmp_path / 'cache'
  cache = level_cache.LevelCache(str(folder))
  cache.write('one', str(pk3))
  cache.write('two', str(pk3))
  assert not list(folder.iterdir())
  (warning,) = warnings
  assert f'--level_cache={folder} cannot be used: No space left' in warning


def test_a_folder_that_cannot_be_used_costs_no_run(tmp_path, pk3, warnings):
  (tmp_path / 'file').touch()
  cache = level_cache.LevelCache(str(tmp_path / 'file'))
  cache.write('key', str(pk3))
  assert not cache.fetch('key', str(tmp_path / 'wanted'))
  assert len(warnings) == 1
  assert 'Not a directory' in warnings[0] or 'exists' in warnings[0]


def write_many(folder, pk3, size):
  pk3 = f'{pk3}_{size}'
  with open(pk3, 'wb') as file:
    file.write(b'x' * size)
  for number in range(50):
    level_cache.LevelCache(folder).write(str(number), pk3)


def test_processes_that_write_the_same_leave_whole_maps(tmp_path, pk3):
  folder, sizes = tmp_path / 'cache', (100_000, 200_000)
  context = multiprocessing.get_context('spawn')
  processes = [
    context.Process(target=write_many, args=(str(folder), str(pk3), size))
    for size in sizes
  ]
  for process in processes:
    process.start()
  for process in processes:
    process.join()
    assert process.exitcode == 0
  paths = sorted(folder.iterdir(), key=lambda path: int(path.name))
  assert [path.name for path in paths] == [str(number) for number in range(50)]
  assert {path.stat().st_size for path in paths} <= set(sizes)
