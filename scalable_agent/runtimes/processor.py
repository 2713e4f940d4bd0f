"""What the processor of this machine can compute fast."""

# As Linux calls them: vectors, and tiles, of which oneDNN makes use.
_FLAGS = frozenset({'avx512_bf16', 'amx_bf16'})


def has_bfloat16(cpuinfo: str = '/proc/cpuinfo') -> bool:
  """Returns whether it multiplies bfloat16; False where that is not known.

  Args:
    cpuinfo: file of procfs.
  """
  try:
    with open(cpuinfo, encoding='utf-8', errors='replace') as file:
      for line in file:
        name, _, value = line.partition(':')
        if name.strip() == 'flags':
          return not _FLAGS.isdisjoint(value.split())
  except OSError:
    pass  # No Linux.
  return False
