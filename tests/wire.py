"""A wire between two TUN devices that delays and drops packets, in userspace.

Where the kernel has no netem: what it carries are the packets themselves, so
that TCP at both ends meets loss and delay as it would on a real wire.

  python wire.py DEVICE DEVICE DELAY_MS LOSS_PERCENT

makes the devices in its network namespace, says `ready` and carries packets
until it is killed. Devices may be moved to other namespaces.
"""

import collections
import contextlib
import fcntl
import os
import random
import select
import struct
import sys
import time

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x1, 0x1000
_MAX_BYTES = 65536
# Packets under way in one direction, as in netem.
_LIMIT = 1000


def _open(device):
  descriptor = os.open('/dev/net/tun', os.O_RDWR | os.O_NONBLOCK)
  request = struct.pack('16sH22x', device.encode(), _IFF_TUN | _IFF_NO_PI)
  fcntl.ioctl(descriptor, _TUNSETIFF, request)
  return descriptor


def _carry(ends, delay, loss):
  """Carries packets for ever.

  Args:
    ends: two file descriptors.
    delay: seconds.
    loss: probability.
  """
  chance = random.Random(0)
  under_way = {end: collections.deque() for end in ends}  # By destination.
  while True:
    due = min((queue[0][0] for queue in under_way.values() if queue), default=0)
    wait = max(due - time.monotonic(), 0) if due else None
    for end in select.select(ends, [], [], wait)[0]:
      queue = under_way[ends[end == ends[0]]]
      with contextlib.suppress(BlockingIOError):
        packet = os.read(end, _MAX_BYTES)
        if chance.random() >= loss and len(queue) < _LIMIT:
          queue.append((time.monotonic() + delay, packet))
    now = time.monotonic()
    for end, queue in under_way.items():
      while queue and queue[0][0] <= now:
        # A device that is down, or full, loses it.
        with contextlib.suppress(OSError):
          os.write(end, queue.popleft()[1])


def main(one, other, delay_ms, loss_percent):
  ends = [_open(one), _open(other)]
  print('ready', flush=True)
  _carry(ends, float(delay_ms) / 1000, float(loss_percent) / 100)


if __name__ == '__main__':
  main(*sys.argv[1:])
