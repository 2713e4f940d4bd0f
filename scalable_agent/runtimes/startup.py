"""The start of TensorFlow in a process, and the options that wait for it."""

import os
import sys
import tempfile
from collections.abc import Collection, Sequence

from scalable_agent import environments, options
from scalable_agent.options import Config


def load_tensorflow() -> None:
  """Imports TensorFlow and looks for devices, without their start-up notes.

  TensorFlow's libraries write them to file descriptor 2 when they are loaded,
  once for each of their copies of absl's log, before any log level is read.
  Set TF_CPP_MIN_LOG_LEVEL to see them.
  """
  # Else the first process on a GPU takes all of its memory, and no other
  # learner, actor or test can use it. Read when TensorFlow finds the GPUs.
  os.environ.setdefault('TF_FORCE_GPU_ALLOW_GROWTH', 'true')
  if 'TF_CPP_MIN_LOG_LEVEL' in os.environ:
    return
  os.environ['TF_CPP_MIN_LOG_LEVEL'] = '2'
  sys.stderr.flush()
  stderr = os.dup(2)
  with tempfile.TemporaryFile() as notes:
    os.dup2(notes.fileno(), 2)
    try:
      import tensorflow as tf

      tf.config.list_physical_devices()
    except Exception:
      notes.seek(0)
      os.write(stderr, notes.read())
      raise
    finally:
      os.dup2(stderr, 2)
      os.close(stderr)


def resolve(
  config: Config,
  levels: Sequence[environments.Level],
  given: Collection[str],
) -> Config:
  """Loads TensorFlow; returns `config` with what is known only then.

  Must run before TensorFlow's first operation; see `assembly.resolve`.

  Args:
    config: resolved but for that, and validated.
    levels: of the run.
    given: names of the options that the user set.

  Raises:
    ValueError: an option means nothing to the first level, or that cannot be
      made.
  """
  load_tensorflow()
  from scalable_agent.runtimes import assembly

  config = assembly.resolve(config, levels, given)
  # What stood for something else may mean more, or less.
  options.validate(config)
  options.check_given(config, given)
  return config
