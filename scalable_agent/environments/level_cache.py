"""Compiled maps in a folder, for any number of processes at once."""

import contextlib
import hashlib
import os
import re
import shutil
import tempfile

from absl import logging


class LevelCache:
  """What DeepMind Lab takes as `level_cache`.

  One file for each key. A folder that cannot be used costs time, and no run.
  """

  def __init__(self, folder: str):
    """Initialises; the folder is made when there is something to keep.

    Args:
      folder: of the files.
    """
    self._folder = folder
    self._warned = False

  def fetch(self, key: str, pk3_path: str) -> bool:
    """Copies the map of a key to where the engine wants it, if there is one.

    Args:
      key: of the map.
      pk3_path: of the copy.

    Returns:
      Whether there is one.
    """
    try:
      shutil.copyfile(self._path(key), pk3_path)
    except FileNotFoundError:
      return False
    except OSError as error:
      self._warn(error)
      return False
    return True

  def write(self, key: str, pk3_path: str) -> None:
    """Keeps a map.

    Args:
      key: of the map.
      pk3_path: where the engine has written it.
    """
    path = self._path(key)
    if os.path.exists(path):
      return
    try:
      os.makedirs(self._folder, exist_ok=True)
      # Others must not find half of it, nor may two write the same file.
      descriptor, temporary = tempfile.mkstemp(dir=self._folder)
      os.close(descriptor)
      try:
        shutil.copyfile(pk3_path, temporary)
        os.replace(temporary, path)
      except OSError:
        with contextlib.suppress(OSError):
          os.remove(temporary)
        raise
    except OSError as error:
      self._warn(error)

  def _path(self, key: str) -> str:
    # Keys are hashes, but nothing says that they always will be.
    if not re.fullmatch(r'\w[\w.-]{0,100}', key):
      key = hashlib.sha256(key.encode()).hexdigest()
    return os.path.join(self._folder, key)

  def _warn(self, error: OSError) -> None:
    if self._warned:
      return
    self._warned = True
    logging.warning(
      '--level_cache=%s cannot be used: %s. Maps are compiled anew where it '
      'fails. Free some space, or choose another folder.',
      self._folder,
      error.strerror or error,
    )
