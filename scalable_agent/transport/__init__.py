"""What actors and learners say to each other, and how."""

# Modules that are not imported here: only what is sent needs TensorFlow.
__all__ = (
  'credentials',
  'gradient_codec',
  'gradient_service',
  'learner_link',
  'protocol',
  'rendezvous',
  'rpc',
  'step_codec',
  'step_service',
  'unroll_codec',
  'unroll_service',
  'weights',
)
