"""Text as integers: the same everywhere and always."""

import os
import subprocess
import sys

import numpy as np
import pytest

from scalable_agent.environments import instructions

# Once and for all: an agent learns what these mean.
CODES = {
  'go': 775,
  'to': 757,
  'the': 79,
  'red': 456,
  'ball': 380,
  'Größe': 814,
}


def test_the_codes_of_words_never_change():
  text = ' '.join(CODES)
  assert instructions.encode(text, 8).tolist() == [*CODES.values(), 0, 0]


def test_the_codes_are_those_of_every_process():
  # Python's own hash differs with this.
  program = (
    'from scalable_agent.environments import instructions;'
    'print(*instructions.encode("go to the red ball", 6))'
  )
  for seed in ('1', '2'):
    printed = subprocess.run(
      [sys.executable, '-c', program],
      env={**os.environ, 'PYTHONHASHSEED': seed},
      capture_output=True,
      text=True,
      check=True,
    ).stdout
    expected = instructions.encode('go to the red ball', 6)
    assert printed.split() == [str(code) for code in expected]


@pytest.mark.parametrize('text', ['', '   ', '\n'])
def test_no_words_are_zeros(text):
  assert not instructions.encode(text, 3).any()


def test_words_are_split_at_blanks():
  np.testing.assert_array_equal(
    instructions.encode('  go \t to\n', 3), instructions.encode('go to', 3)
  )
  assert instructions.encode('go, to', 2)[0] != instructions.encode('go', 1)[0]


def test_codes_are_of_the_spec():
  spec = instructions.make_spec(4)
  text = ' '.join(map(str, range(4)))
  codes = instructions.encode(text, 4)
  assert codes.shape == spec.shape
  assert codes.dtype == spec.dtype
  many = instructions.encode(' '.join(map(str, range(20_000))), 20_000)
  # 0 stands for no word.
  assert set(many) == set(range(1, spec.num_buckets + 1))


@pytest.mark.parametrize('text', [None, b'go', np.array(['go'])])
def test_what_is_no_text_is_an_error(text):
  kind = type(text).__name__
  with pytest.raises(ValueError, match=f'^A text came as {kind}: .* a str'):
    instructions.encode(text, 2)


def test_a_text_that_is_too_long_is_an_error():
  with pytest.raises(
    ValueError,
    match=r"^The text 'a b c' has 3 words, .* --instruction_length=2 .* Raise",
  ):
    instructions.encode('a b c', 2)


def test_any_characters_are_a_word():
  codes = instructions.encode('gr\u00fc\u00dfe \u4f60\u597d\u2003\ud83d', 5)
  assert (codes[:3] > 0).all()
  assert (codes[3:] == 0).all()
