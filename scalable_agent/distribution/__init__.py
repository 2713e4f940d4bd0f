"""Who is where, and who shares a batch: clusters, strategies, replicas."""

from scalable_agent.distribution import (
  addresses,
  agreement,
  cluster,
  replicas,
  strategies,
)

__all__ = ('addresses', 'agreement', 'cluster', 'replicas', 'strategies')
