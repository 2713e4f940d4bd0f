"""How gradients are computed and clipped, from a Config."""

import functools
from collections.abc import Callable
from typing import Any

from scalable_agent import gradients, optimizers, options, structures
from scalable_agent.transport import gradient_codec


def make_clip(config: options.Config) -> Callable[..., Any]:
  """Returns `optimizers.clip_gradients`, but for the gradients."""
  return functools.partial(
    optimizers.clip_gradients,
    clip_gradient_norm=config.optimizer.clip_gradient_norm,
    clip_gradient_by=config.optimizer.clip_gradient_by,
  )


def make_gradient_function(
  config: options.Config, agent: Any
) -> gradients.GradientFunction:
  """Returns what computes gradients of `agent` for a learner elsewhere."""
  algorithm = options.algorithm_of(config)
  return gradients.GradientFunction(
    agent,
    algorithm.make_loss(config),
    make_clip(config),
    algorithm.num_optimizers(config),
  )


def make_layout(
  config: options.Config,
  spec: structures.EnvironmentSpec,
  function: gradients.GradientFunction,
  columns: int = 1,
) -> gradient_codec.Layout:
  """Returns what gradients between processes consist of.

  Args:
    config: resolved and validated.
    spec: of the levels' environments.
    function: of `make_gradient_function`.
    columns: of the unrolls that it will be called with, if it will.
  """
  length = config.actors.unroll_length
  specs = function.specs(spec, length, columns)
  return gradient_codec.Layout(specs, spec, length)
