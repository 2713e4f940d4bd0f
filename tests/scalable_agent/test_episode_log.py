"""episodes.csv: what is read back, and what is not."""

import os

import pytest

from scalable_agent import episode_log, files
from tests.full_disk import fill

HEADER = 'frames,seconds,level,episode_return,episode_length,episode_frames'


def test_a_half_written_last_row_is_left_out(tmp_path):
  path = tmp_path / 'episodes.csv'
  path.write_text(f'{HEADER}\n80,1.000,pong,1.0,5,20\n160,2.000,po')
  assert [e.frames for e in episode_log.read(str(path))] == [80]
  log = episode_log.EpisodeLog(str(path), frames=1000, episodes=9)
  log.append([episode_log.Episode(160, 2, 'a,b', -0.5, 1, 4)])
  log.close()
  assert path.read_text().splitlines()[1:] == [
    '80,1.000,pong,1.0,5,20',
    '160,2.000,"a,b",-0.5,1,4',
  ]
  assert os.listdir(tmp_path) == ['episodes.csv']
  assert episode_log.read(str(path))[1].level == 'a,b'


@pytest.mark.parametrize('bad', ['80,1.0,pong', 'x,1.0,pong,1.0,5,20'])
def test_a_bad_row_is_named(tmp_path, bad):
  path = tmp_path / 'episodes.csv'
  path.write_text(f'{HEADER}\n{bad}\n')
  with pytest.raises(ValueError, match=r'episodes\.csv, line 2: '):
    episode_log.read(str(path))


@pytest.mark.parametrize('text', ['', 'a,b\n1,2\n', HEADER])
def test_a_file_without_the_header_is_named(tmp_path, text):
  path = tmp_path / 'episodes.csv'
  path.write_text(text)
  with pytest.raises(ValueError, match='header'):
    episode_log.read(str(path))


def test_a_full_disk_is_named_with_the_remedy(tmp_path):
  log = episode_log.EpisodeLog(str(tmp_path / 'episodes.csv'), 0, 0)
  fill(log)
  row = episode_log.Episode(160, 2, 'pong', -0.5, 1, 4)
  for write in (lambda: log.append([row]), log.close):
    with pytest.raises(files.WriteError) as error:
      write()
    assert str(error.value) == (
      f'cannot write {tmp_path}/episodes.csv: No space left on device. Free '
      'some space there, or choose another --logdir.'
    )
