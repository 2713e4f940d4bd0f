"""What survives a process: checkpoints, the folder of a run, files."""

# Modules that are not imported here: only checkpoints need TensorFlow.
__all__ = ('checkpointing', 'files', 'logdirs')
