"""A run over four hosts: one of them is far away, one cut off for a while.

The hosts are network namespaces, so this needs root and iproute2. Where the
kernel has no netem, a process delays and drops the packets of the far host
instead (see `wire.py`), and a warning says so: then nothing is shown of links
that are faster than this process is.
"""

import signal
import subprocess
import sys
import time
import warnings

import pytest

from tests import hosts as hosts_lib
from tests.processes import (
  DEADLINE_S,
  Jobs,
  checkpoints,
  environment_variables,
  episodes,
)
from tests.waiting import in_thread

FAR = hosts_lib.Impairment(delay_ms=20, loss_percent=1)
CUT_S = 20

# Frames that nobody could leave out, and a torso of 450 KB, so that both ways
# carry something. Until they find a file, the levels keep a pace, so that the
# run cannot end before the test has seen enough.
FRAMES = """
import pathlib
import threading
import gymnasium
import numpy as np
import sonnet as snt
import tensorflow as tf
from gymnasium import spaces

HURRY = pathlib.Path(__file__).with_name('hurry')
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 84, 84, 1), np.uint8)


class Frames(gymnasium.Env):
  observation_space = spaces.Box(0, 255, IMAGES.shape[1:], np.uint8)
  action_space = spaces.Discrete(2)
  waiting = threading.Event()

  def __init__(self, pace):
    self.pace = pace  # Seconds.
    self.steps = 0

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    return IMAGES[0], {}

  def step(self, action):
    if not HURRY.exists():
      self.waiting.wait(self.pace)
    self.steps += 1
    image = IMAGES[self.steps % len(IMAGES)]
    return image, 1.0, self.steps % 5 == 0, False, {}


class Small(snt.Module):
  def __init__(self, observation):
    super().__init__()
    self._layer = snt.Linear(64)

  def __call__(self, observation):
    pixels = tf.cast(observation[:, ::2, ::2], tf.float32) / 255
    return tf.nn.relu(self._layer(snt.flatten(pixels)))


for name, pace in (('Near-v0', 0.02), ('Far-v0', 0.02), ('Lost-v0', 0.01)):
  gymnasium.register(id=name, entry_point=Frames, kwargs={'pace': pace})
"""

# Of one host each. An unroll of an environment has 150 KB: 590 KB in one
# message, and 4.7 MB in two.
ENVIRONMENTS = {'near': 4, 'far': 4, 'lost': 32}
OPTIONS = {
  'level_name': ','.join(
    f'frames_module:{host.title()}-v0' for host in ENVIRONMENTS
  ),
  'network': 'frames_module:Small',
  'num_actors': len(ENVIRONMENTS),
  'batch_size': 16,
  'unroll_length': 20,
  # Not even in 75 s at that pace, 200 frames a second.
  'total_environment_frames': 15_000,
  'learning_rate_schedule': 'constant',
  'save_checkpoint_secs': 2,
}

# A server that answers the end of what it gets, and who measures how long that
# takes.
SERVER = """
import socket
server = socket.create_server(('0.0.0.0', 8000))
print('listens', flush=True)
while True:
  with server.accept()[0] as client:
    while client.recv(65536):
      pass
    client.sendall(b'.')
"""
CLIENT = """
import socket, sys, time
host, count, timeout = sys.argv[1:]
start = time.monotonic()
try:
  with socket.create_connection((host, 8000), float(timeout)) as client:
    client.settimeout(60)
    client.sendall(bytes(int(count)))
    client.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b'.'
except TimeoutError:
  print('silence')
else:
  print(time.monotonic() - start)
"""

# The same with calls.
ANSWERS = """
import sys, threading
from scalable_agent.transport import rpc
forever = threading.Event()
def wait(request):
  print('waits', flush=True)
  forever.wait()
handlers = {'echo': lambda request: request[:1], 'wait': wait}
server = rpc.Server(sys.argv[1], handlers)
print('listens', flush=True)
forever.wait()
"""
CALLS = """
import sys
from scalable_agent.transport import rpc
rpc._CLIENT_OPTIONS = (
  ('grpc.keepalive_time_ms', 1000), ('grpc.keepalive_timeout_ms', 2000),
  *rpc._CLIENT_OPTIONS,
)
client = rpc.Client(sys.argv[1])
client.call('echo')
print('connected', flush=True)
method, size = sys.stdin.readline().split()
try:
  client.call(method, bytes(int(size)))
except rpc.Unreachable:
  print('unreachable', flush=True)
"""


@pytest.fixture(scope='module', autouse=True)
def _possible():
  if reason := hosts_lib.obstacle():
    pytest.skip(reason)


@pytest.fixture
def network():
  hosts = ['learner', *ENVIRONMENTS]
  with hosts_lib.Network(hosts, {'far': FAR}) as network:
    if network.emulated:
      warnings.warn(
        'this kernel has no netem: tests/wire.py delays and drops packets',
        stacklevel=1,
      )
    yield network


def hear(process, text):
  """Waits until a process has said something."""

  def listen():
    return any(line.strip() == text for line in process.stdout)

  assert in_thread(listen).result(DEADLINE_S), f'ended without: {text}'


def arrivals(jobs):
  """Returns by host how many episodes have been learned from."""
  levels = [row['level'] for row in episodes(jobs.logdir)]
  return {
    host: sum(level.endswith(f'{host.title()}-v0') for level in levels)
    for host in ENVIRONMENTS
  }


def wait_for_arrivals(jobs, learner, hosts):
  before = arrivals(jobs)
  learner.wait_for(
    lambda: all(arrivals(jobs)[host] > before[host] for host in hosts)
  )


class TestNetwork:
  """That the hosts of these tests are what they are said to be."""

  def test_one_link_is_bad_and_one_can_be_cut(self, network):
    hear(network.start('learner', sys.executable, '-c', SERVER), 'listens')

    def send(host, count, timeout=10):
      arguments = network.address('learner'), count, timeout
      client = [sys.executable, '-c', CLIENT, *map(str, arguments)]
      return network.run(host, *client).strip()

    megabyte = 2**20
    assert float(send('near', megabyte)) > 0
    # There and back, to connect and for the answer.
    assert float(send('far', megabyte)) > 4 * FAR.delay_ms / 1000
    assert network.sent_again('far') > 0

    network.cut('lost')
    assert send('lost', 1, timeout=2) == 'silence'
    assert float(send('near', 1)) > 0
    network.restore('lost')
    assert float(send('lost', 1)) > 0

  def test_nothing_is_left_behind_even_by_a_failure(self):
    network = hosts_lib.Network(['one', 'two'], {'two': FAR})

    def fail():
      with network:
        assert len(network.namespaces()) == 3
        process = network.start('two', sys.executable, '-c', SERVER)
        raise KeyError(process)

    with pytest.raises(KeyError) as failure:
      fail()
    assert failure.value.args[0].returncode == -signal.SIGKILL
    assert network.namespaces() == []


@pytest.mark.parametrize(
  ('method', 'size'), [('echo', 2**24), ('wait', 1)], ids=['request', 'answer']
)
def test_a_call_ends_although_nothing_arrives_any_more(network, method, size):
  address = f'{network.address("learner")}:8000'

  def start(host, program):
    return network.start(
      host,
      *(sys.executable, '-c', program, address),
      env=environment_variables(),
      stderr=subprocess.DEVNULL,
    )

  server = start('learner', ANSWERS)
  hear(server, 'listens')
  caller = start('lost', CALLS)
  hear(caller, 'connected')
  if method == 'echo':
    network.cut('lost')
  print(method, size, file=caller.stdin, flush=True)
  if method == 'wait':
    hear(server, 'waits')
    network.cut('lost')
  # Without a limit of its own: when the kernel gives up, in 15 minutes.
  hear(caller, 'unreachable')


@pytest.mark.parametrize(
  'inference',
  ['actor', pytest.param('learner', marks=pytest.mark.nightly)],
)
def test_a_run_over_hosts_survives_a_bad_link_and_a_cut(
  network, tmp_path, inference
):
  (tmp_path / 'frames_module.py').write_text(FRAMES)
  options = OPTIONS | {'learner_address': f'{network.address("learner")}:8000'}
  with Jobs(tmp_path, options, python_path=tmp_path) as jobs:
    learner = jobs.learner(
      prefix=network.inside('learner'), inference=inference
    )
    actors = [
      jobs.actor(task, prefix=network.inside(host), envs_per_actor=count)
      for task, (host, count) in enumerate(ENVIRONMENTS.items())
    ]
    wait_for_arrivals(jobs, learner, ENVIRONMENTS)

    network.cut('lost')
    cut = time.monotonic()
    # What was under way has arrived.
    wait_for_arrivals(jobs, learner, ['near', 'far'])
    before = arrivals(jobs)
    learner.wait_for(lambda: time.monotonic() > cut + CUT_S)
    after = arrivals(jobs)
    assert after['near'] > before['near']
    assert after['far'] > before['far']
    assert after['lost'] == before['lost']

    network.restore('lost')
    wait_for_arrivals(jobs, learner, ENVIRONMENTS)

    (tmp_path / 'hurry').touch()
    results = [job.finish() for job in (learner, *actors)]
  assert [result.status for result in results] == [0, 0, 0, 0], results
  assert max(checkpoints(jobs.logdir)) >= OPTIONS['total_environment_frames']
  assert results[0].output.count('is not encrypted') == 1
  for result in results:
    assert 'Traceback' not in result.output
  for result in results[1:]:
    assert 'Training is over' in result.output
