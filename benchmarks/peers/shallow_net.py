"""The network of all peers that use PyTorch, the one that is ours by name.

Convolutions of 16 kernels of 8x8, stride 4, and 32 of 4x4, stride 2, without
padding, and 256 units; a policy and a value on top.
"""

import math

import torch
from torch import nn

FEATURES = 256


def _orthogonal(layer: nn.Module, scale: float = math.sqrt(2)) -> nn.Module:
  nn.init.orthogonal_(layer.weight, scale)
  nn.init.zeros_(layer.bias)
  return layer


def make_torso() -> nn.Sequential:
  """Returns what maps [N, 4, 84, 84] of 0 to 1 to [N, 256] features."""
  return nn.Sequential(
    _orthogonal(nn.Conv2d(4, 16, 8, 4)),
    nn.ReLU(),
    _orthogonal(nn.Conv2d(16, 32, 4, 2)),
    nn.ReLU(),
    nn.Flatten(),
    _orthogonal(nn.Linear(32 * 9 * 9, FEATURES)),
    nn.ReLU(),
  )


class ShallowNet(nn.Module):
  """Maps uint8 [N, 4, 84, 84] to logits [N, A] and values [N]."""

  def __init__(self, num_actions: int):
    super().__init__()
    self.torso = make_torso()
    self.policy = _orthogonal(nn.Linear(FEATURES, num_actions), 0.01)
    self.value = _orthogonal(nn.Linear(FEATURES, 1), 1.0)

  def forward(
    self, observation: torch.Tensor
  ) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns both heads."""
    features = self.torso(observation.float() / 255)
    return self.policy(features), self.value(features).squeeze(-1)
