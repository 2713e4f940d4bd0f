"""benchmarks/soak.py: a small one, and that it sees what is wrong."""

import contextlib
import socket
import threading

import numpy as np
import pytest
import tree

from benchmarks.soaking import (
  checked_learner,
  episodes,
  processes,
  run,
  strangers,
  worlds,
)
from benchmarks.soaking.proxy import Loop, Proxy
from scalable_agent import actor
from scalable_agent import structures as structures_lib
from scalable_agent.transport import credentials, rpc
from tests import configs, programs
from tests.ports import free_port

DEADLINE_S = 30


@pytest.mark.slow
@pytest.mark.parametrize(
  'tls', [False, pytest.param(True, marks=pytest.mark.nightly)]
)
def test_a_run_survives_a_small_soak(tmp_path, tls):
  # Those that take half a minute each are for the command.
  long = 'outage', 'half-close', 'freeze the learner', 'stop the learner'
  settings = run.Settings(
    inference='learner',
    tls=tls,
    faults=60,
    pause=0.05,
    actors=3,
    without=(*long, 'full disk'),
    start=lambda command, env, output: programs.start(
      command, env, stdout=output
    ),
  )
  soak = run.Soak(settings, tmp_path)
  soak.run()
  assert soak.injected.total() == 60
  assert 'starts of the learner: ' in soak.summary()


class TestSteps:
  """What a learner of the soak is shown."""

  @pytest.fixture(scope='class')
  @classmethod
  def unrolls(cls):
    """Three of two environments each, over several episodes."""
    level = 2
    environment = configs.make_environment(worlds.level_name(level), 2, seed=1)
    rng = np.random.default_rng(0)

    def policy(env_output, last_action, state):
      action = rng.integers(4, size=len(last_action), dtype=np.int32)
      zeros = np.zeros([len(action)], np.float32)
      logits = np.zeros([len(action), 4], np.float32)
      return structures_lib.AgentOutput(action, logits, zeros), state

    acting = actor.Actor(environment, policy, (), 50, level)
    return [acting.unroll() for _ in range(3)]

  def test_those_of_environments_pass(self, unrolls):
    checker = checked_learner.Checker()
    for unroll in unrolls:
      checker.check(unroll)

  def test_one_that_is_lost_passes(self, unrolls):
    checker = checked_learner.Checker()
    checker.check(unrolls[0])
    checker.check(unrolls[2])

  @pytest.mark.parametrize('order', [[0, 0], [1, 0], [0, 2, 1]])
  def test_one_that_comes_twice_or_late_does_not(self, unrolls, order):
    checker = checked_learner.Checker()
    for index in order[:-1]:
      checker.check(unrolls[index])
    with pytest.raises(checked_learner.Mixed, match='goes back'):
      checker.check(unrolls[order[-1]])

  @pytest.mark.parametrize('shift', [1, -1])
  @pytest.mark.parametrize(
    'part', ['reward', 'step_type', 'observation', 'info', 'agent_outputs']
  )
  def test_parts_of_another_time_do_not(self, unrolls, part, shift):
    unroll = unrolls[1]
    inside = {'env_outputs': unroll.env_outputs}
    if part == 'agent_outputs':
      inside = {part: _rolled(unroll.agent_outputs, shift, axis=0)}
    else:
      moved = _rolled(getattr(unroll.env_outputs, part), shift, axis=0)
      inside = {'env_outputs': unroll.env_outputs._replace(**{part: moved})}
    with pytest.raises(checked_learner.Mixed):
      checked_learner.Checker().check(unroll._replace(**inside))

  def test_columns_of_two_environments_do_not(self, unrolls):
    outputs = unrolls[1].env_outputs
    mixed = tree.map_structure(
      lambda x, y: np.concatenate([x[:20], y[20:]]), outputs, _swapped(outputs)
    )
    with pytest.raises(checked_learner.Mixed, match='environments'):
      checked_learner.Checker().check(unrolls[1]._replace(env_outputs=mixed))

  def test_another_level_does_not(self, unrolls):
    with pytest.raises(checked_learner.Mixed, match='levels'):
      checked_learner.Checker().check(unrolls[0]._replace(level=[1, 2]))


def _rolled(nest, shift, axis):
  return tree.map_structure(lambda x: np.roll(x, shift, axis), nest)


def _swapped(nest):
  return _rolled(nest, 1, axis=1)


class TestEpisodes:
  HEADER = 'frames,seconds,level,episode_return,episode_length,episode_frames'

  @pytest.fixture
  def write(self, tmp_path):
    def write(*rows):
      """Replaces the file."""
      lines = [
        f'{f},1.0,{worlds.level_name(v)},{r},{n},{n}' for f, v, r, n in (rows)
      ]
      scratch = tmp_path / 'scratch'
      scratch.write_text('\n'.join([self.HEADER, *lines, '']))
      scratch.replace(tmp_path / 'episodes.csv')

    return write

  @pytest.fixture
  def log(self, tmp_path):
    return episodes.Episodes(tmp_path, 2)

  def test_are_of_a_level_and_a_process(self, log, write):
    assert list(log.read(0)) == []
    write((10, 0, 7030, 30), (20, 1, 12080, 40))
    assert list(log.read(0)) == [(0, 7), (1, 12)]
    assert list(log.read(0)) == []
    assert (log.frames, len(log), log.before(20)) == (20, 2, 1)

  @pytest.mark.parametrize(
    'row', [(10, 0, 7031, 30), (10, 0, 7010, 10), (10, 7, 7240, 30)]
  )
  def test_that_cannot_be_are_seen(self, log, write, row):
    write(row)
    with pytest.raises(processes.Violation):
      list(log.read(0))

  def test_of_earlier_frames_are_seen(self, log, write):
    write((10, 0, 30, 30), (9, 0, 30, 30))
    with pytest.raises(processes.Violation, match='backwards'):
      list(log.read(0))

  def test_beyond_a_checkpoint_may_go(self, log, write):
    write((10, 0, 30, 30), (20, 0, 1030, 30), (30, 0, 30, 30))
    assert len(list(log.read(0))) == 3
    write((10, 0, 30, 30), (20, 0, 1030, 30), (25, 0, 2030, 30))
    assert list(log.read(2)) == [(0, 2)]
    assert log.frames == 25

  @pytest.mark.parametrize('second', [(20, 0, 31, 31), (19, 0, 30, 30)])
  def test_before_a_checkpoint_may_not(self, log, write, second):
    write((10, 0, 30, 30), (20, 0, 30, 30))
    assert len(list(log.read(0))) == 2
    write((10, 0, 30, 30), second)
    with pytest.raises(processes.Violation, match='1 of 2 episodes are left'):
      list(log.read(2))


@pytest.fixture
def echo():
  """A port that sends back what comes."""

  def serve(connection):
    with contextlib.suppress(ConnectionError), connection:
      while data := connection.recv(1000):
        connection.sendall(data)

  def accept():
    while True:
      try:
        connection, _ = server.accept()
      except OSError:
        return
      threading.Thread(target=serve, args=[connection], daemon=True).start()

  with socket.create_server(('localhost', 0)) as server:
    threading.Thread(target=accept, daemon=True).start()
    yield server.getsockname()[1]


class TestProxy:
  @pytest.fixture
  def proxy(self, echo):
    with Loop() as loop:
      yield Proxy(loop, echo)

  def say(self, proxy, data):
    """Returns what comes back of so much, or before the connection ends."""
    address = 'localhost', proxy.port
    heard = b''
    with (
      contextlib.suppress(ConnectionError),
      socket.create_connection(address, DEADLINE_S) as connection,
    ):
      connection.sendall(data)
      while len(heard) < len(data) and (part := connection.recv(10_000)):
        heard += part
    return heard

  def test_passes_everything_on(self, proxy):
    data = np.random.default_rng(0).bytes(1_000_000)
    assert self.say(proxy, data[:1000]) == data[:1000]
    # Both directions at a time; more would fill the buffers of `echo`.
    assert self.say(proxy, data[:50_000]) == data[:50_000]

  def test_flips_one_bit(self, proxy):
    proxy.damage('flip', 3)
    assert self.say(proxy, b'0123456') == b'0122456'
    assert self.say(proxy, b'0123456') == b'0123456'

  def test_cuts_in_the_middle(self, proxy):
    proxy.damage('truncate', 1003)
    assert len(self.say(proxy, bytes(100_000))) <= 1003
    assert self.say(proxy, b'0123456') == b'0123456'

  def test_closes_one_direction(self, proxy):
    proxy.damage('half-close', 3)
    # The other end sees the end of what came, and answers that.
    assert self.say(proxy, b'0123456') == b'012'


class TestStrangers:
  """What a learner of the soak may not do."""

  def attack(self, handler):
    port = free_port()
    own = credentials.Credentials('token')
    server = rpc.Server(f'localhost:{port}', {'register': handler}, own)
    try:
      learner = strangers.Learner(port, own, 'actor', num_actors=1)
      attacker = strangers.Strangers(learner)
      attacker._calls(None, 'token', b'', 'register')
    finally:
      server.stop()

  def test_it_may_refuse(self):
    def refuse(request):
      raise rpc.Refused('no')

    self.attack(refuse)

  def test_it_may_not_break(self):
    with pytest.raises(strangers.Accepted, match='KeyError'):
      self.attack(lambda request: {}[request])

  def test_it_may_not_answer(self):
    with pytest.raises(strangers.Accepted):
      self.attack(lambda request: b'welcome')
