"""Nests of observations: each part by its kind."""

import numpy as np
import pytest
import sonnet as snt
import tensorflow as tf
import tree

from scalable_agent import action_spaces, networks, structures
from scalable_agent.networks import encoders, language, torsos
from scalable_agent.structures import CategorySpec, TensorSpec, TextSpec
from tests.step_types import assert_every_case_occurs, random_step_types

FLOAT, INT, BYTE = (np.dtype(x) for x in ('float32', 'int32', 'uint8'))
LENGTH = 5
TEXT = TextSpec((LENGTH,), INT, 50)
# Every kind of part, in dicts and tuples.
NEST = {
  'screen': TensorSpec((24, 22, 1), BYTE),
  'map': (TensorSpec((7, 6, 3), BYTE), TensorSpec((3,), FLOAT)),
  'grid': CategorySpec((5, 4, 2), BYTE, 11),
  'direction': CategorySpec((), INT, 4),
  'slots': CategorySpec((2,), INT, 3),
  'mission': TEXT,
}
SPACE = action_spaces.Discrete(3)


def environment_spec(observation, space=SPACE):
  return structures.EnvironmentSpec(observation, space, 1)


def random_part(rng, spec, shape):
  shape = (*shape, *spec.shape)
  if isinstance(spec, TextSpec):
    words = rng.integers(1, spec.num_buckets + 1, shape)
    counts = rng.integers(0, LENGTH + 1, shape[:-1])
    return np.where(np.arange(LENGTH) < counts[..., None], words, 0).astype(
      spec.dtype
    )
  if isinstance(spec, CategorySpec):
    return rng.integers(spec.num_values, size=shape).astype(spec.dtype)
  if spec.dtype == BYTE:
    return rng.integers(0, 256, shape).astype(BYTE)
  return rng.normal(size=shape).astype(spec.dtype)


def random_inputs(spec, time, batch, seed=0):
  rng = np.random.default_rng(seed)
  env_outputs = structures.StepOutput(
    step_type=random_step_types(rng, time, batch),
    reward=rng.normal(size=(time, batch)).astype(np.float32),
    discount=np.ones([time, batch], np.float32),
    observation=tree.map_structure(
      lambda one: random_part(rng, one, (time, batch)), spec.observation
    ),
    info=(),
  )
  return env_outputs, spec.action_space.sample(rng, time * batch).reshape(
    time, batch, *spec.action_space.shape
  )


def make_agent(spec, **options):
  tf.random.set_seed(3)
  agent = networks.Agent(spec, **options)
  for variable in agent.trainable_variables:
    if 'policy_logits/w' in variable.name:
      variable.assign(variable * 100)
  return agent


def leaves():
  return [path for path, _ in tree.flatten_with_path(NEST)]


def changed_at(env_outputs, path):
  """The same step outputs with other values in one part of observations."""
  rng = np.random.default_rng(9)
  spec = dict(tree.flatten_with_path(NEST))[path]

  def change(at, x):
    return random_part(rng, spec, x.shape[:2]) if at == path else x

  return env_outputs._replace(
    observation=tree.map_structure_with_path(change, env_outputs.observation)
  )


@pytest.mark.parametrize('path', leaves(), ids=str)
def test_every_part_has_a_say(path):
  spec = environment_spec(NEST)
  agent = make_agent(spec)
  env_outputs, actions = random_inputs(spec, 3, 4)
  (logits, baseline), _ = agent.unroll(
    env_outputs, actions, agent.initial_state(4)
  )
  assert logits.shape == (3, 4, 3)
  (others, _), _ = agent.unroll(
    changed_at(env_outputs, path), actions, agent.initial_state(4)
  )
  # In each place, if not by chance the same.
  assert np.mean(np.any(logits != others, -1)) > 0.3
  assert np.isfinite(baseline).all()


@pytest.mark.parametrize('frame_stack', [1, 4])
@pytest.mark.parametrize('space', [SPACE, action_spaces.MultiDiscrete((2, 3))])
def test_an_unroll_is_its_steps_one_by_one(frame_stack, space):
  spec = environment_spec(NEST, space)
  agent = make_agent(
    spec, frame_stack=frame_stack, lstm=True, last_action_reward=True
  )
  time, batch = 7, 4
  env_outputs, actions = random_inputs(spec, time, batch)
  assert_every_case_occurs(env_outputs.step_type)
  state = agent.initial_state(batch)
  (logits, baseline), final = agent.unroll(env_outputs, actions, state)
  for t in range(time):
    output, state = agent.step(
      tree.map_structure(lambda x, t=t: x[t], env_outputs),
      actions[t],
      state,
      np.array([1, t]),
    )
    np.testing.assert_allclose(output.policy_logits, logits[t], atol=1e-4)
    np.testing.assert_allclose(output.baseline, baseline[t], atol=1e-4)
    space.check(output.action.numpy())
  tree.map_structure(
    lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), state, final
  )


def test_frames_are_stacked_and_names_and_words_are_not():
  spec = environment_spec(NEST)
  agent = networks.Agent(spec, frame_stack=4)
  frames = agent.initial_state(2).frames
  shapes = [tree.map_structure(lambda x: tuple(x.shape), f) for f in frames]
  # In the order of sorted keys.
  assert shapes == [
    (),  # direction
    (),  # grid
    ((2, 7, 6, 3),) * 3,
    ((2, 3),) * 3,
    (),  # mission
    (2, 24, 22),  # Four bytes in one.
    (),  # slots
  ]


def test_frames_behind_observations_are_those_of_an_unroll():
  spec = environment_spec(NEST)
  agent = networks.Agent(spec, frame_stack=3)
  env_outputs, actions = random_inputs(spec, 6, 4)
  state = agent.initial_state(4)
  _, expected = agent.unroll(env_outputs, actions, state)
  actual = agent.skip_frames(
    env_outputs.observation,
    env_outputs.step_type == structures.FIRST,
    tree.map_structure(np.asarray, state.frames),
  )
  tree.map_structure(np.testing.assert_array_equal, actual, expected.frames)


def test_pixels_of_each_image_are_normalised_by_their_own():
  spec = environment_spec(NEST)
  agent = networks.Agent(spec)
  env_outputs, _ = random_inputs(spec, 5, 4)
  moments = agent.moments(env_outputs)
  assert len(moments) == 6  # Of two images of bytes, and not of symbols.
  agent.observe(moments)
  means = [v for v in agent.variables if v.name.endswith('mean:0')]
  images = [
    env_outputs.observation['map'][0],
    env_outputs.observation['screen'],
  ]
  assert {tuple(m.shape) for m in means} == {(7, 6, 3), (24, 22, 1)}
  for image in images:
    (mean,) = [m for m in means if m.shape == image.shape[2:]]
    expected = image[::4].astype(np.float64).mean((0, 1))
    np.testing.assert_allclose(mean, expected, rtol=1e-4)


def test_names_are_seen_as_one_hot():
  spec = CategorySpec((2, 3, 2), BYTE, 4)
  seen = []

  class Spy(snt.Module):
    def __init__(self, observation):
      super().__init__()
      self.spec = observation

    def __call__(self, observation):
      seen.append((self.spec, observation))
      return snt.flatten(observation)

  names = np.random.default_rng(1).integers(4, size=(5, 2, 3, 2)).astype(BYTE)
  encoder = encoders.Encoder('small', spec, mix=True)
  encoder._images = [Spy(torsos.as_numbers(spec))]
  encoder(tf.constant(names))
  ((numbers, channels),) = seen
  assert numbers.shape == (2, 3, 8)
  for place in np.ndindex(5, 2, 3):
    expected = [float(name == i) for name in names[place] for i in range(4)]
    assert channels[place].numpy().tolist() == expected


def test_a_single_name_is_one_hot_as_well():
  agent = make_agent(environment_spec(CategorySpec((), INT, 16)))
  assert [v for v in agent.trainable_variables if v.shape == (16, 64)]


def test_ones_own_torso_gets_the_nest():
  spec = environment_spec(NEST)
  agent = make_agent(spec, network=f'{__name__}:Torso', frame_stack=2)
  env_outputs, actions = random_inputs(spec, 3, 4)
  (logits, _), _ = agent.unroll(env_outputs, actions, agent.initial_state(4))
  assert logits.shape == (3, 4, 3)


class Torso(snt.Module):
  """Looks at what it is given."""

  def __init__(self, observation):
    super().__init__()
    assert observation == NEST | {
      'screen': TensorSpec((24, 22, 2), FLOAT),
      'map': (TensorSpec((7, 6, 6), FLOAT), TensorSpec((6,), FLOAT)),
    }
    self._spec = observation

  def __call__(self, observation):
    tree.assert_same_structure(observation, self._spec)
    tree.map_structure(self._look, self._spec, observation)
    return observation['map'][1]

  def _look(self, spec, x):
    assert x.shape[1:] == spec.shape
    assert x.dtype == spec.dtype


@pytest.mark.parametrize(
  ('observation', 'name'),
  [
    (TensorSpec((84, 84, 1), BYTE), 'shallow'),
    (TensorSpec((19, 84, 1), BYTE), 'small'),
    (CategorySpec((7, 7, 3), BYTE, 11), 'small'),
    ({'a': TensorSpec((84, 84, 1), BYTE), 'b': TEXT}, 'shallow'),
    (NEST, 'small'),  # Fits them all.
    (CategorySpec((), INT, 4), 'mlp'),
    ({'a': TensorSpec((3,), FLOAT), 'b': TEXT}, 'mlp'),
  ],
)
def test_auto_is_what_fits_the_smallest_image(observation, name):
  assert networks.resolve('auto', observation) == name
  make_agent(environment_spec(observation))


def test_a_net_of_images_is_refused_where_there_are_none():
  observation = {'a': TensorSpec((3,), FLOAT), 'b': TEXT}
  with pytest.raises(
    ValueError, match=r'^--network=deep needs images, .* Use --network=mlp\.$'
  ):
    networks.Agent(environment_spec(observation), network='deep')


class TestLanguage:
  @pytest.fixture
  def module(self):
    tf.random.set_seed(1)
    return language.Language(TEXT)

  def read(self, module, words):
    """What an LSTM makes of words, one by one."""
    state = module._lstm.initial_state(1)
    output = tf.zeros([1, language.LSTM_SIZE])
    for word in words:
      embedded = module._embedding(tf.constant([word - 1]))
      output, state = module._lstm(embedded, state)
    return output[0]

  @pytest.mark.parametrize('graph', [False, True])
  def test_features_are_the_output_at_the_last_word(self, module, graph):
    texts = [[3], [7, 1, 50], [], [2, 2, 2, 2, 2], [1]]
    words = np.zeros([5, LENGTH], np.int32)
    for row, text in zip(words, texts, strict=True):
      row[: len(text)] = text
    function = tf.function(module.__call__) if graph else module
    features = function(tf.constant(words))
    assert features.shape == (5, 64)
    for one, text in zip(features, texts, strict=True):
      np.testing.assert_allclose(one, self.read(module, text), atol=1e-6)
    assert not features[2].numpy().any()
    assert np.any(features[0] != features[4])

  def test_no_text_at_all_is_zeros(self, module):
    assert not module(tf.zeros([3, LENGTH], tf.int32)).numpy().any()

  def test_words_are_learned_from(self, module):
    words = tf.constant([[5, 9, 0, 0, 0], [0, 0, 0, 0, 0]])

    @tf.function
    def gradients():
      with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(module(words)))
      return [
        tf.convert_to_tensor(g)
        for g in tape.gradient(loss, module.trainable_variables)
      ]

    rows = {}
    for variable, gradient in zip(
      module.trainable_variables, gradients(), strict=True
    ):
      assert gradient.numpy().any(), variable.name
      if 'embed' in variable.name:
        rows = set(np.flatnonzero(gradient.numpy().any(-1)))
    assert rows == {4, 8}  # Of words 5 and 9.

  def test_a_strangers_words_are_no_error(self, module):
    module(tf.constant([[-3, 2**30, 51, 0, 0]]))

  def test_it_has_the_parameters_of_2018(self):
    module = language.Language(TextSpec((32,), INT, 1000))
    sizes = [int(np.prod(v.shape)) for v in module.trainable_variables]
    assert sum(sizes) == 1000 * 20 + 4 * 64 * (20 + 64 + 1)


class TestMixing:
  """Whether a number has the sign that a name says, which is no sum."""

  NEST = {  # noqa: RUF012
    'number': TensorSpec((1,), FLOAT),
    'name': CategorySpec((), INT, 2),
    'text': TEXT,
  }

  def error(self, **options):
    """What is left of it after some learning."""
    agent = make_agent(environment_spec(self.NEST), **options)
    rng = np.random.default_rng(1)
    number = rng.choice([-1.0, 1.0], (1, 64, 1)).astype(np.float32)
    name = rng.integers(2, size=(1, 64)).astype(np.int32)
    words = np.zeros([1, 64, LENGTH], np.int32)
    words[..., 0] = 1 + rng.integers(2, size=(1, 64))
    target = number[..., 0] * (2 * name - 1) * (2 * words[..., 0] - 3)
    env_outputs = structures.StepOutput(
      step_type=np.full([1, 64], structures.MID, np.int32),
      reward=np.zeros([1, 64], np.float32),
      discount=np.ones([1, 64], np.float32),
      observation={'number': number, 'name': name, 'text': words},
      info=(),
    )
    optimizer = snt.optimizers.Adam(3e-3)

    @tf.function
    def learn():
      with tf.GradientTape() as tape:
        (_, baseline), _ = agent.unroll(
          env_outputs, np.zeros([1, 64], np.int32), agent.initial_state(64)
        )
        loss = tf.reduce_mean(tf.square(baseline - target))
      gradients = tape.gradient(loss, agent.trainable_variables)
      optimizer.apply(
        [
          tf.zeros_like(v) if g is None else tf.convert_to_tensor(g)
          for g, v in zip(gradients, agent.trainable_variables, strict=True)
        ],
        agent.trainable_variables,
      )
      return loss

    return [float(learn()) for _ in range(300)][-1]

  @pytest.mark.parametrize('lstm', [False, True])
  def test_an_agent_can_put_its_parts_together(self, lstm):
    assert self.error(lstm=lstm) < 0.1

  def test_without_the_layer_it_could_not(self, monkeypatch):
    right = encoders.Encoder

    def wrong(network, spec, mix):
      return right(network, spec, mix=False)

    monkeypatch.setattr(encoders, 'Encoder', wrong)
    assert self.error() > 0.5

  def test_one_part_needs_no_layer(self):
    one = encoders.Encoder('mlp', {'a': TensorSpec((3,), FLOAT)}, mix=True)
    both = encoders.Encoder('mlp', self.NEST, mix=True)
    assert one._mix is None
    assert both._mix is not None
