"""Tables of presets, as suites have them."""

from collections.abc import Mapping
from typing import Any


def make_presets(
  shared: Mapping[str, Any],
  impala: Mapping[str, Any],
  advantage: Mapping[str, Any],
  ga3c: Mapping[str, Any],
) -> dict[str, dict[str, dict[str, Any]]]:
  """Returns what --preset=auto is with each algorithm.

  Args:
    shared: options of all of them.
    impala: what IMPALA has beside, or instead.
    advantage: likewise A3C and A2C, which plays in one thread.
    ga3c: likewise GA3C.
  """
  return {
    'impala': {'auto': {**shared, **impala}},
    'a3c': {'auto': {**shared, **advantage}},
    'a2c': {'auto': {**shared, **advantage, 'num_actors': 0}},
    'ga3c': {'auto': {**shared, **ga3c}},
  }
