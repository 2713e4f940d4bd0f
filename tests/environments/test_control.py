"""Continuous control: Pendulum and its like, and MuJoCo."""

import os

import numpy as np
import pytest

from scalable_agent import action_spaces, environments
from scalable_agent.environments import extras
from scalable_agent.structures import LAST
from tests.configs import make_environment
from tests.environments import contract

needs_mujoco = pytest.mark.skipif(
  not extras.is_installed('mujoco'), reason='needs mujoco'
)


def make(name='HalfCheetah-v5', num_envs=2, seed=3, **options):
  return make_environment(name, num_envs, seed, **options)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
  """An empty working directory, which must be left so."""
  monkeypatch.chdir(tmp_path)
  yield
  assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
  ('level_name', 'suite'),
  [
    ('Pendulum-v1', 'control'),
    ('MountainCarContinuous-v0', 'control'),
    ('MountainCar-v0', 'gymnasium'),
    ('CarRacing-v3', 'gymnasium'),
    pytest.param('HalfCheetah-v5', 'mujoco', marks=needs_mujoco),
    pytest.param('Hopper-v4', 'mujoco', marks=needs_mujoco),
  ],
)
def test_continuous_control_has_a_suite_of_its_own(level_name, suite):
  level = environments.parse_level(level_name)
  assert (level.suite.name, level.name) == (suite, level_name)
  assert environments.level_names().count(level_name) == 1


def test_pendulum_is_cut_off_and_has_a_future():
  environment = make('Pendulum-v1', num_envs=1)
  assert environment.spec.action_space == action_spaces.Box((-2.0,), (2.0,))
  environment.reset()
  for _ in range(200):
    output = environment.step(np.array([[0.3]], np.float32))
  assert output.step_type[0] == LAST
  assert output.discount[0] == 1


@needs_mujoco
class TestMujoco(contract.Contract):
  @pytest.fixture(params=[0, 1])
  def subject(self, request):
    return contract.Subject(
      make=lambda seed: make(
        'Hopper-v5', seed=seed, env_processes=request.param
      ),
      steps=60,
    )


@needs_mujoco
def test_a_cheetah_has_six_numbers_to_choose():
  environment = make()
  low, high = (-1.0,) * 6, (1.0,) * 6
  assert environment.spec.action_space == action_spaces.Box(low, high)
  outputs = contract.stack(contract.play(environment, 20))
  assert outputs.observation.shape == (21, 2, 17)


@needs_mujoco
def test_the_versions_of_old_are_refused():
  with pytest.raises(
    ValueError, match=r'^HalfCheetah-v2 cannot be made: .*gym'
  ):
    make('HalfCheetah-v2')


@needs_mujoco
def test_it_is_drawn_or_it_says_what_that_takes(monkeypatch):
  import mujoco

  from scalable_agent.environments import mujoco_factory

  environment = make(num_envs=1, render=True)
  environment.reset()
  monkeypatch.setattr(
    mujoco_factory.gymnasium.Wrapper,
    'render',
    lambda self: (_ for _ in ()).throw(mujoco.FatalError('no OpenGL')),
  )
  drawn = environment._envs.envs[0]
  while not isinstance(drawn, mujoco_factory._Drawn):
    drawn = drawn.env
  monkeypatch.setattr(environment._envs, 'envs', [drawn])
  with pytest.raises(
    ValueError,
    match=r'^HalfCheetah-v5 cannot be filmed: no OpenGL \(MUJOCO_GL=.*libegl1 '
    r'.*--video_dir\.$',
  ):
    environment.render()


@needs_mujoco
def test_a_warning_is_said_once(caplog):
  from scalable_agent.environments import mujoco_factory

  with caplog.at_level('WARNING', logger='absl'):
    for _ in range(2):
      mujoco_factory._warn('something is huge\n')
  assert [record.getMessage() for record in caplog.records] == [
    'MuJoCo: something is huge'
  ]
