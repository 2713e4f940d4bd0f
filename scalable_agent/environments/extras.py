"""Simulators that are not among the requirements."""

import importlib.util
import sys

# Of those that have no wheels for all that this package runs on.
_LEAST_PYTHON = {'envpool': (3, 11)}


def is_installed(extra: str) -> bool:
  """Whether an extra of pyproject.toml is, whose module has the same name."""
  return importlib.util.find_spec(extra) is not None


def check(extra: str, level_name: str) -> None:
  """Raises ValueError, which says what to install, unless an extra is there.

  Args:
    extra: that plays the level.
    level_name: what the user wrote.
  """
  if is_installed(extra):
    return
  least = _LEAST_PYTHON.get(extra, ())
  if sys.version_info < least:
    version = '.'.join(map(str, least))
    raise ValueError(
      f'{level_name} needs {extra}, which needs Python {version} or newer. '
      f'Set up one: make setup PYTHON=python{version} EXTRAS={extra}.'
    )
  raise ValueError(
    f'{level_name} needs {extra}, which is not installed. Install it by '
    f"pip install '.[{extra}]' or make setup EXTRAS={extra}."
  )
