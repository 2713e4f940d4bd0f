"""Documents name flags that there are."""

import pathlib
import re

import pytest

import experiment
from scalable_agent.options import legacy_ga3c

ROOT = pathlib.Path(__file__).resolve().parent.parent


def flags_here(text):
  """Yields the flags in the last column of tables."""
  for line in text.splitlines():
    if line.startswith('|'):
      here = line.rstrip('| ').rpartition('|')[2]
      yield from re.findall(r'--(?:no)?(\w+)', here)


def test_the_flags_that_took_the_place_of_others_exist():
  text = (ROOT / 'docs' / 'family.md').read_text(encoding='utf-8')
  flags = list(flags_here(text))
  assert len(flags) > 60
  for name in flags:
    full = name if name in experiment.FLAGS else f'no{name}'
    assert full in experiment.FLAGS, name


@pytest.mark.parametrize('name', legacy_ga3c.TABLE)
def test_every_option_of_ga3c_has_its_place(name):
  text = (ROOT / 'docs' / 'family.md').read_text(encoding='utf-8')
  short = name.removeprefix('DYNAMIC_SETTINGS')
  assert f'`{name}' in text or f'`...{short}' in text
