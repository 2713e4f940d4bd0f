"""The secret of a run and its certificates: made once, and read with care."""

import multiprocessing
import os
import re
import stat
import subprocess
import threading

import grpc
import pytest

from scalable_agent.transport import credentials
from scalable_agent.transport.credentials import Credentials
from tests.configs import make_config
from tests.waiting import DEADLINE_S, in_thread, wait_until

TOKEN = 'a3' * 32


@pytest.fixture
def path(tmp_path):
  return tmp_path / 'token'


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
  monkeypatch.setattr(credentials, '_RETRY', 0.005)
  monkeypatch.setattr(credentials, '_QUIET', 0.0)


def load(makes_token=False, **options):
  given = {'task': 0, 'num_actors': 2, 'reconnect_timeout': 0.05} | options
  return credentials.load(make_config(**given), makes_token)


def write(path, data, mode=0o600):
  path.write_bytes(data)
  path.chmod(mode)
  return path


class TestMakingAToken:
  def test_it_is_in_the_logdir(self, tmp_path):
    own = load(makes_token=True, logdir=str(tmp_path / 'run'))
    path = tmp_path / 'run' / 'cluster_token'
    assert path.read_text() == f'{own.token}\n'

  def test_it_is_where_the_option_says(self, path, tmp_path):
    own = load(
      makes_token=True,
      logdir=str(tmp_path / 'run'),
      cluster_token_file=str(path),
    )
    assert path.read_text() == f'{own.token}\n'
    assert not (tmp_path / 'run').exists()

  @pytest.mark.parametrize('mask', [0o000, 0o022, 0o077])
  def test_only_its_owner_may_read_it(self, path, mask):
    before = os.umask(mask)
    try:
      load(makes_token=True, cluster_token_file=str(path))
    finally:
      os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

  def test_it_cannot_be_guessed(self, tmp_path):
    tokens = {
      load(makes_token=True, cluster_token_file=str(tmp_path / str(i))).token
      for i in range(20)
    }
    assert len(tokens) == 20
    for token in tokens:
      assert re.fullmatch('[0-9a-f]{64}', token)  # 256 bits.

  def test_it_is_made_once(self, path):
    first = load(makes_token=True, cluster_token_file=str(path))
    inode = path.stat().st_ino
    assert load(makes_token=True, cluster_token_file=str(path)) == first
    assert load(cluster_token_file=str(path)) == first
    assert path.stat().st_ino == inode

  def test_one_of_the_users_is_kept(self, path):
    write(path, TOKEN.encode())
    own = load(makes_token=True, cluster_token_file=str(path))
    assert own == Credentials(token=TOKEN)
    assert path.read_bytes() == TOKEN.encode()

  def test_of_many_threads_all_get_the_same(self, path):
    barrier = threading.Barrier(16)

    def race():
      barrier.wait(DEADLINE_S)
      return load(makes_token=True, cluster_token_file=str(path)).token

    futures = [in_thread(race) for _ in range(16)]
    tokens = {future.result(DEADLINE_S) for future in futures}
    assert tokens == {path.read_text().strip()}
    assert os.listdir(path.parent) == [path.name]

  def test_of_many_processes_all_get_the_same(self, path):
    context = multiprocessing.get_context('fork')
    barrier = context.Barrier(8)
    answers = context.SimpleQueue()

    def race():
      barrier.wait(DEADLINE_S)
      credentials._make_token(str(path))
      answers.put(credentials._read_token(str(path)))

    processes = [context.Process(target=race, daemon=True) for _ in range(8)]
    for process in processes:
      process.start()
    for process in processes:
      process.join(DEADLINE_S)
    assert [process.exitcode for process in processes] == [0] * 8
    tokens = {answers.get() for _ in processes}
    assert tokens == {path.read_text().strip()}
    assert os.listdir(path.parent) == [path.name]

  @pytest.mark.parametrize('place', ['file/token', '/proc/none/token'])
  def test_where_nothing_can_be_made_the_option_is_named(self, tmp_path, place):
    write(tmp_path / 'file', b'')
    path = tmp_path / place
    with pytest.raises(
      ValueError, match=rf'^--cluster_token_file={path} cannot be made: .*Name '
    ):
      load(makes_token=True, cluster_token_file=str(path))

  def test_whoever_makes_none_makes_none(self, path):
    with pytest.raises(TimeoutError):
      load(cluster_token_file=str(path))
    assert os.listdir(path.parent) == []

  def test_without_a_secret_none_is_made(self, tmp_path):
    own = load(
      makes_token=True, insecure_loopback=True, logdir=str(tmp_path / 'run')
    )
    assert own == credentials.NONE
    assert os.listdir(tmp_path) == []


class TestWaitingForAToken:
  def test_it_is_said_once(self, path, capsys, monkeypatch):
    loaded = in_thread(
      lambda: load(
        cluster_token_file=str(path), reconnect_timeout=float(DEADLINE_S)
      )
    )
    said = []

    def has_said():
      said.append(capsys.readouterr().out)
      return ''.join(said)

    wait_until(has_said)
    # It looks again and again, and says no more.
    looks = threading.Event()
    exists = os.path.exists
    count = [0]

    def look(place):
      if place == str(path):
        count[0] += 1
        if count[0] > 5:
          looks.set()
      return exists(place)

    monkeypatch.setattr(os.path, 'exists', look)
    assert looks.wait(DEADLINE_S)
    monkeypatch.undo()
    assert not loaded.done()
    own = load(makes_token=True, cluster_token_file=str(path))
    assert loaded.result(DEADLINE_S) == own
    assert has_said() == (
      f'Waiting for --cluster_token_file={path}, which learner 0 makes.\n'
    )

  def test_nothing_is_said_where_there_is_one(self, path, capsys):
    write(path, b'x\n')
    assert load(cluster_token_file=str(path)).token == 'x'
    assert capsys.readouterr().out == ''

  def test_it_has_an_end(self, path):
    with pytest.raises(TimeoutError) as error:
      load(cluster_token_file=str(path), reconnect_timeout=0.02)
    assert str(error.value) == (
      f'--cluster_token_file={path} was not there within --reconnect_timeout='
      '0.02 seconds. Learner 0 makes it; where its file system is not shared, '
      'copy it from there.'
    )


class TestReadingAToken:
  @pytest.mark.parametrize(
    'data', [TOKEN, f'{TOKEN}\n', f' {TOKEN}\r\n\n', 'x', 'a b', 'x' * 4096]
  )
  def test_it_is_a_line(self, path, data):
    write(path, data.encode())
    assert load(cluster_token_file=str(path)).token == data.strip()

  @pytest.mark.parametrize('mode', [0o644, 0o640, 0o604, 0o620, 0o601, 0o666])
  def test_if_others_may_read_it_it_is_refused(self, path, mode):
    write(path, TOKEN.encode(), mode)
    with pytest.raises(
      ValueError,
      match=rf'^--cluster_token_file={path} can be read or written by others '
      rf'than its owner \(mode {mode:o}\)\. Run: chmod 600 {path}$',
    ):
      load(cluster_token_file=str(path))

  @pytest.mark.parametrize('mode', [0o600, 0o400, 0o700])
  def test_modes_that_let_its_owner_alone_pass(self, path, mode):
    write(path, TOKEN.encode(), mode)
    load(cluster_token_file=str(path))

  @pytest.mark.parametrize(
    'data', [b'', b'\n \n', b'a\nb', b'a\0b', b'\x1b[1m', b'x' * 4097]
  )
  def test_what_is_none_is_refused(self, path, data):
    write(path, data)
    with pytest.raises(
      ValueError,
      match=rf'^--cluster_token_file={path} holds no token\. Give it one line',
    ):
      load(cluster_token_file=str(path))

  @pytest.mark.parametrize(
    'data', [b'\xff\xfe', 'ü'.encode(), bytes(range(128, 256))]
  )
  def test_bytes_that_are_no_text_are_refused(self, path, data):
    write(path, data + b'\x80')
    with pytest.raises(
      ValueError, match=r'cannot be read: it is no text\. Name a file with one'
    ) as error:
      load(cluster_token_file=str(path))
    assert 'x80' not in str(error.value)

  def test_a_folder_is_none(self, tmp_path):
    with pytest.raises(
      ValueError, match=r'cannot be read: Is a directory\. Name'
    ):
      load(cluster_token_file=str(tmp_path))

  @pytest.mark.parametrize(
    ('data', 'mode'), [(b'secret\nsecret', 0o600), (b'secret', 0o644)]
  )
  def test_no_message_quotes_it(self, path, data, mode):
    write(path, data, mode)
    with pytest.raises(ValueError, match='cluster_token_file') as error:
      load(cluster_token_file=str(path))
    assert 'secret' not in str(error.value)


class TestAdmits:
  def test_without_a_token_everybody(self):
    assert credentials.NONE.admits(())
    assert credentials.NONE.metadata() == ()

  def test_what_metadata_shows(self):
    own = Credentials(token=TOKEN)
    assert own.metadata() == (('authorization', f'Bearer {TOKEN}'),)
    assert own.admits(own.metadata())
    assert own.admits((('user-agent', 'x'), *own.metadata()))
    assert own.admits((('authorization', f'Bearer {TOKEN}'.encode()),))

  @pytest.mark.parametrize(
    'metadata',
    [
      (),
      (('authorization', ''),),
      (('authorization', TOKEN),),
      (('authorization', f'Bearer {TOKEN}x'),),
      (('authorization', f'Bearer {TOKEN[1:]}'),),
      (('authorization', 'ü'),),
      (('authorization', b'\xff'),),
      (('Authorization', f'Bearer {TOKEN}'),),
      (('authorization-bin', f'Bearer {TOKEN}'),),
    ],
  )
  def test_nothing_else(self, metadata):
    assert not Credentials(token=TOKEN).admits(metadata)


class TestTls:
  @pytest.fixture
  def options(self, tls):
    certificate, key = tls.files
    return {
      'insecure_loopback': True,
      'tls_certificate': str(certificate),
      'tls_key': str(key),
      'tls_authority': str(tls.authority.certificate),
    }

  def test_files_are_read(self, tls, options):
    own = load(**options, tls_name='learner.example')
    assert own == tls.mutual._replace(name='learner.example')
    assert isinstance(own.of_server(), grpc.ServerCredentials)
    assert isinstance(own.of_channel(), grpc.ChannelCredentials)

  def test_an_authority_alone_is_for_clients(self, options):
    del options['tls_certificate'], options['tls_key']
    own = load(**options)
    assert own.of_server() is None
    assert own.of_channel() is not None

  def test_a_certificate_alone_is_for_servers(self, options):
    del options['tls_authority']
    own = load(**options)
    assert own.of_server() is not None
    assert own.of_channel() is None

  def test_without_files_there_is_none(self):
    own = load(insecure_loopback=True)
    assert own.of_server() is own.of_channel() is None

  @pytest.mark.parametrize(
    'option', ['tls_certificate', 'tls_key', 'tls_authority']
  )
  @pytest.mark.parametrize(
    ('place', 'reason'),
    [('missing', 'No such file or directory'), ('.', 'Is a directory')],
  )
  def test_a_file_that_cannot_be_read_is_named(
    self, options, tmp_path, option, place, reason
  ):
    path = tmp_path / place
    options[option] = str(path)
    with pytest.raises(
      ValueError,
      match=rf'^--{option}={path} cannot be read: {reason}\. Name a PEM file',
    ):
      load(**options)

  @pytest.mark.parametrize('data', [b'', b'no PEM', bytes(range(128, 256))])
  @pytest.mark.parametrize(
    ('option', 'message'),
    [
      ('tls_authority', '--tls_authority={} holds no certificate '),
      ('tls_certificate', '--tls_certificate={} and --tls_key='),
      ('tls_key', r'--tls_key={} are no certificate and its key'),
    ],
  )
  def test_what_is_no_pem_is_named(
    self, options, tmp_path, option, message, data
  ):
    path = write(tmp_path / 'file', data)
    options[option] = str(path)
    with pytest.raises(ValueError, match=message.format(path)):
      load(**options)

  def test_a_key_of_another_certificate_is_named(self, options, tls, tmp_path):
    options['tls_key'] = str(tls.authority.sign('another', 'DNS:x')[1])
    with pytest.raises(ValueError, match=r'VALUES_MISMATCH.*belong together'):
      load(**options)

  def test_a_key_with_a_password_is_refused_without_asking(
    self, options, tmp_path
  ):
    locked = tmp_path / 'locked.key'
    # fmt: off
    subprocess.run(
      [
        'openssl', 'ec', '-in', options['tls_key'], '-aes256', '-passout',
        'pass:abc', '-out', str(locked),
      ],
      check=True, capture_output=True,
    )
    # fmt: on
    options['tls_key'] = str(locked)
    with pytest.raises(ValueError, match='without a password'):
      load(**options)

  def test_a_bad_file_is_told_before_a_token_is_waited_for(
    self, options, tmp_path
  ):
    options['tls_authority'] = str(tmp_path / 'missing')
    options |= {'insecure_loopback': False, 'reconnect_timeout': 1e6}
    with pytest.raises(ValueError, match='tls_authority'):
      load(**options, logdir=str(tmp_path))
