"""An actor whose link is slow: a message takes longer than silence may last."""

import subprocess
import sys
import time

import pytest

from scalable_agent.transport import rpc
from tests import slow_link
from tests.ports import free_port
from tests.processes import Jobs, episodes

WIDE = """
import gymnasium
import numpy as np
from gymnasium import spaces

WIDTH = 1000


class Wide(gymnasium.Env):
  observation_space = spaces.Box(-1, 1, (WIDTH,), np.float32)
  action_space = spaces.Discrete(2)
  steps = 0

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    return np.zeros([WIDTH], np.float32), {}

  def step(self, action):
    self.steps += 1
    return np.zeros([WIDTH], np.float32), 1.0, self.steps % 5 == 0, False, {}


gymnasium.register(id='Wide-v0', entry_point=Wide)
"""
ENVIRONMENTS, BYTES_PER_STEP = 16, 4000
# All that is said of a peer that gives no sign of life.
SILENCE_S = rpc._KEEPALIVE + rpc._SILENCE


# In the second, what is said waits for a minute behind what was said before.
@pytest.mark.slow
@pytest.mark.parametrize(
  ('bytes_per_second', 'room', 'steps'),
  [
    (90_000, 4096, 50),
    pytest.param(60_000, 2**21, 80, marks=pytest.mark.nightly),
  ],
)
def test_an_unroll_arrives_over_a_slow_link(
  tmp_path, bytes_per_second, room, steps
):
  (tmp_path / 'wide_module.py').write_text(WIDE)
  port, near = free_port(), free_port()
  options = {
    'level_name': 'wide_module:Wide-v0',
    'num_actors': 1,
    'envs_per_actor': ENVIRONMENTS,
    'batch_size': ENVIRONMENTS,
    'unroll_length': steps,
    'total_environment_frames': 1e9,
    'learner_address': f'localhost:{port}',
  }
  command = [sys.executable, slow_link.__file__, near, 'localhost', port]
  command += [bytes_per_second, room]
  with (
    subprocess.Popen(
      [*map(str, command)], stdout=subprocess.PIPE, text=True
    ) as link,
    Jobs(tmp_path, options, tmp_path) as jobs,
  ):
    try:
      assert link.stdout.readline() == 'ready\n'
      learner = jobs.learner(inference='actor')
      learner.wait_for('Learner 0 listens')
      actor = jobs.actor(0, learner_address=f'localhost:{near}')
      learner.wait_for('Actor 0 has joined.')
      start = time.monotonic()
      learner.wait_for(lambda: episodes(jobs.logdir), 300)
      # It was as slow as that.
      least = ENVIRONMENTS * steps * BYTES_PER_STEP / bytes_per_second
      assert time.monotonic() - start > least > SILENCE_S
      assert 'Lost the learner' not in actor.output
      assert 'again' not in learner.output
    finally:
      link.kill()
