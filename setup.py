"""Compiles the ops of dynamic_batching into the wheel.

All else is in pyproject.toml.
"""

import importlib.util
import pathlib
import types

import setuptools
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

PACKAGE = 'dynamic_batching'
_NO_OPS = (
  'this wheel has no native ops: {} They are built at their first use where a '
  'compiler is found by then; else batching is done in Python.'
)


def _load_builder() -> types.ModuleType:
  # By path, since the package itself imports all that it needs at run time.
  path = pathlib.Path(__file__).resolve().parent / PACKAGE / 'build.py'
  spec = importlib.util.spec_from_file_location('build_ops', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


builder = _load_builder()


class BuildPy(build_py):
  """Puts the native library beside the modules."""

  def run(self):
    super().run()
    directory = None  # Beside the sources.
    if not self.editable_mode:
      directory = pathlib.Path(self.build_lib) / PACKAGE
    try:
      library = builder.build(directory)
    except builder.BuildError as error:
      self.warn(_NO_OPS.format(error))
      return
    (library.parent / '.libbatcher.lock').unlink(missing_ok=True)


class BdistWheel(bdist_wheel):
  """Tags the wheel with the platform, as the library needs no CPython ABI."""

  def get_tag(self):
    _, _, platform = super().get_tag()
    return 'py3', 'none', platform


class NativeDistribution(setuptools.Distribution):
  """A distribution for one platform only, if ops can be built."""

  def has_ext_modules(self):
    return builder.compiler() is not None


setuptools.setup(
  cmdclass={'build_py': BuildPy, 'bdist_wheel': BdistWheel},
  distclass=NativeDistribution,
)
