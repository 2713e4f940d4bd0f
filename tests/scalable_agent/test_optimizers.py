"""Optimizers against TensorFlow 1's update rules, written out in numpy."""

import threading

import numpy as np
import pytest
import sonnet as snt
import tensorflow as tf

from scalable_agent import optimizers
from scalable_agent.options import OptimizerOptions
from tests import programs

DECAY = 0.99
EPSILON = 0.1
LEARNING_RATE = 0.05


class TensorFlow1RMSProp:
  """`tf.train.RMSPropOptimizer`, from its documented update."""

  def __init__(self, momentum=0.0, mean_square=1.0):
    self.momentum = momentum
    self.mean_square = mean_square
    self.moment = 0.0

  def update(self, gradient):
    """Returns what is subtracted from the weights."""
    self.mean_square = DECAY * self.mean_square + (1 - DECAY) * gradient**2
    self.moment = self.momentum * self.moment + (
      LEARNING_RATE * gradient / np.sqrt(self.mean_square + EPSILON)
    )
    return self.moment


def make_variables():
  """Variables of a Sonnet module, as the learner has them."""
  linear = snt.Linear(2)
  linear(tf.zeros([1, 3]))
  return list(linear.trainable_variables)


def make_gradients(variables, num_updates, scale=1.0, seed=0):
  """For each update one gradient per variable, of very different sizes."""
  random = np.random.RandomState(seed)
  return [
    [
      scale * random.normal(size=v.shape).astype(np.float32) * 10.0**i
      for i, v in enumerate(variables)
    ]
    for _ in range(num_updates)
  ]


def make_rmsprop(**kwargs):
  optimizer = optimizers.make_optimizer(
    OptimizerOptions(
      optimizer='rmsprop', decay=DECAY, epsilon=EPSILON, **kwargs
    )
  )
  optimizer.learning_rate.assign(LEARNING_RATE)
  return optimizer


def mean_squares(optimizer):
  return [v.numpy() for v in optimizer.variables if 'velocity' in v.name]


# RMSProp.


@pytest.mark.parametrize('momentum', [0.0, 0.9])
@pytest.mark.parametrize('mean_square', [0.0, 1.0])
@pytest.mark.parametrize('where', ['eager', 'graph', 'graph, built before'])
def test_rmsprop_updates_as_tensorflow_1(momentum, mean_square, where):
  variables = make_variables()
  weights = [v.numpy().astype(np.float64) for v in variables]
  optimizer = make_rmsprop(momentum=momentum, rmsprop_initial_slot=mean_square)
  reference = [TensorFlow1RMSProp(momentum, mean_square) for _ in variables]
  apply = optimizer.apply
  if where == 'graph, built before':
    optimizer.build(variables)
  if where != 'eager':
    apply = tf.function(apply)
  for gradients in make_gradients(variables, num_updates=4):
    apply([tf.constant(g) for g in gradients], variables)
    for i, gradient in enumerate(gradients):
      weights[i] -= reference[i].update(gradient.astype(np.float64))
    for variable, expected in zip(variables, weights, strict=True):
      np.testing.assert_allclose(variable, expected, rtol=1e-4, atol=1e-6)


def test_mean_squares_start_at_one_after_build():
  variables = make_variables()
  optimizer = make_rmsprop()
  optimizer.build(variables)
  slots = mean_squares(optimizer)
  assert sorted(s.shape for s in slots) == sorted(
    tuple(v.shape) for v in variables
  )
  for slot in slots:
    assert (slot == 1).all()


def test_only_mean_squares_start_at_one():
  variables = make_variables()
  optimizer = make_rmsprop(momentum=0.9)
  optimizer.build(variables)
  moments = [v.numpy() for v in optimizer.variables if 'momentum' in v.name]
  assert len(moments) == len(variables)
  for moment in moments:
    assert (moment == 0).all()


def test_the_first_step_from_zero_is_3_3_times_larger():
  steps = []
  for mean_square in (0.0, 1.0):
    variable = tf.Variable([0.0])
    optimizer = make_rmsprop(rmsprop_initial_slot=mean_square)
    optimizer.apply([tf.constant([1e-3])], [variable])
    steps.append(-variable.numpy()[0])
  np.testing.assert_allclose(steps[1], LEARNING_RATE * 1e-3 / 1.09**0.5, 1e-4)
  np.testing.assert_allclose(steps[0] / steps[1], 10.9**0.5, 1e-4)


def test_epsilon_is_inside_the_root():
  variable = tf.Variable([0.0])
  optimizer = make_rmsprop(rmsprop_initial_slot=0.0)
  optimizer.apply([tf.constant([1e-6])], [variable])
  inside = -LEARNING_RATE * 1e-6 / EPSILON**0.5
  outside = -LEARNING_RATE * 1e-6 / EPSILON
  np.testing.assert_allclose(variable, [inside], rtol=1e-4)
  assert abs(outside / inside) > 3


def test_a_copy_by_config_keeps_the_start_value():
  optimizer = make_rmsprop(rmsprop_initial_slot=0.25)
  copy = optimizers.RMSProp.from_config(optimizer.get_config())
  copy.build(make_variables())
  for slot in mean_squares(copy):
    assert (slot == 0.25).all()


@pytest.mark.parametrize('name', optimizers.OPTIMIZERS)
@pytest.mark.parametrize('restore', ['before build', 'after build'])
def test_a_checkpoint_continues_as_if_nothing_had_happened(
  name, restore, tmp_path
):
  def make():
    variables = make_variables()
    optimizer = optimizers.make_optimizer(
      OptimizerOptions(optimizer=name, momentum=0.9)
    )
    optimizer.learning_rate.assign(LEARNING_RATE)
    return variables, optimizer

  variables, optimizer = make()
  before, after = np.split(
    np.array(make_gradients(variables, num_updates=4), dtype=object), 2
  )
  for gradients in before:
    optimizer.apply(list(gradients), variables)
  path = tf.train.Checkpoint(optimizer=optimizer, variables=variables).write(
    str(tmp_path / 'checkpoint')
  )
  saved = [v.numpy() for v in optimizer.variables]
  assert len(saved) == 2 + 2 * len(variables)

  other_variables, other = make()
  if restore == 'after build':
    other.build(other_variables)
  status = tf.train.Checkpoint(optimizer=other, variables=other_variables).read(
    path
  )
  if restore == 'before build':
    other.build(other_variables)
  status.assert_consumed()
  for value, expected in zip(other.variables, saved, strict=True):
    np.testing.assert_array_equal(value.numpy(), expected)
  for gradients in after:
    optimizer.apply(list(gradients), variables)
    other.apply(list(gradients), other_variables)
  for value, expected in zip(other_variables, variables, strict=True):
    np.testing.assert_array_equal(value, expected)


_TWO_REPLICAS = """
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices('CPU')[0]
tf.config.set_logical_device_configuration(
  cpu, [tf.config.LogicalDeviceConfiguration()] * 2
)
from scalable_agent import optimizers
from scalable_agent.options import OptimizerOptions

strategy = tf.distribute.MirroredStrategy(['/cpu:0', '/cpu:1'])
assert strategy.num_replicas_in_sync == 2
with strategy.scope():
  variable = tf.Variable([0.0, 0.0])
  optimizer = optimizers.make_optimizer(OptimizerOptions(optimizer='rmsprop'))
  optimizer.build([variable])
optimizer.learning_rate.assign(0.05)

@tf.function
def update():
  def replica():
    context = tf.distribute.get_replica_context()
    index = context.replica_id_in_sync_group
    gradient = tf.constant([1.0, 4.0]) * tf.cast(1 + index, tf.float32)
    optimizer.apply([context.all_reduce('sum', gradient)], [variable])
  strategy.run(replica)

weights, mean_square = np.zeros(2), np.ones(2)
for _ in range(3):
  update()
  gradient = np.array([3.0, 12.0])  # Summed once, and not by Keras again.
  mean_square = 0.99 * mean_square + 0.01 * gradient ** 2
  weights -= 0.05 * gradient / np.sqrt(mean_square + 0.1)
for copy in strategy.experimental_local_results(variable):
  np.testing.assert_allclose(copy, weights, rtol=1e-5)
print('both replicas agree')
"""


def test_replicas_take_summed_gradients_and_share_mean_squares():
  # In a process of its own: logical devices are fixed once TensorFlow runs.
  process = programs.run(['-c', _TWO_REPLICAS], timeout=120)
  assert process.stdout.endswith('both replicas agree\n'), process.stdout


# Adam, and the choice.


def test_adam_updates_as_in_its_paper():
  variables = make_variables()
  optimizer = optimizers.make_optimizer(
    OptimizerOptions(optimizer='adam', epsilon=1e-3)
  )
  optimizer.learning_rate.assign(LEARNING_RATE)
  weights = [v.numpy().astype(np.float64) for v in variables]
  means, squares = [0.0, 0.0], [0.0, 0.0]
  updates = make_gradients(variables, num_updates=3, scale=0.1)
  for n, gradients in enumerate(updates, start=1):
    optimizer.apply([tf.constant(g) for g in gradients], variables)
    for i, g in enumerate(gradients):
      # Kingma and Ba 2015, end of section 2: epsilon is that of epsilon hat.
      means[i] = 0.9 * means[i] + 0.1 * g
      squares[i] = 0.999 * squares[i] + 0.001 * g.astype(np.float64) ** 2
      alpha = LEARNING_RATE * np.sqrt(1 - 0.999**n) / (1 - 0.9**n)
      weights[i] -= alpha * means[i] / (np.sqrt(squares[i]) + 1e-3)
  for variable, expected in zip(variables, weights, strict=True):
    np.testing.assert_allclose(variable, expected, rtol=1e-4, atol=1e-6)


def test_an_unknown_optimizer_raises_and_names_the_known_ones():
  with pytest.raises(ValueError, match=r"'sgd'.*rmsprop, adam"):
    optimizers.make_optimizer(OptimizerOptions(optimizer='sgd'))


@pytest.mark.parametrize('name', optimizers.OPTIMIZERS)
def test_nothing_moves_before_a_learning_rate_is_assigned(name):
  variable = tf.Variable([1.0])
  optimizer = optimizers.make_optimizer(OptimizerOptions(optimizer=name))
  apply = tf.function(optimizer.apply)
  apply([tf.constant([5.0])], [variable])
  assert variable.numpy()[0] == 1.0
  optimizer.learning_rate.assign(LEARNING_RATE)
  apply([tf.constant([5.0])], [variable])  # The graph reads the variable.
  assert variable.numpy()[0] < 1.0


# Schedules.


def test_a_linear_schedule_ends_at_zero_and_stays_there():
  schedule = optimizers.learning_rate_schedule(6e-4, 1000)
  for frames, expected in (
    (0, 6e-4),
    (250, 4.5e-4),
    (999, 6e-7),
    (1000, 0.0),
    (1004, 0.0),
    (10**12, 0.0),
  ):
    rate = schedule(tf.constant(frames, tf.int64))
    assert rate.dtype == tf.float32
    assert rate.shape == ()
    np.testing.assert_allclose(rate, expected, rtol=1e-4)


def test_a_late_linear_schedule_is_constant_for_three_quarters():
  schedule = optimizers.learning_rate_schedule(6e-4, 4000, 'late_linear')
  for frames, expected in (
    (0, 6e-4),
    (3000, 6e-4),
    (3250, 4.5e-4),
    (3999, 6e-7),
    (4000, 0.0),
    (10**12, 0.0),
  ):
    rate = schedule(tf.constant(frames, tf.int64))
    np.testing.assert_allclose(rate, expected, rtol=1e-4)


def test_a_constant_schedule_never_changes():
  schedule = optimizers.learning_rate_schedule(6e-4, 1000, 'constant')
  for frames in (0, 999, 1000, 10**12):
    rate = schedule(tf.constant(frames, tf.int64))
    assert rate.dtype == tf.float32
    np.testing.assert_allclose(rate, 6e-4, rtol=1e-6)


def test_a_schedule_is_exact_enough_over_ten_billion_frames():
  total = 10**10
  schedule = tf.function(optimizers.learning_rate_schedule(1.0, total))
  frames = np.linspace(0, total, 101).astype(np.int64) + 1
  actual = [schedule(tf.constant(f)).numpy() for f in frames]
  expected = np.maximum(0.0, 1.0 - frames.astype(np.float64) / total)
  np.testing.assert_allclose(actual, expected, atol=3e-7)
  assert (np.diff(actual) < 0).all()
  assert schedule(tf.constant(total, tf.int64)).numpy() == 0


def test_a_schedule_takes_numbers_and_variables():
  schedule = optimizers.learning_rate_schedule(1.0, 10**10)
  np.testing.assert_allclose(schedule(5 * 10**9), 0.5, rtol=1e-6)
  frames = tf.Variable(25 * 10**8, dtype=tf.int64)
  np.testing.assert_allclose(schedule(frames), 0.75, rtol=1e-6)


@pytest.mark.parametrize('decay', optimizers.DECAYS)
def test_a_schedule_follows_the_frames_inside_a_graph(decay):
  schedule = optimizers.learning_rate_schedule(1.0, 100, decay)
  frames = tf.Variable(0, dtype=tf.int64)
  optimizer = make_rmsprop()

  @tf.function
  def update():
    frames.assign_add(25)
    optimizer.learning_rate.assign(schedule(frames))

  rates = []
  for _ in range(4):
    update()
    rates.append(float(optimizer.learning_rate))
  expected = {
    'linear': [0.75, 0.5, 0.25, 0.0],
    'late_linear': [1.0, 1.0, 1.0, 0.0],
    'constant': [1.0, 1.0, 1.0, 1.0],
  }[decay]
  np.testing.assert_allclose(rates, expected, rtol=1e-6)


@pytest.mark.parametrize(
  ('frames', 'decay', 'name'),
  [(100, 'cosine', 'decay'), (0, 'linear', 'total_environment_frames')],
)
def test_a_wrong_schedule_raises_and_is_named(frames, decay, name):
  with pytest.raises(ValueError, match=name):
    optimizers.learning_rate_schedule(1.0, frames, decay)


# Clipping.


GRADIENTS = (np.float32([3.0, 0.0]), np.float32([[0.0], [-4.0]]))  # Norm 5.


@pytest.mark.parametrize('traced', [False, True])
@pytest.mark.parametrize(
  ('clip_gradient_norm', 'scale'),
  [(2.5, 0.5), (5.0, 1.0), (40.0, 1.0), (0, 1.0), (None, 1.0)],
)
def test_gradients_are_clipped_by_their_global_norm(
  clip_gradient_norm, scale, traced
):
  def clip(*gradients):
    return optimizers.clip_gradients(gradients, clip_gradient_norm)

  if traced:
    clip = tf.function(clip)
  clipped, global_norm = clip(*map(tf.constant, GRADIENTS))
  assert global_norm == 5.0
  for actual, gradient in zip(clipped, GRADIENTS, strict=True):
    np.testing.assert_allclose(actual, scale * gradient, rtol=1e-6)


@pytest.mark.parametrize('clip_gradient_norm', [2.5, None])
def test_absent_and_sparse_gradients_are_accepted(clip_gradient_norm):
  sparse = tf.IndexedSlices(
    tf.constant([[3.0]]), tf.constant([7]), tf.constant([9, 1])
  )
  clipped, global_norm = optimizers.clip_gradients(
    [None, sparse, tf.constant([4.0])], clip_gradient_norm
  )
  scale = 0.5 if clip_gradient_norm else 1.0
  assert global_norm == 5.0
  assert clipped[0] is None
  np.testing.assert_allclose(clipped[1].values, [[3.0 * scale]])
  np.testing.assert_allclose(clipped[2], [4.0 * scale])


@pytest.mark.parametrize('value', [np.nan, np.inf, 1e20])
@pytest.mark.parametrize('clip_gradient_norm', [40.0, None])
@pytest.mark.parametrize('traced', [False, True])
def test_the_norm_tells_that_a_gradient_is_not_finite(
  value, clip_gradient_norm, traced
):
  def norm_of(*gradients):
    return optimizers.clip_gradients(gradients, clip_gradient_norm)[1]

  if traced:
    norm_of = tf.function(norm_of)
  norm = norm_of(tf.constant([1.0]), tf.constant([0.0, value]))
  assert not np.isfinite(norm)


def test_a_negative_norm_raises():
  with pytest.raises(ValueError, match='clip_gradient_norm is -1'):
    optimizers.clip_gradients([tf.constant([1.0])], -1.0)


def test_adam_takes_sparse_gradients_for_what_they_are():
  # Of the embedding of words, of which a batch has a few.
  dense, sparse = (tf.Variable(tf.ones([4, 2])) for _ in range(2))
  gradient = tf.IndexedSlices(tf.ones([2, 2]), tf.constant([2, 2]), [4, 2])
  for variable, one in (
    (dense, tf.convert_to_tensor(gradient)),
    (sparse, gradient),
  ):
    optimizer = optimizers.make_optimizer(OptimizerOptions(optimizer='adam'))
    optimizer.build([variable])
    optimizer.learning_rate.assign(0.5)
    for _ in range(2):
      optimizer.apply([one], [variable])
  np.testing.assert_array_equal(dense, sparse)
  changed = np.any(dense.numpy() != 1, axis=1)
  np.testing.assert_array_equal(changed, [False, False, True, False])


def test_adam_of_two_optimizers_loses_no_addition_to_a_weight():
  # Large, so that two additions would meet; each thread has moments of its own,
  # as the workers of A3C may.
  variable = tf.Variable(tf.zeros([300_000]))
  steps = 40
  made = []
  for _ in range(2):
    optimizer = optimizers.make_optimizer(
      OptimizerOptions(optimizer='adam', epsilon=1e-12)
    )
    optimizer.build([variable])
    optimizer.learning_rate.assign(0.25)
    made.append(optimizer)
  gradient = tf.ones([300_000])

  def run(optimizer):
    update = tf.function(lambda: optimizer.apply([gradient], [variable]))
    for _ in range(steps):
      update()

  threads = [threading.Thread(target=run, args=(one,)) for one in made]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  # Of a gradient that never changes, each step is the learning rate.
  np.testing.assert_allclose(variable, -0.25 * 2 * steps, rtol=1e-4)
