"""What is refused of bytes that others send."""

from typing import Any

import numpy as np
import tree

from scalable_agent import structures
from scalable_agent.action_spaces import ActionSpace


class Malformed(ValueError):
  """Bytes that are not of a layout, or of an unroll that no actor makes."""


def check_steps(env_outputs: structures.StepOutput) -> None:
  """Raises Malformed unless step types and discounts are some.

  Args:
    env_outputs: of numpy [..., E]; what is () is not looked at.
  """
  step_type = env_outputs.step_type
  if step_type.min() < structures.FIRST or step_type.max() > structures.LAST:
    raise Malformed('a step type that does not exist')
  discount = env_outputs.discount
  # Also where one is not a number.
  if isinstance(discount, np.ndarray) and not (
    discount.min() >= 0 and discount.max() <= 1
  ):
    raise Malformed('a discount beyond 0 to 1')


def check_actions(actions: np.ndarray, space: ActionSpace) -> None:
  """Raises Malformed unless actions are of a space."""
  try:
    space.check(actions)
  except ValueError as error:
    raise Malformed(str(error)) from error


def check_finite(nest: Any) -> None:
  """Raises Malformed where a number is not finite: it would spoil all weights.

  Args:
    nest: of numpy arrays.
  """
  for path, values in tree.flatten_with_path(nest):
    if values.dtype.kind == 'f' and not np.isfinite(values).all():
      raise Malformed(f'{"/".join(map(str, path))} is not finite')
