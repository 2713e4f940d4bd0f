"""episodes.csv: what is read back, and what is not."""

import os

import pytest

from scalable_agent.reports import episode_log
from scalable_agent.storage import files
from tests.full_disk import fill

HEADER = 'frames,seconds,level,episode_return,episode_length,episode_frames'


def test_a_half_written_last_row_is_left_out(tmp_path):
  path = tmp_path / 'episodes.csv'
  path.write_text(f'{HEADER}\n80,1.000,pong,1.0,5,20\n160,2.000,po')
  assert [e.frames for e in episode_log.read(str(path))] == [80]
  log = episode_log.EpisodeLog(str(path), frames=1000, episodes=1)
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


def test_a_folder_in_its_place_is_named_with_the_remedy(tmp_path):
  path = tmp_path / 'episodes.csv'
  path.mkdir()
  with pytest.raises(
    files.WriteError, match=r'^cannot write .*episodes\.csv: '
  ):
    episode_log.EpisodeLog(str(path), 0, 0)


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


ROWS = ['80,1.000,pong,1.0,5,20', '160,2.000,pong,2.0,5,20']
WHOLE = '\n'.join([HEADER, *ROWS, ''])


@pytest.mark.parametrize(
  ('text', 'kept', 'said'),
  [
    (b'', 0, 'does not begin with the header'),
    (bytes(len(WHOLE)), 0, 'does not begin with the header'),
    (HEADER[:9].encode(), 0, 'does not begin with the header'),
    (WHOLE[:-9].encode(), 1, 'too short. It has 1 of the 2 rows'),
    (f'{HEADER}\n{ROWS[0]}\n'.encode() + bytes(24), 1, 'too short'),
    (f'{HEADER}\n{ROWS[0]}\n'.encode() + bytes(23) + b'\n', 1, 'line 3: '),
    (f'{HEADER}\n{ROWS[0]}\n'.encode() + b'\xff\xfe\n', 1, 'line 3: '),
  ],
)
def test_a_damaged_file_is_set_aside_and_its_intact_rows_are_kept(
  tmp_path, caplog, text, kept, said
):
  path = tmp_path / 'episodes.csv'
  for aside in ('episodes.csv.damaged', 'episodes.csv.damaged2'):
    path.write_bytes(text)
    log = episode_log.EpisodeLog(str(path), frames=1000, episodes=2)
    log.close()
    assert log.kept == kept
    assert path.read_text().splitlines() == [HEADER, *ROWS[:kept]]
    assert (tmp_path / aside).read_bytes() == text
    assert said in caplog.text
    assert f'now {tmp_path / aside}' in caplog.text


def test_a_file_that_is_gone_begins_anew_with_a_warning(tmp_path, caplog):
  path = tmp_path / 'episodes.csv'
  episode_log.EpisodeLog(str(path), frames=1000, episodes=2).close()
  assert path.read_text().splitlines() == [HEADER]
  assert f'{path} is not there' in caplog.text
  assert os.listdir(tmp_path) == ['episodes.csv']
