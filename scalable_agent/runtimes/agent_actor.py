"""An actor process with an agent: it acts with the learner's weights.

It fetches the newest weights before each unroll, so that all its steps are of
one policy version.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from scalable_agent import actor, policies, structures
from scalable_agent.runtimes import assembly
from scalable_agent.runtimes.actor_process import Job

# Agrees with the learner on what is sent, given a Job, the EnvironmentSpec and
# the agent; returns what sends an unroll, or of it.
Begin = Callable[..., Callable[[structures.ActorOutput], Any]]


def work(job: Job, begin: Begin) -> None:
  """Acts, and sends what comes of it; see `actor_process.act`.

  Args:
    job: to do.
    begin: see `Begin`.
  """
  # Learners on the same host need them, and a step of some rows does not.
  tf.config.set_visible_devices([], 'GPU')
  config, link = job.config, job.link
  environment = job.make_environment()
  try:
    agent = assembly.make_agent(config, environment.spec)
    send = begin(job, environment.spec, agent)
    version = link.update_weights()
    one = actor.Actor(
      environment,
      policies.Direct(
        policies.make_step(agent, policies.Seeds(job.seeds()[1]))
      ),
      agent.initial_state(config.actors.envs_per_actor),
      config.actors.unroll_length,
      level=job.level,
      policy_version=lambda: version,
    )
    while True:
      send(one.unroll())
      version = link.update_weights()
  finally:
    environment.close()
