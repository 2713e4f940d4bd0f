"""An actor process of IMPALA: with an agent of its own, and without."""

import functools
import types

import numpy as np
import pytest
import tensorflow as tf

from scalable_agent import environments, structures
from scalable_agent.distribution.cluster import Cluster
from scalable_agent.runtimes import (
  actor_process,
  assembly,
  impala_actor,
  worlds,
)
from scalable_agent.transport import learner_link, step_codec, unroll_codec
from tests.configs import make_config, resolve

OPTIONS = {
  'level_name': 'catch',
  'network': 'mlp',
  'num_actors': 2,
  'envs_per_actor': 4,
  'unroll_length': 3,
}


@pytest.fixture(autouse=True)
def _late(monkeypatch):
  # Only before TensorFlow has begun.
  monkeypatch.setattr(tf.config, 'set_visible_devices', lambda *args: None)
  monkeypatch.setattr(assembly, 'use_threads', lambda config: None)


@pytest.fixture
def worked_with(monkeypatch):
  """Environments that were made, and those of them that were closed."""
  made, closed = [], []
  make = worlds.make_environment

  def noted(*arguments, **options):
    environment = make(*arguments, **options)
    made.append(environment)
    close = environment.close
    environment.close = lambda: (closed.append(environment), close())
    return environment

  monkeypatch.setattr(worlds, 'make_environment', noted)
  return made, closed


def make_job(link, task=0, **options):
  levels = environments.parse_levels('catch')
  config = resolve(make_config(**(OPTIONS | options)), levels[0].suite)
  cluster = Cluster(('localhost:8000',), (), 'actor', task, 2)
  return actor_process.Job(config, levels, cluster, link)


class WeightsLink:
  """A learner whose weights get newer by leaps.

  Attributes:
    begun: what was agreed on, by name.
    sent: unrolls, with the version of the weights at the time.
  """

  VERSIONS = (3, 10, 11, 400)

  def __init__(self):
    self.welcome = learner_link.Welcome(0, 0, 'actor', {})
    self.begun = {}
    self.sent = []
    self._version = -1
    self._versions = iter(self.VERSIONS)

  def begin(self, cargo, variables, **message):
    self.begun = {'cargo': cargo, 'variables': variables, **message}

  def update_weights(self):
    self._version = next(self._versions, None)
    if self._version is None:
      raise learner_link.Over
    return self._version

  def send(self, method, write):
    assert method == 'unroll'
    assert isinstance(write, functools.partial)
    (unroll,) = write.args
    self.sent.append((self._version, unroll))
    assert write(b'header').startswith(b'header')
    return True


class TestWithAnAgent:
  def test_every_unroll_has_the_version_of_the_weights_that_acted(self):
    link = WeightsLink()
    with pytest.raises(learner_link.Over):
      impala_actor.work(make_job(link))
    versions = [unroll.policy_version for _, unroll in link.sent]
    expected = np.repeat([WeightsLink.VERSIONS], 4, 0).T
    np.testing.assert_array_equal(versions, expected)
    # Newer ones are fetched once it is sent.
    assert [version for version, _ in link.sent] == list(WeightsLink.VERSIONS)

  def test_it_agrees_on_the_layout_of_unrolls_and_on_weights(self):
    link = WeightsLink()
    job = make_job(link)
    with pytest.raises(learner_link.Over):
      impala_actor.work(job)
    spec = worlds.find_spec(job.config, job.levels[0])
    agent = assembly.make_agent(job.config, spec)
    layout = unroll_codec.Layout(spec, agent.initial_state(1), 3)
    assert link.begun['layout'] == layout.describe()
    assert (link.begun['cargo'], link.begun['columns']) == ('unrolls', 4)
    assert len(link.begun['variables']) == len(agent.variables)

  def test_the_network_is_what_the_level_needs(self):
    link = WeightsLink()
    with pytest.raises(learner_link.Over):
      impala_actor.work(make_job(link, network='auto'))
    assert link.sent

  def test_the_environment_is_closed(self, worked_with):
    made, closed = worked_with
    with pytest.raises(learner_link.Over):
      impala_actor.work(make_job(WeightsLink()))
    # `startup.resolve` may make one to look at.
    assert made
    assert closed == made

  def test_gpus_are_left_to_learners(self, monkeypatch):
    hidden = []
    monkeypatch.setattr(
      tf.config,
      'set_visible_devices',
      lambda *arguments: hidden.append(arguments),
    )
    with pytest.raises(learner_link.Over):
      impala_actor.work(make_job(WeightsLink()))
    assert hidden == [([], 'GPU')]


class StepsLink:
  """A learner that evaluates the agent, and comes back now and then.

  Attributes:
    begun: (cargo, message) of each `begin`.
    shown: what environments have shown since each registration.
  """

  ACTION = 2

  def __init__(self, lost_at=(), over_at=25):
    self.welcome = learner_link.Welcome(0, 0, 'learner', {})
    self.begun = []
    self.shown = [[]]
    self._lost_at = lost_at
    self._over_at = over_at
    self._asked = 0

  def begin(self, cargo, **message):
    self.begun.append((cargo, message))

  def ask(self, method, write):
    assert method == 'step'
    (env_output,) = write.args
    assert write(b'header').startswith(b'header')
    self.shown[-1].append(env_output)
    self._asked += 1
    if self._asked == self._over_at:
      raise learner_link.Over
    if self._asked in self._lost_at:
      self.welcome = self.welcome._replace(starts=self.welcome.starts + 1)
      self.shown.append([])
      return None
    action = np.full([len(env_output.step_type)], self.ACTION, np.int32)
    return action.tobytes()


class TestWithout:
  def work(self, link, **options):
    job = make_job(link, **options)
    with pytest.raises(learner_link.Over):
      impala_actor.work(job)
    return job

  def test_it_shows_what_environments_show_and_does_what_it_is_told(self):
    link = StepsLink()
    job = self.work(link)
    environment = job.make_environment()
    expected = [environment.reset()]
    action = np.full([4], StepsLink.ACTION, np.int32)
    while len(expected) < 25:
      expected.append(environment.step(action))
    (shown,) = link.shown
    for one, two in zip(shown, expected, strict=True):
      for a, b in zip(one[:4], two[:4], strict=True):
        np.testing.assert_array_equal(a, b)

  def test_it_agrees_on_what_is_shown(self):
    link = StepsLink()
    job = self.work(link)
    layout = step_codec.Layout(worlds.find_spec(job.config, job.levels[0]))
    assert link.begun == [
      ('observations', {'layout': layout.describe(), 'columns': 4})
    ]

  def test_after_a_new_link_it_begins_new_episodes(self):
    link = StepsLink(lost_at=(3, 11))
    self.work(link)
    # The link begins again by itself.
    assert len(link.begun) == 1
    assert [len(shown) for shown in link.shown] == [3, 8, 14]
    firsts = [shown[0] for shown in link.shown]
    for first in firsts:
      assert (first.step_type == structures.FIRST).all()
    # Other ones than before.
    assert len({first.observation.tobytes() for first in firsts}) > 1

  @pytest.mark.parametrize('fails', ['over', 'lost'])
  def test_environments_are_closed(self, worked_with, fails):
    made, closed = worked_with
    self.work(StepsLink(lost_at=(2,) if fails == 'lost' else ()))
    assert len(made) == (2 if fails == 'lost' else 1)
    assert closed == made


class TestJob:
  def seeds(self, task=0, **welcome):
    one = learner_link.Welcome(0, 0, 'actor', {})._replace(**welcome)
    return make_job(types.SimpleNamespace(welcome=one), task).seeds()

  def test_seeds_differ_by_task_and_by_registration(self):
    seeds = [
      self.seeds(),
      self.seeds(task=1),
      self.seeds(starts=1),
      self.seeds(frames=1000),
    ]
    assert len({one for one, _ in seeds}) == 4
    assert len({two for _, two in seeds}) == 4
    assert self.seeds() == seeds[0]

  def test_seeds_of_environments_leave_room_for_their_index(self):
    for starts in range(200):
      assert 0 <= self.seeds(starts=starts)[0] < 2**30
