"""What a run tells: TensorBoard, progress line, episodes.csv, videos."""

from scalable_agent.reports import (
  ga3c_log,
  metrics,
  pytorch_a3c_log,
  videos,
  windows,
)

__all__ = ('ga3c_log', 'metrics', 'pytorch_a3c_log', 'videos', 'windows')
