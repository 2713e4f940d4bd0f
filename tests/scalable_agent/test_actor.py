"""The actor on a clockwork environment: everything is in its column."""

import numpy as np
import pytest
import tree

from scalable_agent import actor, losses, structures
from scalable_agent.structures import FIRST, LAST
from tests import clockwork

NUM_ENVS = 3
NUM_ACTIONS = 5
LENGTH = 6  # T


class ClockworkPolicy:
  """A policy whose numbers tell from which observation they were made.

  Seeing observation n, the action is n % A, the baseline n, the logits
  n + 0.1 * a. Its state counts the steps from 7.

  Attributes:
    seen: observation, last action and state of each call.
  """

  def __init__(self):
    self.seen = []

  def __call__(self, env_output, last_action, state):
    number = env_output.observation[:, 0]  # [E]
    self.seen.append((number, last_action, state))
    output = structures.AgentOutput(
      action=(number % NUM_ACTIONS).astype(np.int32),
      policy_logits=(
        number[:, None] + 0.1 * np.arange(NUM_ACTIONS)[None]
      ).astype(np.float32),
      baseline=number.astype(np.float32),
    )
    return output, {'steps': state['steps'] + 1}


@pytest.fixture
def environment():
  return clockwork.ClockworkEnvironment(NUM_ENVS, num_actions=NUM_ACTIONS)


@pytest.fixture
def policy():
  return ClockworkPolicy()


def initial_state():
  return {'steps': np.full([NUM_ENVS], 7, np.int64)}


def make_actor(environment, policy, **kwargs):
  return actor.Actor(environment, policy, initial_state(), LENGTH, **kwargs)


def join(unrolls):
  """One long unroll: each one's column 0 is the last of the one before."""

  def concatenate(*parts):
    return np.concatenate([parts[0], *[p[1:] for p in parts[1:]]])

  return tree.map_structure(
    concatenate, *[(u.env_outputs, u.agent_outputs) for u in unrolls]
  )


def played_by_hand():
  """The same episodes without the actor: StepOutput of [time, E]."""
  environment = clockwork.ClockworkEnvironment(
    NUM_ENVS, num_actions=NUM_ACTIONS
  )
  outputs = [environment.reset()]
  for _ in range(4 * LENGTH):
    number = outputs[-1].observation[:, 0]
    outputs.append(environment.step((number % NUM_ACTIONS).astype(np.int32)))
  return tree.map_structure(lambda *x: np.stack(x), *outputs)


def assert_equal(one, two):
  tree.map_structure(np.testing.assert_array_equal, one, two)


def test_every_column_of_the_environment_is_recorded_once_and_in_order(
  environment, policy
):
  one = make_actor(environment, policy)
  env_outputs, _ = join([one.unroll() for _ in range(4)])
  expected = played_by_hand()
  assert_equal(env_outputs, expected)
  assert (expected.step_type == LAST).any(axis=0).all()
  # What time it is, is known without the environment, too.
  np.testing.assert_array_equal(
    env_outputs.observation[..., 0],
    np.arange(4 * LENGTH + 1)[:, None]
    + clockwork.STRIDE * np.arange(NUM_ENVS)[None],
  )


def test_the_last_column_is_the_first_of_the_next_unroll(environment, policy):
  one = make_actor(environment, policy)
  before = one.unroll()
  for _ in range(3):
    after = one.unroll()
    assert_equal(
      tree.map_structure(
        lambda x: x[-1], (before.env_outputs, before.agent_outputs)
      ),
      tree.map_structure(
        lambda x: x[0], (after.env_outputs, after.agent_outputs)
      ),
    )
    before = after


def test_the_recorded_action_is_the_one_that_led_to_its_column(
  environment, policy
):
  one = make_actor(environment, policy)
  _, agent_outputs = join([one.unroll() for _ in range(4)])
  received = np.stack(environment.actions)  # [time, E]
  np.testing.assert_array_equal(agent_outputs.action[1:], received)
  assert (received.std(axis=0) > 0).all()


def test_the_agents_outputs_were_computed_from_the_column_before(
  environment, policy
):
  one = make_actor(environment, policy)
  env_outputs, agent_outputs = join([one.unroll() for _ in range(4)])
  number = env_outputs.observation[:-1, :, 0]
  np.testing.assert_array_equal(agent_outputs.baseline[1:], number)
  np.testing.assert_array_equal(agent_outputs.action[1:], number % NUM_ACTIONS)
  np.testing.assert_array_equal(agent_outputs.policy_logits[1:, :, 0], number)


def test_before_the_first_step_the_agents_outputs_are_zeros(
  environment, policy
):
  unroll = make_actor(environment, policy).unroll()
  for value in tree.flatten(unroll.agent_outputs):
    assert (value[0] == 0).all()
  assert (unroll.env_outputs.step_type[0] == FIRST).all()


def test_the_policy_sees_the_action_that_led_to_its_observation(
  environment, policy
):
  one = make_actor(environment, policy)
  for _ in range(2):
    one.unroll()
  numbers, last_actions, states = zip(*policy.seen, strict=True)
  assert len(numbers) == 2 * LENGTH
  np.testing.assert_array_equal(last_actions[0], 0)
  for t in range(1, 2 * LENGTH):
    np.testing.assert_array_equal(last_actions[t], numbers[t - 1] % NUM_ACTIONS)
    np.testing.assert_array_equal(states[t]['steps'], 7 + t)


def test_the_state_of_an_unroll_is_the_one_before_its_first_column(
  environment, policy
):
  one = make_actor(environment, policy)
  for index in range(3):
    unroll = one.unroll()
    np.testing.assert_array_equal(
      unroll.agent_state['steps'], 7 + index * LENGTH
    )
    # The policy computed from column 0 with that state.
    number, _, state = policy.seen[index * LENGTH]
    np.testing.assert_array_equal(
      number, unroll.env_outputs.observation[0, :, 0]
    )
    np.testing.assert_array_equal(state['steps'], unroll.agent_state['steps'])


def test_the_version_is_that_of_the_beginning_of_the_unroll(
  environment, policy
):
  one = make_actor(
    environment, policy, policy_version=lambda: 100 + len(policy.seen)
  )
  for index in range(3):
    unroll = one.unroll()
    assert unroll.policy_version.dtype == np.int64
    np.testing.assert_array_equal(
      unroll.policy_version, [100 + index * LENGTH] * NUM_ENVS
    )


def test_versions_beyond_32_bits_are_kept(environment, policy):
  one = make_actor(environment, policy, policy_version=lambda: 2**40)
  np.testing.assert_array_equal(one.unroll().policy_version, [2**40] * NUM_ENVS)


def test_the_level_is_in_every_column(environment, policy):
  unroll = make_actor(environment, policy, level=4).unroll()
  np.testing.assert_array_equal(unroll.level, [4] * NUM_ENVS)
  assert unroll.level.dtype == np.int32


def test_shapes_and_dtypes_are_those_of_the_structures(environment, policy):
  unroll = make_actor(environment, policy).unroll()
  specs = (
    structures.step_output_spec(environment.spec),
    structures.agent_output_spec(environment.spec.action_space),
  )

  def check(spec, array):
    assert isinstance(array, np.ndarray)
    assert array.shape == (LENGTH + 1, NUM_ENVS, *spec.shape)
    assert array.dtype == spec.dtype

  tree.map_structure(check, specs[0], unroll.env_outputs)
  tree.map_structure(check, specs[1], unroll.agent_outputs)


def test_unrolls_are_not_written_to_again(environment, policy):
  one = make_actor(environment, policy)
  unroll = one.unroll()
  copy = tree.map_structure(np.copy, unroll)
  one.unroll()
  assert_equal(unroll, copy)


def test_with_align_every_transition_has_what_belongs_to_it(
  environment, policy
):
  one = make_actor(environment, policy)
  ignored = 0
  for _ in range(4):
    unroll = one.unroll()
    transitions = losses.align(
      unroll.env_outputs, unroll.agent_outputs, discounting=0.5
    )
    number = unroll.env_outputs.observation[:-1, :, 0]  # [T, E]
    step_type = unroll.env_outputs.step_type
    mask = transitions.mask.numpy()
    np.testing.assert_array_equal(mask, step_type[:-1] != LAST)
    np.testing.assert_array_equal(transitions.actions, number % NUM_ACTIONS)
    np.testing.assert_array_equal(
      transitions.behaviour_policy_logits[..., 0], number
    )
    # The reward of a transition is the number of the column it leads to.
    np.testing.assert_array_equal(
      transitions.rewards.numpy()[mask], (number + 1)[mask]
    )
    terminated = unroll.env_outputs.discount[1:] == 0
    assert (step_type[1:][terminated] == LAST).all()
    np.testing.assert_array_equal(
      transitions.discounts.numpy()[mask], np.where(terminated, 0, 0.5)[mask]
    )
    ignored += int((~mask).sum())
  assert ignored > 0


class TestUnroller:
  """The part of an actor that knows no environment."""

  def make(self, environment, policy, **kwargs):
    return actor.Unroller(
      policy, initial_state(), environment.spec, NUM_ENVS, LENGTH, **kwargs
    )

  def play(self, unroller, environment, count):
    """Returns what `observe` says of the next columns, and the actions."""
    said, actions = [], []
    for _ in range(count):
      actions.append(unroller.act())
      said.append(unroller.observe(environment.step(actions[-1])))
    return said, actions

  def test_makes_the_unrolls_of_an_actor(self, environment, policy):
    unroller = self.make(environment, policy, level=2)
    assert unroller.observe(environment.reset()) is None
    said, _ = self.play(unroller, environment, 3 * LENGTH)
    # One with every last column, and nothing in between.
    ends = [i for i, unroll in enumerate(said) if unroll is not None]
    assert ends == [LENGTH - 1, 2 * LENGTH - 1, 3 * LENGTH - 1]
    other = clockwork.ClockworkEnvironment(NUM_ENVS, num_actions=NUM_ACTIONS)
    one = make_actor(other, ClockworkPolicy(), level=2)
    assert_equal([said[i] for i in ends], [one.unroll() for _ in range(3)])

  def test_says_what_the_policy_does(self, environment, policy):
    unroller = self.make(environment, policy)
    unroller.observe(environment.reset())
    said, actions = self.play(unroller, environment, LENGTH)
    np.testing.assert_array_equal(actions, said[-1].agent_outputs.action[1:])
    assert actions[0].dtype == np.int32

  def test_asks_for_the_version_when_it_begins_to_act(
    self, environment, policy
  ):
    """While an unroll waits for room, newer weights may come."""
    version = [3]
    unroller = self.make(environment, policy, policy_version=lambda: version[0])
    unroller.observe(environment.reset())
    version[0] = 5
    (*_, first), _ = self.play(unroller, environment, LENGTH)
    version[0] = 8
    (*_, second), _ = self.play(unroller, environment, LENGTH)
    assert first.policy_version.tolist() == [5] * NUM_ENVS
    assert second.policy_version.tolist() == [8] * NUM_ENVS

  def test_a_policy_that_fails_once_costs_nothing(self, environment, policy):
    """The same question may be asked again."""
    failures = [True]

    def flaky(*arguments):
      if failures:
        failures.pop()
        raise RuntimeError('once')
      return policy(*arguments)

    unroller = self.make(environment, flaky)
    unroller.observe(environment.reset())
    with pytest.raises(RuntimeError, match='once'):
      unroller.act()
    (*_, unroll), _ = self.play(unroller, environment, LENGTH)
    other = clockwork.ClockworkEnvironment(NUM_ENVS, num_actions=NUM_ACTIONS)
    assert_equal(unroll, make_actor(other, ClockworkPolicy()).unroll())

  def test_goes_back_to_a_snapshot_between_unrolls(self, environment, policy):
    unroller = self.make(environment, policy)
    unroller.observe(environment.reset())
    self.play(unroller, environment, LENGTH)
    snapshot, state = unroller.snapshot(), environment.get_state()
    expected = self.play(unroller, environment, LENGTH)
    self.play(unroller, environment, LENGTH // 2)
    unroller.restore(snapshot)
    environment.set_state(state)
    assert_equal(self.play(unroller, environment, LENGTH), expected)


class TestSnapshot:
  def test_goes_on_as_if_nothing_had_happened(self, environment, policy):
    one = make_actor(environment, policy)
    one.unroll()
    snapshot = one.snapshot()
    expected = [one.unroll() for _ in range(2)]
    other = make_actor(
      clockwork.ClockworkEnvironment(NUM_ENVS, num_actions=NUM_ACTIONS),
      ClockworkPolicy(),
    )
    other.restore(snapshot)
    assert_equal([other.unroll() for _ in range(2)], expected)

  def test_is_not_changed_by_going_on(self, environment, policy):
    one = make_actor(environment, policy)
    one.unroll()
    snapshot = one.snapshot()
    copy = tree.map_structure(np.copy, snapshot)
    one.unroll()
    assert_equal(snapshot, copy)
