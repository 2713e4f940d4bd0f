"""Text as integers, so that it can be batched and a network compiled."""

import zlib

import numpy as np

from scalable_agent import structures

# Of the code of 2018.
NUM_BUCKETS = 1000


def make_spec(length: int) -> structures.TextSpec:
  """Returns the spec of texts of up to `length` words."""
  return structures.TextSpec((length,), np.dtype(np.int32), NUM_BUCKETS)


def encode(text: str, length: int) -> np.ndarray:
  """Hashes the words of a text.

  CRC-32 is the same in all processes, on all machines and of all versions,
  which Python's own hash is not.

  Args:
    text: words separated by blanks; may be empty.
    length: most words that it may have.

  Returns:
    int32 [length]: 1 to NUM_BUCKETS for each word, then zeros.

  Raises:
    ValueError: it has more words, or is no text.
  """
  if not isinstance(text, str):
    raise ValueError(
      f'A text came as {type(text).__name__}: {text!r}. Wrap the environment '
      'so that it gives a str.'
    )
  words = text.split()
  if len(words) > length:
    raise ValueError(
      f'The text {text!r} has {len(words)} words, and --instruction_length='
      f'{length} leaves room for fewer. Raise it.'
    )
  codes = np.zeros([length], np.int32)
  for i, word in enumerate(words):
    # Half a character, as of UTF-16, has a code, too.
    code = zlib.crc32(word.encode(errors='surrogatepass'))
    codes[i] = 1 + code % NUM_BUCKETS
  return codes
