"""Joins concurrent calls into batches that are computed together.

Many threads call `Batcher.compute`, or a function decorated with `batch_fn`;
one or more threads serve the batches. This package knows nothing of agents.
"""

from dynamic_batching.batched_function import batch_fn, batch_fn_with_options
from dynamic_batching.batcher import Batcher
from dynamic_batching.structures import Statistics

__all__ = ['Batcher', 'Statistics', 'batch_fn', 'batch_fn_with_options']
