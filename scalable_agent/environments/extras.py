"""Simulators that are not among the requirements."""

import importlib.util


def is_installed(extra: str) -> bool:
  """Whether an extra of pyproject.toml is, whose module has the same name."""
  return importlib.util.find_spec(extra) is not None


def check(extra: str, level_name: str) -> None:
  """Raises ValueError, which says what to install, unless an extra is there.

  Args:
    extra: that plays the level.
    level_name: what the user wrote.
  """
  if not is_installed(extra):
    raise ValueError(
      f'{level_name} needs {extra}, which is not installed. Install it by '
      f"pip install '.[{extra}]' or make setup EXTRAS={extra}."
    )
