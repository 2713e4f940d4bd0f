"""IMPALA's actor process: environments, with or without an agent of their own.

Which of them, the learner says: --inference.
"""

import functools
from collections.abc import Callable
from typing import Any

from scalable_agent import structures
from scalable_agent.runtimes import startup
from scalable_agent.runtimes.actor_process import Job
from scalable_agent.runtimes.algorithm import Ended
from scalable_agent.transport import step_codec


def work(job: Job) -> None:
  """Does what the learner has an actor for; see `actor_process.act`."""
  if job.link.welcome.inference == 'learner':
    _step(job)
    return
  # Not before: who only steps environments does without TensorFlow.
  try:
    config = startup.resolve(job.config, job.levels, ())
  except (ValueError, OSError) as error:
    raise Ended(str(error)) from error
  from scalable_agent.runtimes import agent_actor

  agent_actor.work(job._replace(config=config), begin)


def _step(job: Job) -> None:
  """Shows the learner what environments show, and does what it says."""
  link, num_envs = job.link, job.config.actors.envs_per_actor
  begun = False
  while True:
    # New ones after each registration: the learner has lost what the agent
    # knew of those before.
    environment = job.make_environment()
    try:
      layout = step_codec.Layout(environment.spec)
      if not begun:
        begun = True
        link.begin('observations', layout=layout.describe(), columns=num_envs)
      env_output = environment.reset()
      while True:
        answer = link.ask('step', functools.partial(layout.write, env_output))
        if answer is None:
          break
        env_output = environment.step(layout.read_action(answer, num_envs))
    finally:
      environment.close()


def begin(
  job: Job, spec: structures.EnvironmentSpec, agent: Any
) -> Callable[[structures.ActorOutput], Any]:
  """See `agent_actor.Begin`."""
  from scalable_agent.runtimes import assembly

  layout = assembly.make_layout(job.config, spec, agent)
  job.link.begin(
    'unrolls',
    agent.variables,
    layout=layout.describe(),
    columns=job.config.actors.envs_per_actor,
  )
  return lambda unroll: job.link.send(
    'unroll', functools.partial(layout.write, unroll)
  )
