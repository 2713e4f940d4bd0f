"""Who may talk to a learner: a token that all processes share, and TLS.

Files of tokens are made and read here, and nowhere else.
"""

import contextlib
import hmac
import os
import secrets
import ssl
import stat
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

import grpc

from scalable_agent.options import ClusterOptions, Config

# Of the file in the logdir.
_NAME = 'cluster_token'
# Bytes of a new token, and of the longest file that can be one.
_TOKEN_BYTES = 32
_MOST_BYTES = 4096
_EXAMPLE = 'one line of ASCII, such as of: openssl rand -hex 32'
# Seconds between two looks for a token that another process makes.
_RETRY = 0.2
# Seconds that learner 0 usually needs to make it.
_QUIET = 6.0
_METADATA_KEY = 'authorization'
_SCHEME = 'Bearer '


class Credentials(NamedTuple):
  """What a process shows to others, and by what it knows them.

  Attributes:
    token: a secret that all have; '' for none.
    certificate: PEM, of this process; b'' for none.
    key: PEM, of the certificate.
    authority: PEM, by which it knows others.
    name: that certificates of learners are for, if not their host; '' else.
  """

  token: str = ''
  certificate: bytes = b''
  key: bytes = b''
  authority: bytes = b''
  name: str = ''

  def __repr__(self) -> str:
    return 'Credentials(...)'  # Nothing of them belongs into a log.

  def metadata(self) -> Sequence[tuple[str, str]]:
    """Returns what goes with every call."""
    return ((_METADATA_KEY, _SCHEME + self.token),) if self.token else ()

  def admits(self, metadata: Sequence[tuple[str, str | bytes]]) -> bool:
    """Whether a call with this metadata comes from one of the run.

    It takes as long for a wrong token as for the right one.
    """
    if not self.token:
      return True
    shown = dict(metadata).get(_METADATA_KEY, '')
    if isinstance(shown, str):
      shown = shown.encode()
    return hmac.compare_digest(shown, (_SCHEME + self.token).encode())

  def of_server(self) -> grpc.ServerCredentials | None:
    """Returns the certificate for gRPC's server; None without one."""
    if not self.certificate:
      return None
    return grpc.ssl_server_credentials(
      [(self.key, self.certificate)],
      self.authority or None,
      require_client_auth=bool(self.authority),
    )

  def of_channel(self) -> grpc.ChannelCredentials | None:
    """Returns what gRPC's client knows servers by; None without TLS."""
    if not self.authority:
      return None
    return grpc.ssl_channel_credentials(
      self.authority, self.key or None, self.certificate or None
    )


NONE = Credentials()


def load(config: Config, makes_token: bool) -> Credentials:
  """Reads what the options name; waits for a token that another one makes.

  Args:
    config: resolved options.
    makes_token: whether this process makes the token if there is none.

  Raises:
    ValueError: a file is missing, is none of its kind, or can be read by
      others.
    TimeoutError: nobody has made a token in --reconnect_timeout seconds.
  """
  own = config.cluster
  certificate, key, authority = (
    _read(getattr(own, option), option)
    for option in ('tls_certificate', 'tls_key', 'tls_authority')
  )
  _check_pem(own)
  token = ''
  if not own.insecure_loopback:
    path = own.cluster_token_file or os.path.join(config.run.logdir, _NAME)
    if makes_token:
      _make_token(path)
    token = _await_token(path, own.reconnect_timeout)
  return Credentials(token, certificate, key, authority, own.tls_name)


def _read(path: str, option: str) -> bytes:
  if not path:
    return b''
  try:
    with open(path, 'rb') as file:
      return file.read()
  except OSError as error:
    raise ValueError(
      f'--{option}={path} cannot be read: {error.strerror}. Name a PEM file.'
    ) from error


def _check_pem(own: ClusterOptions) -> None:
  """gRPC would only say, and only in its own log, that a handshake failed."""
  context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
  try:
    if own.tls_authority:
      context.load_verify_locations(own.tls_authority)
  except ssl.SSLError as error:
    raise ValueError(
      f'--tls_authority={own.tls_authority} holds no certificate '
      f'({error.reason or error}). Name a PEM file with one.'
    ) from error
  try:
    if own.tls_certificate:
      context.load_cert_chain(own.tls_certificate, own.tls_key, password='')
  except ssl.SSLError as error:
    raise ValueError(
      f'--tls_certificate={own.tls_certificate} and --tls_key={own.tls_key} '
      f'are no certificate and its key, without a password '
      f'({error.reason or error}). Name PEM files that belong together.'
    ) from error


def _make_token(path: str) -> None:
  """Makes a file with a new token unless there is one; others see all of it."""
  if os.path.exists(path):
    return
  folder = os.path.dirname(path) or '.'
  temporary = f'{path}.{os.getpid()}.{secrets.token_hex(4)}'
  try:
    os.makedirs(folder, exist_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
      with open(descriptor, 'w', encoding='ascii') as file:
        file.write(secrets.token_hex(_TOKEN_BYTES) + '\n')
      # Fails where another process was faster, whose token counts.
      with contextlib.suppress(FileExistsError):
        os.link(temporary, path)
    finally:
      os.unlink(temporary)
  except OSError as error:
    raise ValueError(
      f'--cluster_token_file={path} cannot be made: {error.strerror}. Name a '
      'place that can be written, or a file with a token.'
    ) from error


def _await_token(path: str, timeout: float) -> str:
  start = time.monotonic()
  pause = threading.Event()
  told = False
  while not os.path.exists(path):
    waited = time.monotonic() - start
    if waited > timeout:
      raise TimeoutError(
        f'--cluster_token_file={path} was not there within '
        f'--reconnect_timeout={timeout:g} seconds. Learner 0 makes it; where '
        'its file system is not shared, copy it from there.'
      )
    if not told and waited > _QUIET:
      told = True
      print(
        f'Waiting for --cluster_token_file={path}, which learner 0 makes.',
        flush=True,
      )
    pause.wait(_RETRY)
  return _read_token(path)


def _read_token(path: str) -> str:
  try:
    with open(path, encoding='ascii') as file:
      mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
      text = file.read(_MOST_BYTES + 1)
  except (OSError, UnicodeError) as error:
    raise ValueError(
      f'--cluster_token_file={path} cannot be read: '
      f'{getattr(error, "strerror", None) or "it is no text"}. Name a file '
      f'with {_EXAMPLE}'
    ) from error
  if mode & 0o077:
    raise ValueError(
      f'--cluster_token_file={path} can be read or written by others than its '
      f'owner (mode {mode:o}). Run: chmod 600 {path}'
    )
  token = text.strip()
  if not token or len(text) > _MOST_BYTES or not token.isprintable():
    raise ValueError(
      f'--cluster_token_file={path} holds no token. Give it {_EXAMPLE}'
    )
  return token
