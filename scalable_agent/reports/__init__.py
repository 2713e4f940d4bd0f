"""What a run tells: TensorBoard, progress line, episodes.csv, videos."""

from scalable_agent.reports import metrics, videos

__all__ = ('metrics', 'videos')
