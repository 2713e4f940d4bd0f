"""Gymnasium environments, in this process and in their own."""

import functools
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import gymnasium
import numpy as np
import pytest
import tree

from scalable_agent import action_spaces, structures
from scalable_agent.environments import (
  gymnasium_registry,
  gymnasium_suite,
  gymnasium_wrapper,
  instructions,
)
from scalable_agent.structures import FIRST, LAST, MID
from tests.configs import make_environment
from tests.environments import contract, toys

U8, I32, F32 = map(np.dtype, (np.uint8, np.int32, np.float32))
ROOT = pathlib.Path(__file__).resolve().parents[2]


def make(name='CartPole-v1', num_envs=2, seed=3, **options):
  return make_environment(name, num_envs, seed, **options)


def toy(name, **kwargs):
  return make(f'tests.environments.toys:Toys/{name}-v0', **kwargs)


def processes():
  return {process.pid for process in multiprocessing.active_children()}


@pytest.fixture
def deadline():
  """Fails a test that hangs, in seconds."""

  def fail(signum, frame):
    raise TimeoutError('the environment hangs')

  before = signal.signal(signal.SIGALRM, fail)
  signal.alarm(120)
  yield
  signal.alarm(0)
  signal.signal(signal.SIGALRM, before)


class TestInProcess(contract.Contract):
  @pytest.fixture
  def subject(self):
    return contract.Subject(make=lambda seed: make(seed=seed), steps=80)


@pytest.mark.usefixtures('deadline')
class TestInProcessesOfTheirOwn(contract.Contract):
  @pytest.fixture
  def subject(self):
    return contract.Subject(
      make=lambda seed: make(seed=seed, env_processes=1), steps=80
    )


@pytest.mark.usefixtures('deadline')
class TestToys(contract.Contract):
  @pytest.fixture(
    params=[
      ('Nested', 0),
      ('Nested', 1),
      ('Many', 0),
      ('Buttons', 1),
      ('Levers', 0),
      ('Levers', 1),
    ],
    ids=lambda param: f'{param[0]}-{param[1]}',
  )
  def subject(self, request):
    name, env_processes = request.param
    return contract.Subject(
      make=lambda seed: toy(name, seed=seed, env_processes=env_processes),
      steps=20,
      uses_seed=False,
    )


class TestPendulum(contract.Contract):
  @pytest.fixture
  def subject(self):
    return contract.Subject(
      make=lambda seed: make('Pendulum-v1', seed=seed), steps=200
    )


@pytest.mark.usefixtures('deadline')
@pytest.mark.parametrize(
  'maker',
  [
    make,
    *(functools.partial(toy, name) for name in ('Nested', 'Many', 'Levers')),
  ],
)
def test_processes_give_the_same_as_none(maker):
  one, two = maker(), maker(env_processes=1)
  try:
    assert one.spec == two.spec
    contract.assert_equal(
      contract.stack(contract.play(one, 60)),
      contract.stack(contract.play(two, 60)),
    )
  finally:
    two.close()


def test_the_time_limit_of_cart_pole_is_a_truncation():
  environment = make(num_envs=1)
  output = environment.reset()
  steps = 0
  while output.step_type[0] != LAST:
    _, velocity, angle, spin = output.observation[0]
    push = angle + 0.5 * spin + 0.05 * velocity > 0
    output = environment.step(np.array([int(push)]))
    steps += 1
  assert steps == 500
  assert output.discount[0] == 1
  assert output.info.episode_return[0] == 500


def test_falling_over_is_a_termination():
  environment = make(num_envs=1)
  output = environment.reset()
  while output.step_type[0] != LAST:
    output = environment.step(np.array([1]))
  assert output.discount[0] == 0


def test_an_action_repeat_adds_rewards_and_stops_at_the_end():
  environment = toy('Gray', num_envs=1, num_action_repeats=4)
  assert environment.spec.frames_per_step == 4
  outputs = [environment.reset()]
  outputs += [environment.step(np.array([2])) for _ in range(3)]
  played = contract.stack(outputs)
  np.testing.assert_array_equal(played.reward[:, 0], [0, 8, 4, 0])
  np.testing.assert_array_equal(
    played.step_type[:, 0], [FIRST, MID, LAST, FIRST]
  )
  np.testing.assert_array_equal(played.observation[:, 0, 0, 0, 0], [0, 4, 6, 0])


def test_an_action_repeat_stops_where_an_episode_is_cut_off():
  options = gymnasium_suite.GymnasiumOptions(num_action_repeats=4)
  limited = gymnasium.wrappers.TimeLimit(toys.Gray(), 3)
  environment = gymnasium_wrapper.Plain(limited, 'Toy-v0', options)
  environment.reset()
  _, reward, terminated, truncated, _ = environment.step(np.int64(2))
  assert (reward, terminated, truncated) == (6.0, False, True)


def test_one_choice_reaches_the_environment_without_numpy():
  given = []

  class Strict(toys.Toy):
    def reward(self, action):
      given.append(action)
      return 0.0

  options = gymnasium_suite.GymnasiumOptions()
  environment = gymnasium_wrapper.Plain(Strict(), 'Toy-v0', options)
  environment.reset()
  environment.step(np.int64(2))
  assert given == [2]
  assert type(given[0]) is int


def test_actions_may_start_elsewhere_than_at_zero():
  environment = toy('Shifted', num_envs=3)
  environment.reset()
  assert environment.spec.action_space == action_spaces.Discrete(3)
  output = environment.step(np.array([0, 1, 2]))
  np.testing.assert_array_equal(output.reward, [5, 6, 7])


@pytest.mark.parametrize(
  ('name', 'shape'), [('Gray', (8, 6, 1)), ('Colour', (8, 6, 3))]
)
def test_images_stay_bytes_with_channels_last(name, shape):
  environment = toy(name)
  assert environment.spec.observation == structures.TensorSpec(
    shape, np.dtype(np.uint8)
  )
  environment.reset()
  output = environment.step(np.array([0, 0]))
  np.testing.assert_array_equal(output.observation, np.ones([2, *shape]))


def test_a_discrete_observation_is_a_category():
  environment = toy('OneHot', num_envs=1)
  outputs = contract.stack(contract.play(environment, 4))
  assert environment.spec.observation == structures.CategorySpec((), I32, 7)
  np.testing.assert_array_equal(outputs.observation[:, 0], range(5))
  assert outputs.observation.dtype == np.int32


def test_numbers_in_the_shape_of_an_image_become_a_vector():
  environment = toy('FloatImage', num_envs=1)
  outputs = contract.stack(contract.play(environment, 2))
  np.testing.assert_array_equal(
    outputs.observation[:, 0], np.repeat([[0], [0.125], [0.25]], 144, axis=1)
  )


@pytest.mark.parametrize('env_processes', [0, 1])
def test_a_nest_stays_a_nest_of_parts_by_their_kinds(env_processes):
  environment = toy(
    'Nested', num_envs=2, env_processes=env_processes, instruction_length=5
  )
  assert environment.spec.observation == {
    'inner': {'gray': structures.TensorSpec((8, 6, 1), U8)},
    'image': structures.TensorSpec((8, 6, 4), U8),
    'named': structures.CategorySpec((), I32, 9),
    'names': structures.CategorySpec((2, 2), I32, 10),
    'pair': (
      structures.TensorSpec((4,), F32),
      (structures.TensorSpec((4,), F32),),
    ),
    'bytes': structures.TensorSpec((3,), F32),
    'text': structures.TextSpec((5,), I32, 1000),
  }
  outputs = contract.stack(contract.play(environment, 3))
  environment.close()
  word = instructions.encode('step', 1)[0]
  for n in range(4):
    contract.assert_equal(
      tree.map_structure(lambda x, n=n: x[n, 1], outputs.observation),
      {
        'inner': {'gray': np.full([8, 6, 1], n)},
        'image': np.full([8, 6, 4], n),
        'named': np.array(n),
        'names': np.full([2, 2], n),
        'pair': (np.full([4], n), (np.full([4], n % 2),)),
        'bytes': np.full([3], n),
        'text': np.array([word] * n + [0] * (5 - n)),
      },
    )


def test_a_space_whose_samples_are_texts_is_text():
  environment = toy('Mission')
  output = environment.reset()
  expected = instructions.encode('go to the door', 32)
  np.testing.assert_array_equal(output.observation, [expected, expected])


def test_a_text_that_is_too_long_names_the_option():
  environment = toy('Wordy', instruction_length=2)
  contract.play(environment, 2)
  with pytest.raises(
    ValueError, match=r"'word word word ' has 3 words, .*instruction_length=2"
  ):
    environment.step(np.array([0, 0]))


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('ChannelsFirst', r'\(3, 8, 6\), which looks like channels first. Wrap'),
    ('NestedFirst', r"in the part \['a'\]\[0\], which looks like .* Wrap"),
    ('Endless', r'observations of the space Sequence.*no fixed size.* wrapper'),
    ('NestedEndless', r"the part \['a'\]\[0\] .* space Sequence.* wrapper"),
    ('OfUnknown', r'the space .*Unknown.*unknown kind\. .* wrapper'),
    ('Both', r"action space Dict\('binary'.*but only Discrete, Multi.* Wrap"),
    ('Whole', r'action space Box\(0, 9.*int32\), but only .* floats .* Wrap'),
  ],
)
def test_what_is_not_supported_is_named_with_a_remedy(name, message):
  with pytest.raises(ValueError, match=rf'Toys/{name}-v0 .*{message}'):
    toy(name)


def test_several_choices_reach_the_environment_in_its_shape():
  environment = toy('Many', num_envs=3)
  environment.reset()
  assert environment.spec.action_space == action_spaces.MultiDiscrete(
    (2, 3, 2, 2)
  )
  output = environment.step(
    np.array([[0, 0, 0, 0], [1, 2, 1, 1], [0, 2, 0, 1]])
  )
  np.testing.assert_array_equal(output.reward, [1111, 2322, 1312])


def test_buttons_are_choices_of_two():
  environment = toy('Buttons', num_envs=2)
  environment.reset()
  assert environment.spec.action_space == action_spaces.MultiDiscrete((2, 2, 2))
  output = environment.step(np.array([[0, 1, 1], [1, 0, 0]]))
  np.testing.assert_array_equal(output.reward, [11, 100])


@pytest.mark.parametrize(
  ('bounds', 'expected'),
  [('clip', [[2, 1], [-2, 0], [1, 0.5]]), ('squash', None)],
)
def test_numbers_are_brought_within_the_bounds(bounds, expected):
  environment = toy('Levers', num_envs=3, action_bounds=bounds)
  environment.reset()
  actions = np.array([[9, 3], [-9, -1], [0.5, 0]], np.float32)
  if expected is None:
    expected = np.tanh(actions) * [2, 0.5] + [0, 0.5]
  output = environment.step(actions)
  np.testing.assert_allclose(
    output.reward, np.array(expected) @ [100, 1], rtol=1e-6
  )


def test_numbers_without_bounds_are_given_as_they_are():
  environment = toy('HalfBounded', num_envs=1)
  environment.reset()
  output = environment.step(np.array([[70.5, 9]], np.float32))
  np.testing.assert_array_equal(output.reward, [7051])


@pytest.mark.parametrize(
  ('name', 'bounds', 'message'),
  [
    ('HalfBounded', 'squash', r'.*not finite.*--action_bounds=squash.*clip\.$'),
    ('Empty', 'clip', 'number 0 has the bounds 0 and 0, .* Wrap'),
  ],
)
def test_bounds_that_do_not_do_are_refused(name, bounds, message):
  with pytest.raises(ValueError, match=rf'Toys/{name}-v0, {message}') as error:
    toy(name, action_bounds=bounds)
  assert str(error.value).startswith('Of actions of')


@pytest.mark.parametrize('env_processes', [0, 1])
def test_what_is_not_installed_is_named_with_a_remedy(env_processes):
  with pytest.raises(
    ValueError,
    match=r'^.*Toys/Unmakeable-v0 cannot be made: Box3D is not installed\. '
    r'Install what is missing, or change --level_name\.$',
  ):
    toy('Unmakeable', env_processes=env_processes)


def test_the_first_environment_can_be_rendered():
  environment = toy('Colour', render=True)
  environment.reset()
  environment.step(np.array([0, 0]))
  np.testing.assert_array_equal(environment.render(), np.ones([8, 6, 3]))
  environment.close()


def test_what_cannot_be_rendered_says_so():
  for name in 'Gray', 'Modeless':
    with pytest.raises(
      ValueError, match=rf'Toys/{name}-v0 .* without rgb_array'
    ):
      toy(name, render=True)
  environment = toy('Unfilmable', render=True)
  environment.reset()
  with pytest.raises(
    ValueError,
    match=r'Toys/Unfilmable-v0 cannot be filmed: .*no_such_module.*\. '
    r'Install what is missing, or change --video_dir\.$',
  ):
    environment.render()
  with pytest.raises(ValueError, match=r'^--env_processes=1 .* video .*render'):
    make(render=True, env_processes=1)


def test_close_ends_the_processes():
  before, main = processes(), sys.modules['__main__']
  environment = make(num_envs=3, env_processes=1)
  assert len(processes() - before) == 3
  assert sys.modules['__main__'] is main
  environment.reset()
  environment.close()
  assert processes() == before


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.usefixtures('deadline')
def test_an_exception_in_a_process_surfaces_with_its_traceback():
  before = processes()
  environment = toy('Failing', num_envs=3, env_processes=1)
  environment.reset()
  environment.step(np.zeros([3], np.int32))
  with pytest.raises(
    RuntimeError, match=r'(?s)Traceback.*in reward.*the simulator broke'
  ):
    environment.step(np.zeros([3], np.int32))
  with pytest.raises(RuntimeError, match='has failed with an exception before'):
    environment.step(np.zeros([3], np.int32))
  assert processes() == before
  environment.close()


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.usefixtures('deadline')
def test_so_does_an_exception_at_the_reset():
  before = processes()
  environment = toy('Unstartable', num_envs=2, env_processes=1)
  with pytest.raises(
    RuntimeError, match=r'(?s)reset failed.*Traceback.*the simulator does not'
  ):
    environment.reset()
  assert processes() == before
  environment.close()


def test_an_exception_in_this_process_is_raised_as_it_is():
  environment = toy('Failing', num_envs=3)
  environment.reset()
  environment.step(np.zeros([3], np.int32))
  with pytest.raises(toys.UnpicklableError, match='the simulator broke'):
    environment.step(np.zeros([3], np.int32))


@pytest.mark.usefixtures('deadline')
def test_a_process_that_dies_is_reported_with_its_exit_code():
  before = processes()
  environment = toy('Dying', num_envs=2, env_processes=1)
  environment.reset()
  environment.step(np.zeros([2], np.int32))
  with pytest.raises(RuntimeError, match=r'Toys/Dying-v0 died; .*[\[ ]3[,\]]'):
    environment.step(np.zeros([2], np.int32))
  assert processes() == before
  environment.close()


def test_processes_do_not_import_the_program_that_was_started(tmp_path):
  # Without a guard for __main__: an import of it would start processes anew.
  program = tmp_path / 'program.py'
  program.write_text(
    textwrap.dedent("""
      import sys
      sys.modules['tensorflow'] = sys  # Stands for the real one.
      import numpy as np
      from scalable_agent import environments, structures
      level = environments.parse_level(
        'tests.environments.toys:Toys/Modules-v0')
      environment = environments.make(
        level, 2, environments.options_of(level, env_processes=1), 1)
      environment.reset()
      print('rewards', environment.step(np.zeros([2], np.int32)).reward)
      environment.close()
    """)
  )
  output = subprocess.run(
    [sys.executable, str(program)],
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    timeout=120,
    check=True,
  ).stdout
  assert output.splitlines() == ['rewards [0. 0.]']


def test_ctrl_c_is_left_to_the_parent():
  before = processes()
  environment = make(env_processes=1)
  environment.reset()
  for pid in processes() - before:
    os.kill(pid, signal.SIGINT)
  output = environment.step(np.zeros([2], np.int32))
  assert (output.step_type == MID).all()
  environment.close()


@pytest.mark.parametrize(
  ('limit', 'repeats', 'expected'), [(7, 1, 7), (7, 2, 7), (0, 1, 500)]
)
def test_an_episode_that_is_too_long_is_cut_off_and_has_a_future(
  limit, repeats, expected
):
  environment = make(
    'CartPole-v1',
    1,
    max_episode_length=limit,
    num_action_repeats=repeats,
  )
  environment.reset()
  for step in range(1, expected + 1):
    output = environment.step(np.array([step % 2]))
    if output.step_type[0] == structures.LAST:
      break
  environment.close()
  assert (step == limit) == bool(limit)
  # CartPole falls soon after if nothing cuts it off.
  assert output.discount[0] == (1.0 if limit else 0.0)


def test_a_limit_beyond_the_registered_one_changes_nothing():
  spec = gymnasium_registry.find_spec('CartPole-v1')
  for limit, expected in (499, 499), (501, 500), (0, 500):
    options = gymnasium_suite.GymnasiumOptions(max_episode_length=limit)
    cut = gymnasium_registry.cut_off(spec, options)
    assert cut.max_episode_steps == expected
  assert spec.max_episode_steps == 500
