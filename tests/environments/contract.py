"""What every batched environment must do, after the manners of dm_env.

A test module derives a class from `Contract` and says how to make one.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tree

from scalable_agent import action_spaces, structures
from scalable_agent.environments import batched
from scalable_agent.structures import FIRST, LAST, MID


def random_actions(
  environment: batched.BatchedEnvironment, steps: int
) -> np.ndarray:
  """Returns [steps, E, ...] actions, the same ones on every call."""
  space, num_envs = environment.spec.action_space, environment.num_envs
  actions = space.sample(np.random.default_rng(7), steps * num_envs)
  return actions.reshape(steps, num_envs, *space.shape)


def idle_actions(environment: batched.BatchedEnvironment) -> np.ndarray:
  """Returns [E, ...] actions, the first of each choice or the number 0."""
  space = environment.spec.action_space
  return np.zeros([environment.num_envs, *space.shape], space.dtype)


def bad_actions(space: action_spaces.ActionSpace) -> list[tuple[Any, str]]:
  """Returns what is no action of a space, and what is said then."""
  if isinstance(space, action_spaces.Box):
    return [(np.nan, 'finite floats'), (np.inf, 'finite floats')]
  return [(bad, rf'in 0 to .*{bad}') for bad in (-1, 10**6)]


def play(
  environment: batched.BatchedEnvironment, steps: int
) -> list[structures.StepOutput]:
  """Returns the outputs of `reset` and of `steps` random steps."""
  outputs = [environment.reset()]
  for actions in random_actions(environment, steps):
    outputs.append(environment.step(actions))
  return outputs


def stack(outputs: list[structures.StepOutput]) -> structures.StepOutput:
  """Returns one StepOutput of [time, E, ...]."""
  return tree.map_structure(lambda *xs: np.stack(xs), *outputs)


def assert_equal(one: Any, two: Any) -> None:
  """Asserts that two nests of arrays are equal, element for element."""
  tree.map_structure(np.testing.assert_array_equal, one, two)


@dataclasses.dataclass
class Subject:
  """An environment to hold to the contract.

  Attributes:
    make: makes it from a seed.
    steps: random steps after which each environment has ended an episode.
    uses_seed: whether two seeds give two different games.
  """

  make: Callable[[int], batched.BatchedEnvironment]
  steps: int
  uses_seed: bool = True


class Contract:
  """Tests for any subject; derive, and define the fixture `subject`."""

  @pytest.fixture
  def subject(self) -> Subject:
    raise NotImplementedError

  @pytest.fixture
  def environment(
    self, subject: Subject
  ) -> Iterator[batched.BatchedEnvironment]:
    environment = subject.make(3)
    yield environment
    environment.close()

  @pytest.fixture
  def played(
    self, subject: Subject, environment: batched.BatchedEnvironment
  ) -> structures.StepOutput:
    outputs = stack(play(environment, subject.steps))
    assert (outputs.step_type == LAST).any(axis=0).all()
    return outputs

  def test_shapes_and_dtypes_are_those_of_the_spec(self, subject, environment):
    specs = structures.step_output_spec(environment.spec)

    def check(spec: structures.TensorSpec, array: np.ndarray):
      assert isinstance(array, np.ndarray)
      assert array.shape == (environment.num_envs, *spec.shape)
      assert array.dtype == spec.dtype

    for output in play(environment, subject.steps):
      tree.map_structure(check, specs, output)

  def test_reset_gives_first_everywhere(self, environment):
    output = environment.reset()
    assert (output.step_type == FIRST).all()
    assert (output.reward == 0).all()
    assert (output.discount == 1).all()
    assert (output.info.episode_return == 0).all()
    assert (output.info.episode_step == 0).all()

  def test_first_follows_last_and_only_last(self, played):
    ended, started = (
      played.step_type[:-1] == LAST,
      played.step_type[1:] == FIRST,
    )
    np.testing.assert_array_equal(ended, started)
    assert set(np.unique(played.step_type)) <= {FIRST, MID, LAST}

  def test_first_has_no_reward_and_a_future(self, played):
    first = played.step_type == FIRST
    assert (played.reward[first] == 0).all()
    assert (played.discount[first] == 1).all()

  def test_discounts_are_zero_or_one(self, played):
    assert np.isin(played.discount, (0.0, 1.0)).all()

  def test_info_counts_steps_and_raw_rewards_of_the_episode(self, played):
    total = np.zeros(played.reward.shape[1])
    count = np.zeros(played.reward.shape[1])
    for t in range(len(played.reward)):
      for i in range(played.reward.shape[1]):
        if played.step_type[t, i] == FIRST:
          total[i] = count[i] = 0
        else:
          total[i] += played.reward[t, i]
          count[i] += 1
      np.testing.assert_allclose(
        played.info.episode_return[t], total, rtol=1e-6, atol=1e-4
      )
      np.testing.assert_array_equal(played.info.episode_step[t], count)

  def test_returned_arrays_are_not_written_to_again(self, subject, environment):
    outputs = play(environment, 8)
    copies = tree.map_structure(np.copy, outputs)
    for actions in random_actions(environment, 8):
      environment.step(actions)
    environment.reset()
    assert_equal(outputs, copies)

  def test_actions_are_not_written_to(self, environment):
    environment.reset()
    (actions,) = random_actions(environment, 1)
    copy = actions.copy()
    environment.step(actions)
    assert_equal(actions, copy)

  def test_the_same_seed_gives_the_same_episodes(self, subject, environment):
    other = subject.make(3)
    try:
      one = stack(play(environment, subject.steps))
      two = stack(play(other, subject.steps))
    finally:
      other.close()
    assert_equal(one, two)

  def test_reset_goes_back_to_the_seed(self, environment):
    one, two = stack(play(environment, 5)), stack(play(environment, 5))
    assert_equal(one, two)

  def test_environment_i_has_the_seed_plus_i(self, subject, environment):
    other = subject.make(4)
    if not subject.uses_seed:
      other.close()
      pytest.skip('nothing is random')
    try:
      environment.reset(), other.reset()
      # The same actions for the environments that should be equal.
      for action in random_actions(environment, 20)[:, 0]:
        actions = np.stack([action] * environment.num_envs)
        one, two = environment.step(actions), other.step(actions)
    finally:
      other.close()
    tree.map_structure(
      lambda a, b: np.testing.assert_array_equal(a[1:], b[:-1]), one, two
    )
    differs = tree.map_structure(
      lambda a, b: not np.array_equal(a, b), one.observation, two.observation
    )
    assert any(tree.flatten(differs))

  def test_step_before_reset_says_so(self, environment):
    with pytest.raises(RuntimeError, match=r'call reset\(\) first'):
      environment.step(idle_actions(environment))

  def test_close_can_be_called_twice_and_ends_the_use(self, environment):
    environment.reset()
    environment.close()
    environment.close()
    with pytest.raises(RuntimeError, match='is closed'):
      environment.step(idle_actions(environment))
    with pytest.raises(RuntimeError, match='is closed'):
      environment.reset()

  def test_close_without_reset(self, environment):
    environment.close()

  def test_what_is_no_action_is_refused(self, environment):
    environment.reset()
    for bad, said in bad_actions(environment.spec.action_space):
      actions = idle_actions(environment)
      actions[-1] = bad
      with pytest.raises(
        ValueError, match=rf'^{re.escape(environment.level.name)}: .*{said}'
      ):
        environment.step(actions)
    environment.step(idle_actions(environment))

  def test_actions_of_a_wrong_shape_or_dtype_are_refused(self, environment):
    environment.reset()
    idle = idle_actions(environment)
    for bad in np.concatenate([idle, idle[:1]]), idle[..., None]:
      shapes = f'the shape {list(idle.shape)}, not {list(bad.shape)}'
      with pytest.raises(ValueError, match=re.escape(shapes)):
        environment.step(bad)
    with pytest.raises(ValueError, match=r'must be .*(integers|floats)'):
      environment.step(idle.astype(np.complex64))

  def test_render_without_asking_for_it_says_how_to_ask(self, environment):
    environment.reset()
    with pytest.raises(RuntimeError, match='render=True'):
      environment.render()


def assert_cut_off(environment, steps):
  """Resets one environment, which must be cut off after `steps` no-ops.

  Returns:
    The last output, whose future counts.
  """
  environment.reset()
  for step in range(1, steps + 1):
    output = environment.step(np.zeros([1], np.int32))
    assert (output.step_type[0] == LAST) == (step == steps)
  assert output.discount[0] == 1.0
  return output
