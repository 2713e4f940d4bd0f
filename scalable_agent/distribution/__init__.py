"""Who is where, and who shares a batch: clusters, strategies, replicas."""

# Modules that are not imported here: who is where needs no TensorFlow.
__all__ = ('addresses', 'agreement', 'cluster', 'replicas', 'strategies')
