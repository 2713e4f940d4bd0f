"""What an algorithm does where actors and learners are processes."""

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any

from scalable_agent import environments
from scalable_agent.options import Config
from scalable_agent.runtimes.algorithm import Ended


def prepare(
  config: Config,
  levels: Sequence[environments.Level],
  cluster: Any,
  given: Collection[str],
  make_learner: Callable[..., Any],
  act: Callable[..., None],
) -> Callable[[], None]:
  """Makes what this process runs; see `Algorithm.prepare`.

  Args:
    config: resolved and validated.
    levels: of the run.
    cluster: with the job and the task of this process.
    given: names of the options that the user set.
    make_learner: makes a learner_process.LearnerProcess of config, levels and
      cluster.
    act: the work of an actor, of the same.

  Returns:
    The training, or this actor's part of it.
  """
  if cluster.job_name == 'learner':
    from scalable_agent.runtimes import learner_process

    make_run = functools.partial(make_learner, config, levels, cluster)
    return learner_process.prepare(config, levels, cluster, given, make_run)
  cluster.check()
  return functools.partial(_act, act, config, levels, cluster)


def _act(act, config, levels, cluster) -> None:
  from scalable_agent.transport import learner_link

  try:
    act(config, levels, cluster)
  except learner_link.LinkError as error:
    raise Ended(str(error)) from error
