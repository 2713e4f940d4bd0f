"""Sample Factory's APPO, with its asynchronous sampling in processes."""

import functools
import tempfile

import counts
import shallow_net
import torch
from lean_atari import LeanAtari
from sample_factory.algo.runners.runner import AlgoObserver
from sample_factory.algo.utils.context import global_model_factory
from sample_factory.cfg.arguments import parse_full_cfg, parse_sf_args
from sample_factory.envs.env_utils import register_env
from sample_factory.model.encoder import Encoder
from sample_factory.train import make_runner


class Torso(Encoder):
  """The network up to its heads."""

  def __init__(self, cfg, observation_space):
    super().__init__(cfg)
    del observation_space
    self.torso = shallow_net.make_torso()

  def forward(self, observation: dict[str, torch.Tensor]) -> torch.Tensor:
    """Returns [N, 256] features; the observation is of 0 to 1 already."""
    return self.torso(observation['obs'])

  def get_out_size(self) -> int:
    """Returns how many there are."""
    return shallow_net.FEATURES


class _Observer(AlgoObserver):
  def __init__(self, told: counts.Counts):
    self._told = told

  def on_training_step(self, runner, training_iteration_since_resume) -> None:
    del training_iteration_since_resume
    self._told.write(sum(runner.env_steps.values()))


def make_env(seed: int, name, cfg, env_config, render_mode=None) -> LeanAtari:
  """Returns an environment, as Sample Factory calls for it."""
  del name, cfg, render_mode
  return LeanAtari(counts.GAME, seed + (env_config or {}).get('env_id', 0))


def make_config(options, folder: str):
  """Returns the settings, with Sample Factory's names."""
  arguments = {
    'env': counts.GAME,
    'algo': 'APPO',
    'device': 'cpu',
    'seed': options.seed,
    'train_dir': folder,
    'num_workers': options.workers,
    'num_envs_per_worker': options.envs_per_worker,
    'worker_num_splits': 2,
    'rollout': options.rollout,
    'batch_size': options.batch_size,
    'num_batches_per_epoch': 1,
    'num_epochs': 1,
    # Version 2.1.1 fails with it at its first summary.
    'with_vtrace': False,
    'normalize_input': False,
    'normalize_returns': False,
    'obs_scale': 255.0,
    'use_rnn': False,
    'exploration_loss_coeff': 0.01,
    'learning_rate': 2.5e-4,
    'max_grad_norm': 0.5,
    'env_frameskip': 1,
    'summaries_use_frameskip': False,
    'train_for_env_steps': 10**12,
  }
  argv = [f'--{key}={value}' for key, value in arguments.items()]
  parser, _ = parse_sf_args(argv)
  return parse_full_cfg(parser, argv)


def main() -> None:
  """Trains until it is ended."""
  parser = counts.make_parser(
    __doc__, 'workers', 'envs_per_worker', 'rollout', 'batch_size'
  )
  options = parser.parse_args()
  register_env(counts.GAME, functools.partial(make_env, options.seed))
  global_model_factory().register_encoder_factory(Torso)
  with tempfile.TemporaryDirectory() as folder:
    _, runner = make_runner(make_config(options, folder))
    runner.register_observer(_Observer(counts.Counts(options.counts)))
    runner.init()
    runner.run()


if __name__ == '__main__':
  main()
