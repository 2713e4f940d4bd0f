"""Addresses of processes, host:port: their syntax and whether they work here.

Every function that refuses one raises ValueError with a message of one line.
"""

import errno
import ipaddress
import re
import socket
from collections.abc import Sequence

from absl import logging

# Above the port where a learner listens to its actors is the one of its
# collectives.
COLLECTIVE_OFFSET = 1000
MAX_PORT = 65535 - COLLECTIVE_OFFSET

_REASONS = {
  errno.EADDRINUSE: (
    'another process listens on this port. End it, or choose another port'
  ),
  errno.EADDRNOTAVAIL: (
    'no network interface of this host has this address. Start the learner on '
    'the host that has it, or name this one'
  ),
  errno.EACCES: (
    'this user may not listen on this port. Choose a port above 1023'
  ),
}

_ELSEWHERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


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
      f'host in brackets and a port from 1 to {MAX_PORT}.'
    )
  return match[1] or match[2], int(match[3])


def join(host: str, port: int) -> str:
  """Returns host:port, with brackets where the host is IPv6."""
  return f'[{host}]:{port}' if ':' in host else f'{host}:{port}'


def collectives_of(learners: Sequence[str], source: str) -> tuple[str, ...]:
  """Returns where learners that listen at `learners` reach each other.

  Args:
    learners: host:port of each.
    source: option or environment variable that they are from.

  Raises:
    ValueError: an address is malformed, occurs twice, is a collective's, or
      stands for all interfaces where learners have to find each other.
  """
  places = [split(address, source) for address in learners]
  for index, place in enumerate(places):
    if place in places[:index]:
      raise ValueError(
        f'{source}: {learners[index]} occurs twice. Give each learner an '
        'address of its own.'
      )
    host, port = place
    if len(places) > 1 and _is_unspecified(host):
      raise ValueError(
        f'{source}: {learners[index]} is where to listen, but no place where '
        'another learner finds this one. Name its host.'
      )
    if len(places) > 1 and (host, port + COLLECTIVE_OFFSET) in places:
      raise ValueError(
        f'{source}: {join(host, port + COLLECTIVE_OFFSET)} is taken: there '
        f'learner {index} ({learners[index]}) reaches the other learners, '
        f'{COLLECTIVE_OFFSET} ports above its own. Choose closer ports.'
      )
  return tuple(join(host, port + COLLECTIVE_OFFSET) for host, port in places)


def check_resolvable(address: str, source: str = '--learner_address') -> None:
  """Raises ValueError if the name of the host is not known here."""
  host, port = address.rsplit(':', 1)
  try:
    socket.getaddrinfo(host.strip('[]'), int(port), type=socket.SOCK_STREAM)
  except (OSError, UnicodeError) as error:
    raise ValueError(
      f'{source}: the host of {address} cannot be found '
      f'({getattr(error, "strerror", None) or error}). Correct the name, or '
      'give the IP address.'
    ) from error


def check_free(address: str, source: str = '--learner_address') -> None:
  """Raises ValueError if this process could not listen at `address`.

  gRPC shares ports (SO_REUSEPORT): a second server would start as if all were
  well, and would get some of the calls that are meant for the first.

  Args:
    address: host:port of this host; the host may be 0.0.0.0 or [::].
    source: option or environment variable that it is from.
  """
  check_resolvable(address, source)
  host, port = address.rsplit(':', 1)
  failure: OSError | None = None
  num_bound = 0
  for family, kind, _, _, place in socket.getaddrinfo(
    host.strip('[]'), int(port), type=socket.SOCK_STREAM
  ):
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


def warn_of_reach(address: str) -> None:
  """Logs a warning, once, if others than meant can or cannot connect.

  Args:
    address: host:port at which this process is about to listen.
  """
  host, _ = split(address)
  if _is_loopback(host):
    return
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
  else:
    logging.log_first_n(
      logging.WARNING,
      'Whoever can reach %s can read the weights and send trajectories: the '
      'channel has neither passwords nor encryption. Keep it inside of a '
      'network that you trust; see docs/distributed.md.',
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
