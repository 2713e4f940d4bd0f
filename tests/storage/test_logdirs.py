"""A logdir is of one run: its options, and who may use it."""

import errno
import json
import os
import subprocess
import sys

import pytest
import tensorflow as tf

from scalable_agent.storage import checkpointing, files, logdirs
from tests import configs
from tests.configs import CATALOG


def make_config(**options):
  """Returns options as a run saves them: nothing is left to be resolved."""
  options = {'level_name': 'catch', 'network': 'mlp'} | options
  return configs.resolve(configs.make_config(**options), 'catch')


def begin(logdir, **options):
  """Begins a run in a logdir, or goes on with it."""
  resolved = make_config(**options)
  logdirs.prepare_logdir(str(logdir), resolved).close()
  logdirs.write_config(str(logdir), resolved)


def save(logdir):
  """Saves a checkpoint: from now on there is something to lose."""
  checkpointing.Checkpointer(str(logdir), {}).save(80, {})


def test_the_options_of_a_run_are_read_back(tmp_path):
  begin(tmp_path / 'a' / 'b', seed=7)
  loaded = logdirs.load_config(str(tmp_path / 'a' / 'b'), CATALOG)
  assert loaded == make_config(seed=7)


def test_config_json_has_one_option_per_line(tmp_path):
  begin(tmp_path)
  text = (tmp_path / 'config.json').read_text()
  assert len(text.splitlines()) == len(CATALOG.options) + 2
  assert set(json.loads(text)) == set(CATALOG.options)


def test_a_start_that_is_refused_leaves_no_options(tmp_path):
  logdirs.prepare_logdir(str(tmp_path), make_config()).close()
  assert not (tmp_path / 'config.json').exists()


def test_without_a_checkpoint_every_option_can_change(tmp_path):
  begin(tmp_path, network='deep')
  begin(tmp_path, network='mlp', lstm=True)
  assert logdirs.load_config(str(tmp_path), CATALOG).agent.network == 'mlp'


@pytest.mark.parametrize(
  ('option', 'value'),
  [
    ('level_name', 'catch_hidden'),
    ('network', 'deep'),
    ('lstm', True),
    ('frame_stack', 3),
    ('last_action_reward', True),
    ('width', 96),
    ('height', 96),
    ('grayscale', False),
    ('full_action_space', True),
    ('num_action_repeats', 2),
    ('optimizer', 'rmsprop'),
  ],
)
def test_an_option_that_the_weights_depend_on_cannot_change(
  tmp_path, option, value
):
  begin(tmp_path)
  save(tmp_path)
  changed = make_config().replace(**{option: value})
  with pytest.raises(ValueError, match='--logdir') as error:
    logdirs.prepare_logdir(str(tmp_path), changed)
  old = make_config().values[option]
  assert f'--{option} was {old} and is {value}' in str(error.value)
  begin(tmp_path)  # The lock is free again.


@pytest.mark.parametrize(
  ('number', 'remedy'),
  [
    (errno.ENOSPC, 'Free some space there, or choose another'),
    (errno.EACCES, 'Choose a folder that you may write to'),
  ],
)
def test_options_that_cannot_be_written_are_told_with_a_remedy(
  tmp_path, monkeypatch, number, remedy
):
  def fail(path, value):
    raise OSError(number, os.strerror(number), path)

  monkeypatch.setattr(logdirs.files, 'write_json', fail)
  with pytest.raises(
    ValueError,
    match=f'^--logdir={tmp_path} cannot be written: {os.strerror(number)}. '
    rf'{remedy}\.$',
  ):
    logdirs.write_config(str(tmp_path), make_config())


def test_every_difference_is_named_at_once(tmp_path):
  begin(tmp_path)
  save(tmp_path)
  with pytest.raises(ValueError, match='--lstm was') as error:
    begin(tmp_path, lstm=True, width=96)
  assert '--width was 84 and is 96' in str(error.value)


def test_other_options_may_change_and_are_listed(tmp_path, monkeypatch):
  messages = []
  monkeypatch.setattr(
    logdirs.logging,
    'warning',
    lambda message, *args: messages.append(message % args),
  )
  begin(tmp_path, total_environment_frames=100, seed=1)
  save(tmp_path)
  begin(tmp_path, total_environment_frames=200, seed=2)
  assert len(messages) == 2
  assert messages[0].startswith('--total_environment_frames was 100 so far')
  loaded = logdirs.load_config(str(tmp_path), CATALOG)
  assert (loaded.run.total_environment_frames, loaded.run.seed) == (200, 2)


@pytest.mark.parametrize(
  'content', ['', '{', '[]', '{"colour": 1}', 'null', '\x00\x00']
)
def test_a_corrupt_config_is_named_with_the_remedy(tmp_path, content):
  (tmp_path / 'config.json').write_text(content)
  for function in (begin, lambda d: logdirs.load_config(str(d), CATALOG)):
    with pytest.raises(ValueError, match='cannot be read') as error:
      function(tmp_path)
    assert f'--logdir={tmp_path}' in str(error.value)
    assert 'config.json' in str(error.value)
    assert 'Repair it' in str(error.value)


@pytest.mark.parametrize('failures', [2, 10**6])
def test_options_that_cannot_be_read_now_are_not_taken_for_absent(
  tmp_path, monkeypatch, failures
):
  begin(tmp_path)
  save(tmp_path)
  path, left = str(tmp_path / 'config.json'), [failures]

  def stale(function):
    def call(name, *args, **kwargs):
      if str(name) == path and left[0]:
        left[0] -= 1
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)
      return function(name, *args, **kwargs)

    return call

  monkeypatch.setattr(files, '_PAUSE', 0.0)
  # os.path.exists asks os.stat.
  monkeypatch.setattr(os, 'stat', stale(os.stat))
  monkeypatch.setattr(files, 'open', stale(open), raising=False)
  said = '--lstm was' if failures == 2 else r'may be intact: .*Stale'
  with pytest.raises(ValueError, match=f'^--logdir={tmp_path}.*{said}'):
    begin(tmp_path, lstm=True)


def test_a_folder_without_a_run_is_named(tmp_path):
  with pytest.raises(ValueError, match='nothing was trained there'):
    logdirs.load_config(str(tmp_path / 'none'), CATALOG)


def test_a_logdir_that_is_a_file_is_refused(tmp_path):
  (tmp_path / 'file').write_text('')
  for logdir in (tmp_path / 'file', tmp_path / 'file' / 'inside'):
    with pytest.raises(ValueError, match='cannot be written') as error:
      begin(logdir)
    assert f'--logdir={logdir}' in str(error.value)


@pytest.mark.parametrize(
  'name', ['run[1]', 'a*', 'b?', 'c\\d', 'ram://e', 'gs://f/g', '\udcff']
)
def test_a_name_under_which_no_checkpoint_can_be_read_is_refused(
  tmp_path, monkeypatch, name
):
  monkeypatch.chdir(tmp_path)
  for function in (
    lambda: logdirs.prepare_logdir(name, make_config()),
    lambda: logdirs.load_config(name, CATALOG),
  ):
    with pytest.raises(ValueError, match=r'^--logdir=.* Choose another name'):
      function()
  assert not os.listdir()


def test_names_of_other_kinds_are_none_of_these(tmp_path):
  logdir = str(tmp_path / 'a b\nc\'"é%s{}(1)~;$x')
  begin(logdir)
  counter = tf.Variable(3)
  checkpointing.Checkpointer(logdir, {'counter': counter}).save(80, {})
  counter.assign(0)
  checkpointing.Checkpointer(logdir, {'counter': counter}).restore()
  assert counter.numpy() == 3


def test_a_run_may_move(tmp_path, monkeypatch):
  def fail(*args):
    pytest.fail(f'warned: {args}')

  monkeypatch.setattr(logdirs.logging, 'warning', fail)
  begin(tmp_path)
  save(tmp_path)
  moved = make_config().replace(logdir='elsewhere')
  logdirs.prepare_logdir(str(tmp_path), moved).close()


def test_a_logdir_in_use_is_refused_until_it_is_free(tmp_path):
  begin(tmp_path)
  with logdirs.prepare_logdir(str(tmp_path), make_config()):
    assert (tmp_path / '.lock').read_text() == f'{os.getpid()}\n'
    with pytest.raises(ValueError, match='in use') as error:
      begin(tmp_path)
    assert f'id {os.getpid()}' in str(error.value)
    # Testing an agent while it is trained is fine.
    assert logdirs.load_config(str(tmp_path), CATALOG) == make_config()
  begin(tmp_path)


def test_a_dead_process_keeps_no_lock(tmp_path):
  code = (
    'import os, sys\n'
    'from scalable_agent.storage import logdirs\n'
    'lock = logdirs.LogdirLock(sys.argv[1])\n'
    'os._exit(9)\n'
  )
  subprocess.run([sys.executable, '-c', code, str(tmp_path)], check=False)
  assert (tmp_path / '.lock').read_text().strip().isdigit()
  begin(tmp_path)
