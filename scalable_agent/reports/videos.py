"""Videos of what an agent sees on the screen."""

import os
from typing import Any

import imageio.v2 as imageio
import numpy as np

# Screens lower than this are magnified in whole steps.
_HEIGHT = 400


class VideoWriter:
  """Writes frames to an mp4, or to a gif if the path ends so."""

  def __init__(self, path: str, frames_per_second: float):
    """Opens the file.

    Args:
      path: of the file, ending in .mp4 or .gif; replaced if there is one.
      frames_per_second: speed at which it is played.

    Raises:
      ValueError: the ending is another one, or the file cannot be written.
    """
    ending = os.path.splitext(path)[1].lower()
    if ending not in ('.mp4', '.gif'):
      raise ValueError(f'the video {path} must end in .mp4 or .gif.')
    try:
      with open(path, 'wb'):
        pass
    except OSError as error:
      raise ValueError(
        f'the video {path} cannot be written: {error.strerror}. Choose a '
        'folder that exists and that you may write to.'
      ) from error
    options: dict[str, Any] = (
      {'duration': 1000 / frames_per_second, 'loop': 0}
      if ending == '.gif'
      # Two is all that yuv420p needs; more would resize the frames.
      else {'fps': frames_per_second, 'macro_block_size': 2, 'quality': 7}
    )
    self._writer = imageio.get_writer(path, mode='I', **options)

  def add(self, frame: np.ndarray) -> None:
    """Adds one uint8 frame of [height, width, 3]."""
    scale = max(1, round(_HEIGHT / frame.shape[0]))
    frame = frame.repeat(scale, 0).repeat(scale, 1)
    height, width, _ = frame.shape
    frame = np.pad(frame, [(0, height % 2), (0, width % 2), (0, 0)], 'edge')
    self._writer.append_data(frame)

  def close(self) -> None:
    """Finishes the file."""
    self._writer.close()

  def __enter__(self) -> 'VideoWriter':
    return self

  def __exit__(self, kind, failure, traceback) -> None:
    self.close()
