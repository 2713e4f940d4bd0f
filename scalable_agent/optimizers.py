"""Optimizers with the papers' semantics, and schedules in frames.

Gradients are those of sums over a batch, see `losses`. The learner sets the
learning rate before each update, since it counts frames and Keras counts
updates: `optimizer.learning_rate.assign(schedule(frames))`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from scalable_agent.options import OptimizerOptions, choices_of

OPTIMIZERS = choices_of(OptimizerOptions, 'optimizer')
NORMS = choices_of(OptimizerOptions, 'clip_gradient_by')
DECAYS = choices_of(OptimizerOptions, 'learning_rate_schedule')
# Where in a training 'late_linear' begins to decay.
_LATE = 3 / 4


class _OfSums:
  """Lets `apply` take gradients that are already summed over replicas.

  In replica context Keras would add them up once more. Its `global_clipnorm`
  clips before that, each replica its own part, so the learner must sum.
  """

  def _all_reduce_sum_gradients(self, grads_and_vars):
    return grads_and_vars


class Adam(_OfSums, keras.optimizers.Adam):
  """Adam; under a `tf.distribute` strategy, of gradients already summed."""

  def update_step(self, gradient, variable, learning_rate):
    """See base class, whose dozen operations for each variable are one here.

    It takes a lock, so that no addition of another thread is lost.
    """
    index = self._get_variable_index(variable)
    step = tf.cast(self.iterations + 1, tf.float32)
    tf.raw_ops.ResourceApplyAdam(
      var=variable.handle,
      m=self._momentums[index].value.handle,
      v=self._velocities[index].value.handle,
      beta1_power=tf.pow(self.beta_1, step),
      beta2_power=tf.pow(self.beta_2, step),
      lr=tf.convert_to_tensor(learning_rate),
      beta1=self.beta_1,
      beta2=self.beta_2,
      epsilon=self.epsilon,
      # Those of embeddings are sparse.
      grad=tf.convert_to_tensor(gradient),
      use_locking=True,
    )


class RMSProp(_OfSums, keras.optimizers.RMSprop):
  """RMSProp whose mean squares need not start at zero.

  `tf.train.RMSPropOptimizer`, which A3C, GA3C and IMPALA were trained with,
  starts them at one, Keras at zero. That matters with their large epsilon: at
  decay 0.99, epsilon 0.1 the first steps from zero are sqrt(1.09 / 0.1) = 3.3
  times larger for small gradients. Epsilon is inside the square root in both.

  Under a `tf.distribute` strategy its gradients must be summed already.
  """

  def __init__(self, *args, initial_mean_square: float = 1.0, **kwargs):
    """Args: those of Keras, and the start value of every mean square."""
    super().__init__(*args, **kwargs)
    self.initial_mean_square = initial_mean_square

  def add_optimizer_variables(
    self, trainable_variables, name, initializer='zeros'
  ):
    """See base class. 'velocity' is Keras's name of the mean squares."""
    # An initializer, because an assignment in `build` would become part of the
    # graph, and so of every update, when `apply` builds inside a tf.function.
    if name == 'velocity':
      initializer = keras.initializers.Constant(self.initial_mean_square)
    return super().add_optimizer_variables(
      trainable_variables, name, initializer=initializer
    )

  def get_config(self) -> dict[str, Any]:
    """See base class."""
    return {
      **super().get_config(),
      'initial_mean_square': self.initial_mean_square,
    }


def make_optimizer(options: OptimizerOptions) -> keras.optimizers.Optimizer:
  """Makes an optimizer, its learning rate 0 until the learner assigns one.

  Under a `tf.distribute` strategy call this in its scope, and `apply` in
  replica context with gradients that are already summed over replicas.

  Args:
    options: which, and how.

  Returns:
    A Keras optimizer, not yet built.

  Raises:
    ValueError: if there is no optimizer of this name.
  """
  if options.optimizer == 'rmsprop':
    return RMSProp(
      learning_rate=0.0,
      rho=options.decay,
      momentum=options.momentum,
      epsilon=options.epsilon,
      initial_mean_square=options.rmsprop_initial_slot,
    )
  if options.optimizer == 'adam':
    return Adam(learning_rate=0.0, epsilon=options.epsilon)
  raise ValueError(
    f'optimizer is {options.optimizer!r}; it must be one of '
    f'{", ".join(OPTIMIZERS)}.'
  )


def learning_rate_schedule(
  learning_rate: float, total_environment_frames: float, decay: str = 'linear'
) -> Callable[[Any], tf.Tensor]:
  """Makes the learning rate a function of environment frames.

  Args:
    learning_rate: at frame 0.
    total_environment_frames: at which, and after which, a decaying rate is 0.
    decay: 'linear' from frame 0 on, 'late_linear' in the last quarter of the
      frames, or 'constant'.

  Returns:
    A function of the frames so far, [] int64, to the learning rate, [] float32.

  Raises:
    ValueError: if there is no such decay, or no frames to decay over.
  """
  if decay not in DECAYS:
    raise ValueError(
      f'learning rate decay is {decay!r}; it must be one of '
      f'{", ".join(DECAYS)}.'
    )
  if not total_environment_frames > 0:
    raise ValueError(
      f'total_environment_frames is {total_environment_frames!r}; it must be '
      'positive.'
    )
  start = int(_LATE * total_environment_frames) if decay == 'late_linear' else 0
  polynomial = keras.optimizers.schedules.PolynomialDecay(
    initial_learning_rate=float(learning_rate),
    decay_steps=float(total_environment_frames - start),
    end_learning_rate=float(learning_rate) if decay == 'constant' else 0.0,
    power=1.0,
  )

  def schedule(frames: Any) -> tf.Tensor:
    # Keras computes in float32, in which frames / total has a relative error
    # of 1e-7, however many frames there are.
    frames = tf.convert_to_tensor(frames, dtype_hint=tf.int64)
    late_frames = tf.maximum(frames - start, 0)
    return tf.convert_to_tensor(polynomial(late_frames), tf.float32)

  return schedule


def annealed(
  start: float, end: float, total: int, count: tf.Variable
) -> tf.Tensor:
  """Returns what lies on the straight line between two values, [] float32.

  Args:
    start: the value at a count of 0.
    end: the value at `total` and after it.
    total: positive.
    count: [] int64.
  """
  # In float64: counts above 2 ** 24 are no float32.
  share = tf.minimum(tf.cast(count, tf.float64) / total, 1.0)
  return tf.cast(start + (end - start) * share, tf.float32)


def clip_gradients(
  gradients: Sequence[Any],
  clip_gradient_norm: float | None,
  clip_gradient_by: str = 'global_norm',
) -> tuple[list[Any], tf.Tensor]:
  """Scales gradients so that a norm of them is at most the given one.

  Look at the norm before the gradients are applied: where it is not finite,
  clipped ones are NaN, and one such update destroys all weights without a word.

  Args:
    gradients: tensors, tf.IndexedSlices or None. Under a `tf.distribute`
      strategy: already summed over replicas, or else each replica clips alone.
    clip_gradient_norm: positive; None or 0: no clipping.
    clip_gradient_by: 'global_norm', of all tensors together; 'tensor_norm', of
      each tensor for itself; 'average_norm', of each tensor for itself and
      divided by its number of elements (`tf.clip_by_average_norm` of TensorFlow
      1, which GA3C and tf-a3c-gpu used).

  Returns:
    The gradients in the same order, and their global norm before clipping, []
    float32, NaN or infinite where a gradient is (or its square).

  Raises:
    ValueError: if `clip_gradient_norm` is negative, or there is no such norm.
  """
  if clip_gradient_by not in NORMS:
    raise ValueError(
      f'clip_gradient_by is {clip_gradient_by!r}; it must be one of '
      f'{", ".join(NORMS)}.'
    )
  if clip_gradient_norm and clip_gradient_norm < 0:
    raise ValueError(
      f'clip_gradient_norm is {clip_gradient_norm!r}; it must be positive, or '
      'None for no clipping.'
    )
  global_norm = tf.linalg.global_norm(gradients)
  if not clip_gradient_norm:
    return list(gradients), global_norm
  if clip_gradient_by != 'global_norm':
    clipped = [
      g
      if g is None
      else _clip_by_own_norm(
        g, clip_gradient_norm, average=clip_gradient_by == 'average_norm'
      )
      for g in gradients
    ]
    return clipped, global_norm
  clipped, _ = tf.clip_by_global_norm(
    gradients, clip_gradient_norm, use_norm=global_norm
  )
  return clipped, global_norm


def _clip_by_own_norm(gradient: Any, most: float, average: bool) -> tf.Tensor:
  gradient = tf.convert_to_tensor(gradient)
  norm = tf.norm(gradient)
  if average:
    norm /= tf.cast(tf.size(gradient), gradient.dtype)
  return gradient * most / tf.maximum(norm, most)
