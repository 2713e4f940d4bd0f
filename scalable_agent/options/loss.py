"""What the losses need to know: `objectives`."""

import dataclasses

from scalable_agent.options.declaration import Line, Part, check_group, option


@dataclasses.dataclass(frozen=True)
class LossOptions:
  """Loss."""

  discounting: float = option(
    0.99,
    'Discount per agent step (gamma).',
    by_preset=True,
    minimum=0,
    maximum=1,
    line=Line.LOSS,
    part=Part.GRADIENTS,
  )
  entropy_cost: float = option(
    0.00025,
    'Weight of the entropy bonus.',
    by_preset=True,
    minimum=0,
    line=Line.LOSS,
    part=Part.GRADIENTS,
  )
  baseline_cost: float = option(
    0.5,
    'Weight of the baseline loss, which has a factor 0.5 of its own.',
    by_preset=True,
    minimum=0,
    line=Line.LOSS,
    part=Part.GRADIENTS,
  )
  reward_scale: float = option(
    1.0,
    'Factor of rewards in the loss, before they are clipped. Returns, and '
    'the reward of --last_action_reward, are as they are.',
    by_preset=True,
    above=0,
    line=Line.LOSS,
    part=Part.GRADIENTS,
  )
  reward_clipping: str = option(
    'abs_one',
    'Rewards in the loss: abs_one = clipped to [-1, 1]; soft_asymmetric = '
    'tanh(r / 5), times 0.3 where negative, times 5 (the code of 2018); '
    'optimistic_asymmetric = 0.3 min(tanh r, 0) + 5 max(tanh r, 0) (the IMPALA '
    'paper, figure D.1); none.',
    by_preset=True,
    choices=('abs_one', 'soft_asymmetric', 'optimistic_asymmetric', 'none'),
    line=Line.LOSS,
    part=Part.GRADIENTS,
  )

  def __post_init__(self):
    # Also where a learner is made in code: NaN would spoil it without a word.
    check_group(self)


@dataclasses.dataclass(frozen=True)
class VTraceOptions(LossOptions):
  """Loss.

  `lambda_` is not that of GAE (Schulman et al. 2015): below 1 the targets of
  the baseline are the lambda-returns, but the policy gradient's advantage at t
  stays rho_t (r_t + gamma v_{t+1} - V_t), with v the targets. On-policy, that
  is GAE's sum of TD errors with all but its first term weighted by lambda once
  less: 1, 1, lambda, lambda^2, ... times powers of gamma.
  """

  lambda_: float = option(
    1.0,
    'Mixing parameter of the V-trace targets. Below 1, advantages of the '
    "policy gradient are not GAE's: see VTraceOptions.",
    by_preset=True,
    minimum=0,
    maximum=1,
    line=Line.LOSS,
    part=Part.GRADIENTS,
  )
  correction: str = option(
    'vtrace',
    'Off-policy correction (IMPALA paper, Table 2): V-trace, 1-step importance '
    'sampling, epsilon-correction, or none.',
    choices=('vtrace', 'one_step_is', 'epsilon', 'none'),
    line=Line.LOSS,
    part=Part.GRADIENTS,
  )
  clip_rho_threshold: float = option(
    1.0,
    'Clip of the importance weights in the targets (rho bar); 0 = none.',
    minimum=0,
    idle_with={'correction': ('one_step_is', 'epsilon', 'none')},
    part=Part.GRADIENTS,
  )
  clip_pg_rho_threshold: float = option(
    1.0,
    'Clip of the importance weights in the policy gradient; 0 = none.',
    minimum=0,
    idle_with={'correction': ('epsilon', 'none')},
    part=Part.GRADIENTS,
  )


@dataclasses.dataclass(frozen=True)
class AdvantageOptions(LossOptions):
  """Loss."""

  gae_lambda: float = option(
    1.0,
    "Lambda of the policy gradient's advantages (GAE); 1 = n-step returns, "
    "which the baseline's targets always are.",
    by_preset=True,
    minimum=0,
    maximum=1,
    line=Line.LOSS,
    part=Part.GRADIENTS,
  )
  loss_reduction: str = option(
    'sum',
    'Losses are sums over the transitions of an update, or means. Gradients of '
    'the second are smaller by their number.',
    by_preset=True,
    choices=('sum', 'mean'),
    line=Line.LOSS,
    part=Part.GRADIENTS,
  )
