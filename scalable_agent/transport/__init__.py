"""What actors and learners say to each other, and how."""

import os

# Read when grpc is imported. What it would write to standard error, exceptions
# say, too. The system's resolver finds names in /etc/hosts, where gRPC's own
# goes on to ask a server that may not answer.
os.environ.setdefault('GRPC_VERBOSITY', 'NONE')
os.environ.setdefault('GRPC_DNS_RESOLVER', 'native')

# Modules that are not imported here: only what is sent needs TensorFlow.
__all__ = (
  'credentials',
  'gradient_codec',
  'gradient_service',
  'learner_link',
  'learner_service',
  'protocol',
  'rendezvous',
  'rpc',
  'step_codec',
  'step_service',
  'unroll_codec',
  'unroll_service',
  'weights',
)
