"""Workers with copies of the weights, one alone and many at once."""

import threading

import numpy as np
import pytest
import tensorflow as tf

from scalable_agent import optimizers
from scalable_agent.options import OptimizerOptions
from tests import waiting
from tests.learners import (
  FRAMES_PER_STEP,
  all_values,
  assert_all_close,
  gradients_by_hand,
  make_agent,
  make_batches,
  make_learner,
  make_optimizer,
  num_transitions,
  update_by_hand,
  weights,
)


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
