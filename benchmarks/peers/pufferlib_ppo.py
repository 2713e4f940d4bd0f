"""PufferLib's PPO, with its environments in processes."""

import sys

import counts
import numpy as np
import pufferlib.emulation
import pufferlib.vector
import torch
from lean_atari import LeanAtari
from pufferlib import pufferl
from shallow_net import ShallowNet


class Policy(ShallowNet):
  """The network, with the second name that PufferLib calls it by."""

  def forward(self, observation: torch.Tensor, state=None):
    """Returns logits and values; there is no state."""
    del state
    return super().forward(observation)

  forward_eval = forward


def make_env(buf=None, seed: int = 0):
  """Returns an environment, as PufferLib calls for it."""
  env = LeanAtari(counts.GAME, seed)
  return pufferlib.emulation.GymnasiumPufferEnv(env, buf=buf)


def make_envs(options):
  """Returns environments; some play while others' turn is."""
  return pufferlib.vector.make(
    make_env,
    backend=pufferlib.vector.Multiprocessing,
    num_envs=options.num_envs,
    num_workers=options.workers,
    batch_size=options.inference_batch,
    seed=options.seed,
  )


def make_settings(options) -> dict:
  """Returns PufferLib's own for Pong, but for what is given."""
  # It reads the command line.
  sys.argv = [sys.argv[0]]
  settings = pufferl.load_config(counts.GAME)['train']
  return settings | {
    'env': counts.GAME,
    'device': 'cpu',
    'seed': options.seed,
    'batch_size': options.num_envs * options.horizon,
    'bptt_horizon': options.horizon,
    'minibatch_size': options.minibatch_size,
    'max_minibatch_size': options.minibatch_size,
    'update_epochs': 1,
    'use_rnn': False,
    'optimizer': 'adam',
    'learning_rate': 2.5e-4,
    'anneal_lr': False,
    'total_timesteps': 10**12,
  }


def main() -> None:
  """Trains until it is ended."""
  parser = counts.make_parser(
    __doc__,
    'num_envs',
    'workers',
    'inference_batch',
    'horizon',
    'minibatch_size',
  )
  options = parser.parse_args()
  torch.manual_seed(options.seed)
  np.random.seed(options.seed)
  told = counts.Counts(options.counts)
  envs = make_envs(options)
  policy = Policy(envs.single_action_space.n)
  trainer = pufferl.PuffeRL(make_settings(options), envs, policy)
  while True:
    trainer.evaluate()
    trainer.train()
    told.write(trainer.global_step)


if __name__ == '__main__':
  main()
