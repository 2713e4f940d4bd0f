"""An authority and certificates for tests of TLS, by the openssl command."""

import pathlib
import shutil
import subprocess

import pytest

from scalable_agent.transport.credentials import Credentials

NAME = 'learner.example'


def _run(*arguments):
  subprocess.run(
    ['openssl', *map(str, arguments)], check=True, capture_output=True
  )


class Authority:
  """Signs certificates, in a folder.

  Attributes:
    certificate: path of its own.
  """

  def __init__(self, folder: pathlib.Path):
    """Makes it; skips the test where there is no openssl."""
    if not shutil.which('openssl'):
      pytest.skip('there is no openssl')
    folder.mkdir()
    self._folder = folder
    self._key = folder / 'authority.key'
    self.certificate = folder / 'authority.pem'
    # fmt: off
    _run(
      'req', '-x509', '-newkey', 'ec', '-pkeyopt',
      'ec_paramgen_curve:prime256v1', '-nodes', '-subj', '/CN=tests',
      '-days', '2', '-keyout', self._key, '-out', self.certificate,
    )
    # fmt: on

  def sign(self, name: str, *names: str) -> tuple[pathlib.Path, pathlib.Path]:
    """Returns the paths of a certificate and its key.

    Args:
      name: of the files.
      *names: that it is for, such as DNS:localhost.
    """
    certificate, key, request, extensions = (
      self._folder / f'{name}.{kind}' for kind in ('pem', 'key', 'csr', 'ext')
    )
    extensions.write_text(f'subjectAltName={",".join(names)}\n')
    # fmt: off
    _run(
      'req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1',
      '-nodes', '-subj', f'/CN={name}', '-keyout', key, '-out', request,
    )
    _run(
      'x509', '-req', '-in', request, '-CA', self.certificate, '-CAkey',
      self._key, '-CAcreateserial', '-days', '2', '-extfile', extensions,
      '-out', certificate,
    )
    # fmt: on
    return certificate, key


class Tls:
  """Credentials of the processes of a run, and of others.

  Attributes:
    learner: shows a certificate for 127.0.0.1 and localhost.
    named: shows one for NAME only.
    actor: knows the authority.
    with_certificate: has a certificate, too.
    mutual: a learner that asks for one.
    stranger: knows another authority, and has a certificate of that.
  """

  def __init__(self, folder: pathlib.Path):
    """Makes all of them in a new folder."""
    self.authority = Authority(folder / 'ours')
    self.files = self.authority.sign('host', 'IP:127.0.0.1', 'DNS:localhost')
    named = self.authority.sign('named', f'DNS:{NAME}')
    actor = self.authority.sign('actor', 'DNS:actor')
    other = Authority(folder / 'theirs')
    known = self.authority.certificate.read_bytes()
    self.learner = Credentials(**_shown(self.files))
    self.named = Credentials(**_shown(named))
    self.actor = Credentials(authority=known)
    self.with_certificate = Credentials(authority=known, **_shown(actor))
    self.mutual = Credentials(authority=known, **_shown(self.files))
    self.stranger = Credentials(authority=other.certificate.read_bytes())
    self.intruder = Credentials(
      authority=known, **_shown(other.sign('intruder', 'DNS:actor'))
    )


def _shown(files):
  certificate, key = (path.read_bytes() for path in files)
  return {'certificate': certificate, 'key': key}
