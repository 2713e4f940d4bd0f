"""The table of levels tells how far each got, whatever stopped it."""

import argparse

import pytest

from benchmarks import worlds

TOYS = 'tests.environments.toys:Toys/'


def make_worker(folder, seconds=300):
  return worlds.Worker(folder / 'log', steps=20, memory=8, seconds=seconds)


def test_what_a_level_fails_of_is_told_and_the_next_is_tried(tmp_path):
  worker = make_worker(tmp_path)
  expected = {
    'catch': ('trains', ''),
    f'{TOYS}Nested-v0': ('trains', ''),
    f'{TOYS}OfUnknown-v0': ('refused', 'of an unknown kind'),
    f'{TOYS}Failing-v0': ('fails', 'UnpicklableError: '),
    f'{TOYS}Dying-v0': ('fails', 'the process died, exit code 3'),
    'CartPole-v1': ('trains', ''),
  }
  try:
    tried = {name: worker.try_level(name) for name in expected}
  finally:
    worker.stop()
  for name, (outcome, said) in expected.items():
    assert tried[name].outcome == outcome, tried[name]
    assert said in tried[name].said
    assert '\n' not in tried[name].said
  # Of two environments, nine steps each.
  assert tried['catch'].episodes == 4
  assert tried['catch'].family == 'catch'


def test_a_level_that_takes_for_ever_fails(tmp_path):
  worker = make_worker(tmp_path, seconds=0.01)
  try:
    world = worker.try_level('catch')
  finally:
    worker.stop()
  assert world == worlds.World(
    'catch', 'catch', 'fails', said='no answer within 0.01 seconds'
  )


def test_a_process_that_has_grown_is_replaced(tmp_path):
  worker = make_worker(tmp_path)
  try:
    worker.try_level('catch')
    assert worker._process is not None
    worker._memory = 0.01
    worker.try_level('catch')
    assert worker._process is None
  finally:
    worker.stop()


@pytest.mark.parametrize(
  ('again', 'names'),
  [('', ['c']), ('fails', ['b', 'c']), ('trains', ['a', 'c'])],
)
def test_levels_of_the_table_are_not_tried_again(
  tmp_path, monkeypatch, again, names
):
  tried = []

  class Fake(worlds.Worker):
    def try_level(self, name):
      tried.append(name)
      return worlds.World(name, 'toys', 'trains', 2, 'hm, "well"')

  monkeypatch.setattr(worlds, 'Worker', Fake)
  path = tmp_path / 'table.csv'
  before = [
    worlds.World('b', 'toys', 'fails', said='oh, no'),
    worlds.World('a', 'toys', 'trains', 1),
  ]
  worlds.write(path, before)
  options = argparse.Namespace(
    again=again.split(','), steps=1, memory=1, seconds=1, processes=1
  )
  worlds.try_all(['a', 'b', 'c'], path, options)
  assert tried == names
  after = {world.level: world for world in worlds.read(path)}
  assert list(after) == ['a', 'b', 'c']
  assert after['c'].said == 'hm, "well"'
  assert all(after[w.level] == w for w in before if w.level not in names)


def test_the_summary_counts_families():
  table = worlds.summary(
    [
      worlds.World('a', 'one', 'trains'),
      worlds.World('b', 'one', 'fails'),
      worlds.World('c', 'two', 'refused'),
    ]
  )
  assert table.splitlines() == [
    '| family | levels | trains | refused | fails |',
    '|---|---|---|---|---|',
    '| one | 2 | 1 | 0 | 1 |',
    '| two | 1 | 0 | 1 | 0 |',
    '| all | 3 | 1 | 1 | 1 |',
  ]


def test_where_packages_lie_is_not_told():
  assert (
    worlds._shortened(' no /home/me/site-packages/envpool/x.npy\n here')
    == 'no envpool/x.npy here'
  )
