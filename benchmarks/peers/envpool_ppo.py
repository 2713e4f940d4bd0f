"""PPO on EnvPool: one file, one loop, as CleanRL has them.

All environments take a step together, in EnvPool's C++ threads, and one batch
of `--num_envs` observations is evaluated for them.
"""

import counts
import envpool
import numpy as np
import torch
from shallow_net import ShallowNet
from torch import nn
from torch.distributions import Categorical

GAMMA, LAMBDA = 0.99, 0.95
CLIP, ENTROPY_COST, VALUE_COST, MAX_NORM = 0.1, 0.01, 0.5, 0.5
MINIBATCHES = 4


class Rollouts:
  """T steps in E environments, and the advantages in them."""

  def __init__(self, length: int, num_envs: int):
    def zeros(*shape, dtype=torch.float32):
      return torch.zeros(length, num_envs, *shape, dtype=dtype)

    self.observations = zeros(4, 84, 84, dtype=torch.uint8)
    self.actions = zeros(dtype=torch.int64)
    self.log_probs, self.values = zeros(), zeros()
    self.rewards, self.dones = zeros(), zeros()

  def advantages(self, bootstrap: torch.Tensor) -> torch.Tensor:
    """Returns the generalised advantages [T, E], given the values after."""
    result = torch.zeros_like(self.rewards)
    following, advantage = bootstrap, torch.zeros_like(bootstrap)
    for t in reversed(range(len(result))):
      alive = 1 - self.dones[t]
      delta = self.rewards[t] + GAMMA * following * alive - self.values[t]
      advantage = delta + GAMMA * LAMBDA * alive * advantage
      result[t], following = advantage, self.values[t]
    return result


@torch.no_grad()
def collect(
  envs, net: ShallowNet, rollouts: Rollouts, observation: np.ndarray
) -> tuple[np.ndarray, torch.Tensor]:
  """Plays, and returns the next observation and its values."""
  for t in range(len(rollouts.rewards)):
    rollouts.observations[t] = torch.from_numpy(observation)
    logits, rollouts.values[t] = net(rollouts.observations[t])
    policy = Categorical(logits=logits)
    action = policy.sample()
    rollouts.actions[t] = action
    rollouts.log_probs[t] = policy.log_prob(action)
    observation, reward, terminated, truncated, _ = envs.step(action.numpy())
    rollouts.rewards[t] = torch.from_numpy(reward)
    rollouts.dones[t] = torch.from_numpy(terminated | truncated)
  return observation, net(torch.from_numpy(observation))[1]


def loss_of(
  net: ShallowNet, rollouts: Rollouts, advantages, returns, rows
) -> torch.Tensor:
  """Returns PPO's clipped loss of some of the transitions."""
  logits, values = net(rollouts.observations.flatten(0, 1)[rows])
  policy = Categorical(logits=logits)
  log_probs = policy.log_prob(rollouts.actions.flatten()[rows])
  ratio = (log_probs - rollouts.log_probs.flatten()[rows]).exp()
  advantage = advantages.flatten()[rows]
  advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
  gain = torch.min(
    ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage
  )
  value_loss = 0.5 * (values - returns.flatten()[rows]).square().mean()
  return (
    -gain.mean()
    + VALUE_COST * value_loss
    - ENTROPY_COST * policy.entropy().mean()
  )


def main() -> None:
  """Trains until it is ended."""
  parser = counts.make_parser(__doc__, 'num_envs', 'num_steps', 'epochs')
  options = parser.parse_args()
  torch.manual_seed(options.seed)
  envs = envpool.make(
    'Pong-v5',
    env_type='gymnasium',
    num_envs=options.num_envs,
    seed=options.seed,
    episodic_life=True,
    reward_clip=True,
  )
  net = ShallowNet(envs.action_space.n)
  optimizer = torch.optim.Adam(net.parameters(), 2.5e-4, eps=1e-5)
  rollouts = Rollouts(options.num_steps, options.num_envs)
  rows = options.num_steps * options.num_envs
  told, steps = counts.Counts(options.counts), 0
  observation = envs.reset()[0]
  while True:
    observation, bootstrap = collect(envs, net, rollouts, observation)
    advantages = rollouts.advantages(bootstrap)
    returns = advantages + rollouts.values
    for _ in range(options.epochs):
      for part in torch.randperm(rows).chunk(MINIBATCHES):
        optimizer.zero_grad()
        loss_of(net, rollouts, advantages, returns, part).backward()
        nn.utils.clip_grad_norm_(net.parameters(), MAX_NORM)
        optimizer.step()
    steps += rows
    told.write(steps)


if __name__ == '__main__':
  main()
