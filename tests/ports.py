"""Ports for the servers of tests.

No port is given twice by one process of pytest, nor by two that run the tests
together: each has a share.
"""

import itertools
import os
import random
import socket

from scalable_agent.distribution import addresses

# Below those that Linux gives to outgoing connections. Of every other thousand,
# as those for the collectives of learners lie as far above.
_PORTS = tuple(
  port
  for first in range(20000, 32000, 2 * addresses.COLLECTIVE_OFFSET)
  for port in range(first, first + addresses.COLLECTIVE_OFFSET)
)


def _share():
  """Returns an iterator over the ports of this process."""
  count = int(os.environ.get('PYTEST_XDIST_WORKER_COUNT', 1))
  index = int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0').removeprefix('gw'))
  ports = _PORTS[index::count]
  # Elsewhere, to keep out of the way of tests that others run.
  start = random.SystemRandom().randrange(len(ports))
  return itertools.chain(ports[start:], ports[:start])


_ports = _share()


def _is_free(port):
  try:
    with socket.socket() as probe:
      probe.bind(('', port))
  except OSError:
    return False
  return True


def free_port():
  """Returns a port that is free, as is the one for its collectives."""
  for port in _ports:
    if _is_free(port) and _is_free(port + addresses.COLLECTIVE_OFFSET):
      return port
  raise RuntimeError('no port is left')


def free_addresses(count):
  """Returns localhost:port, separated by commas."""
  return ','.join(f'localhost:{free_port()}' for _ in range(count))


def free_address():
  """Returns localhost:port."""
  return free_addresses(1)
