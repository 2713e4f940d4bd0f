"""IMPALA's actor process: it sends unrolls."""

from collections.abc import Callable, Sequence

from scalable_agent import environments, networks, options, structures
from scalable_agent.distribution import cluster as cluster_lib
from scalable_agent.runtimes import actor_process, assembly
from scalable_agent.transport import unroll_link


def act(
  config: options.Config,
  levels: Sequence[environments.Level],
  cluster: cluster_lib.Cluster,
) -> None:
  """Acts until the learner has learned enough; see `actor_process.act`."""
  actor_process.act(
    config, levels, cluster, unroll_link.UnrollLink, config.acting(), begin
  )


def begin(
  config: options.Config,
  link: unroll_link.UnrollLink,
  spec: structures.EnvironmentSpec,
  agent: networks.Agent,
) -> Callable[[structures.ActorOutput], None]:
  """See `actor_process.Begin`."""
  link.begin(
    assembly.make_layout(config, spec, agent),
    config.actors.envs_per_actor,
    agent.variables,
  )
  return link.send
