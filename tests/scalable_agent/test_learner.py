"""The learner against an update written by hand."""

import dataclasses
import functools
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
import tree

from scalable_agent import (
  actor,
  learner,
  networks,
  objectives,
  optimizers,
  policies,
  structures,
)
from scalable_agent.options import OptimizerOptions, VTraceOptions
from scalable_agent.structures import LAST
from tests import clockwork, waiting

NUM_ENVS = 3
LENGTH = 7
FRAMES_PER_STEP = 4
LOSS_OPTIONS = VTraceOptions(discounting=0.9, entropy_cost=0.01)


def make_environment():
  return clockwork.ClockworkEnvironment(
    NUM_ENVS, num_actions=4, frames_per_step=FRAMES_PER_STEP
  )


def make_agent(lstm=False):
  tf.random.set_seed(2)
  return networks.Agent(make_environment().spec, lstm=lstm, frame_stack=2)


def make_optimizer():
  return optimizers.make_optimizer(
    OptimizerOptions(optimizer='rmsprop', epsilon=0.01)
  )


def constant(frames):
  del frames
  return tf.constant(0.001)


def make_learner(
  agent,
  schedule=constant,
  clip=0.0,
  updates_per_batch=1,
  reward_clipping='abs_one',
  given=None,
):
  return learner.Learner(
    agent,
    given or [make_optimizer()],
    schedule,
    functools.partial(
      objectives.vtrace_loss,
      dataclasses.replace(LOSS_OPTIONS, reward_clipping=reward_clipping),
    ),
    functools.partial(optimizers.clip_gradients, clip_gradient_norm=clip),
    frames_per_step=FRAMES_PER_STEP,
    updates_per_batch=updates_per_batch,
  )


def make_batches(agent, count, version=lambda: 0):
  """Unrolls of the agent on the clockwork; rewards scaled to a few units."""
  one = actor.Actor(
    make_environment(),
    policies.Direct(policies.make_step(agent), policies.Seeds(3)),
    agent.initial_state(NUM_ENVS),
    LENGTH,
    policy_version=version,
  )
  batches = []
  for _ in range(count):
    batch = one.unroll()
    env_outputs = batch.env_outputs._replace(
      observation=batch.env_outputs.observation / 100,
      reward=np.sin(batch.env_outputs.reward),
    )
    batches.append(batch._replace(env_outputs=env_outputs))
  return batches


def num_transitions(batch):
  return int((batch.env_outputs.step_type[:-1] != LAST).sum())


def weights(agent):
  return [v.numpy() for v in agent.trainable_variables]


def assert_all_close(one, two, rtol=1e-5, atol=1e-7):
  for a, b in zip(one, two, strict=True):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def gradients_by_hand(agent, batch, part='total'):
  """The gradients of a part of the loss, eagerly."""
  with tf.GradientTape() as tape:
    (logits, baselines), _ = agent.unroll(
      batch.env_outputs, batch.agent_outputs.action, batch.agent_state
    )
    loss = objectives.vtrace_loss(
      LOSS_OPTIONS, logits, baselines, batch.env_outputs, batch.agent_outputs
    )
    minimised = getattr(loss, part)
  return tape.gradient(minimised, agent.trainable_variables)


def update_by_hand(agent, optimizer, batch, learning_rate, clip=0.0):
  """One step of gradient descent, eagerly; returns the gradients' norm."""
  gradients = gradients_by_hand(agent, batch)
  norm = np.sqrt(sum(np.sum(np.square(g)) for g in gradients))
  if clip and norm > clip:
    gradients = [g * (clip / norm) for g in gradients]
  optimizer.learning_rate.assign(learning_rate)
  optimizer.apply(gradients, agent.trainable_variables)
  return norm


@pytest.mark.parametrize('lstm', [False, True], ids=['mlp', 'lstm'])
@pytest.mark.parametrize('updates_per_batch', [1, 3])
def test_an_update_is_the_one_written_by_hand(lstm, updates_per_batch):
  agent, copy = make_agent(lstm), make_agent(lstm)
  assert_all_close(weights(agent), weights(copy), rtol=0, atol=0)
  one = make_learner(agent, updates_per_batch=updates_per_batch)
  optimizer = make_optimizer()
  before = weights(agent)
  for batch in make_batches(copy, 3):
    values = one.update(batch)
    for _ in range(updates_per_batch):
      norm = update_by_hand(copy, optimizer, batch, 0.001)
    np.testing.assert_allclose(values['gradient_norm'], norm, rtol=1e-4)
  assert_all_close(weights(agent), weights(copy), rtol=1e-4, atol=1e-6)
  for old, new in zip(before, weights(agent), strict=True):
    assert np.abs(new - old).max() > 1e-4  # A hundred times the tolerance.


@pytest.mark.parametrize('clip', [0.5, 1e6])
def test_gradients_are_clipped_by_their_global_norm(clip):
  agent, copy = make_agent(), make_agent()
  one, optimizer = make_learner(agent, clip=clip), make_optimizer()
  (batch,) = make_batches(copy, 1)
  norm = update_by_hand(copy, optimizer, batch, 0.001, clip)
  values = one.update(batch)
  assert (norm > clip) == (clip == 0.5)
  np.testing.assert_allclose(values['gradient_norm'], norm, rtol=1e-4)
  assert_all_close(weights(agent), weights(copy), rtol=1e-4, atol=1e-6)


def test_frames_are_real_transitions_times_the_action_repeat():
  agent = make_agent()
  one = make_learner(agent, updates_per_batch=2)
  frames, ends = 0, 0
  for index, batch in enumerate(make_batches(agent, 4)):
    values = one.update(batch)
    frames += FRAMES_PER_STEP * num_transitions(batch)
    ends += LENGTH * NUM_ENVS - num_transitions(batch)
    assert int(values['frames']) == int(one.frames) == frames
    assert int(values['updates']) == int(one.updates) == index + 1
  assert ends > 0  # Columns between two episodes, which count for nothing.


def test_frames_are_counted_beyond_32_bits():
  agent = make_agent()
  one = make_learner(agent)
  one.frames.assign(2**40 + 1)
  (batch,) = make_batches(agent, 1)
  frames = int(one.update(batch)['frames'])
  assert frames == 2**40 + 1 + FRAMES_PER_STEP * num_transitions(batch)


def test_the_learning_rate_is_that_of_the_frames_before_the_update():
  agent, total = make_agent(), 300
  one = make_learner(
    agent, optimizers.learning_rate_schedule(0.01, total, 'linear')
  )
  frames = 0
  for batch in make_batches(agent, 5):
    values = one.update(batch)
    expected = 0.01 * max(0, 1 - frames / total)
    np.testing.assert_allclose(
      values['learning_rate'], expected, rtol=1e-5, atol=1e-9
    )
    np.testing.assert_allclose(
      one.optimizers[0].learning_rate, expected, rtol=1e-5, atol=1e-9
    )
    frames = int(values['frames'])
  assert frames > total
  old = weights(agent)
  one.update(batch)
  assert_all_close(weights(agent), old, rtol=0, atol=0)


def test_policy_lag_is_in_updates_since_the_unroll_began():
  agent = make_agent()
  one = make_learner(agent)
  one.updates.assign(10)
  (batch,) = make_batches(agent, 1)
  versions = np.array([10, 9, 5], np.int64)
  values = one.update(batch._replace(policy_version=versions))
  np.testing.assert_allclose(values['policy_lag'], (0 + 1 + 5) / 3, rtol=1e-6)
  assert float(values['max_policy_lag']) == 5


def test_metrics_are_scalars():
  agent = make_agent()
  (batch,) = make_batches(agent, 1)
  values = make_learner(agent).update(batch)
  assert {
    'total_loss',
    'entropy',
    'frames',
    'updates',
    'learning_rate',
    'gradient_norm',
    'policy_lag',
    'max_policy_lag',
  } <= set(values)
  for value in values.values():
    assert value.shape == []


def with_a_reward(batch, value):
  reward = batch.env_outputs.reward.copy()
  reward[3, 1] = value
  return batch._replace(env_outputs=batch.env_outputs._replace(reward=reward))


def all_values(one):
  variables = [*one.agent.variables, one.frames, one.updates]
  slots = [v.value for v in one.optimizers[0].variables]
  return [v.numpy() for v in [*variables, *slots]]


@pytest.mark.parametrize(
  ('lstm', 'xla'), [(True, False), (False, True)], ids=['lstm', 'xla']
)
def test_gradients_that_are_not_finite_change_nothing(lstm, xla):
  agent, other_agent = make_agent(lstm), make_agent(lstm)
  one, other = (
    make_learner(a, clip=40.0, updates_per_batch=2, reward_clipping='none')
    for a in (agent, other_agent)
  )
  if xla:
    for each in (one, other):
      each._update = tf.function(
        functools.partial(each._update_on_shards, each.agent, each.optimizers),
        autograph=False,
        jit_compile=True,
      )
  first, second = make_batches(other_agent, 2)
  one.update(first)
  before = all_values(one)
  # The greatest float: finite, but the gradients are not.
  for poison in (np.nan, np.finfo(np.float32).max):
    values = one.update(with_a_reward(second, poison))
    assert int(values['skipped_steps']) == 2
    assert not np.isfinite(values['gradient_norm'])
    assert_all_close(all_values(one), before, rtol=0, atol=0)
  # As if there had been no such batch.
  other.update(first)
  for each in (one, other):
    assert int(each.update(second)['skipped_steps']) == 0
  assert_all_close(all_values(one), all_values(other), rtol=0, atol=0)
  assert int(one.updates) == 2
  assert int(one.optimizers[0].iterations) == 4


def test_the_episodes_of_a_dropped_batch_do_not_count():
  agent = make_agent()
  one = make_learner(agent, reward_clipping='none')
  one.episodes, loss = tf.Variable(0, dtype=tf.int64), one._loss

  def with_episodes(*args):
    value = loss(*args)
    more = {'num_episodes': tf.constant(2.0)}
    return value._replace(metrics=value.metrics | more)

  one._loss = with_episodes
  first, second = make_batches(agent, 2)
  for batch, count in (
    (first, 2),
    (with_a_reward(second, np.nan), 2),
    (second, 4),
  ):
    one.update(batch)
    assert int(one.episodes) == count


def test_a_batch_counts_if_only_its_later_steps_are_skipped():
  agent = make_agent()
  one = make_learner(agent, updates_per_batch=3)
  gradients, steps = one._gradients, []

  def broken_in_the_second_step(*args):
    values, moments, metrics = gradients(*args)
    steps.append(None)
    if len(steps) > 1:
      metrics = metrics | {'gradient_norm': tf.constant(np.inf)}
    return values, moments, metrics

  one._gradients = broken_in_the_second_step
  (batch,) = make_batches(agent, 1)
  values = one.update(batch)
  assert int(values['skipped_steps']) == 2
  assert int(one.optimizers[0].iterations) == 1
  assert int(one.updates) == 1
  assert int(one.frames) == FRAMES_PER_STEP * num_transitions(batch)


def test_an_update_has_the_agent_observe_the_batch_once():
  class Observing:
    def __init__(self, agent):
      self.seen = tf.Variable(0.0)
      self._agent = agent

    def __getattr__(self, name):
      return getattr(self._agent, name)

    def moments(self, env_outputs):
      return [tf.reduce_sum(env_outputs.observation)]

    def observe(self, moments):
      self.seen.assign_add(moments[0])

  agent = Observing(make_agent())
  one = make_learner(agent, updates_per_batch=2, reward_clipping='none')
  first, second = make_batches(agent, 2)
  expected = [b.env_outputs.observation.sum() for b in (first, second)]
  one.update(first)
  np.testing.assert_allclose(agent.seen, expected[0], rtol=1e-5)
  # Nothing was learned from it.
  one.update(with_a_reward(second, np.nan))
  np.testing.assert_allclose(agent.seen, expected[0], rtol=1e-5)
  one.update(second)
  np.testing.assert_allclose(agent.seen, sum(expected), rtol=1e-5)


@pytest.mark.parametrize('lstm', [False, True], ids=['mlp', 'lstm'])
def test_updates_are_traced_once(lstm):
  agent = make_agent(lstm)
  one = make_learner(agent, updates_per_batch=2)
  for batch in make_batches(agent, 4):
    one.update(batch)
  assert one._update.experimental_get_tracing_count() == 1


def test_a_policy_uses_the_weights_of_the_learner():
  agent = make_agent()
  one = make_learner(agent)
  step = policies.make_step(agent)
  direct = policies.Direct(step, policies.Seeds(1))
  (batch,) = make_batches(agent, 1)
  env_output = tree.map_structure(lambda x: x[0], batch.env_outputs)
  arguments = env_output, np.zeros([NUM_ENVS], np.int32), batch.agent_state
  before, _ = direct(*arguments)
  one.update(batch)
  after, _ = direct(*arguments)
  assert step.experimental_get_tracing_count() == 1
  assert np.abs(after.policy_logits - before.policy_logits).max() > 1e-4
  (logits, _), _ = agent.unroll(
    tree.map_structure(lambda x: x[:1], batch.env_outputs),
    np.zeros([1, NUM_ENVS], np.int32),
    batch.agent_state,
  )
  np.testing.assert_allclose(after.policy_logits, logits[0], rtol=1e-5)


def test_checkpoint_items_restore_the_next_update(tmp_path):
  batches = make_batches(make_agent(), 4)
  agent = make_agent()
  one = make_learner(agent)
  for batch in batches[:2]:
    one.update(batch)
  path = tf.train.Checkpoint(**one.checkpoint_items()).write(
    str(tmp_path / 'saved')
  )
  for batch in batches[2:]:
    one.update(batch)

  tf.random.set_seed(99)
  other_agent = networks.Agent(make_environment().spec, frame_stack=2)
  other = make_learner(other_agent)
  status = tf.train.Checkpoint(**other.checkpoint_items()).read(path)
  status.assert_existing_objects_matched()
  for batch in batches[2:]:
    other.update(batch)
  assert_all_close(weights(other_agent), weights(agent), rtol=0, atol=0)
  assert int(other.frames) == int(one.frames)
  assert int(other.updates) == int(one.updates) == 4


def test_the_optimizer_is_built_before_the_first_update():
  one = make_learner(make_agent())
  assert isinstance(one.optimizers[0], keras.optimizers.Optimizer)
  # The iterations, the learning rate and a mean square for each weight.
  assert len(one.optimizers[0].variables) == 2 + len(
    one.agent.trainable_variables
  )


def test_a_batch_needs_no_more_than_the_update_reads():
  agent = make_agent()
  (batch,) = make_batches(agent, 1)
  values = make_learner(agent).update(
    batch._replace(
      level=None,
      env_outputs=batch.env_outputs._replace(
        info=structures.EpisodeInfo(None, None)
      ),
    )
  )
  assert np.isfinite(values['total_loss'])


class TestWorker:
  """Learns with a copy of the weights; all updates go to the learner's."""

  @pytest.mark.parametrize('lstm', [False, True], ids=['mlp', 'lstm'])
  def test_a_copy_that_is_up_to_date_learns_as_the_learner_does(self, lstm):
    one, other = make_learner(make_agent(lstm)), make_learner(make_agent(lstm))
    worker = one.make_worker(make_agent(lstm))
    for variable in worker.agent.variables:
      variable.assign(tf.ones_like(variable))
    for batch in make_batches(make_agent(lstm), 3):
      worker.synchronise()
      assert_all_close(weights(worker.agent), weights(one.agent), 0, 0)
      values, expected = worker.update(batch), other.update(batch)
      for name in ('total_loss', 'frames', 'updates', 'gradient_norm'):
        np.testing.assert_array_equal(values[name], expected[name])
    assert_all_close(all_values(one), all_values(other), 0, 0)

  def test_gradients_are_those_of_the_copy_however_old_it_is(self):
    agent, by_hand = make_agent(), make_agent()
    one, optimizer = make_learner(agent), make_optimizer()
    first, second = make_batches(by_hand, 2)
    worker = one.make_worker(make_agent())
    worker.synchronise()
    stale = weights(agent)
    one.update(first)
    update_by_hand(by_hand, optimizer, first, 0.001)
    gradients, fresh = (
      gradients_by_hand(a, second) for a in (worker.agent, by_hand)
    )
    worker.update(second)
    optimizer.apply(gradients, by_hand.trainable_variables)
    assert_all_close(weights(agent), weights(by_hand), rtol=1e-4, atol=1e-6)
    # The copy stays what it was, and it would have made a difference.
    assert_all_close(weights(worker.agent), stale, 0, 0)
    norms = [tf.linalg.global_norm(g) for g in (gradients, fresh)]
    assert abs(norms[0] - norms[1]) > 1e-3 * norms[1]

  def test_statistics_of_its_own_leave_the_shared_ones_alone(self):
    agent, by_hand = make_agent(), make_agent()
    one = make_learner(agent)
    worker = one.make_worker(make_agent(), [make_optimizer()])
    before = [v.numpy() for v in one.optimizers[0].variables]
    optimizer = make_optimizer()
    for batch in make_batches(make_agent(), 2):
      worker.synchronise()
      worker.update(batch)
      update_by_hand(by_hand, optimizer, batch, 0.001)
    after = [v.numpy() for v in one.optimizers[0].variables]
    assert_all_close(after, before, 0, 0)
    assert_all_close(weights(agent), weights(by_hand), rtol=1e-4, atol=1e-6)
    own, expected = (
      [v.numpy() for v in o.variables]
      for o in (worker.optimizers[0], optimizer)
    )
    assert_all_close(own, expected, rtol=1e-4, atol=1e-6)
    assert int(one.updates) == 2

  def test_two_optimizers_follow_the_two_parts_of_the_loss(self):
    agent, by_hand = make_agent(), make_agent()
    one = make_learner(agent, given=[make_optimizer(), make_optimizer()])
    worker = one.make_worker(make_agent())
    mine = [make_optimizer(), make_optimizer()]
    before = weights(agent)
    for batch in make_batches(make_agent(), 2):
      worker.synchronise()
      worker.update(batch)
      both = [gradients_by_hand(by_hand, batch, p) for p in PARTS]
      for optimizer, gradients in zip(mine, both, strict=True):
        optimizer.learning_rate.assign(0.001)
        pairs = zip(gradients, by_hand.trainable_variables, strict=True)
        present = [(g, v) for g, v in pairs if g is not None]
        # The policy's last layer has no part in the baseline's loss.
        assert len(present) < len(gradients)
        optimizer.apply(*zip(*present, strict=True))
    assert_all_close(weights(agent), weights(by_hand), rtol=1e-4, atol=1e-6)
    for old, new in zip(before, weights(agent), strict=True):
      assert np.abs(new - old).max() > 1e-4


PARTS = 'policy', 'baseline'
NUM_THREADS = 4
UPDATES_PER_THREAD = 250


def update_at_once(optimizer, gradient):
  """Has several workers update all weights at once with constant gradients.

  Args:
    optimizer: that they share.
    gradient: the value of all of them.

  Returns:
    The learner, whose weights were 0 before, and the transitions of an update.
  """
  one = make_learner(
    make_agent(), lambda frames: tf.constant(2.0**-9), given=[optimizer]
  )
  (batch,) = make_batches(make_agent(), 1)
  for variable in one.agent.trainable_variables:
    variable.assign(tf.zeros_like(variable))

  def constant_gradients(agent, num_parts, shard):
    del num_parts, shard
    variables = enumerate(agent.trainable_variables)
    gradients = {i: tf.fill(v.shape, gradient) for i, v in variables}
    transitions = tf.constant(float(num_transitions(batch)))
    metrics = {
      'num_transitions': transitions,
      'gradient_norm': tf.constant(1.0),
    }
    return [gradients], [], metrics

  one._gradients = constant_gradients
  workers = [one.make_worker(make_agent()) for _ in range(NUM_THREADS)]
  start = threading.Barrier(NUM_THREADS)

  def work(worker):
    worker.update(batch)  # To trace it takes long.
    start.wait(timeout=waiting.DEADLINE_S)
    for _ in range(UPDATES_PER_THREAD - 1):
      worker.synchronise()
      worker.update(batch)

  for thread in [waiting.in_thread(work, worker) for worker in workers]:
    thread.result(timeout=4 * waiting.DEADLINE_S)
  return one, num_transitions(batch)


class TestManyWorkersAtOnce:
  """What lock-free means: the claims of the learner's docstring, counted."""

  TOTAL = NUM_THREADS * UPDATES_PER_THREAD

  def test_no_addition_is_lost(self):
    # A mean square that stays 1, so that an update takes 2^-10 off each weight,
    # lr / sqrt(1 + 3): all sums are exact.
    optimizer = optimizers.make_optimizer(
      OptimizerOptions(optimizer='rmsprop', decay=1.0, epsilon=3.0)
    )
    one, transitions = update_at_once(optimizer, gradient=1.0)
    for weight in weights(one.agent):
      np.testing.assert_array_equal(weight, -self.TOTAL * 2.0**-10)
    assert int(one.updates) == self.TOTAL
    assert int(one.frames) == self.TOTAL * transitions * FRAMES_PER_STEP

  def test_statistics_lose_few_updates(self):
    # Of gradients that are 0 an update leaves 0.999 of each mean square: its
    # logarithm counts them.
    optimizer = optimizers.make_optimizer(
      OptimizerOptions(optimizer='rmsprop', decay=0.999)
    )
    update_at_once(optimizer, gradient=0.0)
    iterations, _, *squares = [np.asarray(v) for v in optimizer.variables]
    counts = [np.log(s.min()) / np.log(0.999) for s in squares]
    for count in [int(iterations), *counts]:
      assert 0.9 * self.TOTAL <= count <= self.TOTAL + 0.1
