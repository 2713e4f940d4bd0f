"""Addresses of processes: their syntax and whether they work here.

host:port, or unix:/path for processes of one host.

Every function that refuses one raises ValueError with a message of one line.
"""

import errno
import ipaddress
import os
import re
import socket
import stat
from collections.abc import Sequence

from absl import logging

# Above the port where a learner listens to its actors is the one of its
# collectives.
COLLECTIVE_OFFSET = 1000
MAX_PORT = 65535 - COLLECTIVE_OFFSET

_REASONS = {
  errno.EADDRINUSE: (
    'another process listens on this port. End it, or choose another port in '
    '--learner_address or TF_CONFIG'
  ),
  errno.EADDRNOTAVAIL: (
    'no network interface of this host has this address. Start the learner on '
    'the host that has it, or name this one'
  ),
  errno.EACCES: (
    'this user may not listen on this port. Choose a port above 1023'
  ),
}

_UNIX = 'unix:'
# Bytes of a path that Linux, and others, have room for.
_MAX_PATH = 100
_ELSEWHERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def is_unix(address: str) -> bool:
  """Whether an address is a socket in the file system."""
  return address.startswith(_UNIX)


def path_of(address: str) -> str:
  """Returns the path of a unix:/path."""
  return address.removeprefix(_UNIX)


def check(address: str, source: str = '--learner_address') -> None:
  """Raises ValueError if an address is malformed.

  Args:
    address: host:port, [host]:port or unix:/path.
    source: option or environment variable that it is from, for the message.
  """
  if not is_unix(address):
    split(address, source)
    return
  path = path_of(address)
  if not os.path.isabs(path) or len(os.fsencode(path)) > _MAX_PATH:
    raise ValueError(
      f'{source}: {address!r} is no address. Write unix:/path, absolute and at '
      f'most {_MAX_PATH} bytes long.'
    )


def split(address: str, source: str = '--learner_address') -> tuple[str, int]:
  """Returns the host, without the brackets of IPv6, and the port.

  Args:
    address: host:port, or [host]:port.
    source: option or environment variable that it is from, for the message.

  Raises:
    ValueError: it is not of that form, or the port is no number from 1 to
      MAX_PORT.
  """
  match = re.fullmatch(r'(?:\[([^\[\]\s]+)\]|([^:\[\]\s/,]+)):(\d+)', address)
  if not match or not 1 <= int(match[3]) <= MAX_PORT:
    raise ValueError(
      f'{source}: {address!r} is no address. Write host:port, with an IPv6 '
      f'host in brackets and a port from 1 to {MAX_PORT}, or unix:/path.'
    )
  return match[1] or match[2], int(match[3])


def join(host: str, port: int) -> str:
  """Returns host:port, with brackets where the host is IPv6."""
  return f'[{host}]:{port}' if ':' in host else f'{host}:{port}'


def collectives_of(learners: Sequence[str], source: str) -> tuple[str, ...]:
  """Returns where learners that listen at `learners` reach each other.

  Args:
    learners: address of each.
    source: option or environment variable that they are from.

  Returns:
    host:port of each; () for a single one, which has nobody to reach.

  Raises:
    ValueError: an address is malformed, occurs twice, is a collective's, or
      is one where other learners cannot find it.
  """
  if len(learners) == 1:
    check(learners[0], source)
    return ()
  for address in learners:
    if is_unix(address):
      raise ValueError(
        f'{source}: {address} is for a single learner, as learners reach each '
        'other over TCP. Give host:port for each.'
      )
  places = [split(address, source) for address in learners]
  for index, place in enumerate(places):
    if place in places[:index]:
      raise ValueError(
        f'{source}: {learners[index]} occurs twice. Give each learner an '
        'address of its own.'
      )
    host, port = place
    if _is_unspecified(host):
      raise ValueError(
        f'{source}: {learners[index]} is where to listen, but no place where '
        'another learner finds this one. Name its host.'
      )
    if (host, port + COLLECTIVE_OFFSET) in places:
      raise ValueError(
        f'{source}: {join(host, port + COLLECTIVE_OFFSET)} is taken: there '
        f'learner {index} ({learners[index]}) reaches the other learners, '
        f'{COLLECTIVE_OFFSET} ports above its own. Choose closer ports.'
      )
  return tuple(join(host, port + COLLECTIVE_OFFSET) for host, port in places)


def check_free(address: str, source: str = '--learner_address') -> None:
  """Raises ValueError if this process could not listen at `address`.

  It says why, which gRPC does not.

  Args:
    address: of this host; the host may be 0.0.0.0 or [::].
    source: option or environment variable that it is from.
  """
  if is_unix(address):
    _check_path(address, source)
    return
  host, port = address.rsplit(':', 1)
  try:
    places = socket.getaddrinfo(
      host.strip('[]'), int(port), type=socket.SOCK_STREAM
    )
  except (OSError, UnicodeError) as error:
    raise ValueError(
      f'{source}: the host of {address} cannot be found '
      f'({getattr(error, "strerror", None) or error}). Correct the name, or '
      'give the IP address.'
    ) from error
  failure: OSError | None = None
  num_bound = 0
  for family, kind, _, _, place in places:
    try:
      _bind(family, kind, place)
      num_bound += 1
    except OSError as error:
      # Where IPv6 is off, names may have an IPv6 address all the same.
      if failure is None or error.errno not in _ELSEWHERE:
        failure = error
  if failure and not (num_bound and failure.errno in _ELSEWHERE):
    reason = _REASONS.get(failure.errno or 0, str(failure.strerror))
    raise ValueError(
      f'{source}: cannot listen at {address}: {reason}.'
    ) from failure


def _check_path(address: str, source: str) -> None:
  """gRPC would take the path from a server that listens there."""
  path = path_of(address)
  with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
    if probe.connect_ex(path) == 0:
      raise ValueError(
        f'{source}: cannot listen at {address}: another process does. End it, '
        'or choose another path.'
      )
  try:
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
      raise ValueError(
        f'{source}: cannot listen at {address}: there is a file of this name. '
        'Choose another path.'
      )
  except FileNotFoundError:
    folder = os.path.dirname(path)
    if not os.access(folder, os.W_OK):
      raise ValueError(
        f'{source}: cannot listen at {address}: {folder} is no folder that '
        'this user can write in. Choose another path.'
      ) from None


def _bind(family, kind, place) -> None:
  with socket.socket(family, kind) as listener:
    # Connections of a process that ended shortly before do not count.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
      # Else [::] would collide with what was free on IPv4.
      listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind(place)
    # With SO_REUSEADDR, a port that is bound already fails here at the latest.
    listener.listen(1)


def is_local(address: str) -> bool:
  """Whether only processes of this machine can connect to an address."""
  return is_unix(address) or _is_loopback(split(address)[0])


def warn_of_reach(address: str, encrypted: bool) -> None:
  """Logs a warning, once, if others than meant can or cannot connect.

  Args:
    address: at which this process is about to listen.
    encrypted: whether with TLS.
  """
  if is_local(address):
    return
  host, _ = split(address)
  ips = _look_up(host)
  if ips and all(_is_loopback(ip) for ip in ips):
    # Debian gives the name of the host itself 127.0.1.1.
    logging.log_first_n(
      logging.WARNING,
      'On this host, %s is %s, where no other host can connect. For actors '
      'elsewhere, give the IP address or correct /etc/hosts.',
      1,
      host,
      ', '.join(sorted(ips)),
    )
  elif not encrypted:
    logging.log_first_n(
      logging.WARNING,
      'What is sent to and from %s is not encrypted: whoever can listen on the '
      'way reads the token, the weights and what is played. Give '
      '--tls_certificate, or keep it inside of a network that you trust; see '
      'docs/distributed.md.',
      1,
      address,
    )


def _look_up(host: str) -> set[str]:
  try:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
  except (OSError, UnicodeError):
    return set()
  return {str(place[0]) for *_, place in found}


def _is_loopback(host: str) -> bool:
  try:
    return ipaddress.ip_address(host).is_loopback
  except ValueError:
    return host == 'localhost'


def _is_unspecified(host: str) -> bool:
  try:
    return ipaddress.ip_address(host).is_unspecified
  except ValueError:
    return False
