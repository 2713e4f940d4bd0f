"""The learner against an update written by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tree

from scalable_agent import (
  networks,
  optimizers,
  policies,
  structures,
)
from tests.learners import (
  FRAMES_PER_STEP,
  LENGTH,
  NUM_ENVS,
  all_values,
  assert_all_close,
  make_agent,
  make_batches,
  make_environment,
  make_learner,
  make_optimizer,
  num_transitions,
  update_by_hand,
  weights,
)


@pytest.mark.parametrize('lstm', [False, True], ids=['mlp', 'lstm'])
@pytest.mark.parametrize(
  ('updates_per_batch', 'jit_compile'), [(1, False), (3, False), (3, True)]
)
def test_an_update_is_the_one_written_by_hand(
  lstm, updates_per_batch, jit_compile
):
  agent, copy = make_agent(lstm), make_agent(lstm)
  assert_all_close(weights(agent), weights(copy), rtol=0, atol=0)
  one = make_learner(
    agent, updates_per_batch=updates_per_batch, jit_compile=jit_compile
  )
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


@pytest.mark.parametrize(
  ('lstm', 'xla'), [(True, False), (False, True)], ids=['lstm', 'xla']
)
def test_gradients_that_are_not_finite_change_nothing(lstm, xla):
  agent, other_agent = make_agent(lstm), make_agent(lstm)
  one, other = (
    make_learner(
      a,
      clip=40.0,
      updates_per_batch=2,
      reward_clipping='none',
      jit_compile=xla,
    )
    for a in (agent, other_agent)
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
  step = policies.make_step(agent, policies.Seeds(1))
  direct = policies.Direct(step)
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
