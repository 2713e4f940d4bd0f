"""Steps as bytes: what environments show, and what they are told to do."""

import numpy as np
import pytest
import tree

from scalable_agent import action_spaces, structures
from scalable_agent.transport import malformed, step_codec
from tests import acting, clockwork
from tests.transport.test_unroll_codec import (
  assert_same,
  make_catch,
  make_clocks,
  make_images,
  make_nests_of_choices,
  make_nests_of_numbers,
)

NUM_ENVS = 3
HEADER = b'header'
MAKERS = [
  make_catch,
  make_clocks,
  make_images,
  make_nests_of_choices,
  make_nests_of_numbers,
]


def actions_of(space, columns, seed=0):
  """Random actions of a space, [E, ...]."""
  rng = np.random.default_rng(seed)
  if isinstance(space, action_spaces.Box):
    return rng.normal(size=(columns, *space.shape)).astype(space.dtype)
  return rng.integers(2, size=(columns, *space.shape)).astype(space.dtype)


def layout_of(environment):
  return step_codec.Layout(environment.spec)


class TestWhatIsShown:
  @pytest.mark.parametrize('make_environment', MAKERS)
  def test_comes_out_as_it_went_in(self, make_environment):
    environment = make_environment()
    layout = layout_of(environment)
    env_output = environment.reset()
    kinds = set()
    for seed in range(15):
      message = layout.write(env_output, HEADER)
      assert message.startswith(HEADER)
      assert_same(layout.read(message, len(HEADER), NUM_ENVS), env_output)
      kinds |= set(env_output.step_type.tolist())
      env_output = environment.step(
        actions_of(environment.spec.action_space, NUM_ENVS, seed)
      )
    assert kinds == {structures.FIRST, structures.MID, structures.LAST}

  @pytest.mark.parametrize('columns', [1, 2, 40])
  def test_of_any_number_of_columns(self, columns):
    environment = acting.ImageEnvironment(columns)
    layout = layout_of(environment)
    env_output = environment.reset()
    assert_same(layout.read(layout.write(env_output), 0, columns), env_output)

  def test_takes_the_bytes_of_its_arrays(self):
    environment = make_images()
    message = layout_of(environment).write(environment.reset(), HEADER)
    # A frame; step type, reward, discount, return and step.
    frame = acting.ImageEnvironment.HEIGHT * acting.ImageEnvironment.WIDTH
    assert len(message) == len(HEADER) + NUM_ENVS * (frame + 5 * 4)

  @pytest.mark.parametrize('change', [-1, 1, 10**6])
  def test_of_another_length_is_malformed(self, change):
    environment = make_images()
    layout = layout_of(environment)
    good = layout.write(environment.reset())
    bad = good[:change] if change < 0 else good + bytes(change)
    with pytest.raises(
      malformed.Malformed, match=f'^{len(bad)} bytes instead of {len(good)}$'
    ):
      layout.read(bad, 0, NUM_ENVS)

  @pytest.mark.parametrize('columns', [1, NUM_ENVS - 1, NUM_ENVS + 1, 2**16])
  def test_of_other_columns_is_malformed(self, columns):
    environment = make_clocks()
    layout = layout_of(environment)
    with pytest.raises(malformed.Malformed, match='bytes instead of'):
      layout.read(layout.write(environment.reset()), 0, columns)

  @pytest.mark.parametrize(
    ('field', 'value', 'message'),
    [
      ('step_type', -1, 'a step type that does not exist'),
      ('step_type', 3, 'a step type that does not exist'),
      ('discount', 1.5, 'a discount beyond 0 to 1'),
      ('discount', -0.5, 'a discount beyond 0 to 1'),
      ('discount', np.nan, 'a discount beyond 0 to 1'),
      ('reward', np.nan, 'reward is not finite'),
      ('reward', np.inf, 'reward is not finite'),
      ('observation', -np.inf, 'observation is not finite'),
      ('info', np.nan, 'info/episode_return is not finite'),
    ],
  )
  def test_that_no_environment_shows_is_malformed(self, field, value, message):
    environment = make_clocks()
    layout = layout_of(environment)
    env_output = tree.map_structure(np.array, environment.reset())
    array = getattr(env_output, field)
    if field == 'info':
      array = array.episode_return
    array[1] = value
    with pytest.raises(malformed.Malformed, match=f'^{message}$'):
      layout.read(layout.write(env_output), 0, NUM_ENVS)


class TestActions:
  @pytest.mark.parametrize('make_environment', MAKERS)
  @pytest.mark.parametrize('columns', [1, 3])
  def test_come_out_as_they_went_in(self, make_environment, columns):
    environment = make_environment()
    layout = layout_of(environment)
    actions = actions_of(environment.spec.action_space, columns)
    message = layout.write_action(actions)
    assert message == actions.tobytes()
    assert_same(layout.read_action(message, columns), actions)

  @pytest.mark.parametrize('change', [-1, 1, 4])
  def test_of_another_length_are_malformed(self, change):
    layout = layout_of(make_clocks())
    with pytest.raises(
      malformed.Malformed, match=f'^{12 + change} bytes instead of 12$'
    ):
      layout.read_action(bytes(12 + change), NUM_ENVS)


def test_layouts_differ_where_environments_do():
  descriptions = [
    layout_of(one).describe()
    for one in (
      *(make() for make in MAKERS),
      clockwork.ClockworkEnvironment(NUM_ENVS),
      acting.NestEnvironment(action_spaces.MultiDiscrete((3, 2, 2)), NUM_ENVS),
    )
  ]
  for i, one in enumerate(descriptions):
    same = [j for j, other in enumerate(descriptions) if one == other]
    # The clocks are the same, whatever their episodes.
    assert same == ([1, 5] if i in (1, 5) else [i])


def test_a_description_names_every_array():
  assert layout_of(make_clocks()).describe() == [
    ['0/step_type', [], 'int32'],
    ['0/reward', [], 'float32'],
    ['0/discount', [], 'float32'],
    ['0/observation', [1], 'float32'],
    ['0/info/episode_return', [], 'float32'],
    ['0/info/episode_step', [], 'int32'],
    ['1', [], 'int32'],
  ]
