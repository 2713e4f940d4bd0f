"""An actor process: what it says of the policy that acted."""

import types

import numpy as np
import pytest
import tensorflow as tf

from scalable_agent import environments
from scalable_agent.runtimes import actor_process, impala_actor
from scalable_agent.transport import learner_link
from tests.configs import make_config, resolve


class Link:
  """A learner whose weights get newer by leaps."""

  VERSIONS = (3, 10, 11, 400)

  def __init__(self):
    self.sent = []
    self._versions = iter(self.VERSIONS)

  def register(self):
    return types.SimpleNamespace(frames=0, starts=0)

  def begin(self, layout, columns, variables):
    pass

  def update_weights(self):
    version = next(self._versions, None)
    if version is None:
      raise learner_link.Over
    return version

  def send(self, unroll):
    self.sent.append(unroll)


def test_every_unroll_has_the_version_of_the_weights_that_acted(monkeypatch):
  # Only before TensorFlow has begun.
  monkeypatch.setattr(tf.config, 'set_visible_devices', lambda *args: None)
  config = make_config(level_name='catch', network='mlp', num_actors=2)
  config = resolve(config, 'catch')
  levels = environments.parse_levels('catch')
  cluster = types.SimpleNamespace(task=0, learners=('localhost:8000',))
  link = Link()
  with pytest.raises(learner_link.Over):
    actor_process._act(config, levels, cluster, link, impala_actor.begin)
  versions = [unroll.policy_version for unroll in link.sent]
  expected = np.repeat([Link.VERSIONS], config.actors.envs_per_actor, 0).T
  np.testing.assert_array_equal(versions, expected)
