"""What algorithms have in common that train in a single process."""

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from scalable_agent import environments
from scalable_agent.options import Config
from scalable_agent.runtimes.algorithm import Algorithm

if TYPE_CHECKING:
  from scalable_agent.distribution import cluster as cluster_lib
  from scalable_agent.runtimes import local_run


class LocalAlgorithm(Algorithm):
  """One that trains in a single process; what it runs is a `LocalRun`."""

  def make_run(
    self, config: Config, levels: Sequence[environments.Level]
  ) -> 'local_run.LocalRun':
    """Makes the parts.

    Args:
      config: resolved and validated.
      levels: of the run, alike to the agent.

    Raises:
      ValueError: see `prepare`.
    """
    raise NotImplementedError

  def check(self, config: Config) -> None:
    """See base class."""
    if config.cluster.is_distributed:
      raise ValueError(
        f'--algorithm={self.name} trains on a single machine only. Leave '
        '--job_name, --task, --learner_address and TF_CONFIG out, or choose '
        '--algorithm=impala or a3c.'
      )

  def prepare(
    self,
    config: Config,
    levels: Sequence[environments.Level],
    cluster: 'cluster_lib.Cluster | None',
    given: Collection[str],
  ) -> Callable[[], None]:
    """See base class."""
    from scalable_agent.runtimes import local_run

    assert cluster is None  # See `check`.
    return local_run.prepare(
      config, levels, given, lambda: self.make_run(config, levels)
    )
