"""A learner that acts: its unrolls are those of an actor with an agent."""

import threading

import numpy as np
import pytest
import tree

from scalable_agent import actor as actor_lib
from scalable_agent import policies, queues, unroll_queue
from scalable_agent.transport import protocol, rpc, step_codec, step_service
from tests import acting, clockwork, learning
from tests.transport.test_unroll_codec import assert_same
from tests.waiting import DEADLINE_S, in_thread, wait_until

LENGTH = 3  # T
COLUMNS = 3
CAPACITY = 2
MOST_COLUMNS = 5
SEED = 4


def make_environment(columns=COLUMNS):
  return acting.ImageEnvironment(columns, episode_steps=4)


@pytest.fixture(scope='module')
def one():
  return acting.Acting(
    make_environment(), frame_stack=2, lstm=True, unroll_length=LENGTH
  )


@pytest.fixture(scope='module')
def layout(one):
  return step_codec.Layout(one.spec)


@pytest.fixture
def queue():
  queue = unroll_queue.UnrollQueue(COLUMNS, CAPACITY)
  yield queue
  queue.close()


class Learner:
  """A StepService whose policy a test may change.

  Attributes:
    policy: called by all unrollers; sampled with SEED.
    version: learner updates so far.
    made: (columns, level) of each unroller.
  """

  def __init__(self, one, queue, layout, **changes):
    self._one = one
    self.version = 0
    self.made = []
    self.policy = make_policy(one)
    self.service = learning.make_service(
      one,
      queue,
      kind=step_service.StepService,
      layout=layout,
      make_unroller=self._make_unroller,
      most_columns=MOST_COLUMNS,
      **changes,
    )

  def _make_unroller(self, columns, level):
    self.made.append((columns, level))
    return actor_lib.Unroller(
      lambda *arguments: self.policy(*arguments),
      self._one.agent.initial_state(columns),
      self._one.spec,
      columns,
      LENGTH,
      level,
      lambda: self.version,
    )


def make_policy(one):
  return policies.Direct(policies.make_step(one.agent, policies.Seeds(SEED)))


@pytest.fixture
def learner(one, queue, layout):
  return Learner(one, queue, layout)


@pytest.fixture
def make_actor(learner, layout):
  def make(task=0, of=None, **options):
    service = (of or learner).service
    return learning.ByHand(service, layout, (), task, **options)

  return make


class Environment:
  """Environments of an actor that does what it is told.

  Attributes:
    actions: that it was told so far.
  """

  def __init__(self, actor, layout, environment=None):
    self._actor = actor
    self._layout = layout
    self._environment = environment or make_environment()
    self._env_output = self._environment.reset()
    self.actions = []

  def step(self):
    """Asks what to do, and does it."""
    columns = len(self._env_output.step_type)
    answer = self._actor.step(self._env_output)
    self.actions.append(self._layout.read_action(answer, columns))
    self._env_output = self._environment.step(self.actions[-1])


def local_unrolls(one, count, columns=COLUMNS, level=0):
  """What an actor with an agent of its own makes, of the same draws."""
  local = actor_lib.Actor(
    make_environment(columns),
    make_policy(one),
    one.agent.initial_state(columns),
    LENGTH,
    level,
  )
  return [local.unroll() for _ in range(count)]


class TestUnrolls:
  @pytest.mark.parametrize('columns', [1, COLUMNS, MOST_COLUMNS])
  def test_are_those_of_an_actor_with_an_agent(
    self, one, layout, make_actor, columns
  ):
    queue = unroll_queue.UnrollQueue(columns, 100)
    recorded = []
    learner = Learner(one, queue, layout, record_unroll=recorded.append)
    actor = make_actor(of=learner, columns=columns).start()
    environment = Environment(actor, layout, make_environment(columns))
    count = 5
    for _ in range(count * LENGTH):
      environment.step()
    # The last one ends with what has not been shown yet.
    expected = local_unrolls(one, count, columns)
    unrolls = [queue.get() for _ in range(count - 1)]
    assert_same(unrolls, expected[:-1])
    assert_same(recorded, expected[:-1])
    environment.step()
    assert_same(queue.get(), expected[-1])

  def test_the_actions_are_those_of_the_unrolls(
    self, one, layout, learner, make_actor, queue
  ):
    environment = Environment(make_actor().start(), layout)
    for _ in range(LENGTH + 1):
      environment.step()
    np.testing.assert_array_equal(
      queue.get().agent_outputs.action[1:], environment.actions[:LENGTH]
    )

  def test_have_the_version_of_their_beginning(
    self, layout, learner, make_actor, queue
  ):
    environment = Environment(make_actor().start(), layout)
    for step in range(3 * LENGTH + 1):
      learner.version = 10 * step
      environment.step()
      if step and step % LENGTH == 0:
        version = 10 * (step - LENGTH)
        assert queue.get().policy_version.tolist() == [version] * COLUMNS

  def test_have_the_level_of_the_actor(self, one, layout, make_actor, queue):
    learner = Learner(one, queue, layout, deal=(0, 1, 1))
    for task, level in [(0, 0), (1, 1), (2, 1), (3, 0)]:
      environment = Environment(make_actor(task, learner).start(), layout)
      for _ in range(LENGTH + 1):
        environment.step()
      assert queue.get().level.tolist() == [level] * COLUMNS
    assert learner.made == [(COLUMNS, level) for level in (0, 1, 1, 0)]

  def test_of_actors_are_mixed_in_batches(self, one, layout, make_actor):
    queue = unroll_queue.UnrollQueue(2, CAPACITY)
    learner = Learner(one, queue, layout, num_actors=4, deal=range(4))
    for task in 1, 3:
      environment = Environment(make_actor(task, learner).start(), layout)
      # The last one asks what to do after the unroll was put.
      for _ in range(LENGTH + 1):
        environment.step()
    for _ in range(COLUMNS):
      assert queue.get().level.tolist() == [1, 3]

  def test_of_actors_do_not_touch_each_other(self, one, layout, make_actor):
    """Each has a state of its own, whatever the order of their calls."""
    queue = unroll_queue.UnrollQueue(COLUMNS, 100)
    learner = Learner(one, queue, layout)
    # Without draws: else their order would count.
    learner.policy = Greedy(make_policy(one))
    environments = [
      Environment(make_actor(task, learner).start(), layout)
      for task in range(2)
    ]
    rng = np.random.default_rng(0)
    counts = [0, 0]
    while min(counts) < 3 * LENGTH + 1:
      index = int(rng.integers(2))
      if counts[index] < 3 * LENGTH + 1:
        environments[index].step()
        counts[index] += 1
    np.testing.assert_array_equal(
      environments[0].actions, environments[1].actions
    )


class Greedy:
  """A policy that takes the likeliest action."""

  def __init__(self, policy):
    self._policy = policy

  def __call__(self, *arguments):
    output, state = self._policy(*arguments)
    action = np.argmax(output.policy_logits, -1).astype(np.int32)
    return output._replace(action=action), state


class TestSessions:
  def test_a_new_one_begins_a_new_state(
    self, one, layout, learner, make_actor, queue
  ):
    environment = Environment(make_actor().start(), layout)
    for _ in range(LENGTH - 1):
      environment.step()
    learner.policy = make_policy(one)
    environment = Environment(make_actor().start(), layout)
    for _ in range(2 * LENGTH + 1):
      environment.step()
    # Nothing is left of the unroll that the first had begun.
    assert_same([queue.get(), queue.get()], local_unrolls(one, 2))

  def test_beginning_twice_begins_a_new_state(
    self, one, layout, learner, make_actor, queue
  ):
    actor = make_actor().start()
    environment = Environment(actor, layout)
    for _ in range(LENGTH - 1):
      environment.step()
    learner.policy = make_policy(one)
    actor.begin()
    environment = Environment(actor, layout)
    for _ in range(LENGTH + 1):
      environment.step()
    assert_same([queue.get()], local_unrolls(one, 1))

  def test_an_unknown_one_is_to_register_again(self, layout, make_actor):
    with pytest.raises(rpc.Again, match=protocol.UNKNOWN):
      make_actor().step(make_environment().reset())

  def test_nothing_is_taken_before_it_has_begun(self, make_actor):
    actor = make_actor()
    actor.register()
    with pytest.raises(rpc.Refused, match='actor 0 has not begun'):
      actor.step(make_environment().reset())


class TestBegin:
  def test_the_welcome_says_who_evaluates_the_agent(self, make_actor):
    assert make_actor().register()['inference'] == 'learner'

  def test_no_weights_travel(self, one, layout, learner):
    actor = learning.ByHand(learner.service, layout, one.agent.variables)
    actor.register()
    with pytest.raises(rpc.Refused, match='weights: the learner has 0, the'):
      actor.begin()

  def test_other_arrays_are_named(self, learner):
    other = step_codec.Layout(clockwork.ClockworkEnvironment(1).spec)
    actor = learning.ByHand(learner.service, other)
    actor.register()
    with pytest.raises(
      rpc.Refused,
      match=r'observations: the learner has 0/observation \[6, 5, 1\] uint8, ',
    ):
      actor.begin()

  def test_more_columns_than_the_policy_takes_are_refused(
    self, learner, make_actor
  ):
    actor = make_actor(task=2, columns=MOST_COLUMNS + 1)
    actor.register()
    with pytest.raises(
      rpc.Refused,
      match=r'^--envs_per_actor=6 of actor 2 exceed the learner.s '
      '--inference_maximum_batch_size=5. Lower one, or raise the other',
    ):
      actor.begin()
    assert learner.made == []
    with pytest.raises(rpc.Refused, match='has not begun'):
      actor.step(make_environment(MOST_COLUMNS + 1).reset())


class TestStep:
  @pytest.mark.parametrize('length', [0, 7])
  def test_without_a_header_is_refused(self, make_actor, length):
    with pytest.raises(rpc.Refused, match='not a message of an actor'):
      make_actor().start().call('step', bytes(length))

  def test_of_another_length_is_refused_and_changes_nothing(
    self, one, layout, make_actor, queue
  ):
    actor = make_actor().start()
    environment = Environment(actor, layout)
    for _ in range(LENGTH + 1):
      header = protocol.SESSION.pack(actor.session)
      with pytest.raises(rpc.Refused, match='actor 0 sent no observation: 5 '):
        actor.call('step', header + bytes(5))
      environment.step()
    assert_same(queue.get(), local_unrolls(one, 1)[0])

  def test_that_no_environment_shows_is_refused(self, make_actor):
    env_output = tree.map_structure(np.array, make_environment().reset())
    env_output.reward[0] = np.nan
    with pytest.raises(rpc.Refused, match='reward is not finite'):
      make_actor().start().step(env_output)

  def test_waits_while_the_queue_is_full(self, layout, make_actor, queue):
    """Which is what slows actors down to the pace of the learner."""
    environment = Environment(make_actor().start(), layout)
    for _ in range(CAPACITY * LENGTH + LENGTH):
      environment.step()
    assert len(queue) == CAPACITY
    stepped = in_thread(environment.step)
    wait_until(lambda: len(queue) == CAPACITY + 1)
    assert not stepped.done()
    queue.get()
    stepped.result(DEADLINE_S)

  def test_waits_while_the_policy_does(self, learner, layout, make_actor):
    policy, asked = learner.policy, []
    released = threading.Event()

    def wait(*arguments):
      asked.append(arguments)
      assert released.wait(DEADLINE_S)
      return policy(*arguments)

    learner.policy = wait
    first = Environment(make_actor(0).start(), layout)
    other = make_actor(1).start()
    stepped = in_thread(first.step)
    wait_until(lambda: asked)
    assert learner.service.silence() == 0
    # Others are answered meanwhile.
    assert other.weights(has=0) == (0, b'')
    assert not stepped.done()
    released.set()
    stepped.result(DEADLINE_S)

  def test_a_policy_that_is_closed_is_a_learner_that_stops(
    self, learner, layout, make_actor
  ):
    environment = Environment(make_actor().start(), layout)
    environment.step()

    def closed(*arguments):
      raise queues.Closed

    learner.policy = closed
    with pytest.raises(rpc.Again, match=protocol.STOPPING):
      environment.step()
    learner.service.finish()
    with pytest.raises(rpc.Over):
      environment.step()

  def test_a_policy_that_is_closed_at_the_end_says_that_it_is_the_end(
    self, learner, layout, make_actor
  ):
    def closed(*arguments):
      learner.service.finish()
      raise queues.Closed

    learner.policy = closed
    with pytest.raises(rpc.Over):
      Environment(make_actor().start(), layout).step()
    assert learner.service.all_told(everybody=False)

  def test_a_closed_queue_is_a_learner_that_stops(
    self, layout, make_actor, queue
  ):
    environment = Environment(make_actor().start(), layout)
    for _ in range(LENGTH):
      environment.step()
    queue.close()
    with pytest.raises(rpc.Again, match=protocol.STOPPING):
      environment.step()

  def test_is_counted(self, learner, layout, make_actor):
    actor = make_actor().start()
    environment = Environment(actor, layout)
    for _ in range(2):
      environment.step()
    size = len(layout.write(make_environment().reset())) + protocol.SESSION.size
    assert learner.service.gauges() == {
      'actors': 1,
      'actors/failures': 0,
      'actors/agent_steps': 2 * COLUMNS,
      'actors/observation_bytes': 2 * size,
      'actors/weight_bytes': 0,
    }
