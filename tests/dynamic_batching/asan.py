"""Runs tests of the native ops under AddressSanitizer, in about a minute.

  python tests/dynamic_batching/asan.py

TensorFlow and Python are not instrumented, so the runtime is preloaded, and
with it the C++ library that TensorFlow throws its exceptions by.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Cancellation, references and inputs of the wrong kind; not the tests that
# start processes of their own.
TESTS = ('test_lifetime.py', 'test_kernels.py', 'test_graphs.py')
SELECTED = 'not fallback and not ctrl_c and not texts'


def start(library):
  """Builds the ops and starts this file again, with the runtime."""
  from dynamic_batching import build

  build.compile_library(
    library, ['-O1', '-g', '-fno-omit-frame-pointer', '-fsanitize=address']
  )
  runtimes = [
    subprocess.check_output(
      [*build.compiler(), f'-print-file-name={name}'], text=True
    ).strip()
    for name in ('libasan.so', 'libstdc++.so.6')
  ]
  options = {
    'LD_PRELOAD': ' '.join(runtimes),
    # Python frees little of what it holds at its end.
    'ASAN_OPTIONS': 'detect_leaks=0:detect_stack_use_after_return=1',
  }
  subprocess.run(
    [sys.executable, __file__, library], check=True, env=os.environ | options
  )


def run(library):
  """Runs the tests with these ops."""
  import pytest
  import tensorflow as tf

  from dynamic_batching import ops

  ops._library = tf.load_op_library(library)
  files = [str(ROOT / 'tests/dynamic_batching' / name) for name in TESTS]
  # Captured, the report of the runtime would end with the process.
  return pytest.main(
    ['-q', '-x', '-s', '-p', 'no:cacheprovider', '-k', SELECTED, *files]
  )


if __name__ == '__main__':
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  sys.path.insert(0, str(ROOT))
  if len(sys.argv) > 1:
    sys.exit(run(sys.argv[1]))
  with tempfile.TemporaryDirectory() as directory:
    start(pathlib.Path(directory) / 'libbatcher_asan.so')
