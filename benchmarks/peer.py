"""What peers.py measures: programs, their settings, their environments."""

import importlib.metadata
import os
import sys
from collections.abc import Mapping
from typing import NamedTuple

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_PROGRAMS = os.path.join(ROOT, 'benchmarks', 'peers')


class Peer(NamedTuple):
  """A program that trains on Pong until it is ended.

  Attributes:
    title: what it is called in the table.
    program: file in benchmarks/peers/, which writes how much it has learned.
    arguments: all its settings that are not the same for all.
    environment: NAME of `make peers-setup`; None is this Python's own.
    distributions: names on the registry of what is measured.
  """

  title: str
  program: str
  arguments: tuple[str, ...] = ()
  environment: str | None = None
  distributions: tuple[str, ...] = ()

  def python(self, root: str = ROOT) -> str:
    """Returns its interpreter.

    Args:
      root: the folder with the environments.

    Raises:
      FileNotFoundError: there is no environment; says how to make it.
    """
    if self.environment is None:
      return sys.executable
    folder = os.path.join(root, f'.venv-peers-{self.environment}')
    python = os.path.join(folder, 'bin', 'python')
    if not os.path.exists(python) or not self.versions(root):
      raise FileNotFoundError(
        f'not installed: make peers-setup NAME={self.environment}'
      )
    return python

  def versions(self, root: str = ROOT) -> Mapping[str, str]:
    """Returns the version of each distribution that is installed."""
    if self.environment is None:
      paths = sys.path
    else:
      folder = os.path.join(root, f'.venv-peers-{self.environment}', 'lib')
      pythons = os.listdir(folder) if os.path.isdir(folder) else []
      paths = [os.path.join(folder, p, 'site-packages') for p in pythons]
    return {
      name: found.version
      for name in self.distributions
      for found in importlib.metadata.distributions(name=name, path=paths)
    }

  def command(self, counts: str, root: str = ROOT) -> list[str]:
    """Returns what starts it.

    Args:
      counts: the file that it is to write its counts to.
      root: the folder with the environments.
    """
    program = os.path.join(_PROGRAMS, self.program)
    return [self.python(root), program, f'--counts={counts}', *self.arguments]


_STABLE_BASELINES3 = ('stable-baselines3', 'torch')

# Settings of peers are the fastest of a few: see docs/performance.md.
PEERS = {
  'scalable_agent': Peer(
    'scalable_agent, IMPALA',
    'experiment_events.py',
    ('--algorithm=impala',),
    distributions=('tensorflow',),
  ),
  'scalable_agent_a2c': Peer(
    'scalable_agent, A2C',
    'experiment_events.py',
    ('--algorithm=a2c',),
    distributions=('tensorflow',),
  ),
  'sb3_a2c': Peer(
    'Stable-Baselines3, A2C',
    'sb3.py',
    ('--algorithm=a2c', '--num_envs=32'),
    'stable_baselines3',
    _STABLE_BASELINES3,
  ),
  'sb3_ppo': Peer(
    'Stable-Baselines3, PPO',
    'sb3.py',
    ('--algorithm=ppo', '--num_envs=16', '--epochs=1', '--batch_size=256'),
    'stable_baselines3',
    _STABLE_BASELINES3,
  ),
  'envpool_ppo': Peer(
    'PPO on EnvPool',
    'envpool_ppo.py',
    ('--num_envs=64', '--num_steps=128', '--epochs=1'),
    'stable_baselines3',
    ('envpool', 'torch'),
  ),
  'sample_factory': Peer(
    'Sample Factory, APPO',
    'sample_factory_appo.py',
    (
      '--workers=2',
      '--envs_per_worker=20',
      '--rollout=20',
      '--batch_size=640',
    ),
    'sample_factory',
    ('sample-factory', 'torch'),
  ),
  'pufferlib': Peer(
    'PufferLib, PPO',
    'pufferlib_ppo.py',
    (
      '--num_envs=64',
      '--workers=2',
      '--inference_batch=32',
      '--horizon=64',
      '--minibatch_size=1024',
    ),
    'pufferlib',
    ('pufferlib', 'torch'),
  ),
  'rllib': Peer(
    'RLlib, IMPALA',
    'rllib_impala.py',
    (
      '--env_runners=2',
      '--envs_per_env_runner=16',
      '--fragment=20',
      '--batch_size=640',
    ),
    'rllib',
    ('ray', 'torch'),
  ),
}
