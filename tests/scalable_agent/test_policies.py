"""Policies: the same rows get the same answers, in whichever way."""

import numpy as np
import pytest
import tensorflow as tf
import tree

from scalable_agent import action_spaces, networks, policies, structures
from scalable_agent.structures import FIRST, MID
from tests.waiting import DEADLINE_S, in_thread, wait_until

NUM_ACTIONS = 4
ROWS = 3
SPEC = structures.EnvironmentSpec(
  observation=structures.TensorSpec((5,), np.dtype(np.float32)),
  action_space=action_spaces.Discrete(NUM_ACTIONS),
  frames_per_step=1,
)


@pytest.fixture(scope='module')
def agent():
  tf.random.set_seed(5)
  return networks.Agent(SPEC, frame_stack=2, lstm=True, last_action_reward=True)


@pytest.fixture(scope='module')
def step(agent):
  return policies.make_step(agent)


def inputs(agent, seed):
  """Returns StepOutput of [E, ...], last actions and a state."""
  rng = np.random.default_rng(seed)
  env_output = structures.StepOutput(
    step_type=rng.choice([FIRST, MID], ROWS).astype(np.int32),
    reward=rng.normal(size=ROWS).astype(np.float32),
    discount=np.ones([ROWS], np.float32),
    observation=rng.normal(size=(ROWS, 5)).astype(np.float32),
    info=structures.EpisodeInfo(
      np.zeros([ROWS], np.float32), np.zeros([ROWS], np.int32)
    ),
  )
  state = tree.map_structure(
    lambda x: rng.normal(size=x.shape).astype(np.float32),
    agent.initial_state(ROWS),
  )
  last_action = rng.integers(NUM_ACTIONS, size=ROWS).astype(np.int32)
  return env_output, last_action, state


def make_batched(agent, step, implementation, minimum=1, seed=1):
  return policies.Batched(
    step,
    policies.Seeds(seed),
    SPEC,
    agent.initial_state(ROWS),
    minimum_batch_size=minimum,
    maximum_batch_size=64,
    timeout_ms=None if minimum > 1 else 0,
    implementation=implementation,
  )


def numpy(nest):
  return tree.map_structure(np.asarray, nest)


def test_many_agents_of_a_process_cause_no_warning(caplog):
  # A class of its own: TensorFlow warns of each function twice at most.
  class Agent:
    def step(self, x):
      return x + 1

  for _ in range(20):
    assert policies.make_step(Agent())(tf.constant(1)).numpy() == 2
  assert 'retracing' not in caplog.text


IMPLEMENTATIONS = pytest.mark.parametrize('implementation', ['op', 'fallback'])


@IMPLEMENTATIONS
def test_a_single_caller_gets_exactly_what_direct_gives(
  agent, step, implementation
):
  direct = policies.Direct(step, policies.Seeds(1))
  batched = make_batched(agent, step, implementation)
  serving = in_thread(batched.serve)
  for seed in range(3):
    expected = numpy(direct(*inputs(agent, seed)))
    actual = numpy(batched(*inputs(agent, seed)))
    tree.map_structure(np.testing.assert_array_equal, actual, expected)
  batched.close()
  assert serving.result(DEADLINE_S) is None
  assert batched.statistics().rows == 3 * ROWS


@IMPLEMENTATIONS
def test_rows_of_one_batch_do_not_mix(agent, step, implementation):
  callers = 4
  direct = policies.Direct(step, policies.Seeds(1))
  batched = make_batched(agent, step, implementation, minimum=callers * ROWS)
  serving = in_thread(batched.serve)
  calls = [in_thread(batched, *inputs(agent, i)) for i in range(callers)]
  for i, call in enumerate(calls):
    output, state = numpy(call.result(DEADLINE_S))
    expected, expected_state = numpy(direct(*inputs(agent, i)))
    tree.map_structure(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
      (output.policy_logits, output.baseline, state),
      (expected.policy_logits, expected.baseline, expected_state),
    )
    assert output.action.shape == (ROWS,)
    assert np.isin(output.action, range(NUM_ACTIONS)).all()
  batched.close()
  serving.result(DEADLINE_S)
  assert batched.statistics().batches == 1


@IMPLEMENTATIONS
def test_close_wakes_callers_and_servers(agent, step, implementation):
  batched = make_batched(agent, step, implementation, minimum=64)
  serving = [in_thread(batched.serve) for _ in range(2)]
  calls = [in_thread(batched, *inputs(agent, i)) for i in range(3)]
  wait_until(lambda: batched.statistics().waiting_rows >= 3 * ROWS)
  batched.close()
  for call in calls:
    with pytest.raises(tf.errors.CancelledError):
      call.result(DEADLINE_S)
  for one in serving:
    assert one.result(DEADLINE_S) is None
  with pytest.raises(tf.errors.CancelledError):
    batched(*inputs(agent, 0))


@IMPLEMENTATIONS
def test_an_exception_of_the_agent_reaches_callers_and_server(
  agent, implementation
):
  def broken(*unused_args):
    raise RuntimeError('the agent is broken')

  batched = make_batched(agent, broken, implementation)
  serving = in_thread(batched.serve)
  with pytest.raises(tf.errors.UnknownError, match='the agent is broken'):
    batched(*inputs(agent, 0))
  with pytest.raises(RuntimeError, match='the agent is broken'):
    serving.result(DEADLINE_S)


@IMPLEMENTATIONS
def test_an_exception_of_the_agent_is_told_before_the_callers_see_it(
  agent, implementation
):
  def broken(*unused_args):
    raise RuntimeError('the agent is broken')

  def on_error(error):
    assert not call.done()
    told.append(error)

  told = []
  batched = make_batched(agent, broken, implementation)
  call = in_thread(batched, *inputs(agent, 0))
  serving = in_thread(batched.serve, on_error)
  assert told == [serving.exception(DEADLINE_S)]
  assert isinstance(told[0], RuntimeError)
  with pytest.raises(tf.errors.UnknownError, match='the agent is broken'):
    call.result(DEADLINE_S)


@IMPLEMENTATIONS
def test_an_exception_in_the_graph_reaches_callers_and_server(
  agent, implementation
):
  @tf.function(autograph=False)
  def broken(env_output, last_action, state, seed):
    output, state = agent.step(env_output, last_action, state, seed)
    baseline = tf.debugging.check_numerics(
      output.baseline / 0.0, 'the agent is broken'
    )
    return output._replace(baseline=baseline), state

  batched = make_batched(agent, broken, implementation)
  serving = in_thread(batched.serve)
  for failing in in_thread(batched, *inputs(agent, 0)), serving:
    with pytest.raises(tf.errors.InvalidArgumentError, match='is broken'):
      failing.result(DEADLINE_S)


@IMPLEMENTATIONS
def test_the_weights_are_live(agent, step, implementation):
  batched = make_batched(agent, step, implementation)
  serving = in_thread(batched.serve)
  before, _ = numpy(batched(*inputs(agent, 0)))
  (bias,) = [v for v in agent.trainable_variables if 'baseline/b' in v.name]
  bias.assign_add([1.0])
  after, _ = numpy(batched(*inputs(agent, 0)))
  bias.assign_sub([1.0])
  np.testing.assert_allclose(after.baseline, before.baseline + 1, rtol=1e-5)
  batched.close()
  serving.result(DEADLINE_S)


def test_the_agent_is_traced_once_for_one_size(agent):
  step = policies.make_step(agent)
  direct = policies.Direct(step, policies.Seeds(1))
  state = agent.initial_state(ROWS)
  for seed in range(5):
    env_output, last_action, _ = inputs(agent, seed)
    _, state = direct(env_output, last_action, state)
  assert step.experimental_get_tracing_count() == 1


class TestSeeds:
  def test_are_all_different_and_start_with_the_given_one(self):
    seeds = policies.Seeds(7)
    drawn = [tuple(seeds().tolist()) for _ in range(5)]
    assert drawn == [(7, i) for i in range(1, 6)]
    assert seeds.count == 5

  def test_go_on_from_a_count(self):
    seeds = policies.Seeds(7)
    for _ in range(3):
      seeds()
    other = policies.Seeds(7)
    other.count = seeds.count
    np.testing.assert_array_equal(other(), seeds())

  def test_threads_do_not_share_any(self):
    seeds = policies.Seeds(7)
    calls = [
      in_thread(lambda: [seeds()[1] for _ in range(500)]) for _ in range(4)
    ]
    drawn = [int(s) for call in calls for s in call.result(DEADLINE_S)]
    assert sorted(drawn) == list(range(1, 2001))


class LateArray:
  """An array that its device has not computed yet: whoever reads it waits."""

  def __init__(self, array, wait):
    self._array = array
    self._wait = wait

  def __array__(self, dtype=None, copy=None):
    self._wait()
    return np.array(self._array, dtype)


@pytest.mark.parametrize('kind', ['direct', 'batched'])
def test_seconds_include_the_wait_for_the_device(agent, monkeypatch, kind):
  clock = [0.0]
  monkeypatch.setattr(policies.time, 'perf_counter', lambda: clock[0])
  waited = []

  def wait():
    if not waited:
      clock[0] += 5
    waited.append(True)

  def step(env_output, last_action, state, seed):
    del env_output, last_action, seed
    clock[0] += 0.5
    baseline = LateArray(np.zeros([ROWS], np.float32), wait)
    action = np.zeros([ROWS], np.int32)
    logits = np.zeros([ROWS, NUM_ACTIONS], np.float32)
    return structures.AgentOutput(action, logits, baseline), state

  if kind == 'direct':
    policy = policies.Direct(step, policies.Seeds(1))
    policy(*inputs(agent, 0))
  else:
    policy = make_batched(agent, step, 'fallback')
    serving = in_thread(policy.serve)
    policy(*inputs(agent, 0))
    policy.close()
    serving.result(DEADLINE_S)
  assert policy.seconds == 5.5
