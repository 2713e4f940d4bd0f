"""A3C's actor process: it computes gradients of its copy, and sends them.

They are clipped here, as in one process; the optimizer and its statistics are
the learner's.
"""

import functools
from collections.abc import Callable

from scalable_agent import networks, structures
from scalable_agent.runtimes import agent_actor, differentiation
from scalable_agent.runtimes.actor_process import Job


def work(job: Job) -> None:
  """Acts, and sends gradients; see `actor_process.act`."""
  agent_actor.work(job, begin)


def begin(
  job: Job, spec: structures.EnvironmentSpec, agent: networks.Agent
) -> Callable[[structures.ActorOutput], None]:
  """See `agent_actor.Begin`."""
  config, columns = job.config, job.config.actors.envs_per_actor
  function = differentiation.make_gradient_function(config, agent)
  layout = differentiation.make_layout(config, spec, function, columns)
  job.link.begin(
    'gradients',
    agent.variables,
    layout=layout.describe(),
    columns=columns,
  )

  # Its weights are those that have acted: newer ones are fetched after it.
  def send(unroll: structures.ActorOutput) -> None:
    computed = function(unroll)
    job.link.send(
      'gradients', functools.partial(layout.write, computed, unroll)
    )

  return send
