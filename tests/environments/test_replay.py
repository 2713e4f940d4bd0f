"""Environments that save their state as seeds and actions, and replay them.

Everything is compared with an environment that was never interrupted.
"""

import functools

import numpy as np
import pytest

from scalable_agent.environments import TEST_SEEDS, replay
from scalable_agent.storage import nest_files
from scalable_agent.structures import FIRST, LAST, MID
from tests.configs import make_environment
from tests.environments import contract

STEPS_TO_SAVE = 420
STEPS_TO_COMPARE = 210


def make(name='CartPole-v1', num_envs=3, seed=5, **options):
  return make_environment(
    name, num_envs, seed, **({'replayable': True} | options)
  )


def make_breakout(**options):
  # Random games last 130 steps and more. Some reach the cap of 200 and some
  # do not, so the environments end at different steps.
  tiny = {'width': 24, 'height': 24, 'max_episode_frames': 800}
  return make('ALE/Breakout-v5', **({'num_envs': 2} | tiny | options))


MAKERS = {
  'breakout': make_breakout,
  'CartPole': make,
  'CartPole in processes': functools.partial(make, env_processes=1),
}
# Those of which all episodes end at once.
IN_STEP = {
  'numbers as actions': functools.partial(make, 'Pendulum-v1'),
  'a nest': functools.partial(make, 'tests.environments.toys:Toys/Nested-v0'),
  'choices': functools.partial(make, 'tests.environments.toys:Toys/Many-v0'),
}
MAKERS |= IN_STEP


def play(environment, steps):
  """Returns actions, the outputs before and after each, and their states."""
  actions = contract.random_actions(environment, steps)
  outputs, states = [environment.reset()], [environment.get_state()]
  for action in actions:
    outputs.append(environment.step(action))
    states.append(environment.get_state())
  return actions, outputs, states


def places(step_types):
  """Returns one of each kind of columns at which a state may be saved."""
  last, first = (step_types == LAST), (step_types == FIRST)
  in_the_midst = (step_types == MID).all(axis=1)
  after_one_end = last.any(axis=1) & ~last.all(axis=1)
  columns = {
    'the very start': [0],
    'the first end': np.flatnonzero(last.any(axis=1))[:1],
    'an end of one': np.flatnonzero(after_one_end),
    'a start of one': np.flatnonzero(first.any(axis=1)),
    'in the midst': np.flatnonzero(in_the_midst),
  }
  return {name: found[-1] for name, found in columns.items() if len(found)}


class TestAtari(contract.Contract):
  @pytest.fixture
  def subject(self, monkeypatch):
    monkeypatch.setattr(replay, 'STEPS_PER_SEED', 30)
    return contract.Subject(
      make=lambda seed: make_breakout(seed=seed, max_episode_frames=80),
      steps=45,
    )


class TestGymnasium(contract.Contract):
  @pytest.fixture(params=[0, 1])
  def subject(self, monkeypatch, request):
    monkeypatch.setattr(replay, 'STEPS_PER_SEED', 0)
    return contract.Subject(
      make=lambda seed: make(seed=seed, env_processes=request.param), steps=80
    )


# A seed for every episode, and for every second or third.
@pytest.mark.parametrize('steps_per_seed', [0, 170])
@pytest.mark.parametrize('subject', MAKERS)
def test_going_on_from_a_state_equals_going_on(
  subject, steps_per_seed, monkeypatch, tmp_path
):
  monkeypatch.setattr(replay, 'STEPS_PER_SEED', steps_per_seed)
  environment = MAKERS[subject]()
  actions, outputs, states = play(environment, STEPS_TO_SAVE + STEPS_TO_COMPARE)
  environment.close()
  step_types = contract.stack(outputs).step_type[:STEPS_TO_SAVE]
  assert ((step_types == LAST).sum(axis=0) >= 2).all()
  path = str(tmp_path / 'state.npz')
  starts = places(step_types)
  assert ('an end of one' in starts) == (subject not in IN_STEP)
  for start in starts.values():
    end = start + STEPS_TO_COMPARE
    nest_files.write(path, states[start])
    restored = MAKERS[subject](seed=77)
    restored.set_state(nest_files.read(path))
    contract.assert_equal(restored.get_state(), states[start])
    again = [restored.step(action) for action in actions[start:end]]
    contract.assert_equal(again, outputs[start + 1 : end + 1])
    contract.assert_equal(restored.get_state(), states[end])
    restored.close()


def test_a_used_environment_can_go_back(monkeypatch):
  monkeypatch.setattr(replay, 'STEPS_PER_SEED', 20)
  environment = make()
  actions, outputs, states = play(environment, 120)
  for start in (70, 30):
    environment.set_state(states[start])
    again = [environment.step(action) for action in actions[start:]]
    contract.assert_equal(again, outputs[start + 1 :])


def test_a_state_is_not_changed_by_going_on():
  environment = make()
  _, _, states = play(environment, 40)
  copies = [state['environment']['actions'][0].copy() for state in states]
  for action in contract.random_actions(environment, 40):
    environment.step(action)
  contract.assert_equal(
    [state['environment']['actions'][0] for state in states], copies
  )


def test_the_memory_ends_with_the_first_episode_beyond_the_steps_per_seed(
  monkeypatch,
):
  monkeypatch.setattr(replay, 'STEPS_PER_SEED', 50)
  environment = make()
  _, outputs, states = play(environment, 400)
  for i in range(environment.num_envs):
    lengths = [len(s['environment']['actions'][i]) for s in states]
    for before, after, output in zip(
      lengths[:-1], lengths[1:], outputs[1:], strict=True
    ):
      seeded = output.step_type[i] == FIRST and before >= 50
      assert after == (0 if seeded else before + 1)
    assert states[-1]['environment']['index'][i] == lengths.count(0) - 1 >= 3


def test_environments_and_starts_have_seeds_of_their_own():
  seeds = {
    replay.derived_seed(seed, index)
    for seed in range(100)
    for index in range(100)
  }
  assert len(seeds) == 100 * 100
  assert 0 <= min(seeds) < 2**27 < 2**30 < max(seeds)
  assert max(seeds) < TEST_SEEDS
  # Checkpoints hold indices, so seeds must be the same in every version.
  assert replay.derived_seed(1, 0) == 917752063
  assert replay.derived_seed(2**31 - 1, 2**40) == 814883298


def test_every_episode_is_another_one(monkeypatch):
  monkeypatch.setattr(replay, 'STEPS_PER_SEED', 0)
  _, outputs, _ = play(make(), 200)
  starts = [
    output.observation[i].tobytes()
    for output in outputs
    for i in np.flatnonzero(output.step_type == FIRST)
  ]
  assert len(set(starts)) == len(starts) > 10


def test_the_video_shows_environment_zero_also_after_a_replay(monkeypatch):
  monkeypatch.setattr(replay, 'STEPS_PER_SEED', 20)
  options = {
    'width': 160,
    'height': 210,
    'grayscale': False,
    'max_episode_frames': 60,
    'render': True,
  }
  environment = make_breakout(**options)
  actions, outputs, states = play(environment, 70)
  restored = make_breakout(**options)
  restored.set_state(states[20])
  for action, output in zip(actions[20:], outputs[20:-1], strict=True):
    np.testing.assert_array_equal(restored.render(), output.observation[0])
    restored.step(action)


@pytest.mark.parametrize('name', ['pong', 'CartPole-v1'])
def test_without_replayable_it_says_how_to_save(name):
  environment = make(name, replayable=False)
  environment.reset()
  with pytest.raises(
    NotImplementedError, match=rf'{name} .* cannot save .*replayable=True'
  ):
    environment.get_state()
  replayable = make(name)
  replayable.reset()
  state = replayable.get_state()
  with pytest.raises(NotImplementedError, match=rf'{name} .*replayable=True'):
    environment.set_state(state)


def test_catch_needs_no_replay_and_accepts_the_option():
  environment = make('catch')
  environment.reset()
  make('catch').set_state(environment.get_state())


def test_a_state_of_another_number_of_environments_is_refused():
  environment = make(num_envs=2)
  environment.reset()
  with pytest.raises(ValueError, match=r'one of 2 environments .* not of 3'):
    make(num_envs=3).set_state(environment.get_state())


def test_a_state_with_actions_that_there_are_not_is_refused():
  environment = make('pong', full_action_space=True)
  environment.reset()
  environment.step(np.array([0, 17, 0]))
  with pytest.raises(
    ValueError, match=r'e\.g\. full_action_space: .*in 0 to 5, not .*17'
  ):
    make('pong').set_state(environment.get_state())


def test_a_replay_that_ends_elsewhere_is_reported(caplog):
  environment = make()
  _, _, states = play(environment, 30)
  with caplog.at_level('WARNING', logger='absl'):
    make().set_state(states[-1])
    assert not caplog.records
    state = states[-1]['environment']
    state['observation'][1] += 1
    make().set_state(states[-1])
  (record,) = caplog.records
  assert 'environments [1]' in record.getMessage()
