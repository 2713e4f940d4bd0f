"""RLlib's IMPALA on its new API stack."""

import os

# Before Ray is imported: no dashboard, no usage report, no colours.
os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
os.environ.setdefault('RAY_DEDUP_LOGS', '0')

import counts
import ray
import shallow_net
import torch
from lean_atari import LeanAtari
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.tune.registry import register_env

_TRAINED = ('learners', '__all_modules__', 'num_env_steps_trained_lifetime')


class Module(TorchRLModule, ValueFunctionAPI):
  """The network, in RLlib's terms."""

  def setup(self) -> None:
    """Makes the layers."""
    self._net = shallow_net.ShallowNet(self.action_space.n)

  def _forward(self, batch, **kwargs):
    logits, _ = self._net(batch[Columns.OBS])
    return {Columns.ACTION_DIST_INPUTS: logits}

  def _forward_train(self, batch, **kwargs):
    features = self._net.torso(batch[Columns.OBS].float() / 255)
    return {
      Columns.ACTION_DIST_INPUTS: self._net.policy(features),
      Columns.EMBEDDINGS: features,
    }

  def compute_values(self, batch, embeddings=None) -> torch.Tensor:
    """Returns [...] values, of features where there are some already."""
    if embeddings is None:
      embeddings = self._net.torso(batch[Columns.OBS].float() / 255)
    return self._net.value(embeddings).squeeze(-1)


def make_env(config) -> LeanAtari:
  """Returns an environment, as RLlib calls for it."""
  seed = config['seed'] + 1000 * config.worker_index + config.vector_index
  return LeanAtari(counts.GAME, seed)


def make_config(options) -> IMPALAConfig:
  """Returns the settings, with RLlib's names."""
  return (
    IMPALAConfig()
    .environment(counts.GAME, env_config={'seed': options.seed})
    .env_runners(
      num_env_runners=options.env_runners,
      num_envs_per_env_runner=options.envs_per_env_runner,
      rollout_fragment_length=options.fragment,
    )
    .learners(num_learners=0)
    .rl_module(rl_module_spec=RLModuleSpec(module_class=Module))
    .training(
      train_batch_size_per_learner=options.batch_size,
      lr=2.5e-4,
      entropy_coeff=0.01,
      vf_loss_coeff=0.5,
      grad_clip=40.0,
    )
    .debugging(seed=options.seed)
    .reporting(min_time_s_per_iteration=1)
  )


def trained(result) -> float:
  """Returns how many steps the learner has had until now."""
  for key in _TRAINED:
    result = result.get(key, {})
  return result or 0


def main() -> None:
  """Trains until it is ended."""
  parser = counts.make_parser(
    __doc__, 'env_runners', 'envs_per_env_runner', 'fragment', 'batch_size'
  )
  options = parser.parse_args()
  told = counts.Counts(options.counts)
  # One core each is asked for by the driver and the runners.
  ray.init(num_cpus=1 + options.env_runners, include_dashboard=False)
  register_env(counts.GAME, make_env)
  algorithm = make_config(options).build_algo()
  # Each fragment brings one row that only bootstraps.
  share = options.fragment / (options.fragment + 1)
  while True:
    told.write(share * trained(algorithm.train()))


if __name__ == '__main__':
  main()
