"""Unrolls of a real actor with a real agent, small enough for tests."""

from typing import Any

import numpy as np

from scalable_agent import action_spaces, actor, networks, policies, structures
from scalable_agent.environments import batched
from scalable_agent.transport import unroll_codec
from tests import clockwork


class ImageEnvironment(clockwork.ClockworkEnvironment):
  """Clocks that are seen through a camera: grey images, one frame each.

  No two frames are alike, and no pixel is 0, the padding of a frame stack.
  """

  HEIGHT, WIDTH = 6, 5

  def __init__(self, num_envs: int = 3, **kwargs):
    """See `ClockworkEnvironment`."""
    super().__init__(num_envs, **kwargs)
    image = structures.TensorSpec(
      (self.HEIGHT, self.WIDTH, 1), np.dtype(np.uint8)
    )
    self.spec = self.spec._replace(observation=image)

  def _images(self) -> Any:
    return self._screens()

  def _screens(self) -> np.ndarray:
    pixels = np.arange(self.HEIGHT * self.WIDTH)
    number = self._numbers().astype(np.int64)[:, None]
    images = 1 + (7 * number + 13 * pixels + number // 255) % 255
    return images.astype(np.uint8).reshape([-1, self.HEIGHT, self.WIDTH, 1])

  def _reset(self) -> Any:
    super()._reset()
    return self._images()

  def _step(self, actions: np.ndarray) -> batched.Arrival:
    return super()._step(actions)._replace(observation=self._images())


class Acting:
  """An environment, an agent and an actor with what describes its unrolls.

  Attributes:
    agent: networks.Agent.
    spec: EnvironmentSpec.
    layout: of the unrolls.
    version: policy version of the next unroll.
  """

  def __init__(
    self,
    environment: batched.BatchedEnvironment,
    frame_stack: int = 1,
    lstm: bool = False,
    unroll_length: int = 5,
    level: int = 0,
  ):
    """Makes the agent, and resets the environment."""
    self.agent = networks.Agent(
      environment.spec, network='mlp', frame_stack=frame_stack, lstm=lstm
    )
    self.spec = environment.spec
    self.layout = unroll_codec.Layout(
      environment.spec, self.agent.initial_state(1), unroll_length
    )
    self.version = 0
    self._actor = actor.Actor(
      environment,
      policies.Direct(policies.make_step(self.agent, policies.Seeds(1))),
      self.agent.initial_state(environment.num_envs),
      unroll_length,
      level=level,
      policy_version=lambda: self.version,
    )

  def unroll(self) -> structures.ActorOutput:
    """Returns the next unroll."""
    return self._actor.unroll()

  def unrolls(self, count: int) -> list[structures.ActorOutput]:
    """Returns the next `count` unrolls."""
    return [self.unroll() for _ in range(count)]


class NestEnvironment(ImageEnvironment):
  """Clocks that are seen in a nest of all kinds of parts.

  Its actions are of any space: what they are changes nothing.
  """

  def __init__(self, space: action_spaces.ActionSpace, num_envs: int = 3, **kw):
    """See `ClockworkEnvironment`; `space` is of the actions."""
    super().__init__(num_envs, **kw)
    i, f = np.dtype(np.int32), np.dtype(np.float32)
    nest = {
      'screen': self.spec.observation,
      'rest': (
        structures.TensorSpec((2,), f),
        structures.CategorySpec((), i, 5),
        structures.TextSpec((3,), i, 50),
      ),
    }
    self.spec = self.spec._replace(observation=nest, action_space=space)

  def _images(self) -> dict:
    number = self._numbers().astype(np.int64)
    pairs = np.stack([number, -number], -1).astype(np.float32)
    words = 1 + np.stack([number, 3 * number, 0 * number], -1) % 50
    words[number % 2 == 0, 1:] = 0
    rest = (pairs, (number % 5).astype(np.int32), words.astype(np.int32))
    return {'screen': self._screens(), 'rest': rest}

  def _step(self, actions: np.ndarray) -> batched.Arrival:
    return super()._step(np.zeros(self.num_envs, np.int32))
