"""The asynchronous actor-critic family on TensorFlow: IMPALA first."""

__version__ = '0.1.0'
