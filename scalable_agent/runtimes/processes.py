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
    make_learner: makes a learner_process.LearnerProcess of config, levels,
      cluster and credentials.
    act: the work of an actor, of the same.

  Returns:
    The training, or this actor's part of it.
  """
  if cluster.job_name == 'learner':
    from scalable_agent.runtimes import learner_process

    make_run = functools.partial(make_learner, config, levels, cluster)
    return learner_process.prepare(config, levels, cluster, given, make_run)
  from scalable_agent.runtimes import worlds
  from scalable_agent.transport import credentials

  # One that cannot be made is told before a learner is waited for.
  worlds.find_spec(config, levels[0])
  own = credentials.load(config, makes_token=False)
  return functools.partial(_act, act, config, levels, cluster, own)


def _act(act, config, levels, cluster, own) -> None:
  from scalable_agent.transport import learner_link

  try:
    act(config, levels, cluster, own)
  except learner_link.LinkError as error:
    raise Ended(str(error)) from error
