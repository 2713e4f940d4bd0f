"""Stable-Baselines3's A2C or PPO.

Settings are those of its "zoo" for Atari but for the number of environments,
the epochs, and the network.
"""

import functools

import counts
import gymnasium
import shallow_net
import torch
from lean_atari import LeanAtari
from stable_baselines3 import A2C, PPO
from stable_baselines3.common import (
  callbacks,
  env_util,
  torch_layers,
  vec_env,
)
from stable_baselines3.common.sb2_compat import rmsprop_tf_like


class Torso(torch_layers.BaseFeaturesExtractor):
  """The network up to its heads; observations are of 0 to 1 already."""

  def __init__(self, observation_space: gymnasium.Space):
    super().__init__(observation_space, shallow_net.FEATURES)
    self.torso = shallow_net.make_torso()

  def forward(self, observation: torch.Tensor) -> torch.Tensor:
    """Returns [N, 256] features."""
    return self.torso(observation)


class _Callback(callbacks.BaseCallback):
  def __init__(self, told: counts.Counts):
    super().__init__()
    self._told = told

  def _on_step(self) -> bool:
    return True

  def _on_rollout_start(self) -> None:
    # All steps until here have been learned from.
    self._told.write(self.num_timesteps)


def make_envs(options) -> vec_env.VecEnv:
  """Returns environments, in processes if so asked."""
  vector = vec_env.SubprocVecEnv if options.processes else vec_env.DummyVecEnv
  if options.wrappers:
    import ale_py

    gymnasium.register_envs(ale_py)
    envs = env_util.make_atari_env(
      'PongNoFrameskip-v4', options.num_envs, options.seed, vec_env_cls=vector
    )
    return vec_env.VecFrameStack(envs, 4)
  return vector(
    [
      functools.partial(LeanAtari, counts.GAME, options.seed + i)
      for i in range(options.num_envs)
    ]
  )


def make_algorithm(envs: vec_env.VecEnv, options):
  """Returns the learner."""
  policy = {'features_extractor_class': Torso, 'net_arch': []}
  if options.algorithm == 'a2c':
    return A2C(
      'CnnPolicy',
      envs,
      ent_coef=0.01,
      vf_coef=0.25,
      policy_kwargs=policy
      | {
        'optimizer_class': rmsprop_tf_like.RMSpropTFLike,
        'optimizer_kwargs': {'eps': 1e-5},
      },
      seed=options.seed,
      device='cpu',
    )
  return PPO(
    'CnnPolicy',
    envs,
    n_steps=128,
    n_epochs=options.epochs,
    batch_size=options.batch_size,
    learning_rate=2.5e-4,
    clip_range=0.1,
    vf_coef=0.5,
    ent_coef=0.01,
    policy_kwargs=policy,
    seed=options.seed,
    device='cpu',
  )


def main() -> None:
  """Trains until it is ended."""
  parser = counts.make_parser(__doc__)
  parser.add_argument('--algorithm', choices=('a2c', 'ppo'), required=True)
  parser.add_argument('--num_envs', type=int, required=True)
  parser.add_argument('--epochs', type=int, default=4, help="PPO's.")
  parser.add_argument('--batch_size', type=int, default=256, help="PPO's.")
  parser.add_argument('--processes', action='store_true')
  parser.add_argument(
    '--wrappers', action='store_true', help="Its own chain, not LeanAtari's."
  )
  options = parser.parse_args()
  learner = make_algorithm(make_envs(options), options)
  learner.learn(10**12, callback=_Callback(counts.Counts(options.counts)))


if __name__ == '__main__':
  main()
