"""What is refused of bytes that strangers send."""

from typing import Any

from scalable_agent import structures
from scalable_agent.action_spaces import ActionSpace


class Malformed(ValueError):
  """Bytes that are not of a layout, or of an unroll that no actor makes."""


def check_steps(env_outputs: Any, agent_outputs: Any, space: ActionSpace):
  """Raises Malformed unless step types and actions are some.

  Args:
    env_outputs: with step_type [T + 1, E].
    agent_outputs: with action [T + 1, E, *shape].
    space: of the actions.
  """
  step_type = env_outputs.step_type
  if step_type.min() < structures.FIRST or step_type.max() > structures.LAST:
    raise Malformed('a step type that does not exist')
  try:
    space.check(agent_outputs.action)
  except ValueError as error:
    raise Malformed(str(error)) from error
