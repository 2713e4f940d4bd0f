"""Networks: resets from the definition, parameter counts, errors."""

import numpy as np
import pytest
import sonnet as snt
import tensorflow as tf
import tree

from scalable_agent import action_spaces, networks, structures
from scalable_agent.networks import torsos
from scalable_agent.structures import FIRST, MID
from tests.step_types import assert_every_case_occurs, random_step_types

NUM_ACTIONS = 6


def environment_spec(shape, dtype, num_actions=NUM_ACTIONS):
  return structures.EnvironmentSpec(
    observation=structures.TensorSpec(shape, np.dtype(dtype)),
    action_space=action_spaces.Discrete(num_actions),
    frames_per_step=4,
  )


IMAGE = environment_spec((36, 40, 1), np.uint8)
COLOUR = environment_spec((36, 40, 3), np.uint8)
VECTOR = environment_spec((5,), np.float32)


def random_inputs(spec, time, batch, seed=0):
  """Returns StepOutput of [T, B, ...] and last actions [T, B]."""
  rng = np.random.default_rng(seed)
  shape, dtype = spec.observation.shape, spec.observation.dtype
  if dtype == np.uint8:
    observation = rng.integers(0, 256, (time, batch, *shape)).astype(np.uint8)
  else:
    observation = rng.normal(size=(time, batch, *shape)).astype(dtype)
  env_outputs = structures.StepOutput(
    step_type=random_step_types(rng, time, batch),
    reward=rng.normal(scale=3, size=(time, batch)).astype(np.float32),
    discount=np.ones([time, batch], np.float32),
    observation=observation,
    info=(),
  )
  actions = rng.integers(spec.action_space.num_actions, size=(time, batch))
  return env_outputs, actions.astype(np.int32)


def random_state(agent, batch, seed=1):
  """A state as in the middle of an episode: no zeros."""
  rng = np.random.default_rng(seed)

  def fill(x):
    if x.dtype.is_integer:
      top = tf.as_dtype(x.dtype).max
      return rng.integers(1, top, x.shape).astype(x.dtype.as_numpy_dtype)
    return rng.normal(size=x.shape).astype(x.dtype.as_numpy_dtype)

  return tree.map_structure(fill, agent.initial_state(batch))


def make_agent(spec, seed=3, **kwargs):
  tf.random.set_seed(seed)
  with tf.name_scope(''):  # See test_weights.
    agent = networks.Agent(spec, **kwargs)
  # The first policy is nearly uniform by design; these tests need one that
  # shows what went in.
  for variable in agent.trainable_variables:
    if 'policy_logits/w' in variable.name:
      variable.assign(variable * 100)
  return agent


def column(nest, index):
  """Returns columns `index` (a slice) of a nest of [T, B, ...]."""
  return tree.map_structure(lambda x: x[:, index], nest)


def times(nest, index):
  return tree.map_structure(lambda x: x[index], nest)


def assert_close(one, two):
  tree.map_structure(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
    one,
    two,
  )


AGENTS = (
  pytest.param(VECTOR, {'frame_stack': 2}, id='vector'),
  pytest.param(
    VECTOR, {'lstm': True, 'last_action_reward': True}, id='vector_lstm'
  ),
  pytest.param(IMAGE, {'frame_stack': 4}, id='shallow'),
  pytest.param(
    IMAGE,
    {
      'network': 'deep',
      'frame_stack': 4,
      'lstm': True,
      'last_action_reward': True,
    },
    id='deep_lstm',
  ),
  pytest.param(
    COLOUR, {'frame_stack': 2, 'last_action_reward': True}, id='colour'
  ),
)


@pytest.mark.parametrize(('spec', 'kwargs'), AGENTS)
class TestUnroll:
  # As many columns as actions: a mix-up of the two axes must not broadcast.
  TIME, BATCH = 7, NUM_ACTIONS

  def test_step_by_step_is_the_same(self, spec, kwargs):
    agent = make_agent(spec, **kwargs)
    env_outputs, actions = random_inputs(spec, self.TIME, self.BATCH, seed=2)
    assert_every_case_occurs(env_outputs.step_type)
    start = random_state(agent, self.BATCH)
    (logits, baselines), end = agent.unroll(env_outputs, actions, start)
    assert logits.shape == [self.TIME, self.BATCH, NUM_ACTIONS]
    assert baselines.shape == [self.TIME, self.BATCH]
    state = start
    for t in range(self.TIME):
      output, state = agent.step(
        times(env_outputs, t), actions[t], state, np.array([1, t])
      )
      assert output.action.dtype == tf.int32
      assert_close(output.policy_logits, logits[t])
      assert_close(output.baseline, baselines[t])
    assert_close(state, end)

  def test_two_unrolls_are_one_longer_one(self, spec, kwargs):
    agent = make_agent(spec, **kwargs)
    inputs = random_inputs(spec, self.TIME, self.BATCH, seed=2)
    start = random_state(agent, self.BATCH)
    whole, end = agent.unroll(*inputs, start)
    one, middle = agent.unroll(*times(inputs, slice(3)), start)
    two, last = agent.unroll(*times(inputs, slice(3, None)), middle)
    assert_close(
      tree.map_structure(lambda *x: tf.concat(x, 0), one, two), whole
    )
    assert_close(last, end)

  def test_an_episode_does_not_see_the_one_before(self, spec, kwargs):
    agent = make_agent(spec, **kwargs)
    (env_outputs, actions) = random_inputs(spec, self.TIME, self.BATCH)
    start, b, cut = random_state(agent, self.BATCH), 2, 4
    step_type = np.full_like(env_outputs.step_type, MID)
    step_type[cut, b] = FIRST
    inputs = env_outputs._replace(step_type=step_type), actions
    together, end = agent.unroll(*inputs, start)
    # The column alone: its first episode, then its second from scratch.
    alone = column(inputs, slice(b, b + 1))
    its_start = tree.map_structure(lambda x: x[b : b + 1], start)
    one, _ = agent.unroll(*times(alone, slice(cut)), its_start)
    two, its_end = agent.unroll(
      *times(alone, slice(cut, None)), agent.initial_state(1)
    )
    separate = tree.map_structure(lambda *x: tf.concat(x, 0), one, two)
    assert_close(
      column(together, slice(b, b + 1)),
      separate,
    )
    assert_close(tree.map_structure(lambda x: x[b : b + 1], end), its_end)
    # And all others go on as if nothing had happened.
    step_type = np.full_like(step_type, MID)
    unbroken, _ = agent.unroll(
      env_outputs._replace(step_type=step_type), actions, start
    )
    others = np.array([i for i in range(self.BATCH) if i != b])
    tree.map_structure(
      lambda x, y: np.testing.assert_allclose(
        x.numpy()[:, others], y.numpy()[:, others], rtol=1e-5, atol=1e-5
      ),
      together,
      unbroken,
    )
    changed = np.abs(together[0][cut:, b] - unbroken[0][cut:, b])
    has_state = bool(tree.flatten(start)) or kwargs.get('last_action_reward')
    assert (changed.max() > 1e-3) == bool(has_state)


@pytest.mark.parametrize('batch', [64, networks.LSTM_SIZE])
def test_a_reset_is_by_row_also_when_rows_equal_features(batch):
  agent = make_agent(VECTOR, lstm=True)
  rng = np.random.default_rng(0)
  first = rng.random(batch) < 0.5
  env_outputs, actions = random_inputs(VECTOR, 2, batch)
  env_outputs = times(env_outputs, slice(1))
  env_outputs = env_outputs._replace(
    step_type=np.where(first, FIRST, MID).astype(np.int32)[None]
  )
  start = random_state(agent, batch)
  (logits, _), _ = agent.unroll(env_outputs, actions[:1], start)
  cleared = tree.map_structure(
    lambda s: np.where(first[:, None], 0, s).astype(s.dtype), start
  )
  going = env_outputs._replace(step_type=np.full([1, batch], MID, np.int32))
  (expected, _), _ = agent.unroll(going, actions[:1], cleared)
  assert_close(logits, expected)


class TestLastActionAndReward:
  def _logits(self, step_type, reward, action):
    env_outputs, _ = random_inputs(VECTOR, 3, 2)
    env_outputs = times(env_outputs, slice(1))._replace(
      step_type=np.full([1, 2], step_type, np.int32),
      reward=np.full([1, 2], reward, np.float32),
    )
    actions = np.full([1, 2], action, np.int32)
    (logits, _), _ = self.agent.unroll(
      env_outputs, actions, self.agent.initial_state(2)
    )
    return logits.numpy()

  @pytest.fixture(autouse=True)
  def _agent(self):
    self.agent = make_agent(VECTOR, last_action_reward=True)

  def test_both_are_seen(self):
    reference = self._logits(MID, 0.5, 1)
    assert not np.allclose(reference, self._logits(MID, -0.5, 1))
    assert not np.allclose(reference, self._logits(MID, 0.5, 2))

  def test_the_action_that_led_to_the_end_is_not_seen_at_first(self):
    np.testing.assert_array_equal(
      self._logits(FIRST, 0.0, 1), self._logits(FIRST, 0.0, 4)
    )

  @pytest.mark.parametrize('sign', [-1, 1])
  def test_rewards_are_clipped_to_one(self, sign):
    np.testing.assert_array_equal(
      self._logits(MID, sign * 1.0, 1), self._logits(MID, sign * 50.0, 1)
    )
    assert not np.allclose(
      self._logits(MID, sign * 1.0, 1), self._logits(MID, sign * 0.9, 1)
    )

  def test_neither_is_seen_without_the_option(self):
    self.agent = make_agent(VECTOR)
    np.testing.assert_array_equal(
      self._logits(MID, 0.5, 1), self._logits(MID, -0.5, 2)
    )


def conv(kernel, inputs, outputs):
  """Parameters of a convolution with bias."""
  return kernel * kernel * inputs * outputs + outputs


def linear(inputs, outputs):
  return inputs * outputs + outputs


def lstm(inputs, units):
  return 4 * ((inputs + units) * units + units)


def num_parameters(module):
  return sum(int(tf.size(v)) for v in module.trainable_variables)


# 20-dimensional embeddings of 1000 hash buckets, an LSTM of 64 units and its 64
# outputs at the input of the core: the part of the paper's agents for DeepMind
# Lab that reads instructions.
LANGUAGE = 1000 * 20 + lstm(20, 64) + 64 * 4 * 256


class TestParameterCounts:
  def test_shallow_is_that_of_a3c(self):
    agent = networks.Agent(
      environment_spec((84, 84, 1), np.uint8), frame_stack=4
    )
    # 84 -> (84 - 8) / 4 + 1 = 20 -> (20 - 4) / 2 + 1 = 9.
    expected = (
      conv(8, 4, 16)
      + conv(4, 16, 32)
      + linear(9 * 9 * 32, 256)
      + linear(256, 6)
      + linear(256, 1)
    )
    assert num_parameters(agent) == expected == 677_943

  def test_nature_is_that_of_dqn(self):
    agent = networks.Agent(
      environment_spec((84, 84, 1), np.uint8), network='nature', frame_stack=4
    )
    # 84 -> 20 -> 9 -> 9 - 3 + 1 = 7.
    expected = (
      conv(8, 4, 32)
      + conv(4, 32, 64)
      + conv(3, 64, 64)
      + linear(7 * 7 * 64, 512)
      + linear(512, 6)
      + linear(512, 1)
    )
    assert num_parameters(agent) == expected == 1_687_719

  def test_universe_is_that_of_pytorch_a3c(self):
    agent = networks.Agent(
      environment_spec((42, 42, 1), np.uint8), network='universe', lstm=True
    )
    # 42 -> 21 -> 11 -> 6 -> 3, padded.
    expected = (
      conv(3, 1, 32)
      + 3 * conv(3, 32, 32)
      + lstm(3 * 3 * 32, 256)
      + linear(256, 6)
      + linear(256, 1)
    )
    assert num_parameters(agent) == expected

  @pytest.mark.parametrize('network', ['shallow', 'deep'])
  def test_both_are_those_of_the_papers_figure_3(self, network):
    num_actions = 9
    spec = environment_spec((72, 96, 3), np.uint8, num_actions)
    options = {'network': network, 'lstm': True, 'last_action_reward': True}
    instruction = structures.TextSpec((32,), np.dtype(np.int32), 1000)
    both = {'rgb': spec.observation, 'instruction': instruction}
    whole = networks.Agent(spec._replace(observation=both), **options)
    agent = networks.Agent(spec, **options)
    # 72 x 96 -> 17 x 23 -> 7 x 10, without padding.
    shallow = conv(8, 3, 16) + conv(4, 16, 32) + linear(7 * 10 * 32, 256)
    convs = 0  # Parameters of them.
    for inputs, outputs in ((3, 16), (16, 32), (32, 32)):
      convs += conv(3, inputs, outputs) + 4 * conv(3, outputs, outputs)
    # Three max-pools of stride 2 with SAME padding: 72 x 96 -> 9 x 12.
    deep = convs + linear(9 * 12 * 32, 256)
    without_language = (
      {'shallow': shallow, 'deep': deep}[network]
      + lstm(256 + num_actions + 1, 256)
      + linear(256, num_actions)
      + linear(256, 1)
    )
    assert num_parameters(agent) == without_language
    # The paper says 1.2 and 1.6 million.
    published = {'shallow': 1_230_426, 'deep': 1_628_010}
    assert num_parameters(whole) == published[network]
    assert without_language + LANGUAGE == published[network]

  def test_deep_has_15_convolutions(self):
    torso = torsos.Deep(structures.TensorSpec((72, 96, 3), np.dtype('uint8')))
    torso(tf.zeros([1, 72, 96, 3], tf.uint8))
    kernels = [v for v in torso.trainable_variables if v.shape.rank == 4]
    assert len(kernels) == 15


def test_the_lstm_over_time_is_sonnets_step_by_step():
  agent = networks.Agent(VECTOR, lstm=True)
  time, batch = 7, 4
  env_outputs, actions = random_inputs(VECTOR, time, batch)
  state = random_state(agent, batch)
  first = env_outputs.step_type == FIRST
  assert first.any()
  weights = np.random.default_rng(2).normal(size=(time, batch))

  def by_steps(features):
    hidden, cell = state.core
    outputs = []
    for t in range(time):
      keep = np.where(first[t], 0, 1).astype(np.float32)[:, None]
      output, (hidden, cell) = agent._core(
        features[t], snt.LSTMState(hidden * keep, cell * keep)
      )
      outputs.append(output)
    return tf.stack(outputs), (hidden, cell)

  with tf.GradientTape() as tape:
    features = snt.BatchApply(agent._torso)(
      tf.constant(env_outputs.observation)
    )
    outputs, expected_core = by_steps(features)
    expected = snt.BatchApply(agent._baseline)(outputs)[..., 0]
    expected_loss = tf.reduce_sum(expected * weights)
  expected_gradients = tape.gradient(
    expected_loss, agent._core.trainable_variables
  )
  with tf.GradientTape() as tape:
    (_, baseline), new_state = agent.unroll(env_outputs, actions, state)
    loss = tf.reduce_sum(baseline * weights)
  gradients = tape.gradient(loss, agent._core.trainable_variables)
  for actual, wanted in zip(
    (baseline, *new_state.core, *gradients),
    (expected, *expected_core, *expected_gradients),
    strict=True,
  ):
    np.testing.assert_allclose(actual, wanted, rtol=1e-4, atol=1e-5)


def test_the_lstms_variables_are_those_of_old_checkpoints(tmp_path):
  agent = networks.Agent(VECTOR, lstm=True)
  path = tf.train.Checkpoint(agent=agent).write(str(tmp_path / 'variables'))
  shapes = tf.train.load_checkpoint(path).get_variable_to_shape_map()
  suffix = '/.ATTRIBUTES/VARIABLE_VALUE'
  assert {
    name.removesuffix(suffix): shape
    for name, shape in shapes.items()
    if '_core' in name
  } == {
    'agent/_core/_w_i': [64, 1024],
    'agent/_core/_w_h': [256, 1024],
    'agent/_core/b': [1024],
  }


class FromTheDefinition:
  """Layers in NumPy, in double precision."""

  def __init__(self):
    self.zeroed = []  # Shares of what each ReLU was given that it sets to zero.

  def relu(self, x):
    self.zeroed.append(np.mean(x < 0))
    return np.maximum(x, 0)

  @staticmethod
  def windows(x, size, stride, same, padding):
    """Returns [rows, columns, N, size, size, channels]."""
    if same:
      height, width = (
        max((-(-n // stride) - 1) * stride + size - n, 0) for n in x.shape[1:3]
      )
      ends = [(n // 2, n - n // 2) for n in (height, width)]
      x = np.pad(x, [(0, 0), *ends, (0, 0)], constant_values=padding)
    return np.array(
      [
        [
          x[:, i : i + size, j : j + size]
          for j in range(0, x.shape[2] - size + 1, stride)
        ]
        for i in range(0, x.shape[1] - size + 1, stride)
      ]
    )

  def conv(self, x, weights, bias, stride, same):
    windows = self.windows(x, len(weights), stride, same, 0)
    return np.einsum('ijnklc,klco->nijo', windows, weights) + bias

  def max_pool(self, x):
    return (
      self.windows(x, 3, 2, True, -np.inf).max((3, 4)).transpose(2, 0, 1, 3)
    )

  def shallow(self, x, convs, linears):
    for layer, stride in zip(convs, (4, 2, 1), strict=False):
      x = self.relu(self.conv(x, *layer, stride, same=False))
    ((weights, bias),) = linears
    return self.relu(x.reshape([len(x), -1]) @ weights + bias)

  nature = shallow

  def deep(self, x, convs, linears):
    convs = iter(convs)
    for _ in range(3):
      x = self.max_pool(self.conv(x, *next(convs), 1, same=True))
      for _ in range(2):
        y = self.conv(self.relu(x), *next(convs), 1, same=True)
        x = x + self.conv(self.relu(y), *next(convs), 1, same=True)
    ((weights, bias),) = linears
    x = self.relu(x).reshape([len(x), -1])
    return self.relu(x @ weights + bias)

  def universe(self, x, convs, linears):
    assert not linears
    for layer in convs:
      x = self.conv(x, *layer, 2, same=True)
      x = np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1)
    return x.reshape([len(x), -1])

  def mlp(self, x, convs, linears):
    assert not convs
    for weights, bias in linears:
      x = np.tanh(x @ weights + bias)
    return x


def randomised_layers(torso, order):
  """Gives every layer random weights and biases; returns them in `order`.

  Args:
    torso: with its variables.
    order: returns (convolutions, linears) of a torso, each a list of modules.
  """
  rng = np.random.default_rng(0)

  def randomise(module):
    weights, bias = sorted(
      module.trainable_variables, key=lambda v: -v.shape.rank
    )
    scale = np.sqrt(2 / np.prod(weights.shape[:-1]))
    weights.assign(rng.normal(scale=scale, size=weights.shape))
    bias.assign(rng.normal(scale=0.3, size=bias.shape))
    return [v.numpy().astype(np.float64) for v in (weights, bias)]

  return [list(map(randomise, modules)) for modules in order(torso)]


# Convolutions and linear layers in the order of the definition.
LAYERS = {
  'shallow': lambda t: ([t._conv_1, t._conv_2], [t._linear]),
  'nature': lambda t: ([t._conv_1, t._conv_2, t._conv_3], [t._linear]),
  'deep': lambda t: (
    [
      layer
      for conv, blocks in t._sections
      for layer in (
        conv,
        *(one for block in blocks for one in (block._conv_1, block._conv_2)),
      )
    ],
    [t._linear],
  ),
  'universe': lambda t: (t._convs, []),
  'mlp': lambda t: ([], t._layers),
}


@pytest.mark.parametrize(
  ('network', 'shape'),
  [
    ('shallow', (25, 28, 3)),
    ('nature', (40, 44, 2)),
    ('deep', (9, 12, 3)),
    ('universe', (13, 18, 2)),
    ('mlp', (7,)),
  ],
)
def test_a_torso_is_what_its_definition_says(network, shape):
  observation = structures.TensorSpec(shape, np.dtype(np.float32))
  torso = torsos.find_torso(network, observation)(observation)
  # Of floats, as what a pixel counts is another matter.
  x = np.random.default_rng(1).normal(size=(4, *shape)).astype(np.float32)
  torso(x)
  definition = FromTheDefinition()
  layers = randomised_layers(torso, LAYERS[network])
  expected = getattr(definition, network)(x.astype(np.float64), *layers)
  np.testing.assert_allclose(torso(x), expected, rtol=1e-4, atol=1e-4)
  assert np.std(expected) > 0.1
  relus = {'shallow': 3, 'nature': 4, 'deep': 14, 'universe': 0, 'mlp': 0}
  expected_relus = relus[network]
  assert len(definition.zeroed) == expected_relus
  assert all(0.001 < share < 0.999 for share in definition.zeroed)


class RawTorso(snt.Module):
  """A torso of one's own whose features are its input."""

  def __init__(self, observation):
    super().__init__(name='raw')
    assert observation.dtype == np.float32
    self.seen = []

  def __call__(self, observation):
    self.seen.append(observation)
    return snt.flatten(observation)


@pytest.mark.parametrize('normalise', [True, False])
def test_a_torso_gets_pixels_as_numbers(normalise):
  agent = make_agent(
    IMAGE,
    network=f'{__name__}:RawTorso',
    frame_stack=4,
    normalise_pixels=normalise,
  )
  env_outputs, actions = random_inputs(IMAGE, 5, 6)
  agent.observe(agent.moments(env_outputs))
  agent.unroll(env_outputs, actions, agent.initial_state(6))
  newest = env_outputs.observation[..., 0].astype(np.float64)
  if normalise:
    # Of every fourth step.
    mean, deviation = newest[::4].mean((0, 1)), newest[::4].std((0, 1))
    expected = (newest - mean) / np.sqrt(deviation**2 + 8**2)
  else:
    expected = newest / 255
  found = (
    agent._torso.seen[-1].numpy().reshape(5, 6, *IMAGE.observation.shape[:2], 4)
  )
  np.testing.assert_allclose(found[..., -1], expected, atol=1e-3)


def test_statistics_of_pixels_are_variables_without_gradients():
  agent = make_agent(IMAGE, frame_stack=4)
  trainable = {v.ref() for v in agent.trainable_variables}
  others = [v for v in agent.variables if v.ref() not in trainable]
  assert {v.name for v in others} == {
    'agent/pixels/count:0',
    'agent/pixels/mean:0',
    'agent/pixels/mean_square:0',
  }
  env_outputs, _ = random_inputs(IMAGE, 5, 6)
  before = [v.numpy() for v in agent.trainable_variables]
  agent.observe(agent.moments(env_outputs))
  assert int(agent._pixels.count) == 2 * 6
  for v, value in zip(agent.trainable_variables, before, strict=True):
    np.testing.assert_array_equal(v, value)


def test_vectors_have_no_statistics():
  agent = make_agent(VECTOR)
  env_outputs, _ = random_inputs(VECTOR, 5, 6)
  assert agent.moments(env_outputs) == []
  agent.observe([])
  assert len(agent.variables) == len(agent.trainable_variables)


@pytest.mark.parametrize(
  'network', ['shallow', 'nature', 'deep', 'universe', 'mlp']
)
def test_weights_of_a_torso_start_orthogonal_and_keep_the_signal(network):
  spec = VECTOR if network == 'mlp' else IMAGE
  agent = make_agent(spec, network=network, frame_stack=4)
  kernels = [
    v.numpy()
    for v in agent._torso.trainable_variables
    if v.shape.rank > 1 and 'residual_block' not in v.name
  ]
  expected = {'shallow': 3, 'nature': 4, 'deep': 4, 'universe': 4, 'mlp': 2}
  assert len(kernels) == expected[network]
  for kernel in kernels:
    matrix = kernel.reshape([-1, kernel.shape[-1]])
    if len(matrix) < matrix.shape[1]:
      matrix = matrix.T
    # A ReLU halves the power of a signal, so that it is doubled.
    np.testing.assert_allclose(
      matrix.T @ matrix, 2 * np.eye(matrix.shape[1]), atol=1e-5
    )


class HalfTorso(snt.Module):
  """A torso of one's own: the mean of each half of a vector."""

  def __init__(self, observation):
    super().__init__(name='half')
    self.half = observation.shape[0] // 2

  def __call__(self, observation):
    return tf.stack(
      [
        tf.reduce_mean(observation[:, : self.half], 1),
        tf.reduce_mean(observation[:, self.half :], 1),
      ],
      1,
    )


class TestFindTorso:
  IMAGE, VECTOR = IMAGE.observation, VECTOR.observation

  def test_auto_is_shallow_for_images_and_mlp_for_vectors(self):
    assert torsos.find_torso('auto', self.IMAGE) is torsos.Shallow
    assert torsos.find_torso('auto', self.VECTOR) is torsos.Mlp

  def test_a_name_is_taken_at_its_word(self):
    assert torsos.find_torso('deep', self.IMAGE) is torsos.Deep
    assert torsos.find_torso('mlp', self.IMAGE) is torsos.Mlp

  def test_ones_own_class_is_used(self):
    agent = make_agent(VECTOR, network=f'{__name__}:HalfTorso', frame_stack=2)
    env_outputs, actions = random_inputs(VECTOR, 3, 6)
    agent.unroll(env_outputs, actions, agent.initial_state(6))
    assert num_parameters(agent) == linear(2, NUM_ACTIONS) + linear(2, 1)

  def test_an_unknown_name_is_answered_with_the_known_ones(self):
    with pytest.raises(
      ValueError,
      match=r'--network=shalow is not known\. Choose one of: auto, shallow, '
      'nature, deep, universe, small, mlp, or module:Class',
    ):
      torsos.find_torso('shalow', self.IMAGE)

  @pytest.mark.parametrize('network', ['shallow', 'nature', 'deep'])
  def test_a_net_for_images_refuses_vectors(self, network):
    with pytest.raises(
      ValueError,
      match=rf'--network={network} needs image .* \(5,\). Use --network=mlp',
    ):
      torsos.find_torso(network, self.VECTOR)

  @pytest.mark.parametrize(
    ('network', 'least'), [('shallow', 20), ('nature', 36)]
  )
  def test_a_net_says_how_many_pixels_it_needs(self, network, least):
    for shape in (least - 1, 84, 1), (84, least - 1, 1):
      with pytest.raises(
        ValueError,
        match=rf'^--network={network} needs at least {least} x {least} pixels; '
        rf'this level gives {shape[0]} x {shape[1]}\. .* --network=small\.$',
      ):
        networks.Agent(environment_spec(shape, np.uint8), network=network)
    networks.Agent(
      environment_spec((least, least, 1), np.uint8), network=network
    )
    networks.Agent(environment_spec((8, 9, 1), np.uint8), network='deep')

  @pytest.mark.parametrize(
    ('network', 'reason'),
    [
      ('no_such_module:Torso', "No module named 'no_such_module'"),
      ('scalable_agent.networks:Tors', "has no attribute 'Tors'"),
      (':Torso', 'Empty module name'),
    ],
  )
  def test_a_class_that_cannot_be_imported_is_named(self, network, reason):
    with pytest.raises(
      ValueError, match=f'--network={network} cannot be imported: .*{reason}'
    ):
      torsos.find_torso(network, self.VECTOR)


class TestSampling:
  def _step(self, agent, seed, batch=6):
    env_outputs, actions = random_inputs(VECTOR, 3, batch)
    step = times(env_outputs, 0)
    state = agent.initial_state(batch)
    return agent.step(step, actions[0], state, np.array(seed))[0]

  def test_the_same_seed_gives_the_same_actions(self):
    agent = make_agent(VECTOR)
    one, two = self._step(agent, [1, 5], 200), self._step(agent, [1, 5], 200)
    np.testing.assert_array_equal(one.action, two.action)
    for other in ([1, 6], [2, 5]):
      assert (self._step(agent, other, 200).action != one.action).numpy().any()

  def test_rows_draw_for_themselves(self):
    agent = make_agent(VECTOR)
    env_outputs, actions = random_inputs(VECTOR, 3, 6)
    same = tree.map_structure(
      lambda x: np.repeat(x[0, :1], 100, 0), env_outputs
    )
    output, _ = agent.step(
      same,
      np.repeat(actions[0, :1], 100),
      agent.initial_state(100),
      np.array([1, 2]),
    )
    assert len(np.unique(output.action)) > 1

  def test_actions_are_as_frequent_as_the_policy_says(self):
    agent = make_agent(VECTOR)
    env_outputs, actions = random_inputs(VECTOR, 3, 6)
    rows = 20_000
    same = tree.map_structure(
      lambda x: np.repeat(x[0, :1], rows, 0), env_outputs
    )
    output, _ = agent.step(
      same,
      np.repeat(actions[0, :1], rows),
      agent.initial_state(rows),
      np.array([1, 2]),
    )
    policy = tf.nn.softmax(output.policy_logits[0]).numpy()
    assert policy.max() - policy.min() > 0.1  # Else it proves little.
    frequencies = np.bincount(output.action, minlength=NUM_ACTIONS) / rows
    # Five standard deviations.
    margin = 5 * np.sqrt(policy * (1 - policy) / rows)
    assert (np.abs(frequencies - policy) < margin).all()

  def test_the_first_policy_is_close_to_uniform(self):
    tf.random.set_seed(1)
    agent = networks.Agent(VECTOR)
    policy = tf.nn.softmax(self._step(agent, [1, 1]).policy_logits).numpy()
    np.testing.assert_allclose(policy, 1 / NUM_ACTIONS, atol=0.05)

  def test_the_seed_of_tensorflow_decides_the_weights(self):
    def weights(seed):
      tf.random.set_seed(seed)
      agent = networks.Agent(VECTOR, lstm=True)
      return [v.numpy() for v in agent.trainable_variables]

    for one, two in zip(weights(1), weights(1), strict=True):
      np.testing.assert_array_equal(one, two)
    assert any(
      (one != two).any()
      for one, two in zip(weights(1), weights(2), strict=True)
    )


def test_no_action_is_less_probable_than_the_minimum_makes_it():
  least = 0.05
  plain, bounded = make_agent(VECTOR), make_agent(VECTOR, min_policy=least)
  env_outputs, actions = random_inputs(VECTOR, 3, 4)
  env_outputs = env_outputs._replace(observation=env_outputs.observation * 30)
  policies = []
  for agent in (plain, bounded):
    (logits, _), _ = agent.unroll(env_outputs, actions, agent.initial_state(4))
    policies.append(tf.nn.softmax(logits).numpy())
  most = 1 + least * NUM_ACTIONS
  assert policies[0].min() < 1e-3
  np.testing.assert_allclose(
    policies[1], (policies[0] + least) / most, rtol=1e-4
  )
  # Who acts has the same policy as who learns.
  step = times(env_outputs, 0)
  output, _ = bounded.step(
    step, actions[0], bounded.initial_state(4), np.zeros([2], int)
  )
  np.testing.assert_allclose(
    tf.nn.softmax(output.policy_logits), policies[1][0], rtol=1e-4
  )


def test_an_unroll_of_unknown_length_is_refused_by_the_lstm():
  agent = make_agent(VECTOR, lstm=True)

  @tf.function(autograph=False)
  def unroll(env_outputs, actions):
    return agent.unroll(env_outputs, actions, agent.initial_state(6))

  env_outputs, actions = random_inputs(VECTOR, 3, 6)
  specs = tree.map_structure(
    lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype),
    (env_outputs, actions),
  )
  with pytest.raises(ValueError, match='static unroll length'):
    unroll.get_concrete_function(*specs)
