"""What the processor of this machine can compute fast."""

import os

# As Linux calls them: vectors, and tiles, of which oneDNN makes use.
_FLAGS = frozenset({'avx512_bf16', 'amx_bf16'})


def has_bfloat16(cpuinfo: str = '/proc/cpuinfo') -> bool:
  """Returns whether it multiplies bfloat16; False where that is not known.

  TensorFlow has oneDNN do so. Without, it takes eight times as long as float32.

  Args:
    cpuinfo: file of procfs.
  """
  if os.environ.get('TF_ENABLE_ONEDNN_OPTS', '').lower() in ('0', 'false'):
    return False
  try:
    with open(cpuinfo, encoding='utf-8', errors='replace') as file:
      for line in file:
        name, _, value = line.partition(':')
        if name.strip() == 'flags':
          return not _FLAGS.isdisjoint(value.split())
  except OSError:
    pass  # No Linux.
  return False
