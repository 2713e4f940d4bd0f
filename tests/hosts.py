"""Hosts on this machine: network namespaces around one that routes.

Each host has a network of its own, 10.77.N.0/24, and a veth pair to the router.
Nothing of it can be reached from outside, nor reaches anything there, so that
addresses and ports cannot collide with what else runs here.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import NamedTuple

_WIRE = pathlib.Path(__file__).with_name('wire.py')
_DEADLINE_S = 30
_ROUTER = 'router'


class Impairment(NamedTuple):
  """What a link does to packets, in either direction.

  Attributes:
    delay_ms: of every packet.
    loss_percent: packets that are lost, each by chance.
  """

  delay_ms: float
  loss_percent: float


class NoNetwork(Exception):
  """This machine does not allow for it; the message says why."""


class Network:
  """A context manager; at its end, all processes on the hosts are killed.

  Attributes:
    emulated: whether a process, not netem, impairs links.
  """

  def __init__(self, hosts, impaired=None, emulated=None):
    """Initialises; makes nothing.

    Args:
      hosts: names, short.
      impaired: dict of the Impairment of some hosts' links.
      emulated: True for no netem even where the kernel has it.
    """
    self._numbers = {host: i for i, host in enumerate(hosts)}
    self._impaired = dict(impaired or {})
    self.emulated = emulated
    self._prefix = f'scalable-agent-{os.getpid()}-{id(self):x}'
    self._router = self._namespace(_ROUTER)
    self._made = []  # Namespaces.
    self._processes = []

  def address(self, host):
    """Returns the IP address."""
    return f'10.77.{self._numbers[host]}.2'

  def inside(self, host):
    """Returns what to put before a command to run it on a host."""
    return ['ip', 'netns', 'exec', self._namespace(host)]

  def run(self, host, *command):
    """Runs a command on a host; returns its output."""
    return _run(*self.inside(host), *command)

  def start(self, host, *command, **options):
    """Starts a command on a host; returns the Popen, killed at the end."""
    options = {'stderr': subprocess.STDOUT} | options
    process = subprocess.Popen(
      [*self.inside(host), *command],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      **options,
    )
    self._processes.append(process)
    return process

  def namespaces(self):
    """Returns those of this network that exist."""
    names = [line.split()[0] for line in _run('ip', 'netns').splitlines()]
    return [name for name in names if name.startswith(self._prefix)]

  def cut(self, host):
    """Has the router lose all packets from and to a host, and say nothing.

    The host's link stays up: neither side is told of anything.
    """
    for direction in ('from', 'to'):
      self._ip('rule', 'add', direction, self.address(host), 'blackhole')

  def restore(self, host):
    """Ends `cut`."""
    for direction in ('from', 'to'):
      self._ip('rule', 'del', direction, self.address(host), 'blackhole')

  def sent_again(self, host):
    """Returns how many TCP segments a host has sent more than once."""
    lines = self.run(host, 'cat', '/proc/net/snmp').splitlines()
    names, values = (line.split() for line in lines if line.startswith('Tcp:'))
    return int(values[names.index('RetransSegs')])

  def __enter__(self):
    try:
      self._make(self._router)
      self._set(self._router, 'net/ipv4/ip_forward', 1)
      if self.emulated is None:
        self.emulated = not self._has_netem()
      for host in self._numbers:
        self._make(self._namespace(host))
        self._connect(host)
    except BaseException:
      self.__exit__()
      raise
    return self

  def __exit__(self, *exception):
    for namespace in self._made:
      _kill_all(namespace)
    for process in self._processes:
      process.wait()
      process.stdin.close()
      process.stdout.close()
    while self._made:
      _run('ip', 'netns', 'del', self._made.pop())

  def _namespace(self, host):
    return f'{self._prefix}-{host}'

  def _make(self, namespace):
    _run('ip', 'netns', 'add', namespace)
    self._made.append(namespace)
    _run('ip', '-n', namespace, 'link', 'set', 'dev', 'lo', 'up')
    # The one that every kernel has and allows, and that loss slows the most.
    self._set(namespace, 'net/ipv4/tcp_congestion_control', 'reno')

  def _set(self, namespace, name, value):
    write = f'echo {value} > /proc/sys/{name}'
    _run('ip', 'netns', 'exec', namespace, 'sh', '-c', write)

  def _has_netem(self):
    netem = ['tc', '-n', self._router, 'qdisc', 'add', 'dev', 'lo', 'root']
    try:
      _run(*netem, 'netem', 'delay', '1ms')
      _run('tc', '-n', self._router, 'qdisc', 'del', 'dev', 'lo', 'root')
    except NoNetwork:
      return False
    return True

  def _ip(self, *arguments):
    _run('ip', '-n', self._router, *arguments)

  def _connect(self, host):
    number, namespace = self._numbers[host], self._namespace(host)
    port = f'port{number}'
    impairment = self._impaired.get(host)
    if impairment and self.emulated:
      # Unlike those of veth, both ends begin in the namespace of the process.
      self._lay_wire(port, f'far{number}', impairment)
      self._ip('link', 'set', 'dev', f'far{number}', 'netns', namespace)
      end = ['link', 'set', 'dev', f'far{number}', 'name', 'eth0']
      _run('ip', '-n', namespace, *end)
    else:
      peer = ['peer', 'name', 'eth0', 'netns', namespace]
      self._ip('link', 'add', port, 'type', 'veth', *peer)
    for where, device, address in (
      (self._router, port, f'10.77.{number}.1/24'),
      (namespace, 'eth0', f'{self.address(host)}/24'),
    ):
      ip = ['ip', '-n', where]
      _run(*ip, 'address', 'add', address, 'dev', device)
      # One segment is one packet: else netem would drop up to 64 KiB at once.
      _run(*ip, 'link', 'set', 'dev', device, 'gso_max_segs', '1', 'up')
      if impairment and not self.emulated:
        tc = ['tc', '-n', where, 'qdisc', 'add', 'dev', device, 'root', 'netem']
        delay, loss = impairment
        _run(*tc, 'delay', f'{delay}ms', 'loss', f'{loss}%')
    gateway = ['default', 'via', f'10.77.{number}.1']
    _run('ip', '-n', namespace, 'route', 'add', *gateway)

  def _lay_wire(self, one, other, impairment):
    command = [sys.executable, str(_WIRE), one, other, *map(str, impairment)]
    wire = self.start(_ROUTER, *command)
    said = wire.stdout.readline()
    if said != 'ready\n':
      raise NoNetwork(f'no TUN devices: {said}{wire.stdout.read()}')


def obstacle():
  """Returns why there can be no Network on this machine; '' if it can be."""
  if os.geteuid() != 0:
    return 'network namespaces need root'
  for tool in ('ip', 'tc'):
    if not shutil.which(tool):
      return f'there is no {tool}: apt-get install iproute2'
  try:
    with Network(['a', 'b'], {'b': Impairment(1, 0)}) as network:
      network.cut('b')
      network.restore('b')
  except NoNetwork as error:
    return f'network namespaces are not permitted or lack a part: {error}'
  return ''


def _run(*command):
  result = subprocess.run(command, capture_output=True, text=True)
  if result.returncode:
    said = (result.stderr or result.stdout).strip()
    raise NoNetwork(f'`{" ".join(command)}` said: {said}')
  return result.stdout


def _kill_all(namespace):
  """Kills the processes in a namespace, and waits until they are gone."""
  deadline = time.monotonic() + _DEADLINE_S
  while pids := _run('ip', 'netns', 'pids', namespace).split():
    for pid in pids:
      with contextlib.suppress(ProcessLookupError):
        os.kill(int(pid), signal.SIGKILL)
    if time.monotonic() > deadline:
      raise RuntimeError(f'processes {pids} in {namespace} do not end')
    threading.Event().wait(0.02)
