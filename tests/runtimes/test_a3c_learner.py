"""A3C's learner and actors: threads of this process, with a wire of calls."""

import threading

import numpy as np
import pytest
import tensorflow as tf
import tree

from scalable_agent import evaluation
from scalable_agent.distribution.cluster import Cluster
from scalable_agent.options import validate
from scalable_agent.runtimes import (
  a3c_actor,
  a3c_learner,
  actor_process,
  algorithm,
  learner_process,
  training,
)
from scalable_agent.transport import credentials, learner_link, rpc
from tests import differentiating, runs
from tests.configs import make_config
from tests.runs import NEVER, episodes, newest_checkpoint, saved_state
from tests.waiting import DEADLINE_S, in_thread

ADDRESS = 'localhost:8000'
OPTIONS = {
  'algorithm': 'a3c',
  'level_name': 'catch',
  'num_actors': 2,
  'envs_per_actor': 3,
  'unroll_length': 10,
  'total_environment_frames': 1000,
  'save_checkpoint_secs': NEVER,
  'summary_secs': NEVER,
  'progress_secs': NEVER,
  'evaluation_secs': 0.0,
}
# Of each unroll of 10 steps: Catch's episodes have 9, and a start.
TRANSITIONS = 9 * OPTIONS['envs_per_actor']


@pytest.fixture(autouse=True)
def wire(monkeypatch):
  # Only before TensorFlow has begun.
  monkeypatch.setattr(tf.config, 'set_visible_devices', lambda *args: None)
  monkeypatch.setattr(learner_link, '_RETRY', 0.02)
  monkeypatch.setattr(learner_process, '_TICK', 0.02)
  return differentiating.Wire(monkeypatch)


def make_cluster(job_name, task=0):
  return Cluster((ADDRESS,), (), job_name, task, OPTIONS['num_actors'])


def make_learner(logdir, **options):
  config, levels = runs.prepare(logdir, **(OPTIONS | options))
  return a3c_learner.Run(
    config, levels, make_cluster('learner'), credentials.NONE
  )


def test_it_listens_where_and_to_whom_it_is_told(tmp_path, monkeypatch):
  own = credentials.Credentials(token='a secret')
  config, levels = runs.prepare(tmp_path, **OPTIONS)
  cluster = make_cluster('learner')._replace(listen_address='0.0.0.0:80')
  asked = []

  def refuse(address, handlers, credentials, source, most_calls):
    asked.append((address, credentials))
    raise ValueError(f'{source}: cannot listen')

  monkeypatch.setattr(rpc, 'Server', refuse)
  run = a3c_learner.Run(config, levels, cluster, own)
  with pytest.raises(algorithm.Ended, match=r'^--listen_address: cannot'):
    run.train()
  assert asked == [('0.0.0.0:80', own)]


@pytest.mark.parametrize('task', [0, 1])
@pytest.mark.parametrize('certificate', [b'', b'PEM'])
def test_before_it_is_made_the_secret_and_the_place_are_there(
  tmp_path, monkeypatch, task, certificate
):
  """Only learner 0 makes a secret: with two, nobody could come in."""
  own = credentials.Credentials(certificate=certificate)
  config, levels = runs.prepare(tmp_path, **OPTIONS)
  steps = []

  def load(config, makes_token):
    steps.append(makes_token)
    return own

  def make_run(given):
    assert given is own
    raise ValueError('made')

  monkeypatch.setattr(credentials, 'load', load)
  monkeypatch.setattr(
    Cluster, 'check_place', lambda self, encrypted: steps.append(encrypted)
  )
  cluster = make_cluster('learner', task)
  with pytest.raises(ValueError, match='made'):
    learner_process.prepare(config, levels, cluster, set(), make_run)
  assert steps == [task == 0, bool(certificate)]


class Actors:
  """Actors in threads, as processes have them.

  Attributes:
    links: of them.
  """

  def __init__(self, logdir, **options):
    config, levels = runs.prepare(logdir, **(OPTIONS | options))
    self._stopping = threading.Event()
    self.links, self._futures = [], []
    for task in range(config.actors.num_actors):
      link = learner_link.LearnerLink(
        ADDRESS, task, config.differentiating(), DEADLINE_S, self._stopping
      )
      self.links.append(link)
      job = actor_process.Job(config, levels, make_cluster('actor', task), link)
      self._futures.append(in_thread(self._work, job))

  def _work(self, job):
    job.link.register()
    a3c_actor.work(job)

  def assert_over(self):
    """Waits until all were told that training is over."""
    for future in self._futures:
      with pytest.raises(learner_link.Over):
        future.result(DEADLINE_S)

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    self._stopping.set()
    for future in self._futures:
      future.exception(DEADLINE_S)


def test_frames_updates_and_episodes_are_counted_exactly(tmp_path):
  run = make_learner(tmp_path)
  lags, versions = [], []
  apply = run._training.apply

  def record(computed):
    versions.append(computed.policy_version)
    lags.append(run._training.updates() - versions[-1])
    apply(computed)

  run._training.apply = record
  with Actors(tmp_path) as actors:
    run.train()
    actors.assert_over()
  updates = run._training.updates()
  assert updates == -(-OPTIONS['total_environment_frames'] // TRANSITIONS)
  assert run.frames() == updates * TRANSITIONS
  assert len(lags) == updates
  assert min(lags) >= 0
  assert max(versions) > updates / 2
  assert len(episodes(tmp_path)) == updates * OPTIONS['envs_per_actor']
  assert int(newest_checkpoint(tmp_path).name) == run.frames()
  (optimizer,) = run._learner.optimizers
  assert int(optimizer.iterations) == updates
  # Some were under way when it ended.
  assert sum(link.sent for link in actors.links) >= updates


def test_a_learner_that_comes_back_goes_on_with_the_actors_that_wait(tmp_path):
  run = make_learner(tmp_path, total_environment_frames=NEVER)
  apply = run._training.apply

  def apply_and_stop(computed):
    apply(computed)
    if run._training.updates() == 5:
      run.stop()

  run._training.apply = apply_and_stop
  with Actors(tmp_path) as actors:
    run.train()
    frames, rows = run.frames(), len(episodes(tmp_path))
    assert int(newest_checkpoint(tmp_path).name) == frames >= 5 * TRANSITIONS
    # They are neither at an end nor in despair.
    tries = [link.reconnects for link in actors.links]
    more = {'total_environment_frames': frames + 20 * TRANSITIONS}
    again = make_learner(tmp_path, **more)
    assert again.frames() == frames
    for new, old in zip(
      again._training.agent.variables,
      run._training.agent.variables,
      strict=True,
    ):
      np.testing.assert_array_equal(new, old)
    again.train()
    actors.assert_over()
  assert all(link.reconnects >= 1 for link in actors.links), tries
  assert again.frames() == frames + 20 * TRANSITIONS
  assert len(episodes(tmp_path)) > rows


def test_checkpoints_come_at_their_time(tmp_path):
  run = make_learner(tmp_path, save_checkpoint_secs=0.0)
  save, saved = run._training.save, []

  def record(*args):
    save(*args)
    saved.append(run.frames())

  run._training.save = record
  with Actors(tmp_path) as actors:
    run.train()
    actors.assert_over()
  # After every update, and at the end.
  assert len(saved) == run._training.updates() + 1


def poison(run, monkeypatch, updates, count):
  """Makes gradients that arrive NaN: `count` of them after `updates`."""
  get, made = run._queue.get, []

  def get_poisoned():
    computed = get()
    if run._training.updates() < updates or len(made) == count:
      return computed
    made.append(computed)
    parts = tree.map_structure(lambda x: x * np.nan, computed.gradients.parts)
    given = computed.gradients._replace(parts=parts)
    return computed._replace(gradients=given)

  monkeypatch.setattr(run._queue, 'get', get_poisoned)


def test_gradients_that_are_not_finite_are_dropped_and_counted(
  tmp_path, monkeypatch
):
  run = make_learner(tmp_path)
  poison(run, monkeypatch, updates=3, count=9)
  with Actors(tmp_path) as actors:
    run.train()
    actors.assert_over()
  assert run.frames() >= OPTIONS['total_environment_frames']
  assert saved_state(tmp_path)['metrics']['dropped_batches'] == 9
  assert all(
    np.isfinite(v.numpy()).all() for v in run._training.agent.variables
  )


def test_ten_of_them_in_a_row_end_the_run_which_saves(tmp_path, monkeypatch):
  run = make_learner(tmp_path)
  poison(run, monkeypatch, updates=3, count=10)
  with (
    Actors(tmp_path),
    pytest.raises(training.RunError, match='of 10 batches in a row'),
  ):
    run.train()
  assert int(newest_checkpoint(tmp_path).name) == run.frames() > 0


def test_the_learner_evaluates(tmp_path):
  run = make_learner(
    tmp_path, evaluation_secs=0.01, total_environment_frames=NEVER
  )
  record, seen = run._training.metrics.record_evaluation, []

  def record_and_stop(*args):
    record(*args)
    seen.append(args)
    if len(seen) == 2:
      run.stop()

  run._training.metrics.record_evaluation = record_and_stop
  with Actors(tmp_path):
    run.train()
  assert len(seen) >= 2
  assert (tmp_path / 'evaluations.csv').exists()


def test_a_stuck_evaluation_costs_nothing_that_was_learned(
  tmp_path, monkeypatch
):
  stuck, released = threading.Event(), threading.Event()

  def block(*args):
    stuck.set()
    released.wait()

  monkeypatch.setattr(learner_process, '_JOIN_TIMEOUT', 3.0)
  monkeypatch.setattr(evaluation, 'play_episode', block)
  run = make_learner(
    tmp_path, evaluation_secs=0.01, total_environment_frames=NEVER
  )
  apply = run._training.apply

  def apply_and_stop(computed):
    apply(computed)
    if stuck.is_set():
      run.stop()

  run._training.apply = apply_and_stop
  try:
    with Actors(tmp_path), pytest.raises(TimeoutError, match=r'evaluator$'):
      run.train()
  finally:
    released.set()
  assert int(newest_checkpoint(tmp_path).name) == run.frames() > 0


def test_an_actor_of_another_loss_is_refused_with_both_values(tmp_path):
  run = make_learner(tmp_path, total_environment_frames=NEVER)
  learner = in_thread(run.train)
  with (
    Actors(tmp_path, discounting=0.5) as actors,
    pytest.raises(
      learner_link.LinkError,
      match=r'--discounting is 0\.99 at the learner and 0\.5 at actor 0\. ',
    ),
  ):
    actors._futures[0].result(DEADLINE_S)
  run.stop()
  learner.result(DEADLINE_S)
  assert run.frames() == 0


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('entropy_cost', 0.5),
    ('gae_lambda', 0.5),
    ('baseline_cost', 0.1),
    ('reward_clipping', 'none'),
    ('loss_reduction', 'mean'),
    ('clip_gradient_norm', 1.0),
    ('clip_gradient_by', 'tensor_norm'),
  ],
)
def test_what_decides_gradients_is_compared(tmp_path, name, value):
  config, _ = runs.prepare(tmp_path, **OPTIONS)
  agreed = config.differentiating()
  assert agreed[name] != value
  assert config.replace(**{name: value}).differentiating() != agreed
  assert name not in config.acting()


@pytest.mark.parametrize(
  'options',
  [
    {'learning_rate': 0.1, 'optimizer': 'rmsprop', 'epsilon': 0.5},
    {'total_environment_frames': 7e6, 'seed': 5, 'evaluation_secs': 3.0},
  ],
)
def test_what_is_the_learners_alone_may_differ(tmp_path, options):
  config, _ = runs.prepare(tmp_path, **OPTIONS)
  other = config.replace(**options)
  assert other.differentiating() == config.differentiating()


class TestOptions:
  @pytest.mark.parametrize('name', ['num_learners', 'learner_devices'])
  @pytest.mark.parametrize('place', [{}, {'task': 0}])
  def test_one_learner_on_one_device(self, name, place):
    config = make_config(**OPTIONS, **place, **{name: 2})
    with pytest.raises(
      ValueError, match=f'^--{name}=2 .* Set --{name}=1, or choose --algorithm'
    ):
      validate(config)

  def test_the_statistics_are_the_learners(self):
    options = OPTIONS | {'shared_statistics': False}
    with pytest.raises(
      ValueError, match=r'^--shared_statistics=False is for a single machine'
    ):
      validate(make_config(**options, task=0))
    validate(make_config(**options))

  @pytest.mark.parametrize('job_name', ['learner', 'actor'])
  def test_processes_are_allowed(self, job_name):
    validate(make_config(**OPTIONS, task=1, job_name='actor'))
    validate(make_config(**OPTIONS, task=0, job_name=job_name))
