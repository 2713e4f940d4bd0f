"""A3C's actor process: it computes gradients of its copy, and sends them.

They are clipped here, as in one process; the optimizer and its statistics are
the learner's.
"""

from collections.abc import Callable, Sequence

from scalable_agent import environments, networks, options, structures
from scalable_agent.distribution import cluster as cluster_lib
from scalable_agent.runtimes import actor_process, differentiation
from scalable_agent.transport import gradient_link


def act(
  config: options.Config,
  levels: Sequence[environments.Level],
  cluster: cluster_lib.Cluster,
) -> None:
  """Acts until the learner has learned enough; see `actor_process.act`."""
  actor_process.act(
    config,
    levels,
    cluster,
    gradient_link.GradientLink,
    config.differentiating(),
    begin,
  )


def begin(
  config: options.Config,
  link: gradient_link.GradientLink,
  spec: structures.EnvironmentSpec,
  agent: networks.Agent,
) -> Callable[[structures.ActorOutput], None]:
  """See `actor_process.Begin`."""
  columns = config.actors.envs_per_actor
  function = differentiation.make_gradient_function(config, agent)
  link.begin(
    differentiation.make_layout(config, spec, function, columns),
    columns,
    agent.variables,
  )
  # Its weights are those that have acted: newer ones are fetched after it.
  return lambda unroll: link.send(function(unroll), unroll)
