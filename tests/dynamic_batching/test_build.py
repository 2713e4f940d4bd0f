"""Finding, building and loading the native library, and doing without."""

import os
import shutil
import subprocess
import sys
import threading

import pytest
import tensorflow as tf

import dynamic_batching
from dynamic_batching import build, ops

SPEC = tf.TensorSpec([None], tf.int32)
needs_compiler = pytest.mark.skipif(
  build.compiler() is None, reason='needs a C++ compiler'
)


@pytest.fixture
def package(tmp_path, monkeypatch):
  """A copy of the sources with a compiler that only counts."""
  directory = tmp_path / 'package'
  shutil.copytree(build.PACKAGE_DIRECTORY / 'cc', directory / 'cc')
  monkeypatch.setattr(build, 'PACKAGE_DIRECTORY', directory)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  compiled = []

  def compile_nothing(flags, output):
    compiled.append(flags)
    output.write_bytes(b'library')

  monkeypatch.setattr(build, '_compile', compile_nothing)
  return directory, compiled


def test_a_fresh_library_is_found_and_not_built_again(package):
  _, compiled = package
  assert build.find(tf.__version__) is None
  library = build.build()
  assert tf.__version__ in library.name
  assert build.build() == library == build.find(tf.__version__)
  assert len(compiled) == 1
  assert set(tf.sysconfig.get_compile_flags()) <= set(compiled[0])
  assert set(tf.sysconfig.get_link_flags()) <= set(compiled[0])


def test_changed_sources_make_the_library_stale(package):
  directory, compiled = package
  stale = build.build()
  with open(directory / 'cc/rows.h', 'a', encoding='utf-8') as file:
    file.write('// changed\n')
  assert build.find(tf.__version__) is None
  assert build.build() != stale
  assert not stale.exists()
  assert len(compiled) == 2


def test_every_source_of_the_library_counts(package):
  directory, _ = package
  names = {f'cc/{path.name}' for path in (directory / 'cc').iterdir()}
  names.remove('cc/batch_ledger_test.cc')
  assert names == set(build.SOURCES + build.HEADERS)


def test_another_tensorflow_needs_another_library(package, monkeypatch):
  _, compiled = package
  library = build.build()
  monkeypatch.setattr(tf, '__version__', '9.9.9')
  assert build.find('9.9.9') is None
  assert build.build() != library
  assert library.exists()
  assert len(compiled) == 2


def test_a_read_only_package_is_built_in_the_cache(package, monkeypatch):
  directory, _ = package
  monkeypatch.setattr(os, 'access', lambda path, mode: path != directory)
  library = build.build()
  assert library.parent == build.cache_directory()
  assert build.find(tf.__version__) == library


def test_processes_that_build_at_once_compile_once(package, threads):
  _, compiled = package
  builds = [threads.start(build.build) for _ in range(8)]
  assert len({threads.result(library) for library in builds}) == 1
  assert len(compiled) == 1


@needs_compiler
def test_who_has_to_wait_is_told_why(package, threads, monkeypatch, capfd):
  compiling, go_on = threading.Event(), threading.Event()
  compile_nothing = build._compile

  def compile_slowly(flags, output):
    compiling.set()
    assert go_on.wait(30)
    compile_nothing(flags, output)

  monkeypatch.setattr(build, '_compile', compile_slowly)
  first = threads.start(build.build)
  assert compiling.wait(30)
  lines = [capfd.readouterr().err]
  assert lines == [
    'Building the native dynamic batcher (half a minute, once) ...\n'
  ]
  second = threads.start(build.build)

  def second_waits():
    lines.append(capfd.readouterr().err)
    text = ''.join(lines)
    # The end of a line may come a moment after the rest.
    return 'Waiting for a process that builds' in text and text[-1] == '\n'

  threads.until(second_waits)
  go_on.set()
  assert threads.result(first) == threads.result(second)
  build.build()  # It is there: nothing to say.
  assert not capfd.readouterr().err
  assert ''.join(lines).count('\n') == 2


def test_the_library_can_be_put_elsewhere(package, tmp_path):
  library = build.build(tmp_path / 'wheel' / 'dynamic_batching')
  assert library.parent == tmp_path / 'wheel' / 'dynamic_batching'


def test_no_compiler_is_an_error_with_a_remedy(monkeypatch, tmp_path, capfd):
  monkeypatch.setenv('CXX', '/no/such/compiler')
  with pytest.raises(build.BuildError, match=r'Install one .* or set CXX'):
    build.build(tmp_path)
  assert 'Building' not in capfd.readouterr().err
  assert not list(tmp_path.glob('*.so*'))


def test_a_failing_compiler_is_quoted(monkeypatch, tmp_path):
  compiler = tmp_path / 'compiler'
  compiler.write_text('#!/bin/sh\necho "x.cc:1: error: no luck" >&2\nexit 1\n')
  compiler.chmod(0o755)
  monkeypatch.setenv('CXX', f'{compiler} -v')
  with pytest.raises(build.BuildError, match='error: no luck'):
    build.build(tmp_path)
  assert not list(tmp_path.glob('*.so*'))


@needs_compiler
def test_the_ledger_survives_a_short_stress_test():
  build.run_stress_test('none', ['8', '4', '100'])


@pytest.fixture
def unloaded(monkeypatch):
  """Forgets the library that this process has loaded."""
  monkeypatch.delenv(ops.ENVIRONMENT_VARIABLE, raising=False)
  monkeypatch.setattr(ops, '_library', None)
  monkeypatch.setattr(ops, '_failure', None)


def test_without_compiler_one_warning_says_what_is_lost(unloaded, monkeypatch):
  attempts = []

  def fail(force=False):
    attempts.append(force)
    raise build.BuildError('No C++ compiler found')

  monkeypatch.setattr(build, 'build', fail)
  with pytest.warns(ops.FallbackWarning) as warned:
    batcher = dynamic_batching.Batcher(SPEC, SPEC)
  assert batcher.implementation == 'fallback'
  (warning,) = warned
  for text in (
    'No C++ compiler found',
    'slower',
    'python -m dynamic_batching.build',
    'DYNAMIC_BATCHING=fallback',
  ):
    assert text in str(warning.message)
  with pytest.raises(ImportError, match=f'TensorFlow {tf.__version__}'):
    dynamic_batching.Batcher(SPEC, SPEC, implementation='op')
  assert len(attempts) == 1


def test_the_fallback_asked_for_does_not_warn(recwarn, monkeypatch):
  monkeypatch.setenv(ops.ENVIRONMENT_VARIABLE, 'fallback')
  dynamic_batching.Batcher(SPEC, SPEC)
  assert not [w for w in recwarn if w.category is ops.FallbackWarning]


def test_a_library_with_undefined_symbols_is_rebuilt(unloaded, monkeypatch):
  forced = []

  def build_library(force=False):
    forced.append(force)
    return f'library-{force}'

  def load(path):
    if path == 'library-False':
      raise tf.errors.NotFoundError(None, None, 'undefined symbol: _ZN')
    return 'module'

  monkeypatch.setattr(build, 'build', build_library)
  monkeypatch.setattr(tf, 'load_op_library', load)
  assert ops.load() == 'module'
  assert forced == [False, True]


def test_a_library_that_never_loads_is_an_import_error(unloaded, monkeypatch):
  monkeypatch.setattr(build, 'build', lambda force=False: 'library')

  def load(path):
    raise tf.errors.NotFoundError(None, None, 'undefined symbol: _ZN')

  monkeypatch.setattr(tf, 'load_op_library', load)
  with pytest.raises(ImportError, match='are not available for TensorFlow'):
    ops.load()


def test_the_package_does_not_load_the_ops_until_they_are_needed():
  program = (
    'import dynamic_batching, sys\n'
    'from dynamic_batching import ops\n'
    'assert ops._library is None\n'
    'assert "dynamic_batching.build" not in sys.modules\n'
    'assert not any(m.startswith("scalable_agent") for m in sys.modules)\n'
  )
  root = build.PACKAGE_DIRECTORY.parent
  subprocess.run(
    [sys.executable, '-c', program], check=True, cwd=root, timeout=120
  )
