"""A window that shows what an agent sees on the screen."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

# Screens lower than this are magnified in whole steps.
_HEIGHT = 400


def why_not() -> str | None:
  """Returns why no window can be shown, a sentence; None if one can."""
  try:
    import tkinter
  except ImportError as error:
    return f'There is no window: this Python has no tkinter ({error}).'
  try:
    tkinter.Tk().destroy()
  except tkinter.TclError as error:
    return f'There is no window: {str(error).rstrip(".")}.'
  return None


class Window:
  """Shows one frame after the other, no faster than they are to be seen.

  Where its user closes it, it shows nothing more.
  """

  def __init__(
    self,
    title: str,
    frames_per_second: float,
    toolkit: Any = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
  ):
    """Opens it.

    Args:
      title: of the window.
      frames_per_second: speed at which frames are shown.
      toolkit: what to use in place of tkinter.
      clock: seconds.
      sleep: waits for some.
    """
    if toolkit is None:
      import tkinter as toolkit
    self._toolkit = toolkit
    self._seconds = 1.0 / frames_per_second
    self._clock = clock
    self._sleep = sleep
    self._due = clock()
    self._root = toolkit.Tk()
    self._root.title(title)
    self._root.protocol('WM_DELETE_WINDOW', self.close)
    self._label = toolkit.Label(self._root)
    self._label.pack()
    self._image: Any = None

  def add(self, frame: np.ndarray) -> None:
    """Shows one uint8 frame of [height, width, 3] when its time has come."""
    if self._root is None:
      return
    self._sleep(max(0.0, self._due - self._clock()))
    self._due = max(self._due, self._clock()) + self._seconds
    scale = max(1, round(_HEIGHT / frame.shape[0]))
    frame = frame.repeat(scale, 0).repeat(scale, 1)
    header = f'P6 {frame.shape[1]} {frame.shape[0]} 255\n'.encode()
    # Tk shows nothing of an image that Python has given up.
    self._image = self._toolkit.PhotoImage(
      master=self._root, data=header + np.ascontiguousarray(frame).tobytes()
    )
    self._label.configure(image=self._image)
    self._root.update()

  def close(self) -> None:
    """Closes it; may be called again."""
    root, self._root = self._root, None
    if root is not None:
      root.destroy()
