"""What actors and learners say to each other, and how."""

from scalable_agent.transport import (
  learner_link,
  learner_service,
  protocol,
  rpc,
  unroll_codec,
  weights,
)

__all__ = (
  'learner_link',
  'learner_service',
  'protocol',
  'rpc',
  'unroll_codec',
  'weights',
)
