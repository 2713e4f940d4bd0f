"""Checkpoints: bit-exact, atomic, verified, and of the right agent."""

import errno
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import sonnet as snt
import tensorflow as tf

from scalable_agent import optimizers
from scalable_agent.options import OptimizerOptions
from scalable_agent.storage import (
  checkpoint_files,
  checkpointing,
  files,
  nest_files,
)

IMAGES = np.random.default_rng(0).normal(size=[5, 3]).astype(np.float32)


class Parts:
  """A network, an optimizer and a counter, as a learner has them."""

  def __init__(self, optimizer='adam', build=True, width=4, momentum=0.0):
    self.network = snt.nets.MLP([width, 2])
    self.network(tf.zeros([1, 3]))
    self.optimizer = optimizers.make_optimizer(
      OptimizerOptions(optimizer=optimizer, momentum=momentum)
    )
    if build:
      self.optimizer.build(self.network.trainable_variables)
    self.frames = tf.Variable(0, dtype=tf.int64)
    self.update = tf.function(self._update)

  @property
  def items(self):
    return {
      'agent': self.network,
      'optimizer': self.optimizer,
      'frames': self.frames,
    }

  def _update(self):
    self.optimizer.learning_rate.assign(0.01)
    with tf.GradientTape() as tape:
      loss = tf.reduce_sum(self.network(IMAGES) ** 2)
    variables = self.network.trainable_variables
    self.optimizer.apply(tape.gradient(loss, variables), variables)
    self.frames.assign_add(80)

  @property
  def values(self):
    variables = [*self.network.variables, *self.optimizer.variables]
    return [np.asarray(v) for v in [*variables, self.frames]]


def assert_same_bits(a, b):
  assert len(a) == len(b)
  for x, y in zip(a, b, strict=True):
    assert x.dtype == y.dtype
    assert x.tobytes() == y.tobytes()


def counter_checkpointer(logdir, keep=3):
  counter = tf.Variable(0, dtype=tf.int64)
  checkpointer = checkpointing.Checkpointer(
    str(logdir), {'counter': counter}, keep
  )
  return counter, checkpointer


def save_frames(logdir, frames, keep=3, scores=None):
  """Saves a checkpoint at each of `frames`, the counter equal to them."""
  counter, checkpointer = counter_checkpointer(logdir, keep)
  for i, frame in enumerate(frames):
    counter.assign(frame)
    checkpointer.save(
      frame, {'frames': frame}, None if scores is None else scores[i]
    )
  return counter, checkpointer


def saved(logdir):
  names = os.listdir(logdir / 'checkpoints')
  return sorted(int(name) for name in names if name.isdigit())


def folder(logdir, frames) -> pathlib.Path:
  return logdir / 'checkpoints' / f'{frames:012d}'


@pytest.fixture
def warnings(monkeypatch):
  messages = []
  monkeypatch.setattr(
    checkpointing.logging,
    'warning',
    lambda message, *args: messages.append(message % args),
  )
  return messages


@pytest.mark.parametrize('optimizer', ['adam', 'rmsprop'])
@pytest.mark.parametrize('build', [True, False])
def test_training_goes_on_bit_for_bit_as_if_it_had_not_stopped(
  tmp_path, optimizer, build
):
  first = Parts(optimizer)
  for _ in range(3):
    first.update()
  checkpointing.Checkpointer(str(tmp_path), first.items).save(240, {'a': 1})
  at_save = first.values
  second = Parts(optimizer, build)
  checkpointer = checkpointing.Checkpointer(str(tmp_path), second.items)
  assert checkpointer.restore() == {'a': 1}
  if not build:
    second.optimizer.build(second.network.trainable_variables)
  assert_same_bits(at_save, second.values)
  for _ in range(3):
    first.update()
    second.update()
  assert_same_bits(first.values, second.values)
  assert first.values[0].tobytes() != at_save[0].tobytes()


def test_an_optimizer_built_inside_a_graph_gets_its_slots_too(tmp_path):
  first = Parts('rmsprop')
  first.update()
  checkpointing.Checkpointer(str(tmp_path), first.items).save(80, None)
  second = Parts('rmsprop', build=False)
  checkpointing.Checkpointer(str(tmp_path), second.items).restore()
  first.update()
  second.update()
  assert_same_bits(first.values, second.values)


def test_the_agent_is_restored_without_the_optimizer(tmp_path):
  first = Parts()
  first.update()
  checkpointing.Checkpointer(str(tmp_path), first.items).save(80, None)
  second = Parts()
  before = [v.numpy() for v in second.network.variables]
  checkpointing.Checkpointer(str(tmp_path), {'agent': second.network}).restore()
  assert_same_bits(
    [v.numpy() for v in first.network.variables],
    [v.numpy() for v in second.network.variables],
  )
  assert before[0].tobytes() != second.network.variables[0].numpy().tobytes()


def test_a_checkpoint_of_another_network_is_refused_not_called_damaged(
  tmp_path,
):
  first = Parts()
  checkpointing.Checkpointer(str(tmp_path), first.items).save(80, None)
  other = Parts(width=5)
  with pytest.raises(ValueError, match='of another agent') as error:
    checkpointing.Checkpointer(str(tmp_path), other.items).restore()
  assert 'config.json' in str(error.value)


def test_slots_that_another_optimizer_would_need_are_named(tmp_path):
  first = Parts('rmsprop')
  first.update()
  checkpointing.Checkpointer(str(tmp_path), first.items).save(80, None)
  other = Parts('rmsprop', momentum=0.9)
  with pytest.raises(
    ValueError, match=r'it has no \S+_momentum(, \S+_momentum)*\. Use the'
  ):
    checkpointing.Checkpointer(str(tmp_path), other.items).restore()


def test_a_missing_weight_is_refused(tmp_path):
  first = Parts()
  checkpointing.Checkpointer(str(tmp_path), {'agent': first.network}).save(
    1, None
  )
  items = {'agent': first.network, 'more': tf.Variable(1.0)}
  with pytest.raises(ValueError, match='of another agent'):
    checkpointing.Checkpointer(str(tmp_path), items).restore()


def test_without_a_checkpoint_there_is_nothing_to_restore(tmp_path):
  _, checkpointer = counter_checkpointer(tmp_path)
  assert checkpointer.restore() is None
  assert checkpointer.restore_best() is None
  assert os.listdir(tmp_path) == []


def test_the_newest_are_kept_and_the_best(tmp_path):
  counter, checkpointer = save_frames(
    tmp_path, [0, 100, 200, 300, 400], keep=2, scores=[None, 7, 5, 6, None]
  )
  assert saved(tmp_path) == [100, 300, 400]
  counter.assign(-1)
  assert checkpointer.restore() == {'frames': 400}
  assert counter.numpy() == 400
  assert checkpointer.restore_best() == {'frames': 100}
  assert counter.numpy() == 100


def test_of_equal_scores_the_newer_one_is_the_best(tmp_path):
  _, checkpointer = save_frames(
    tmp_path, [100, 200, 300], keep=1, scores=[21.0, 21.0, 20.0]
  )
  assert checkpointer.restore_best() == {'frames': 200}
  assert saved(tmp_path) == [200, 300]


def test_a_score_that_is_no_number_is_not_the_best(tmp_path):
  scores = [float('nan'), 1.0, float('inf'), 2.0]
  _, checkpointer = save_frames(tmp_path, [100, 200, 300, 400], scores=scores)
  assert checkpointer.restore_best() == {'frames': 400}


def test_the_best_is_known_after_a_restart(tmp_path):
  save_frames(tmp_path, [100], scores=[7.0])
  _, checkpointer = save_frames(tmp_path, [200], keep=1, scores=[6.0])
  assert checkpointer.restore_best() == {'frames': 100}


def test_a_score_of_another_measure_is_no_rival(tmp_path):
  """Returns of old checkpoints, say, and percent of humans."""
  _, checkpointer = save_frames(tmp_path, [100], scores=[900.0])
  checkpointer.save(200, {'frames': 200}, 50.0, 'human_normalized_median')
  assert checkpointer.restore_best() == {'frames': 200}
  checkpointer.save(300, {'frames': 300}, 40.0, 'human_normalized_median')
  assert checkpointer.restore_best() == {'frames': 200}


def test_a_record_without_a_measure_is_of_returns(tmp_path):
  _, checkpointer = save_frames(tmp_path, [100], scores=[9.0])
  best = tmp_path / 'checkpoints' / 'best.json'
  best.write_text('{"checkpoint": "000000000100", "score": 9.0}')
  checkpointer.save(200, {'frames': 200}, 8.0)
  assert checkpointer.restore_best() == {'frames': 100}


@pytest.mark.parametrize('content', [None, '', '{}', '[]', '{"score": 1}'])
def test_without_a_record_of_the_best_the_newest_is_taken(
  tmp_path, warnings, content
):
  _, checkpointer = save_frames(tmp_path, [100, 200], scores=[2.0, 1.0])
  best = tmp_path / 'checkpoints' / 'best.json'
  best.unlink() if content is None else best.write_text(content)
  assert checkpointer.restore_best() == {'frames': 200}
  assert 'taking the newest' in warnings[-1]
  checkpointer.save(300, {'frames': 300}, 0.5)
  assert checkpointer.restore_best() == {'frames': 300}


def test_a_damaged_best_is_replaced_by_the_newest(tmp_path, warnings):
  _, checkpointer = save_frames(tmp_path, [100, 200, 300], scores=[3, 2, 1])
  (folder(tmp_path, 100) / 'state.npz').unlink()
  assert checkpointer.restore_best() == {'frames': 300}
  assert 'state.npz: missing' in warnings[0]


def files_of_a_checkpoint(tmp_path):
  save_frames(tmp_path, [0])
  return sorted(os.listdir(folder(tmp_path, 0)))


def test_a_checkpoint_has_the_expected_files(tmp_path):
  assert files_of_a_checkpoint(tmp_path) == [
    'manifest.json',
    'state.npz',
    'variables.data-00000-of-00001',
    'variables.index',
  ]


DAMAGE = {
  'missing': lambda file: file.unlink(),
  'a folder': lambda file: (file.unlink(), file.mkdir()),
  'empty': lambda file: file.write_bytes(b''),
  'truncated': lambda file: file.write_bytes(file.read_bytes()[:-5]),
  'one bit flipped': lambda file: file.write_bytes(
    bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:]
  ),
}


@pytest.mark.parametrize('damage', DAMAGE)
@pytest.mark.parametrize(
  'name',
  [
    'manifest.json',
    'state.npz',
    'variables.data-00000-of-00001',
    'variables.index',
  ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(
  tmp_path, warnings, damage, name
):
  save_frames(tmp_path, [100, 200])
  DAMAGE[damage](folder(tmp_path, 200) / name)
  counter, checkpointer = counter_checkpointer(tmp_path)
  assert checkpointer.restore() == {'frames': 100}
  assert counter.numpy() == 100
  assert len(warnings) == 1
  assert str(folder(tmp_path, 200) / name) in warnings[0]


def test_a_file_of_a_checkpoints_name_is_none(tmp_path, warnings):
  save_frames(tmp_path, [100])
  folder(tmp_path, 200).touch()
  _, checkpointer = counter_checkpointer(tmp_path)
  assert checkpointer.restore() == {'frames': 100}
  assert 'manifest.json: missing' in warnings[0]


@pytest.mark.parametrize('manifest', ['{}', '[]', '7', '{"files": {"a": 1}}'])
def test_a_manifest_that_is_none_is_damage(tmp_path, warnings, manifest):
  save_frames(tmp_path, [100, 200])
  (folder(tmp_path, 200) / 'manifest.json').write_text(manifest)
  _, checkpointer = counter_checkpointer(tmp_path)
  assert checkpointer.restore() == {'frames': 100}
  assert 'not a manifest' in warnings[0]


def test_if_all_are_damaged_the_error_names_each_and_the_remedy(tmp_path):
  save_frames(tmp_path, [100, 200])
  for frames in (100, 200):
    (folder(tmp_path, frames) / 'variables.index').unlink()
  _, checkpointer = counter_checkpointer(tmp_path)
  with pytest.raises(checkpointing.DamagedError) as error:
    checkpointer.restore()
  for part in ('000000000100', '000000000200', 'missing', '--logdir'):
    assert part in str(error.value)


def test_a_checkpoint_of_a_newer_format_is_refused(tmp_path):
  save_frames(tmp_path, [100])
  path = folder(tmp_path, 100) / 'manifest.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | {'format': 99}))
  _, checkpointer = counter_checkpointer(tmp_path)
  with pytest.raises(ValueError, match='format 99'):
    checkpointer.restore()


def test_what_a_killed_save_left_is_not_a_checkpoint(tmp_path):
  save_frames(tmp_path, [100, 200])
  scratch = tmp_path / 'checkpoints' / '.scratch'
  shutil.copytree(folder(tmp_path, 200), scratch)
  _, checkpointer = counter_checkpointer(tmp_path)
  assert checkpointer.restore() == {'frames': 200}
  checkpointer.save(300, {'frames': 300})
  assert not scratch.exists()
  assert saved(tmp_path) == [100, 200, 300]


READS = {
  'listdir': os,
  'getsize': os.path,
  'read_json': files,
  'digest': files,
  'read': nest_files,
}


def make_flaky(monkeypatch, error, names=tuple(READS), failures=10**6):
  """Has the first reads of each path fail; by default none ever succeeds."""
  monkeypatch.setattr(files, '_PAUSE', 0.0)
  left = {}

  def flaky(function):
    def call(path):
      key = function, path
      if left.setdefault(key, failures):
        left[key] -= 1
        raise OSError(error, os.strerror(error), path)
      return function(path)

    return call

  for name in names:
    function = getattr(READS[name], name)
    monkeypatch.setattr(READS[name], name, flaky(function))


@pytest.mark.parametrize('error', [errno.ESTALE, errno.EIO])
@pytest.mark.parametrize('function', ['restore', 'restore_best'])
def test_a_disk_that_cannot_be_read_for_a_moment_is_asked_again(
  tmp_path, monkeypatch, error, function
):
  counter, checkpointer = save_frames(tmp_path, [100, 200], scores=[2, 1])
  make_flaky(monkeypatch, error, failures=2)
  expected = 200 if function == 'restore' else 100
  assert getattr(checkpointer, function)() == {'frames': expected}
  assert counter.numpy() == expected


@pytest.mark.parametrize('name', READS)
@pytest.mark.parametrize(
  'function', ['restore', 'restore_best', 'newest_state']
)
def test_what_cannot_be_read_is_no_damage(
  tmp_path, monkeypatch, function, name
):
  _, checkpointer = save_frames(tmp_path, [100, 200], scores=[2, 1])
  with monkeypatch.context() as patch:
    make_flaky(patch, errno.ESTALE, [name])
    with pytest.raises(files.UnreadableError, match=r'may be intact: .*Stale'):
      getattr(checkpointer, function)()
  assert saved(tmp_path) == [100, 200]
  assert checkpointer.restore() == {'frames': 200}


def test_variables_that_cannot_be_read_are_not_of_another_agent(
  tmp_path, monkeypatch
):
  counter, checkpointer = save_frames(tmp_path, [100])
  monkeypatch.setattr(files, '_PAUSE', 0.0)
  read, failures = checkpointer._checkpoint.read, [1, 2]

  def fail_twice(prefix):
    if failures:
      failures.pop()
      raise tf.errors.UnknownError(None, None, f'{prefix}; Input/output error')
    return read(prefix)

  monkeypatch.setattr(checkpointer._checkpoint, 'read', fail_twice)
  counter.assign(0)
  assert checkpointer.restore() == {'frames': 100}
  assert counter.numpy() == 100


def test_nothing_is_deleted_while_the_best_is_not_known(
  tmp_path, monkeypatch, warnings
):
  _, checkpointer = save_frames(tmp_path, [100, 200, 300], scores=[9, 1, 2])
  with monkeypatch.context() as patch:
    make_flaky(patch, errno.ESTALE, ['read_json'])
    checkpointer.save(400, {'frames': 400}, 3.0)
  assert 'Old checkpoints are kept' in warnings[-1]
  assert saved(tmp_path) == [100, 200, 300, 400]
  checkpointer.save(500, {'frames': 500}, 3.0)
  assert saved(tmp_path) == [100, 300, 400, 500]
  assert checkpointer.restore_best() == {'frames': 100}


@pytest.mark.parametrize(
  ('failures', 'kept'), [(1, [200, 300]), (10**6, [100, 200, 300])]
)
def test_a_good_save_outlives_a_folder_that_cannot_be_read_to_tidy_up(
  tmp_path, monkeypatch, warnings, failures, kept
):
  counter, checkpointer = save_frames(tmp_path, [100, 200], keep=2)
  listdir, calls = os.listdir, []

  def fail_after_the_first(path):
    if path.endswith('checkpoints'):
      calls.append(path)
      if 1 < len(calls) <= 1 + failures:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)
    return listdir(path)

  with monkeypatch.context() as patch:
    patch.setattr(files, '_PAUSE', 0.0)
    patch.setattr(os, 'listdir', fail_after_the_first)
    counter.assign(300)
    checkpointer.save(300, {'frames': 300})
  assert saved(tmp_path) == kept
  assert any('Old checkpoints' in w for w in warnings) == (len(kept) > 2)


def test_saving_twice_at_the_same_frames_replaces(tmp_path):
  counter, checkpointer = save_frames(tmp_path, [100, 200])
  counter.assign(7)
  checkpointer.save(200, {'frames': 7})
  assert saved(tmp_path) == [100, 200]
  assert len(os.listdir(tmp_path / 'checkpoints')) == 2
  counter.assign(-1)
  assert checkpointer.restore() == {'frames': 7}
  assert counter.numpy() == 7


def test_a_kill_while_replacing_loses_nothing(tmp_path):
  save_frames(tmp_path, [200])
  path = folder(tmp_path, 200)
  path.rename(f'{path}.replaced')  # As far as the killed save came.
  _, checkpointer = counter_checkpointer(tmp_path)
  assert checkpointer.restore() == {'frames': 200}
  checkpointer.save(200, {'frames': 8})
  checkpointer.save(300, {'frames': 300})
  assert checkpointer.restore() == {'frames': 300}
  assert saved(tmp_path) == [200, 300]


def test_what_a_killed_save_replaced_does_not_come_back(tmp_path, monkeypatch):
  _, checkpointer = save_frames(tmp_path, [200])
  with monkeypatch.context() as patch:
    # The process dies before it can delete it.
    patch.setattr(shutil, 'rmtree', lambda *args, **kwargs: None)
    checkpointer.save(200, {'frames': 7})
  assert checkpointing.saved_frames(str(tmp_path)) == [200]
  assert checkpointer.restore() == {'frames': 7}
  checkpointer.save(200, {'frames': 8})
  assert checkpointer.restore() == {'frames': 8}
  assert os.listdir(tmp_path / 'checkpoints') == ['000000000200']


def test_what_is_no_checkpoint_is_left_alone(tmp_path):
  save_frames(tmp_path, [100])
  mine = tmp_path / 'checkpoints' / 'before_the_change'
  shutil.copytree(folder(tmp_path, 100), mine)
  save_frames(tmp_path, [200, 300], keep=1)
  assert saved(tmp_path) == [300]
  assert sorted(os.listdir(mine)) == sorted(os.listdir(folder(tmp_path, 300)))


def test_frames_beyond_twelve_digits_are_the_newest(tmp_path):
  names = [checkpoint_files.name_of(x) for x in (7, 10**12 - 1, 10**12)]
  for name in names:
    (tmp_path / name).mkdir()
  assert checkpoint_files.names_in(str(tmp_path)) == names


def test_what_is_sealed_and_installed_is_on_the_disk(tmp_path, monkeypatch):
  """A power cut may take what is not."""
  scratch, path = tmp_path / 'scratch', tmp_path / '000000000007'
  scratch.mkdir()
  for name in 'ab':
    (scratch / name).write_text(name)
  synced = []
  monkeypatch.setattr(files, 'sync', synced.append)
  checkpoint_files.seal(str(scratch), None)
  assert synced[:2] == [str(scratch / name) for name in 'ab']
  checkpoint_files.install(str(scratch), str(path))
  assert synced[-1] == str(tmp_path)


def test_what_takes_the_place_of_a_checkpoint_leaves_nothing_of_it(tmp_path):
  scratch, path = tmp_path / 'scratch', tmp_path / '000000000007'
  for text in ('old', 'new'):
    scratch.mkdir()
    (scratch / 'a').write_text(text)
    checkpoint_files.install(str(scratch), str(path))
  assert os.listdir(tmp_path) == [path.name]
  assert (path / 'a').read_text() == 'new'


@pytest.mark.parametrize('scores', [None, [1, 2, 3, 4]])
def test_going_back_to_an_older_checkpoint_gives_the_newer_ones_up(
  tmp_path, scores
):
  save_frames(tmp_path, [100, 200, 300, 400], scores=scores)
  for frames in (300, 400):
    (folder(tmp_path, frames) / 'state.npz').unlink()
  _, checkpointer = counter_checkpointer(tmp_path)
  assert checkpointer.restore() == {'frames': 200}
  checkpointer.save(250, {'frames': 250}, None if scores is None else 2.5)
  assert saved(tmp_path) == [200, 250]
  assert checkpointer.restore() == {'frames': 250}
  assert checkpointer.restore_best() == {'frames': 250}


class Stop(BaseException):
  """The process dies here."""


def test_a_kill_at_any_file_operation_leaves_a_usable_checkpoint(
  tmp_path, monkeypatch
):
  """Lets every save die at its n-th operation, for all n that there are."""
  operations = ('rename', 'replace', 'fsync', 'makedirs', 'open')
  originals = {name: getattr(os, name) for name in operations}
  left = 0

  def counted(name):
    def call(*args, **kwargs):
      nonlocal left
      left -= 1
      if left == 0:
        raise Stop
      return originals[name](*args, **kwargs)

    return call

  def run(logdir, at, second):
    nonlocal left
    counter, checkpointer = save_frames(logdir, [100], scores=[1.0])
    # What a dead process cannot do either.
    monkeypatch.setattr(shutil, 'rmtree', lambda *args, **kwargs: None)
    left = at
    for name in operations:
      monkeypatch.setattr(os, name, counted(name))
    counter.assign(second)
    try:
      checkpointer.save(second, {'frames': second}, 2.0)
    except Stop:
      return True
    finally:
      monkeypatch.undo()
    return False

  for second in (200, 100):
    at = 1
    while run(tmp_path / f'{second}_{at}', at, second):
      logdir = tmp_path / f'{second}_{at}'
      counter, checkpointer = counter_checkpointer(logdir)
      state = checkpointer.restore()
      assert state['frames'] in (100, second)
      assert counter.numpy() == state['frames']
      assert checkpointer.restore_best() is not None
      checkpointer.save(300, {'frames': 300}, 3.0)
      assert checkpointer.restore_best() == {'frames': 300}
      at += 1
    assert at > 10


def test_a_disk_error_is_reported_with_the_remedy(tmp_path, monkeypatch):
  _, checkpointer = save_frames(tmp_path, [100])

  def full(path, nest):
    raise OSError(28, 'No space left on device', path)

  monkeypatch.setattr(nest_files, 'write', full)
  with pytest.raises(OSError, match='No space left') as error:
    checkpointer.save(200, {})
  assert '--logdir' in str(error.value)
  assert os.listdir(tmp_path / 'checkpoints') == ['000000000100']
  assert checkpointer.restore() == {'frames': 100}
