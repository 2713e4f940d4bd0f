"""Policies: the same rows get the same answers, in whichever way."""

import json
import threading
import time

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
  return policies.make_step(agent, policies.Seeds(1))


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


def make_batched(agent, step, implementation, minimum=1):
  return policies.Batched(
    step,
    SPEC,
    agent.initial_state(ROWS),
    minimum_batch_size=minimum,
    maximum_batch_size=64,
    timeout_ms=None if minimum > 1 else 0,
    implementation=implementation,
  )


def broken_in_graph(agent):
  """Returns a step that fails when it is run."""

  def step(env_output, last_action, state):
    output, state = agent.step(
      env_output, last_action, state, tf.constant([1, 2])
    )
    baseline = tf.debugging.check_numerics(
      output.baseline / 0.0, 'the agent is broken'
    )
    return output._replace(baseline=baseline), state

  return step


def numpy(nest):
  return tree.map_structure(np.asarray, nest)


def test_many_agents_of_a_process_cause_no_warning(caplog):
  # A class of its own: TensorFlow warns of each function twice at most.
  class Agent:
    def step(self, x, last_action, state, seed):
      del last_action, state, seed
      return x + 1

  seeds = policies.Seeds(1)
  for _ in range(20):
    step = policies.make_step(Agent(), seeds)
    assert step(tf.constant(1), (), ()).numpy() == 2
  assert 'retracing' not in caplog.text


def test_each_call_draws_its_own_seed(agent):
  step = policies.make_step(agent, policies.Seeds(3))
  same = policies.Seeds(3)
  arguments = inputs(agent, 0)
  for _ in range(2):
    actual = numpy(step(*arguments))
    expected = numpy(agent.step(*arguments, same()))
    np.testing.assert_array_equal(actual[0].action, expected[0].action)


def test_neither_policy_shows_the_agent_discounts_or_statistics(agent):
  seen = []

  def step(env_output, last_action, state):
    seen.append((env_output.discount, env_output.info))
    return agent.step(env_output, last_action, state, tf.constant([1, 2]))

  policies.Direct(step)(*inputs(agent, 0))
  batched = make_batched(agent, step, 'op')
  serving = in_thread(batched.serve)
  batched(*inputs(agent, 0))
  batched.close()
  serving.result(DEADLINE_S)
  assert seen == [((), ())] * 2


IMPLEMENTATIONS = pytest.mark.parametrize('implementation', ['op', 'fallback'])


@IMPLEMENTATIONS
def test_a_single_caller_gets_exactly_what_direct_gives(agent, implementation):
  direct = policies.Direct(policies.make_step(agent, policies.Seeds(1)))
  step = policies.make_step(agent, policies.Seeds(1))
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
  direct = policies.Direct(step)
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
  # While its graph is made, which is before a batch is taken.
  def broken(*unused_args):
    raise RuntimeError('the agent is broken')

  batched = make_batched(agent, broken, implementation)
  call = in_thread(batched, *inputs(agent, 0))
  with pytest.raises(RuntimeError, match='the agent is broken'):
    in_thread(batched.serve).result(DEADLINE_S)
  with pytest.raises(tf.errors.CancelledError):
    call.result(DEADLINE_S)


@IMPLEMENTATIONS
def test_an_exception_of_the_agent_is_told_before_the_callers_see_it(
  agent, implementation
):
  def on_error(error):
    assert not call.done()
    told.append(error)

  told = []
  batched = make_batched(agent, broken_in_graph(agent), implementation)
  call = in_thread(batched, *inputs(agent, 0))
  serving = in_thread(batched.serve, on_error)
  failure = serving.exception(DEADLINE_S)
  assert told == [failure]
  assert isinstance(failure, tf.errors.InvalidArgumentError)
  with pytest.raises(tf.errors.InvalidArgumentError, match='is broken'):
    call.result(DEADLINE_S)


@IMPLEMENTATIONS
def test_an_exception_in_the_graph_reaches_callers_and_server(
  agent, implementation
):
  batched = make_batched(agent, broken_in_graph(agent), implementation)
  serving = in_thread(batched.serve)
  for failing in in_thread(batched, *inputs(agent, 0)), serving:
    with pytest.raises(tf.errors.InvalidArgumentError, match='is broken'):
      failing.result(DEADLINE_S)


@IMPLEMENTATIONS
def test_a_thread_that_is_told_to_stop_leaves_the_batcher_to_others(
  agent, step, implementation
):
  batched = make_batched(agent, step, implementation)
  stop = threading.Event()
  serving = in_thread(batched.serve, None, stop.is_set)
  batched(*inputs(agent, 0))
  stop.set()
  deadline = time.monotonic() + DEADLINE_S
  while not serving.done():
    # It asks after a batch.
    assert time.monotonic() < deadline
    call = in_thread(batched, *inputs(agent, 0))
    wait_until(lambda call=call: call.done() or serving.done())
  serving.result(DEADLINE_S)
  other = in_thread(batched.serve)
  call.result(DEADLINE_S)
  batched.close()
  other.result(DEADLINE_S)


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
  step = policies.make_step(agent, policies.Seeds(1))
  direct = policies.Direct(step)
  state = agent.initial_state(ROWS)
  for seed in range(5):
    env_output, last_action, _ = inputs(agent, seed)
    _, state = direct(env_output, last_action, state)
  assert step.experimental_get_tracing_count() == 1


class TestSeeds:
  def test_are_all_different_and_follow_from_the_given_one(self):
    one, same, other = (policies.Seeds(seed) for seed in (7, 7, 8))
    drawn = [tuple(one().numpy()) for _ in range(50)]
    assert drawn == [tuple(same().numpy()) for _ in range(50)]
    drawn += [tuple(other().numpy()) for _ in range(50)]
    assert len(set(drawn)) == 100

  def test_go_on_from_a_state(self):
    seeds = policies.Seeds(7)
    for _ in range(3):
      seeds()
    other = policies.Seeds(9)
    other.set_state(json.loads(json.dumps(seeds.get_state())))
    np.testing.assert_array_equal(other(), seeds())

  def test_go_on_behind_the_count_of_an_older_checkpoint(self):
    one, other = policies.Seeds(7), policies.Seeds(7)
    drawn = [tuple(one().numpy()) for _ in range(20)]
    other.set_state(100)
    assert tuple(other().numpy()) not in drawn

  def test_threads_do_not_share_any_also_in_a_graph(self):
    seeds = policies.Seeds(7)
    draw = tf.function(lambda: tf.stack([seeds() for _ in range(100)]))
    calls = [
      in_thread(lambda: [draw().numpy() for _ in range(20)]) for _ in range(4)
    ]
    drawn = [
      tuple(seed)
      for call in calls
      for some in call.result(DEADLINE_S)
      for seed in some
    ]
    assert len(set(drawn)) == len(drawn) == 4 * 20 * 100


class LateArray:
  """An array that its device has not computed yet: whoever reads it waits."""

  def __init__(self, array, wait):
    self._array = array
    self._wait = wait

  def __array__(self, dtype=None, copy=None):
    self._wait()
    return np.array(self._array, dtype)


def test_seconds_include_the_wait_for_the_device(agent, monkeypatch):
  clock = [0.0]
  monkeypatch.setattr(policies.time, 'perf_counter', lambda: clock[0])

  def wait():
    clock[0] += 5

  def step(env_output, last_action, state):
    del env_output, last_action
    clock[0] += 0.5
    baseline = LateArray(np.zeros([ROWS], np.float32), wait)
    action = np.zeros([ROWS], np.int32)
    logits = np.zeros([ROWS, NUM_ACTIONS], np.float32)
    return structures.AgentOutput(action, logits, baseline), state

  policy = policies.Direct(step)
  policy(*inputs(agent, 0))
  assert policy.seconds == 5.5
  policy(*inputs(agent, 1))
  assert policy.seconds == 11.0


@IMPLEMENTATIONS
def test_seconds_are_those_in_the_agent_and_no_waits_for_callers(
  agent, implementation
):
  began, went_on = threading.Event(), threading.Event()

  def slow(x):
    began.set()
    went_on.wait(DEADLINE_S)
    return x

  def step(env_output, last_action, state):
    output, state = agent.step(
      env_output, last_action, state, tf.constant([1, 2])
    )
    baseline = tf.numpy_function(slow, [output.baseline], tf.float32)
    return output._replace(baseline=tf.reshape(baseline, [-1])), state

  policy = make_batched(agent, step, implementation)
  serving = in_thread(policy.serve)
  start = time.perf_counter()
  call = in_thread(policy, *inputs(agent, 0))
  assert began.wait(DEADLINE_S)
  then = time.perf_counter()
  wait_until(lambda: time.perf_counter() > then + 0.2)
  assert policy.seconds == 0.0
  went_on.set()
  call.result(DEADLINE_S)
  wait_until(lambda: policy.seconds > 0)
  first = policy.seconds
  assert 0.2 <= first < time.perf_counter() - start
  policy(*inputs(agent, 1))
  wait_until(lambda: policy.seconds != first)
  assert policy.seconds > first
  policy.close()
  serving.result(DEADLINE_S)
