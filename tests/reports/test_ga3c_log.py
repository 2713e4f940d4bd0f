"""The log of GA3C's own program, letter for letter."""

import datetime
import io

import pytest

from scalable_agent.reports import episode_log, ga3c_log
from scalable_agent.storage import files
from tests import full_disk


def episode(score, length=10):
  return episode_log.Episode(0, 0.0, 'pong', score, length, 4 * length)


class World:
  def __init__(self, path, every=1, window=1000, own=True):
    self.now = 100.0
    self.stream = io.StringIO()
    self.log = ga3c_log.GA3CLog(
      str(path),
      own,
      lambda: (2, 3, 32),
      every,
      window,
      self.stream,
      clock=lambda: self.now,
      now=lambda: datetime.datetime(2017, 3, 4, 5, 6, 7),
    )

  @property
  def lines(self):
    return self.stream.getvalue().splitlines()


def test_the_line_and_the_row_are_those_of_the_original(tmp_path):
  world = World(tmp_path / 'results.txt')
  world.log.open(0, 0)
  world.now += 36.5
  world.log.add(6000, [episode(-20.0, 812)], updates=1100)
  world.log.close()
  # 6000 / 36.5 = 164.4 predictions and 30.1 updates a second.
  assert world.lines == [
    '[Time:       36] [Episode:        1 Score:   -20.0000] '
    '[RScore:   -20.0000 RPPS:   164] [PPS:   165 TPS:    31] '
    '[NT:  2 NP:  3 NA: 32]'
  ]
  assert (tmp_path / 'results.txt').read_text() == (
    '2017-03-04 05:06:07, -20, 812\n'
  )


@pytest.mark.parametrize('score', [float('nan'), float('inf')])
def test_a_score_that_is_no_number_is_written_as_it_is(tmp_path, score):
  world = World(tmp_path / 'results.txt')
  world.log.open(0, 0)
  world.log.add(10, [episode(score)], updates=1)
  world.log.close()
  assert (tmp_path / 'results.txt').read_text().split(', ')[1] == str(score)
  assert len(world.lines) == 1


def test_what_is_no_text_counts_as_rows(tmp_path):
  path = tmp_path / 'results.txt'
  path.write_bytes(b'\xff\xfe\n\x80\nthird\n')
  world = World(path)
  world.log.open(2, 0)
  world.log.add(10, [episode(1.0)], updates=1)
  world.log.close()
  assert path.read_bytes().startswith(b'\xff\xfe\n\x80\n2017-')


def test_steps_are_counted_also_between_the_ends_of_episodes(tmp_path):
  world = World(tmp_path / 'results.txt')
  world.log.open(0, 0)
  for _ in range(10):
    world.now += 1
    world.log.add(100, [], 0)
  world.log.add(0, [episode(1.0)], 0)
  assert 'RPPS:   100] [PPS:   100 TPS:     0]' in world.lines[0]


def test_the_latest_episodes_make_the_rolling_values(tmp_path):
  world = World(tmp_path / 'results.txt', window=2)
  world.log.open(0, 0)
  for score, steps in ((1.0, 1000), (2.0, 100), (4.0, 300)):
    world.now += 1
    world.log.add(steps, [episode(score)], 0)
  # Of the last two: 400 agent steps in 2 seconds; since the start 1400 in 3.
  assert 'RScore:     3.0000 RPPS:   200] [PPS:   467' in world.lines[-1]
  assert 'RScore:     1.5000 RPPS:   550] [PPS:   550' in world.lines[1]


def test_a_line_stands_for_as_many_episodes_as_one_likes(tmp_path):
  world = World(tmp_path / 'results.txt', every=3)
  world.log.open(0, 0)
  world.now += 1
  world.log.add(10, [episode(float(i)) for i in range(7)], 0)
  assert [line[17:43] for line in world.lines] == [
    '[Episode:        3 Score: ',
    '[Episode:        6 Score: ',
  ]
  world.log.close()
  assert len((tmp_path / 'results.txt').read_text().splitlines()) == 7


def test_a_run_that_goes_on_cuts_off_what_it_does_not_know_of(tmp_path):
  path = tmp_path / 'results.txt'
  first = World(path)
  first.log.open(0, 0)
  first.log.add(10, [episode(float(i)) for i in range(5)], 0)
  first.log.close()
  again = World(path)
  again.log.open(3, updates=1000)
  again.now += 10
  again.log.add(10, [episode(9.0)], updates=1020)
  again.log.close()
  scores = [row.split(', ')[1] for row in path.read_text().splitlines()]
  assert scores == ['0', '1', '2', '9']
  assert '[Episode:        4 ' in again.lines[0]
  assert 'TPS:     2]' in again.lines[0]


def test_a_file_that_is_not_of_the_run_alone_is_only_added_to(tmp_path):
  path = tmp_path / 'new' / 'results.txt'
  for score in 1.0, 2.0:
    world = World(path, own=False)
    world.log.open(0, 0)
    world.log.add(10, [episode(score)], 0)
    world.log.close()
  assert [row.split(', ')[1] for row in path.read_text().splitlines()] == [
    '1',
    '2',
  ]


def test_a_row_that_cannot_be_written_names_the_file(tmp_path):
  world = World(tmp_path / 'results.txt')
  world.log.open(0, 0)
  full_disk.fill(world.log)
  with pytest.raises(files.WriteError, match=r'results\.txt: No space left'):
    world.log.add(10, [episode(1.0)], 0)
