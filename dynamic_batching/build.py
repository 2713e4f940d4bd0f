"""Builds the native ops: `python -m dynamic_batching.build`.

The library is named after the TensorFlow version and a hash of the sources and
flags it was built from, so a file of the right name is never stale. It is
written beside this module or, where that is read-only (an installed package),
into the user's cache directory.
"""

import argparse
import contextlib
import fcntl
import hashlib
import os
import pathlib
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

PACKAGE_DIRECTORY = pathlib.Path(__file__).resolve().parent
SOURCES = ('cc/batcher_ops.cc', 'cc/batcher_kernels.cc')
HEADERS = (
  'cc/batch_ledger.h',
  'cc/batcher_resource.h',
  'cc/checks.h',
  'cc/rows.h',
)
_FLAGS = ('-shared', '-fPIC', '-O3', '-DNDEBUG', '-Wall')
_SANITIZERS = {'tsan': 'thread', 'asan_ubsan': 'address,undefined'}


class BuildError(RuntimeError):
  """The native library could not be built."""


def compiler() -> list[str] | None:
  """Returns the C++ compiler: `$CXX`, else the first of g++, clang++, c++.

  Returns:
    Its command, or None if there is none.
  """
  if os.environ.get('CXX'):
    commands = [shlex.split(os.environ['CXX'])]
  else:
    commands = [['g++'], ['clang++'], ['c++']]
  return next((x for x in commands if shutil.which(x[0])), None)


def library_name(tensorflow_version: str) -> str:
  """Returns the file name of a library that is built from these sources.

  Args:
    tensorflow_version: Version of the TensorFlow that loads the library.
  """
  digest = hashlib.sha256()
  for part in (platform.machine(), *_FLAGS):
    digest.update(part.encode() + b'\0')
  for name in SOURCES + HEADERS:
    digest.update((PACKAGE_DIRECTORY / name).read_bytes() + b'\0')
  version = re.sub(r'[^0-9A-Za-z.]', '_', tensorflow_version)
  return f'libbatcher-tf{version}-{digest.hexdigest()[:12]}.so'


def cache_directory() -> pathlib.Path:
  """Returns where the library goes if the package directory is read-only."""
  base = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
  return pathlib.Path(base) / 'dynamic_batching'


def find(tensorflow_version: str) -> pathlib.Path | None:
  """Returns the library for these sources and this TensorFlow, if built.

  Args:
    tensorflow_version: Version of the TensorFlow that loads the library.
  """
  name = library_name(tensorflow_version)
  for directory in (PACKAGE_DIRECTORY, cache_directory()):
    if (directory / name).is_file():
      return directory / name
  return None


def build(
  output_directory: str | os.PathLike[str] | None = None, force: bool = False
) -> pathlib.Path:
  """Builds the native library for the installed TensorFlow, unless it exists.

  Any number of processes may build at the same time.

  Args:
    output_directory: Where to put the library; by default beside this module
      or, if that is not writable, in the user's cache directory.
    force: Whether to build even if the library exists.

  Returns:
    The path of the library.

  Raises:
    BuildError: There is no compiler, or it failed.
  """
  # Slow, and packaging tools import this module for its other functions.
  import tensorflow as tf

  if output_directory is None:
    existing = find(tf.__version__)
    if existing and not force:
      return existing
    directory = _default_directory()
  else:
    directory = pathlib.Path(output_directory)
    directory.mkdir(parents=True, exist_ok=True)
  library = directory / library_name(tf.__version__)
  with _lock(directory):
    if force or not library.is_file():
      if compiler() is not None:
        _tell('Building the native dynamic batcher (half a minute, once) ...')
      compile_library(library)
      _remove_stale(library, tf.__version__)
  return library


def compile_library(library: pathlib.Path, flags: Sequence[str] = ()) -> None:
  """Compiles the native ops for the installed TensorFlow.

  Args:
    library: Where to put them.
    flags: Further flags of the compiler.

  Raises:
    BuildError: There is no compiler, or it failed.
  """
  import tensorflow as tf

  _compile(
    [
      *_FLAGS,
      *tf.sysconfig.get_compile_flags(),
      *flags,
      f'-I{PACKAGE_DIRECTORY.parent}',
      *(str(PACKAGE_DIRECTORY / source) for source in SOURCES),
      *tf.sysconfig.get_link_flags(),
    ],
    library,
  )


def run_stress_test(sanitizer: str, arguments: Sequence[str] = ()) -> None:
  """Builds and runs the stress test of the TensorFlow-free core.

  Args:
    sanitizer: 'tsan', 'asan_ubsan' or 'none'.
    arguments: Command line of the test, see `cc/batch_ledger_test.cc`.

  Raises:
    BuildError: The test did not compile.
    subprocess.CalledProcessError: The test failed.
  """
  flags = ['-std=c++17', '-O1', '-g', '-Wall', '-Wextra', '-Werror', '-pthread']
  if sanitizer != 'none':
    flags += [
      f'-fsanitize={_SANITIZERS[sanitizer]}',
      '-fno-sanitize-recover=all',
    ]
  source = PACKAGE_DIRECTORY / 'cc/batch_ledger_test.cc'
  with tempfile.TemporaryDirectory() as directory:
    binary = pathlib.Path(directory) / 'batch_ledger_test'
    _compile([*flags, f'-I{PACKAGE_DIRECTORY.parent}', str(source)], binary)
    subprocess.run([str(binary), *arguments], check=True)


def _default_directory() -> pathlib.Path:
  if os.access(PACKAGE_DIRECTORY, os.W_OK):
    return PACKAGE_DIRECTORY
  directory = cache_directory()
  directory.mkdir(parents=True, exist_ok=True)
  return directory


@contextlib.contextmanager
def _lock(directory: pathlib.Path) -> Iterator[None]:
  # Only spares other processes the work: the rename below keeps them safe even
  # where the file system has no locks.
  with open(directory / '.libbatcher.lock', 'w', encoding='utf-8') as file:
    with contextlib.suppress(OSError):
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        _tell(
          'Waiting for a process that builds the native dynamic batcher ...'
        )
        fcntl.flock(file, fcntl.LOCK_EX)
    yield


def _tell(message: str) -> None:
  # Not logged: whoever waits is to know why, at any log level.
  print(message, file=sys.stderr, flush=True)


def _compile(flags: Sequence[str], output: pathlib.Path) -> None:
  cxx = compiler()
  if cxx is None:
    raise BuildError(
      'No C++ compiler found to build dynamic_batching. Install one (for '
      'example `apt-get install g++`) or set CXX to its path.'
    )
  temporary = output.with_name(f'{output.name}.{os.getpid()}.tmp')
  try:
    result = subprocess.run(
      [*cxx, *flags, '-o', str(temporary)],
      capture_output=True,
      text=True,
      check=False,
    )
    if result.returncode:
      errors = [line for line in result.stderr.splitlines() if 'error' in line]
      raise BuildError(
        f'{shlex.join(cxx)} failed to build {output.name}: '
        + '\n'.join(errors[:10] or result.stderr.splitlines()[-10:])
      )
    os.replace(temporary, output)
  finally:
    temporary.unlink(missing_ok=True)


def _remove_stale(library: pathlib.Path, tensorflow_version: str) -> None:
  version = library_name(tensorflow_version).rsplit('-', 1)[0]
  for other in library.parent.glob(f'{version}-*.so'):
    if other != library:
      other.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> None:
  """Builds the library, or runs the stress tests with `--test`."""
  parser = argparse.ArgumentParser(description=main.__doc__)
  parser.add_argument('--output_directory', help='where to put the library')
  parser.add_argument(
    '--force', action='store_true', help='build even if up to date'
  )
  parser.add_argument(
    '--test',
    action='store_true',
    help='instead run the stress test under ThreadSanitizer, then under '
    'AddressSanitizer with UndefinedBehaviorSanitizer',
  )
  options = parser.parse_args(arguments)
  try:
    if options.test:
      for sanitizer in _SANITIZERS:
        print(f'batch_ledger_test, {sanitizer}:', flush=True)
        run_stress_test(sanitizer)
    else:
      print(build(options.output_directory, options.force))
  except (BuildError, subprocess.CalledProcessError) as error:
    sys.exit(str(error))


if __name__ == '__main__':
  main()
