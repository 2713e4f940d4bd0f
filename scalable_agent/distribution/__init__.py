"""Who is where, and who shares a batch: clusters, strategies, replicas."""

from scalable_agent.distribution import addresses, cluster

__all__ = (
  'addresses',
  'agreement',
  'cluster',
  # Modules that are not imported here: actors may lack TensorFlow.
  'replicas',
  'strategies',
)
