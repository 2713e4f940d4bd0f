"""What a processor can, from what Linux tells of it."""

import pytest

from scalable_agent.runtimes import processor


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16 sse\n', True),
    ('flags\t\t: fpu amx_bf16 amx_tile\n', True),
    ('flags\t\t: fpu avx512f avx512_vnni\n', False),
    # Of another register, and of a processor that is no x86.
    ('bugs\t\t: avx512_bf16\nflags\t\t: fpu\n', False),
    ('Features\t: fp asimd\n', False),
    ('', False),
  ],
)
def test_flags_tell_whether_it_multiplies_bfloat16(
  monkeypatch, tmp_path, text, expected
):
  monkeypatch.delenv('TF_ENABLE_ONEDNN_OPTS', raising=False)
  path = tmp_path / 'cpuinfo'
  path.write_text(text)
  assert processor.has_bfloat16(str(path)) is expected


def test_where_there_is_no_procfs_it_does_not(tmp_path):
  assert not processor.has_bfloat16(str(tmp_path / 'absent'))


@pytest.mark.parametrize(
  ('value', 'expected'), [('0', False), ('False', False), ('1', True)]
)
def test_without_onednn_it_does_not(monkeypatch, tmp_path, value, expected):
  path = tmp_path / 'cpuinfo'
  path.write_text('flags\t\t: avx512_bf16\n')
  monkeypatch.setenv('TF_ENABLE_ONEDNN_OPTS', value)
  assert processor.has_bfloat16(str(path)) is expected
