"""What actors and learners say to each other, and how."""

from scalable_agent.transport import (
  gradient_codec,
  gradient_link,
  gradient_service,
  learner_link,
  protocol,
  rpc,
  unroll_codec,
  unroll_link,
  unroll_service,
  weights,
)

__all__ = (
  'gradient_codec',
  'gradient_link',
  'gradient_service',
  'learner_link',
  'protocol',
  'rpc',
  'unroll_codec',
  'unroll_link',
  'unroll_service',
  'weights',
)
