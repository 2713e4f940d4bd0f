"""The bookkeeping that all environments share, against hand-written tables."""

import numpy as np
import pytest

from scalable_agent import action_spaces, environments, structures
from scalable_agent.environments import batched
from scalable_agent.structures import FIRST, LAST, MID
from tests import clockwork
from tests.environments import contract

_LEVEL = environments.Level(environments.Suite(), 'scripted')


class ScriptedEnvironment(batched.BatchedEnvironment):
  """One environment that plays a list of Arrivals."""

  def __init__(self, script, seed=0):
    spec = structures.EnvironmentSpec(
      observation=structures.TensorSpec((), np.dtype(np.float32)),
      action_space=action_spaces.Discrete(2),
      frames_per_step=1,
    )
    super().__init__(_LEVEL, 1, spec, seed)
    self._script = list(script)

  def _reset(self):
    return np.zeros([1], np.float32)

  def _step(self, actions):
    del actions
    arrival = self._script.pop(0)
    if isinstance(arrival, BaseException):
      raise arrival
    return arrival


def arrival(reward=0.0, terminated=False, truncated=False, life_lost=None):
  return batched.Arrival(
    observation=np.zeros([1], np.float32),
    reward=np.array([reward]),
    terminated=np.array([terminated]),
    truncated=np.array([truncated]),
    life_lost=None if life_lost is None else np.array([life_lost]),
  )


def play(*script):
  environment = ScriptedEnvironment(script)
  outputs = [environment.reset()]
  outputs += [environment.step(np.zeros([1], np.int32)) for _ in script]
  return contract.stack(outputs)


class TestClockwork(contract.Contract):
  @pytest.fixture
  def subject(self):
    return contract.Subject(
      make=lambda seed: clockwork.ClockworkEnvironment(),
      steps=30,
      uses_seed=False,
    )


def test_clockwork_columns_are_what_the_design_says():
  environment = clockwork.ClockworkEnvironment(num_envs=2, episode_steps=2)
  outputs = [environment.reset()]
  outputs += [environment.step(np.array([t, 0])) for t in range(5)]
  played = contract.stack(outputs)
  np.testing.assert_array_equal(
    played.step_type.T,
    [[FIRST, MID, LAST, FIRST, MID, LAST], [FIRST, MID, MID, LAST, FIRST, MID]],
  )
  np.testing.assert_array_equal(
    played.observation[:, :, 0].T,
    [[0, 1, 2, 3, 4, 5], [100, 101, 102, 103, 104, 105]],
  )
  np.testing.assert_array_equal(
    played.reward.T, [[0, 1, 2, 0, 4, 5], [0, 101, 102, 103, 0, 105]]
  )
  # Environment 0 terminates, then is truncated; environment 1 is truncated.
  np.testing.assert_array_equal(
    played.discount.T, [[1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1]]
  )
  np.testing.assert_array_equal(
    played.info.episode_return.T,
    [[0, 1, 3, 0, 4, 9], [0, 101, 203, 306, 0, 105]],
  )
  np.testing.assert_array_equal(
    played.info.episode_step.T, [[0, 1, 2, 0, 1, 2], [0, 1, 2, 3, 0, 1]]
  )
  np.testing.assert_array_equal(np.stack(environment.actions)[:, 0], range(5))


def test_the_rewards_of_a_simulator_stay_its_own():
  rewards = np.array([7.0], np.float32)
  end = arrival(terminated=True)
  played = play(end, arrival()._replace(reward=rewards))
  np.testing.assert_array_equal(played.reward, [[0], [0], [0]])
  assert rewards == [7.0]


def test_a_simulator_that_exits_does_not_end_the_program_in_peace():
  with pytest.raises(
    RuntimeError, match=r'^scripted has called sys\.exit\(0\)$'
  ) as raised:
    play(arrival(), SystemExit(0))
  assert isinstance(raised.value.__cause__, SystemExit)


def broken(error, method):
  """An environment that has been reset, and of which a method fails now."""

  def fail(*args):
    raise error

  environment = ScriptedEnvironment([arrival()])
  environment.reset()
  setattr(environment, method, fail)
  return environment


def test_nor_does_one_that_exits_at_a_reset():
  with pytest.raises(
    RuntimeError, match=r'^scripted has called sys\.exit\(0\)$'
  ):
    broken(SystemExit(0), '_reset').reset()


def test_clockwork_loses_lives_in_mid_episode():
  environment = clockwork.ClockworkEnvironment(
    num_envs=1, episode_steps=5, life_losses=frozenset({2})
  )
  outputs = contract.stack(contract.play(environment, 3))
  np.testing.assert_array_equal(outputs.discount[:, 0], [1, 1, 0, 1])
  assert outputs.step_type[2, 0] == MID


def test_clockwork_goes_on_from_a_saved_state():
  environment = clockwork.ClockworkEnvironment()
  contract.play(environment, 7)
  state = environment.get_state()
  actions = contract.random_actions(environment, 9)
  expected = contract.stack([environment.step(a) for a in actions])
  restored = clockwork.ClockworkEnvironment()
  restored.set_state(state)
  actual = contract.stack([restored.step(a) for a in actions])
  contract.assert_equal(expected, actual)


def test_termination_has_no_future_and_truncation_has_one():
  assert play(arrival(terminated=True)).discount[1] == 0
  assert play(arrival(truncated=True)).discount[1] == 1


def test_termination_wins_over_truncation_in_the_same_step():
  played = play(arrival(terminated=True, truncated=True))
  assert played.step_type[1] == LAST
  assert played.discount[1] == 0


def test_a_lost_life_has_no_future_but_the_episode_goes_on():
  played = play(
    arrival(1.0, life_lost=False),
    arrival(1.0, life_lost=True),
    arrival(1.0, life_lost=False),
  )
  np.testing.assert_array_equal(played.step_type[:, 0], [FIRST, MID, MID, MID])
  np.testing.assert_array_equal(played.discount[:, 0], [1, 1, 0, 1])
  np.testing.assert_array_equal(played.info.episode_return[:, 0], [0, 1, 2, 3])


def test_a_lost_life_at_a_truncation_has_no_future():
  played = play(arrival(truncated=True, life_lost=True))
  assert played.step_type[1] == LAST
  assert played.discount[1] == 0


def test_whatever_comes_with_the_first_observation_is_ignored():
  played = play(
    arrival(1.0, terminated=True),
    arrival(5.0, terminated=True, truncated=True, life_lost=True),
    arrival(2.0),
  )
  np.testing.assert_array_equal(
    played.step_type[:, 0], [FIRST, LAST, FIRST, MID]
  )
  np.testing.assert_array_equal(played.reward[:, 0], [0, 1, 0, 2])
  np.testing.assert_array_equal(played.discount[:, 0], [1, 0, 1, 1])
  np.testing.assert_array_equal(played.info.episode_return[:, 0], [0, 1, 0, 2])
  np.testing.assert_array_equal(played.info.episode_step[:, 0], [0, 1, 0, 1])


def test_rewards_are_not_clipped_and_big_returns_keep_every_point():
  played = play(arrival(2.0**24), *[arrival(1.0) for _ in range(4)])
  assert played.reward[1] == 2.0**24
  assert played.info.episode_return[-1] == 2.0**24 + 4


def test_after_an_exception_the_environment_refuses_to_go_on():
  environment = ScriptedEnvironment([OSError('simulator')])
  environment.reset()
  with pytest.raises(OSError, match='simulator'):
    environment.step(np.zeros([1], np.int32))
  with pytest.raises(RuntimeError, match='has failed with an exception before'):
    environment.step(np.zeros([1], np.int32))
  environment.close()


@pytest.mark.parametrize('method', ['reset', 'set_state'])
def test_after_a_start_that_failed_it_refuses_to_go_on_too(method):
  environment = broken(OSError('simulator'), f'_{method}')
  arguments = [{'environment': None}] if method == 'set_state' else []
  with pytest.raises(OSError, match='simulator'):
    getattr(environment, method)(*arguments)
  with pytest.raises(RuntimeError, match='has failed with an exception before'):
    environment.step(np.zeros([1], np.int32))


@pytest.mark.parametrize('fails', [False, True])
def test_who_frees_things_hears_whether_all_was_well(fails):
  environment = broken(OSError('simulator'), '_reset')
  if fails:
    with pytest.raises(OSError, match='simulator'):
      environment.reset()
  heard = []
  environment._close = heard.append
  for _ in range(2):
    environment.close()
  assert heard == [not fails]


def test_the_first_number_that_is_no_action_is_refused():
  environment = ScriptedEnvironment([arrival()])
  environment.reset()
  with pytest.raises(ValueError, match=r'in 0 to 1, not 2'):
    environment.step(np.array([2]))
  environment.step(np.array([1]))


def test_before_a_reset_there_is_nothing_to_save_or_to_see():
  environment = ScriptedEnvironment([])
  environment._render_enabled = True
  for use in environment.get_state, environment.render:
    with pytest.raises(RuntimeError, match=r'call reset\(\) first'):
      use()


def test_an_environment_without_a_state_says_so():
  environment = ScriptedEnvironment([])
  environment.reset()
  with pytest.raises(NotImplementedError, match=r'scripted .* its state'):
    environment.get_state()


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_an_observation_that_is_no_number_is_an_error(value):
  wrong = arrival()._replace(observation=np.array([value], np.float32))
  environment = ScriptedEnvironment([arrival(), wrong])
  environment.reset()
  environment.step(np.zeros([1], np.int32))
  with pytest.raises(
    ValueError, match=f'^scripted has given an observation .* finite: {value}'
  ):
    environment.step(np.zeros([1], np.int32))
  with pytest.raises(RuntimeError, match='has failed'):
    environment.step(np.zeros([1], np.int32))


def test_the_part_that_is_no_number_is_named():
  environment = ScriptedEnvironment([])
  parts = {'a': np.ones([1], np.int32), 'b': (np.array([[1.0, np.nan]]),)}
  with pytest.raises(ValueError, match=r"observation\['b'\]\[0\] that is not"):
    environment._check_finite(parts)
