"""An actor process: environments and an agent with the learner's weights.

It needs no optimizer, no TensorBoard and no folder. It fetches the newest
weights before each unroll, so that all its steps are of one policy version.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from scalable_agent import actor, environments, options, policies, structures
from scalable_agent.distribution import cluster as cluster_lib
from scalable_agent.runtimes import assembly, interruption
from scalable_agent.transport import learner_link, protocol

# Agrees with the learner on what is sent, given a Config, the link, the
# EnvironmentSpec and the agent; returns what sends an unroll, or of it.
Begin = Callable[..., Callable[[structures.ActorOutput], None]]


def act(
  config: options.Config,
  levels: Sequence[environments.Level],
  cluster: cluster_lib.Cluster,
  make_link: Callable[..., learner_link.LearnerLink],
  agreed: Mapping[str, Any],
  begin: Begin,
) -> None:
  """Acts until the learner has learned enough, SIGINT or SIGTERM.

  Args:
    config: resolved and validated.
    levels: of the run; see `protocol.level_of` for the one of this actor.
    cluster: with this process's task.
    make_link: a LearnerLink.
    agreed: options that the learner must have, too, by name.
    begin: see `Begin`.

  Raises:
    learner_link.LinkError: the learner refuses this actor or has been away for
      --reconnect_timeout seconds.
    Exception: of the environment or the agent; the learner is told.
  """
  stopping = threading.Event()
  link = make_link(
    cluster.learner_of(cluster.task),
    cluster.task,
    agreed,
    config.cluster.reconnect_timeout,
    stopping,
  )
  start = time.monotonic()
  with interruption.Interruption(stopping.set) as interrupted:
    try:
      _act(config, levels, cluster, link, begin)
    except learner_link.Over:
      reason = 'Training is over.'
    except learner_link.Stopped:
      reason = f'Stopped by {interrupted.name}.'
  print(
    f'Actor {cluster.task} sent {link.sent_unrolls} {link.cargo} in '
    f'{time.monotonic() - start:.0f} s and reconnected {link.reconnects} '
    f'times. {reason}',
    flush=True,
  )


def _act(
  config: options.Config,
  levels: Sequence[environments.Level],
  cluster: cluster_lib.Cluster,
  link: learner_link.LearnerLink,
  begin: Begin,
) -> None:
  # Learners on the same host need them, and a step of some rows does not.
  tf.config.set_visible_devices([], 'GPU')
  task = cluster.task
  welcome = link.register()
  # Others after each start, or the same episodes would come again.
  seeds = np.random.SeedSequence(
    [config.run.seed, task, welcome.frames, welcome.starts]
  )
  deal = assembly.deal(config, levels)
  level = protocol.level_of(task, len(cluster.learners), deal)
  environment = None
  try:
    environment = assembly.make_environment(
      config,
      levels[level],
      config.actors.envs_per_actor,
      # Environments take 31 bits and add their index.
      seed=int(seeds.generate_state(1)[0]) >> 2,
    )
    agent = assembly.make_agent(config, environment.spec)
    initial_state = agent.initial_state(config.actors.envs_per_actor)
    send = begin(config, link, environment.spec, agent)
    version = link.update_weights()
    one = actor.Actor(
      environment,
      policies.Direct(
        policies.make_step(
          agent, policies.Seeds(int(seeds.generate_state(2)[1]))
        )
      ),
      initial_state,
      config.actors.unroll_length,
      level=level,
      policy_version=lambda: version,
    )
    while True:
      send(one.unroll())
      version = link.update_weights()
  except (
    learner_link.Over,
    learner_link.Stopped,
    learner_link.LinkError,
  ):
    raise
  except Exception as error:
    link.report_failure(f'{type(error).__name__}: {error}')
    raise
  finally:
    if environment is not None:
      environment.close()
