"""What survives a process: checkpoints, the folder of a run, files."""

from scalable_agent.storage import checkpointing, files, logdirs

__all__ = ('checkpointing', 'files', 'logdirs')
