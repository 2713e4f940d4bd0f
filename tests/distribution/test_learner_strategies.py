"""The learner under `tf.distribute` strategies against one without."""

import itertools
import pickle
import signal
from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow as tf

from scalable_agent import structures
from scalable_agent.distribution import replicas
from scalable_agent.distribution.agreement import Step
from tests import learner_replicas, programs
from tests.learner_replicas import CASES
from tests.ports import free_port

DEADLINE_S = 120
NUM_WORKERS = 2
PROGRAM = 'from tests import learner_replicas; learner_replicas.main()'


class Program:
  """`tests.learner_replicas` in a process of its own."""

  def __init__(self, folder, name, kind, *arguments):
    self._result = folder / name
    self._log = folder / f'{name}.log'
    with self._log.open('w') as log:
      self._process = programs.start(
        ['-c', PROGRAM, kind, self._result, *arguments], stdout=log
      )

  def result(self, status=0):
    """Waits for the end; returns what it has written."""
    actual = self._process.wait(DEADLINE_S)
    assert actual == status, self._log.read_text()[-5000:]
    return pickle.loads(self._result.read_bytes())

  def kill(self):
    self._process.kill()
    self._process.wait()


@pytest.fixture(scope='module')
def alone() -> dict:
  """What one replica, here, learns from the whole batch."""
  results = {}
  for name, case in CASES.items():
    one = learner_replicas.make_learner(case)
    results[name] = learner_replicas.train(one)
  return results | {'learner': one, 'logits': learner_replicas.logits_of(one)}


@pytest.fixture(
  scope='module', params=[2, pytest.param(4, marks=pytest.mark.nightly)]
)
def mirrored(request, tmp_path_factory) -> Iterator[dict]:
  folder = tmp_path_factory.mktemp('mirrored')
  program = Program(folder, 'result', 'mirrored', request.param)
  try:
    yield program.result()
  finally:
    program.kill()


@pytest.fixture(scope='module')
def workers(alone, tmp_path_factory) -> Iterator[list[dict]]:
  """Two processes; the second kills itself in the end."""
  folder = tmp_path_factory.mktemp('workers')
  saved = folder / 'saved'
  learner_replicas.checkpointer(alone['learner'], saved).save(1, None)
  ports = [free_port() for _ in range(NUM_WORKERS)]
  pair = [
    Program(folder, f'result_{index}', 'worker', index, *ports, saved)
    for index in range(NUM_WORKERS)
  ]
  try:
    results = [pair[0].result(), pair[1].result(-signal.SIGKILL)]
    yield [r | {'folder': folder / 'result_0.logdir'} for r in results]
  finally:
    for program in pair:
      program.kill()


def assert_as_alone(result, expected):
  for metrics, expected_metrics in zip(
    result['metrics'], expected['metrics'], strict=True
  ):
    assert metrics.keys() == expected_metrics.keys()
    for name, value in metrics.items():
      np.testing.assert_allclose(
        value, expected_metrics[name], rtol=1e-3, atol=1e-5, err_msg=name
      )
  assert result['state'].keys() == expected['state'].keys()
  for name, value in result['state'].items():
    np.testing.assert_allclose(
      value, expected['state'][name], rtol=1e-4, atol=2e-6, err_msg=name
    )


def assert_same_bits(one, two):
  assert one.keys() == two.keys()
  for name in one:
    assert one[name].dtype == two[name].dtype
    assert one[name].tobytes() == two[name].tobytes(), name


def test_the_cases_reach_both_sides_of_the_clip(alone):
  for name, case in CASES.items():
    norms = [m['gradient_norm'] for m in alone[name]['metrics']]
    if name == 'clipped':
      assert min(norms) > 10 * case['clip']
    else:
      assert not case['clip'] or max(norms) < case['clip'] / 10


def test_the_columns_of_the_cases_differ(alone):
  agent = alone['learner'].agent
  batch = learner_replicas.make_batches(agent)[0]
  transitions = batch.env_outputs.step_type[:-1] != structures.LAST
  # Replicas that weighed the same would have the same means as those that
  # weigh what they have.
  assert len(set(transitions.sum(0))) > 2
  assert len(set(batch.policy_version)) > 2


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_mirrored_replicas_learn_what_one_learns_from_all(
  mirrored, alone, name
):
  assert_as_alone(mirrored[name], alone[name])


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_mirrored_replicas_stay_the_same_to_the_bit(mirrored, name):
  for copies in mirrored[name]['replicas']:
    assert len({copy.tobytes() for copy in copies}) == 1


@pytest.mark.slow
def test_mirrored_updates_are_traced_once(mirrored):
  assert mirrored['traces'] == 1


@pytest.mark.slow
def test_columns_that_cannot_be_shared_out_evenly_are_an_error(mirrored):
  assert 'columns cannot be shared out evenly' in mirrored['uneven']


@pytest.mark.slow
def test_a_process_alone_agrees_with_itself(mirrored):
  assert mirrored['agreed'] == list(Step)


@pytest.mark.slow
def test_a_policy_reads_mirrored_variables(mirrored, workers, alone):
  for result in [mirrored, *workers]:
    np.testing.assert_allclose(
      result['logits'], alone['logits'], rtol=1e-3, atol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_two_processes_learn_what_one_learns_from_all(workers, alone, name):
  # The second one's seed is another: it starts with the weights of the first.
  for result in workers:
    assert_as_alone(result[name], alone[name])
  assert_same_bits(workers[0][name]['state'], workers[1][name]['state'])
  for metrics in zip(*[w[name]['metrics'] for w in workers], strict=True):
    assert_same_bits(*metrics)


def assert_dropped(result, name):
  dropped = result[name]['dropped']
  steps = CASES[name].get('updates_per_batch', 1)
  assert dropped['skipped_steps'] == steps
  assert_same_bits(dropped['before'], dropped['after'])


@pytest.mark.parametrize('name', CASES)
def test_a_batch_of_gradients_that_are_not_finite_is_dropped(alone, name):
  assert_dropped(alone, name)


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_all_replicas_drop_what_one_of_them_must(mirrored, workers, name):
  for result in [mirrored, *workers]:
    assert_dropped(result, name)


@pytest.mark.slow
def test_two_processes_do_what_the_more_reluctant_wants(workers):
  for result in workers:
    assert result['agreed'] == [max(p) for p in itertools.product(Step, Step)]


@pytest.mark.slow
def test_broadcast_copies_every_bit_of_the_first_process(workers):
  before = [result['before_broadcast'] for result in workers]
  differ = [
    name for name in before[0] if (before[0][name] != before[1][name]).any()
  ]
  assert {'weights/0', 'weights/2', 'frames'} <= set(differ)
  assert np.signbit(before[0]['weights/0']).all()
  for result in workers:
    assert_same_bits(result['after_broadcast'], before[0])


@pytest.mark.slow
def test_a_killed_process_makes_the_other_raise_and_changes_nothing(workers):
  survivor, _ = workers
  assert survivor['failure'] == 'UnavailableError'
  assert survivor['next_failure'] == 'UnavailableError'
  assert_same_bits(survivor['after_failure'], survivor['after_broadcast'])


@pytest.mark.slow
def test_what_one_of_two_processes_saved_is_restored_without_strategy(workers):
  one = learner_replicas.make_learner(CASES['adam'], seed=99)
  learner_replicas.checkpointer(one, workers[0]['folder']).restore()
  saved = workers[0]['adam']['state']
  assert int(saved['updates']) == 4
  assert_same_bits(learner_replicas.state(one), saved)


@pytest.mark.slow
def test_what_was_saved_without_strategy_is_restored_in_two_processes(
  workers, alone
):
  changed = {'weights/0', 'weights/2', 'frames'}
  expected = learner_replicas.state(alone['learner'])
  for result in workers:
    restored = result['after_broadcast']
    assert_same_bits(
      {k: v for k, v in restored.items() if k not in changed},
      {k: v for k, v in expected.items() if k not in changed},
    )


@pytest.mark.parametrize('name', CASES)
def test_updates_do_not_change_a_snapshot(alone, name):
  assert_snapshot(alone[name])


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_updates_do_not_change_a_snapshot_under_a_strategy(
  mirrored, workers, name
):
  for result in [mirrored, *workers]:
    assert_snapshot(result[name])


def assert_snapshot(result):
  weights = [v for k, v in result['state'].items() if k.startswith('weights/')]
  for taken, then, now in zip(
    result['snapshot'], result['weights_at_snapshot'], weights, strict=True
  ):
    assert taken.tobytes() == then.tobytes()
    assert (then != now).any()


def test_words_carry_every_dtype_to_the_bit():
  tensors = [
    tf.constant([[-0.0], [1e-40], [np.nan]]),
    tf.constant(2**40 + 1, tf.int64),
    tf.constant([1, -2, 3], tf.int8),
    tf.constant([1.5, -0.0], tf.bfloat16),
    tf.zeros([0, 3]),
  ]
  back = replicas._from_words(replicas._to_words(tensors), tensors)
  for tensor, copy in zip(tensors, back, strict=True):
    assert copy.dtype == tensor.dtype
    assert copy.shape == tensor.shape
    assert copy.numpy().tobytes() == tensor.numpy().tobytes()
