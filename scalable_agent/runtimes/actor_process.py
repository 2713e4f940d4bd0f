"""An actor process: it is linked to its learner, and works for it.

It needs no optimizer, no TensorBoard and no folder; what it does once the
learner has taken it is an algorithm's to say, and TensorFlow for that to load.
"""

import _thread
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from scalable_agent import environments, options
from scalable_agent.distribution import cluster as cluster_lib
from scalable_agent.runtimes import interruption, worlds
from scalable_agent.transport import credentials, learner_link, protocol


class Job(NamedTuple):
  """What an actor is to do.

  Attributes:
    config: resolved and validated, with what was left to the learner.
    levels: of the run.
    cluster: with this process's task.
    link: to the learner, which has taken this actor.
  """

  config: options.Config
  levels: Sequence[environments.Level]
  cluster: cluster_lib.Cluster
  link: learner_link.LearnerLink

  @property
  def level(self) -> int:
    """Index of the level that this actor plays; see `protocol.level_of`."""
    return protocol.level_of(
      self.cluster.task,
      len(self.cluster.learners),
      worlds.deal(self.config, self.levels),
    )

  def seeds(self) -> tuple[int, int]:
    """Returns those of the environments and of the policy.

    Others after each registration, or the same episodes would come again.
    """
    welcome = self.link.welcome
    words = np.random.SeedSequence(
      [
        self.config.run.seed,
        self.cluster.task,
        welcome.frames,
        welcome.starts,
      ]
    ).generate_state(2)
    # Environments take 31 bits and add their index.
    return int(words[0]) >> 2, int(words[1])

  def make_environment(self) -> environments.BatchedEnvironment:
    """Returns the environments of this actor, with seeds of their own."""
    return worlds.make_environment(
      self.config,
      self.levels[self.level],
      self.config.actors.envs_per_actor,
      seed=self.seeds()[0],
    )


def act(
  config: options.Config,
  levels: Sequence[environments.Level],
  cluster: cluster_lib.Cluster,
  own: credentials.Credentials,
  agreed: Mapping[str, Any],
  work: Callable[[Job], None],
) -> None:
  """Works until the learner has learned enough, SIGINT or SIGTERM.

  Args:
    config: resolved and validated.
    levels: of the run.
    cluster: with this process's task.
    own: credentials of this process.
    agreed: options that the learner must have, too, by name.
    work: does the job, for ever.

  Raises:
    learner_link.LinkError: the learner refuses this actor or has been away for
      --reconnect_timeout seconds.
    Exception: of the environment or the agent; the learner is told.
  """
  stopping = threading.Event()
  link = learner_link.LearnerLink(
    cluster.learner_address,
    cluster.task,
    agreed,
    config.cluster.reconnect_timeout,
    stopping,
    own,
    config.cluster.cluster_proxy,
  )
  start = time.monotonic()

  def stop():
    # Its lock may be the main thread's, which is in this handler and would wait
    # for itself.
    _thread.start_new_thread(stopping.set, ())

  with interruption.Interruption(stop) as interrupted:
    try:
      welcome = link.register()
      config = config.replace(**welcome.options)
      options.validate(config)
      _work(work, Job(config, levels, cluster, link))
    except learner_link.Over:
      reason = 'Training is over.'
    except learner_link.Stopped:
      reason = f'Stopped by {interrupted.name}.'
  print(
    f'Actor {cluster.task} sent {link.sent} {link.cargo} in '
    f'{time.monotonic() - start:.0f} s and reconnected {link.reconnects} '
    f'times. {reason}',
    flush=True,
  )


def _work(work: Callable[[Job], None], job: Job) -> None:
  try:
    work(job)
  except (
    learner_link.Over,
    learner_link.Stopped,
    learner_link.LinkError,
  ):
    raise
  except Exception as error:
    job.link.report_failure(f'{type(error).__name__}: {error}')
    raise
