"""Environments of MuJoCo, without what it leaves in the working directory."""

import functools
import os
from typing import Any

import gymnasium
import mujoco
from absl import logging

from scalable_agent.environments import gymnasium_registry


@functools.cache
def _warn(text: str) -> None:
  logging.warning('MuJoCo: %s', text.strip())


# Else it writes each to the console and to MUJOCO_LOG.TXT, for every copy of
# an environment.
mujoco.set_mju_user_warning(_warn)


class MujocoFactory(gymnasium_registry.Factory):
  """Makes an environment that can be drawn without a display."""

  def make(self, **arguments: Any) -> gymnasium.Env:
    if not self.render:
      return super().make(**arguments)
    if not os.environ.get('DISPLAY'):
      # The other way to draw without one, OSMesa, takes the CPU.
      os.environ.setdefault('MUJOCO_GL', 'egl')
    return _Drawn(super().make(**arguments))


class _Drawn(gymnasium.Wrapper):
  """Says what to do if it cannot be drawn."""

  def render(self) -> Any:
    try:
      return super().render()
    except (mujoco.FatalError, AttributeError) as error:
      # PyOpenGL fails by what it did not find.
      raise gymnasium.error.DependencyNotInstalled(
        f'{error} (MUJOCO_GL={os.environ.get("MUJOCO_GL")}). Install libegl1 '
        'and set MUJOCO_GL=egl, or libosmesa6 and MUJOCO_GL=osmesa'
      ) from error
