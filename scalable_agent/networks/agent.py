"""Torsos, recurrent core and the agent made of them and a frame stack.

A torso maps `[N, ...]` observations to `[N, features]`. Your own is any class
with the constructor `Torso(observation)`, `observation` being the TensorSpec
of one (stacked) observation, and a `__call__`; name it with
`--network=module:Class`.
"""

import functools
import importlib
import math
from typing import Any

import numpy as np
import sonnet as snt
import tensorflow as tf
import tree

from scalable_agent import structures
from scalable_agent.networks import frame_stacks
from scalable_agent.options import AgentOptions
from scalable_agent.structures import AgentState

LSTM_SIZE = 256


def _is_image(spec: structures.TensorSpec) -> bool:
  return len(spec.shape) == 3


def _orthogonal() -> snt.initializers.Initializer:
  """Returns weights that keep the size of a signal through layers of ReLUs."""
  return snt.initializers.Orthogonal(math.sqrt(2))


class _PixelConv(snt.Module):
  """A first convolution; uint8 pixels x count as (x - mean(x)) / 64.

  The mean is that of one observation. Most of a game's screen is one ground,
  black, grey or blue; left in, that constant drowns the few pixels that matter,
  and no fixed number takes it out of all games (see docs/results).

  Convolution is linear: its output is shifted and scaled instead of the input,
  which has more numbers. Where it pads, the padding counts as black.
  """

  _UNIT = 64.0

  def __init__(self, channels: int, kernel: int, stride: int, padding: str):
    super().__init__(name='pixel_conv')
    self._kernel = snt.Conv2D(
      channels,
      kernel,
      stride,
      padding=padding,
      with_bias=False,
      w_init=_orthogonal(),
    )
    self._bias = snt.Bias(bias_dims=[-1])

  def __call__(self, x: tf.Tensor) -> tf.Tensor:
    pixels = x.dtype == tf.uint8
    x = tf.cast(x, tf.float32)
    y = self._kernel(x)
    if pixels:
      mean = tf.reduce_mean(x, [1, 2, 3], keepdims=True)
      y = (y - mean * tf.reduce_sum(self._kernel.w, [0, 1, 2])) / self._UNIT
    return self._bias(y)


def _check_pixels(
  network: str, observation: structures.TensorSpec, least: int
) -> None:
  """Refuses images in which a kernel of `network` would not fit."""
  height, width, _ = observation.shape
  if min(height, width) < least:
    raise ValueError(
      f'--network={network} needs at least {least} x {least} pixels; this '
      f'level gives {height} x {width}. Use larger frames, or --network=deep.'
    )


class Shallow(snt.Module):
  """Two convolutions and a layer of 256 units (A3C; IMPALA on DMLab)."""

  # Without padding, the second kernel of 4 needs as many outputs of the first.
  MIN_PIXELS = 8 + 3 * 4

  def __init__(self, observation: structures.TensorSpec):
    super().__init__(name='shallow')
    _check_pixels('shallow', observation, self.MIN_PIXELS)
    self._conv_1 = _PixelConv(16, 8, 4, padding='VALID')
    self._conv_2 = snt.Conv2D(32, 4, 2, padding='VALID', w_init=_orthogonal())
    self._linear = snt.Linear(256, w_init=_orthogonal())

  def __call__(self, observation: tf.Tensor) -> tf.Tensor:
    x = tf.nn.relu(self._conv_1(observation))
    x = tf.nn.relu(self._conv_2(x))
    return tf.nn.relu(self._linear(snt.flatten(x)))


class Nature(snt.Module):
  """Three convolutions and a layer of 512 units (Mnih et al. 2015, DQN).

  The net of A3C's 57 games and of the IMPALA paper's shallow Atari experts
  (section 5.3.2, "three convolutional layers").
  """

  # Without padding: 3 outputs of the second convolution, for the third.
  MIN_PIXELS = 8 + (4 + 2 * 2 - 1) * 4

  def __init__(self, observation: structures.TensorSpec):
    super().__init__(name='nature')
    _check_pixels('nature', observation, self.MIN_PIXELS)
    self._conv_1 = _PixelConv(32, 8, 4, padding='VALID')
    self._conv_2 = snt.Conv2D(64, 4, 2, padding='VALID')
    self._conv_3 = snt.Conv2D(64, 3, 1, padding='VALID')
    self._linear = snt.Linear(512)

  def __call__(self, observation: tf.Tensor) -> tf.Tensor:
    x = tf.nn.relu(self._conv_1(observation))
    x = tf.nn.relu(self._conv_2(x))
    x = tf.nn.relu(self._conv_3(x))
    return tf.nn.relu(self._linear(snt.flatten(x)))


class _ResidualBlock(snt.Module):
  """relu, 3x3, relu, 3x3, plus the input.

  What is added to a signal need not be as large as it: Sonnet's weights.
  """

  def __init__(self, channels: int):
    super().__init__(name='residual_block')
    self._conv_1 = snt.Conv2D(channels, 3)
    self._conv_2 = snt.Conv2D(channels, 3)

  def __call__(self, x: tf.Tensor) -> tf.Tensor:
    return x + self._conv_2(tf.nn.relu(self._conv_1(tf.nn.relu(x))))


class Deep(snt.Module):
  """The residual net of 15 convolutions (IMPALA paper, Figure 3, right)."""

  def __init__(self, observation: structures.TensorSpec):
    super().__init__(name='deep')
    convs = [
      _PixelConv(16, 3, 1, padding='SAME'),
      snt.Conv2D(32, 3, w_init=_orthogonal()),
      snt.Conv2D(32, 3, w_init=_orthogonal()),
    ]
    self._sections = [
      (conv, [_ResidualBlock(channels) for _ in range(2)])
      for conv, channels in zip(convs, (16, 32, 32), strict=True)
    ]
    self._linear = snt.Linear(256, w_init=_orthogonal())

  def __call__(self, observation: tf.Tensor) -> tf.Tensor:
    x = observation
    for conv, blocks in self._sections:
      x = tf.nn.max_pool2d(conv(x), 3, 2, padding='SAME')
      for block in blocks:
        x = block(x)
    x = snt.flatten(tf.nn.relu(x))
    return tf.nn.relu(self._linear(x))


class Mlp(snt.Module):
  """Two layers of 64 tanh units for vector observations."""

  def __init__(self, observation: structures.TensorSpec):
    super().__init__(name='mlp')
    self._layers = [snt.Linear(64, w_init=_orthogonal()) for _ in range(2)]

  def __call__(self, observation: tf.Tensor) -> tf.Tensor:
    x = snt.flatten(tf.cast(observation, tf.float32))
    for layer in self._layers:
      x = tf.nn.tanh(layer(x))
    return x


_TORSOS = {'shallow': Shallow, 'nature': Nature, 'deep': Deep, 'mlp': Mlp}


def resolve(network: str, observation: structures.TensorSpec) -> str:
  """Returns `--network`, with auto replaced by what fits the observation."""
  if network != 'auto':
    return network
  return 'shallow' if _is_image(observation) else 'mlp'


def find_torso(network: str, observation: structures.TensorSpec) -> type:
  """Returns the torso class that `--network` names.

  Raises:
    ValueError: no such network, or one that does not fit the observation.
  """
  network = resolve(network, observation)
  if ':' in network:
    module, _, name = network.partition(':')
    try:
      return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
      raise ValueError(
        f'--network={network} cannot be imported: {error}. Give module:Class '
        'of a module on the Python path.'
      ) from error
  if network not in _TORSOS:
    raise ValueError(
      f'--network={network} is not known. Choose one of: auto, '
      f'{", ".join(_TORSOS)}, or module:Class of your own.'
    )
  if network != 'mlp' and not _is_image(observation):
    raise ValueError(
      f'--network={network} needs image observations; this level gives '
      f'{observation.shape}. Use --network=mlp.'
    )
  return _TORSOS[network]


class Agent(snt.Module):
  """Policy and baseline over a frame stack, a torso and an optional LSTM."""

  def __init__(
    self,
    spec: structures.EnvironmentSpec,
    **options: Any,
  ):
    """Builds the modules; variables are created here, from the spec.

    Args:
      spec: of the environment. One observation tensor per step.
      **options: of AgentOptions. `last_action_reward`: the last action
        (one-hot) and the last reward (clipped to [-1, 1]) join the torso's
        features.
    """
    super().__init__(name='agent')
    chosen = AgentOptions(**options)
    self._num_actions = spec.num_actions
    torso_class = find_torso(chosen.network, spec.observation)
    self._stack = frame_stacks.make_frame_stack(
      spec.observation, chosen.frame_stack
    )
    self._torso = torso_class(
      structures.TensorSpec(self._stack.stack_shape, spec.observation.dtype)
    )
    self._last_action_reward = chosen.last_action_reward
    self._core: Any = snt.LSTM(LSTM_SIZE) if chosen.lstm else None
    # Small first policy logits: the first policy is close to uniform.
    self._policy_logits = snt.Linear(
      spec.num_actions,
      w_init=snt.initializers.TruncatedNormal(stddev=0.01),
      name='policy_logits',
    )
    self._baseline = snt.Linear(1, name='baseline')
    self._create_variables(spec)

  def _create_variables(self, spec: structures.EnvironmentSpec) -> None:
    step = tree.map_structure(
      lambda s: np.zeros((1, *s.shape), s.dtype),
      structures.step_output_spec(spec),
    )
    self.step(
      step, np.zeros([1], np.int32), self.initial_state(1), np.zeros([2], int)
    )

  def initial_state(self, batch_size: int) -> AgentState:
    """Returns the state at the start of `batch_size` episodes."""
    return AgentState(
      frames=self._stack.initial_state(batch_size),
      # A plain tuple, so that a checkpoint needs no class of Sonnet's.
      core=tuple(self._core.initial_state(batch_size)) if self._core else (),
    )

  def step(
    self,
    env_output: structures.StepOutput,
    last_action: tf.Tensor,
    state: AgentState,
    seed: tf.Tensor,
  ) -> tuple[structures.AgentOutput, AgentState]:
    """Samples an action.

    Args:
      env_output: StepOutput of [B, ...].
      last_action: [B] int32, the action that led here.
      state: AgentState of [B, ...].
      seed: [2] int64; the same seed and inputs give the same actions.

    Returns:
      AgentOutput of [B, ...] and the next state.
    """
    add_time = functools.partial(tf.expand_dims, axis=0)
    (logits, baseline), state = self.unroll(
      tree.map_structure(add_time, env_output), add_time(last_action), state
    )
    logits, baseline = logits[0], baseline[0]
    action = tf.random.stateless_categorical(logits, 1, seed, tf.int32)[:, 0]
    return structures.AgentOutput(action, logits, baseline), state

  def unroll(
    self,
    env_outputs: structures.StepOutput,
    last_actions: tf.Tensor,
    state: AgentState,
  ) -> tuple[tuple[tf.Tensor, tf.Tensor], AgentState]:
    """Evaluates policy and baseline over time.

    The state is reset wherever an episode starts.

    Args:
      env_outputs: StepOutput of [T, B, ...].
      last_actions: [T, B] int32, the actions that led to each column.
      state: AgentState of [B, ...] before column 0.

    Returns:
      ([T, B, A] policy logits, [T, B] baseline), and the state after the last
      column.
    """
    first = tf.equal(env_outputs.step_type, structures.FIRST)
    stacks, frames = self._stack(env_outputs.observation, first, state.frames)
    features = snt.BatchApply(self._torso)(stacks)  # [T, B, features]
    if self._last_action_reward:
      action = tf.one_hot(last_actions, self._num_actions)
      action *= tf.cast(~first, tf.float32)[..., None]
      reward = tf.clip_by_value(env_outputs.reward, -1, 1)[..., None]
      features = tf.concat([features, action, reward], -1)
    core = ()
    if self._core:
      features, core = self._unroll_core(features, first, state.core)
    logits = snt.BatchApply(self._policy_logits)(features)
    baseline = tf.squeeze(snt.BatchApply(self._baseline)(features), -1)
    return (logits, baseline), AgentState(frames, core)

  def skip_frames(
    self, observations: np.ndarray, first: np.ndarray, frames: Any
  ) -> Any:
    """Returns the state of the frame stack behind some observations.

    It is made by numpy, so that threads of TensorFlow may call it: those that
    ran a graph would wait for each other.

    Args:
      observations: [T, B, ...].
      first: [T, B] bool, whether the observation starts an episode.
      frames: AgentState.frames of [B, ...] before column 0.
    """
    return self._stack.skip(observations, first, frames)

  def _unroll_core(
    self, features: tf.Tensor, first: tf.Tensor, state: Any
  ) -> tuple[tf.Tensor, Any]:
    """Runs the LSTM over [T, B, features], zeroing its state at FIRST."""
    time = features.shape[0]
    if time is None:
      raise ValueError('an LSTM needs a static unroll length')
    # The state is reset before the step, so cuDNN's fused LSTM over time does
    # not apply.
    keep = tf.unstack(tf.cast(~first, tf.float32)[..., None])
    hidden, cell = state
    if time == 1:
      hidden, state = self._core(
        features[0], snt.LSTMState(hidden * keep[0], cell * keep[0])
      )
      return hidden[None], tuple(state)
    # The inputs' part of the gates does not depend on the state: one product
    # for all steps takes 23% less CPU than Sonnet step by step ([21, 32], with
    # gradients).
    inputs = (
      tf.tensordot(features, self._core.input_to_hidden, 1) + self._core.b
    )
    outputs = []
    for keep_t, inputs_t in zip(keep, tf.unstack(inputs), strict=True):
      hidden, cell = hidden * keep_t, cell * keep_t
      gates = inputs_t + tf.matmul(hidden, self._core.hidden_to_hidden)
      # Sonnet's order: input, forget, new cell, output.
      i, f, g, o = tf.split(gates, 4, axis=1)
      cell = tf.sigmoid(f) * cell + tf.sigmoid(i) * tf.tanh(g)
      hidden = tf.sigmoid(o) * tf.tanh(cell)
      outputs.append(hidden)
    return tf.stack(outputs), (hidden, cell)
