"""What the progress line says, and how it is shown."""

import fcntl
import io
import os
import struct
import termios

import pytest
from absl import logging

from scalable_agent.reports import progress, vital_signs

LONG_LINE = (
  '4.512M/15M frames 30.1% | 8,969 frames/s | return -18.47 (last 100 episodes)'
  ' | 14.1 updates/s | lag 9.9 | queue 15% | ETA 0:19:21'
  ' | bottleneck environment'
)


class Terminal(io.StringIO):
  """A stream that says it is a terminal."""

  def isatty(self):
    return True


def test_a_log_message_does_not_mix_with_the_line():
  stream = Terminal()
  line = progress.ProgressLine(stream)
  line.show('progress')
  handler = logging.get_absl_handler()
  record = logging.get_absl_logger().makeRecord(
    'absl', 20, 'file', 1, 'message', (), None
  )
  assert handler.filter(record)
  assert stream.getvalue().endswith('progress\r\x1b[2K')
  line.close()
  assert stream.getvalue().endswith('progress\r\x1b[2K')
  line.show('again')
  assert handler.filter(record)
  assert stream.getvalue().endswith('again')


def test_lines_are_broken_between_items():
  assert progress.wrap('aaa | bb | c', 12) == ['aaa | bb | c']
  assert progress.wrap('aaa | bb | c', 11) == ['aaa | bb', 'c']
  assert progress.wrap('aaa | bb | c', 2) == ['aa', 'bb', 'c']


@pytest.mark.parametrize(('columns', 'lines'), [(80, 2), (160, 1)])
def test_a_terminal_shows_every_item_and_rewrites_all_lines(
  monkeypatch, columns, lines
):
  monkeypatch.setenv('COLUMNS', str(columns))
  stream = Terminal()
  line = progress.ProgressLine(stream)
  line.show(LONG_LINE)
  shown = stream.getvalue().removeprefix('\r\x1b[2K').split('\n')
  assert ' | '.join(shown) == LONG_LINE
  assert len(shown) == lines
  assert max(map(len, shown)) < columns
  line.show('next')
  clear = '\r\x1b[2K' + '\x1b[A\r\x1b[2K' * (lines - 1)
  assert stream.getvalue().endswith(f'{shown[-1]}{clear}next')


def test_the_terminal_of_the_stream_is_asked_for_its_width(monkeypatch):
  monkeypatch.setenv('COLUMNS', '1000')
  reader, writer = os.openpty()
  size = struct.pack('4H', 24, 20, 0, 0)  # Lines, columns, pixels.
  fcntl.ioctl(writer, termios.TIOCSWINSZ, size)
  with open(writer, 'w') as stream, open(reader, 'rb', buffering=0) as screen:
    line = progress.ProgressLine(stream)
    line.show('a' * 10 + ' | ' + 'b' * 10)
    line.close()
    text = b''
    while not text.endswith(b'b\r\n'):
      text += screen.read(100)
  assert text.endswith(b'a\r\nbbbbbbbbbb\r\n')


def test_the_line_says_everything():
  assert progress.format_progress(
    frames=1_234_567,
    total_frames=10e6,
    frames_per_second=1234.5,
    returns='return -3.25 (last 99 episodes)',
    updates_per_second=3.21,
    policy_lag=1.25,
    queue_fill=0.5,
    bottleneck='learner',
    signs=vital_signs.Signs(entropy=1.234, explained_variance=-0.567),
  ) == (
    '1.235M/10M frames 12.3% | 1,234 frames/s | return -3.25 (last 99 '
    'episodes) | entropy 1.23 | explained variance -0.57 | 3.2 updates/s | '
    'lag 1.2 | queue 50% | ETA 1:58:20 | bottleneck learner'
  )


def test_a_run_that_ends_by_its_episodes_is_told_in_episodes():
  known = {
    'total_frames': 1e12,
    'frames_per_second': 100.0,
    'returns': None,
    'updates_per_second': 2.0,
    'policy_lag': None,
    'queue_fill': None,
    'bottleneck': None,
    'episodes_per_second': 0.5,
  }
  line = progress.format_progress(frames=5000, episodes=(50, 200), **known)
  assert line == (
    '50/200 episodes 25.0% | 5000 frames | 100 frames/s | 2.0 updates/s | '
    'ETA 0:05:00'
  )
  known['total_frames'] = 10_000
  line = progress.format_progress(frames=5000, episodes=(50, 200), **known)
  assert line.startswith('5000/10k frames 50.0% | 100 frames/s | ')
  assert line.endswith('ETA 0:00:50')


def test_the_line_leaves_out_what_is_not_known():
  assert (
    progress.format_progress(
      frames=0,
      total_frames=500,
      frames_per_second=0,
      returns=None,
      updates_per_second=0,
      policy_lag=None,
      queue_fill=None,
      bottleneck=None,
    )
    == '0/500 frames 0.0% | 0 frames/s | 0.0 updates/s'
  )


@pytest.mark.parametrize(
  ('busy', 'expected'),
  [
    ({'environment': 0.8, 'inference': 0.5, 'learner': 0.93}, 'learner'),
    ({'environment': 0.9, 'inference': 0.5, 'learner': 0.6}, 'environment'),
    ({'environment': 0.1, 'inference': 0.5}, 'inference'),
    ({'environment': 0.0, 'inference': 0.0, 'learner': 0.0}, None),
    ({}, None),
    # Of a learner process, actors are elsewhere.
    ({'learner': 0.93}, 'learner'),
    ({'learner': 0.2}, 'actors'),
    ({'learner': 0.0}, None),
  ],
)
def test_the_bottleneck_is_the_busiest_stage(busy, expected):
  assert progress.bottleneck(busy) == expected


@pytest.mark.parametrize(
  ('value', 'text'),
  [
    (0, '0'),
    (9999, '9999'),
    (12345, '12.35k'),
    (999_999, '1000k'),
    (1e6, '1M'),
    (2e8, '200M'),
    (1.5e9, '1.5G'),
  ],
)
def test_counts_are_short(value, text):
  assert progress.format_count(value) == text


def test_durations_have_hours_without_a_limit():
  assert progress.format_duration(59.6) == '0:01:00'
  assert progress.format_duration(360_000) == '100:00:00'


def test_rates_forget_the_distant_past():
  rates = progress.Rates(num_points=3)
  assert rates['frames'] == 0
  for seconds, frames in ((0, 0), (1, 1000), (2, 1010), (3, 1020)):
    rates.add(seconds, {'frames': frames})
  assert rates['frames'] == 10
  assert rates['updates'] == 0
