"""Hyper-parameters of published systems: `--preset` by the name of one.

One table: what each system used, and where that number is from. What a system
does not say has no row, and is the option's default.
"""

from typing import Any, NamedTuple

# Sources.
_TABLE_G1 = 'IMPALA paper (Espeholt et al. 2018), Table G.1'
_TABLE_D3 = 'IMPALA paper (Espeholt et al. 2018), Table D.3'
_CODE_2018 = 'scalable_agent, experiment.py (2018)'
_README_2018 = 'scalable_agent, README (2018), of DMLab-30'
_A3C = 'A3C paper (Mnih et al. 2016)'
_LETTER = 'V. Mnih by mail, in the wiki of muupan/async-rl'
_LETTER_2 = 'the authors by mail, in miyosuda/async_deep_reinforce, issue 1'
_GA3C = 'GA3C, Config.py'
_GA3C_NET = 'GA3C, NetworkVP.py'
_GA3C_PLAY = "GA3C, Environment.py: Gym's own frames and episodes"
_TF_A3C = 'tf-a3c-gpu, a3c.py'
_TF_A3C_NET = 'tf-a3c-gpu, network.py'
_PYTORCH = 'pytorch-a3c, README and main.py'
_PYTORCH_NET = 'pytorch-a3c, model.py and envs.py'
_PYTORCH_TEST = 'pytorch-a3c, test.py'
_BLOCKS = 'a3c-agent-blocks, run_a3c.py'
_BLOCKS_NET = 'a3c-agent-blocks, network.py and newblocks'
_TF1 = 'default of TensorFlow 1'

# Of whoever plays Gym's environments as they are.
_GYM = (
  ('noop_max', 0, "Gym's own environments: no no-ops"),
  ('life_loss_is_terminal', False, "Gym's own: a lost life ends nothing"),
)


# What only means something for the levels that a system plays.
_OF_LEVELS = frozenset(
  {
    'network',
    'normalise_pixels',
    'frame_stack',
    'width',
    'height',
    'grayscale',
    'num_action_repeats',
    'noop_max',
    'life_loss_is_terminal',
  }
)


class System(NamedTuple):
  """A published system.

  Attributes:
    algorithm: what it is, of --algorithm.
    suite: that its numbers are for.
    rows: (option, value, source).
  """

  algorithm: str
  suite: str
  rows: tuple[tuple[str, Any, str], ...]

  @property
  def values(self) -> dict[str, Any]:
    """Values of options, by name."""
    return {name: value for name, value, _ in self.rows}


_IMPALA_ATARI = (
  ('total_environment_frames', 200e6, _TABLE_G1),
  ('batch_size', 32, _TABLE_G1),
  ('unroll_length', 20, _TABLE_G1),
  ('discounting', 0.99, _TABLE_G1),
  ('baseline_cost', 0.5, _TABLE_G1),
  ('entropy_cost', 0.01, _TABLE_G1),
  ('lambda_', 1.0, _CODE_2018),
  ('optimizer', 'rmsprop', _TABLE_G1),
  ('learning_rate', 6e-4, _TABLE_G1),
  ('learning_rate_schedule', 'linear', _TABLE_G1),
  ('decay', 0.99, _CODE_2018),
  ('momentum', 0.0, _TABLE_G1),
  ('epsilon', 0.01, _TABLE_G1),
  ('clip_gradient_norm', 40.0, _TABLE_G1),
  ('reward_clipping', 'abs_one', _TABLE_G1),
  ('network', 'nature', 'IMPALA paper, section 5.3.2'),
  ('normalise_pixels', False, _CODE_2018),
  ('frame_stack', 4, _TABLE_G1),
  ('width', 84, _TABLE_G1),
  ('height', 84, _TABLE_G1),
  ('grayscale', True, _TABLE_G1),
  ('num_action_repeats', 4, _TABLE_G1),
  ('life_loss_is_terminal', True, _TABLE_G1),
)

_IMPALA_DMLAB = (
  ('total_environment_frames', 1e9, _CODE_2018),
  ('num_actors', 4, _CODE_2018),
  ('envs_per_actor', 1, _CODE_2018),
  ('batch_size', 2, _CODE_2018),
  ('unroll_length', 100, _TABLE_D3),
  ('discounting', 0.99, _TABLE_D3),
  ('baseline_cost', 0.5, _TABLE_D3),
  ('entropy_cost', 0.00025, _CODE_2018),
  ('lambda_', 1.0, _CODE_2018),
  ('optimizer', 'rmsprop', _TABLE_D3),
  ('learning_rate', 0.00048, _CODE_2018),
  ('learning_rate_schedule', 'linear', _CODE_2018),
  ('decay', 0.99, _CODE_2018),
  ('momentum', 0.0, _TABLE_D3),
  ('epsilon', 0.1, _CODE_2018),
  ('clip_gradient_norm', 0.0, _CODE_2018),
  ('reward_clipping', 'abs_one', _TABLE_D3),
  ('network', 'deep', _CODE_2018),
  ('normalise_pixels', False, _CODE_2018),
  ('lstm', True, _CODE_2018),
  ('last_action_reward', True, _CODE_2018),
  ('frame_stack', 1, _CODE_2018),
  ('width', 96, _TABLE_D3),
  ('height', 72, _TABLE_D3),
  ('num_action_repeats', 4, _TABLE_D3),
)

_IMPALA_DMLAB30_OWN = (
  ('total_environment_frames', 10e9, _README_2018),
  ('num_actors', 150, _README_2018),
  ('batch_size', 32, _README_2018),
  ('entropy_cost', 0.0033391318945337044, _README_2018),
  ('learning_rate', 0.00031866995608948655, _README_2018),
  ('reward_clipping', 'soft_asymmetric', _README_2018),
)

_IMPALA_DMLAB30 = (
  *_IMPALA_DMLAB30_OWN,
  *(
    row
    for row in _IMPALA_DMLAB
    if row[0] not in {own[0] for own in _IMPALA_DMLAB30_OWN}
  ),
)

_A3C_FF = (
  ('total_environment_frames', 320e6, _LETTER),
  ('num_actors', 16, _A3C),
  ('envs_per_actor', 1, _A3C),
  ('unroll_length', 5, _A3C),
  ('discounting', 0.99, _A3C),
  ('gae_lambda', 1.0, _A3C),
  ('baseline_cost', 0.5, _LETTER),
  ('entropy_cost', 0.01, _A3C),
  ('loss_reduction', 'sum', _A3C),
  ('optimizer', 'rmsprop', _A3C),
  ('shared_statistics', True, _A3C),
  ('learning_rate', 7e-4, _LETTER),
  ('learning_rate_schedule', 'linear', _LETTER),
  ('decay', 0.99, _A3C),
  ('momentum', 0.0, _A3C),
  ('epsilon', 0.1, _LETTER),
  ('clip_gradient_norm', 40.0, _LETTER_2),
  ('reward_clipping', 'abs_one', _LETTER),
  ('network', 'nature', _A3C),
  ('normalise_pixels', False, 'DQN (Mnih et al. 2015), whose input it has'),
  ('frame_stack', 4, _A3C),
  ('width', 84, _A3C),
  ('height', 84, _A3C),
  ('num_action_repeats', 4, _A3C),
)

_GA3C_ATARI = (
  ('num_actors', 32, _GA3C),
  ('envs_per_actor', 1, _GA3C),
  ('inference_threads', 2, _GA3C),
  ('num_trainers', 2, _GA3C),
  ('dynamic_settings', True, _GA3C),
  ('dynamic_settings_step_wait', 20.0, _GA3C),
  ('dynamic_settings_initial_wait', 10.0, _GA3C),
  ('unroll_length', 5, _GA3C),
  ('queue_capacity', 100, _GA3C),
  ('inference_maximum_batch_size', 128, _GA3C),
  ('training_min_batch_size', 0, _GA3C),
  ('total_episodes', 400_000, _GA3C),
  ('total_environment_frames', 1e12, 'none: it ends by its episodes'),
  ('annealing_episode_count', 400_000, _GA3C),
  ('discounting', 0.99, _GA3C),
  ('reward_clipping', 'abs_one', _GA3C),
  ('baseline_cost', 1.0, _GA3C_NET),
  ('entropy_cost', 0.01, _GA3C),
  ('entropy_cost_end', 0.01, _GA3C),
  ('log_epsilon', 1e-6, _GA3C),
  ('use_log_softmax', False, _GA3C),
  ('min_policy', 0.0, _GA3C),
  ('optimizer', 'rmsprop', _GA3C),
  ('dual_rmsprop', False, _GA3C),
  ('learning_rate', 3e-4, _GA3C),
  ('learning_rate_end', 3e-4, _GA3C),
  ('learning_rate_schedule', 'constant', _GA3C),
  ('decay', 0.99, _GA3C),
  ('momentum', 0.0, _GA3C),
  ('epsilon', 0.1, _GA3C),
  ('clip_gradient_norm', 0.0, _GA3C),
  ('clip_gradient_by', 'average_norm', _GA3C_NET),
  ('network', 'shallow', _GA3C_NET),
  ('normalise_pixels', False, _GA3C_NET),
  ('frame_stack', 4, _GA3C),
  ('width', 84, _GA3C),
  ('height', 84, _GA3C),
  ('num_action_repeats', 4, _GA3C_PLAY),
  ('noop_max', 0, _GA3C_PLAY),
  ('life_loss_is_terminal', False, _GA3C_PLAY),
)

_TF_A3C_GPU = (
  # Updates, each of 64 environments x 5 steps x 4 frames.
  ('total_environment_frames', 1_000_000 * 64 * 5 * 4, _TF_A3C),
  ('num_actors', 4, _TF_A3C),
  ('envs_per_actor', 64, _TF_A3C),
  ('unroll_length', 5, _TF_A3C),
  ('discounting', 0.99, _TF_A3C),
  ('gae_lambda', 1.0, _TF_A3C_NET),
  # Without the factor 0.5 that is in our baseline loss.
  ('baseline_cost', 2.0, _TF_A3C_NET),
  ('entropy_cost', 0.01, _TF_A3C),
  ('loss_reduction', 'mean', _TF_A3C_NET),
  ('optimizer', 'rmsprop', _TF_A3C_NET),
  ('shared_statistics', True, _TF_A3C_NET),
  ('learning_rate', 2.5e-4, _TF_A3C),
  ('learning_rate_schedule', 'linear', 'nearest to tf-a3c-gpu, a3c.py'),
  ('decay', 0.99, _TF_A3C),
  ('momentum', 0.0, _TF1),
  ('epsilon', 1e-10, _TF1),
  ('clip_gradient_norm', 0.1, _TF_A3C),
  ('clip_gradient_by', 'average_norm', _TF_A3C_NET),
  (
    'network',
    'shallow',
    'nearest to tf-a3c-gpu, network.py: twice the channels',
  ),
  ('normalise_pixels', False, _TF_A3C_NET),
  ('frame_stack', 4, _TF_A3C),
  ('width', 84, _TF_A3C),
  ('height', 84, _TF_A3C),
  *_GYM,
)

_PYTORCH_A3C = (
  ('num_actors', 4, _PYTORCH),
  ('envs_per_actor', 1, _PYTORCH),
  ('unroll_length', 20, _PYTORCH),
  ('total_environment_frames', 1e12, 'none: it goes on until it is stopped'),
  ('max_episode_length', 1_000_000, _PYTORCH),
  ('evaluation_secs', 60.0, _PYTORCH_TEST),
  ('discounting', 0.99, _PYTORCH),
  ('gae_lambda', 1.0, _PYTORCH),
  ('baseline_cost', 0.5, _PYTORCH),
  ('entropy_cost', 0.01, _PYTORCH),
  ('loss_reduction', 'sum', _PYTORCH),
  ('optimizer', 'adam', _PYTORCH),
  ('shared_statistics', True, _PYTORCH),
  ('learning_rate', 1e-4, _PYTORCH),
  ('learning_rate_schedule', 'constant', _PYTORCH),
  ('epsilon', 1e-8, 'default of PyTorch'),
  ('clip_gradient_norm', 50.0, _PYTORCH),
  ('reward_clipping', 'abs_one', _PYTORCH),
  ('network', 'universe', _PYTORCH_NET),
  ('lstm', True, _PYTORCH_NET),
  ('normalise_pixels', True, _PYTORCH_NET),
  ('frame_stack', 1, _PYTORCH_NET),
  ('width', 42, _PYTORCH_NET),
  ('height', 42, _PYTORCH_NET),
  ('num_action_repeats', 4, _PYTORCH),
  *_GYM,
)

_A3C_BLOCKS = (
  # Agent steps, each of four frames.
  ('total_environment_frames', 160_000_000 * 4, _BLOCKS),
  ('num_actors', 16, _BLOCKS),
  ('envs_per_actor', 1, _BLOCKS),
  ('unroll_length', 32, _BLOCKS),
  ('discounting', 0.99, _BLOCKS),
  ('gae_lambda', 1.0, _BLOCKS_NET),
  ('baseline_cost', 1.0, _BLOCKS_NET),
  ('entropy_cost', 0.01, _BLOCKS_NET),
  ('loss_reduction', 'sum', _BLOCKS_NET),
  ('optimizer', 'rmsprop', _BLOCKS_NET),
  ('shared_statistics', True, _BLOCKS_NET),
  ('learning_rate', 7e-4, _BLOCKS),
  ('learning_rate_schedule', 'constant', _BLOCKS_NET),
  ('decay', 0.99, _BLOCKS_NET),
  ('epsilon', 0.1, _BLOCKS_NET),
  ('rmsprop_initial_slot', 0.0, _BLOCKS_NET),
  ('clip_gradient_norm', 0.0, _BLOCKS),
  ('network', 'shallow', _BLOCKS_NET),
  ('normalise_pixels', False, _BLOCKS_NET),
  ('frame_stack', 4, _BLOCKS),
  ('width', 84, _BLOCKS),
  ('height', 84, _BLOCKS),
  *_GYM,
)

_OF_WORKERS = ('num_actors', 'envs_per_actor', 'shared_statistics')

SYSTEMS = {
  'impala_atari': System('impala', 'atari', _IMPALA_ATARI),
  'impala_dmlab': System('impala', 'dmlab', _IMPALA_DMLAB),
  'impala_dmlab30': System('impala', 'dmlab', _IMPALA_DMLAB30),
  'a3c_ff': System('a3c', 'atari', _A3C_FF),
  'a3c_lstm': System(
    'a3c',
    'atari',
    (
      *(row for row in _A3C_FF if row[0] != 'total_environment_frames'),
      ('total_environment_frames', 1e9, _LETTER),
      ('lstm', True, _A3C),
    ),
  ),
  'a2c': System(
    'a2c',
    'atari',
    (
      *(row for row in _A3C_FF if row[0] not in _OF_WORKERS),
      ('num_actors', 0, 'A3C in turns'),
      ('envs_per_actor', 16, "one for each of A3C's workers"),
    ),
  ),
  'ga3c': System('ga3c', 'atari', _GA3C_ATARI),
  'tf_a3c_gpu': System('a3c', 'atari', _TF_A3C_GPU),
  'pytorch_a3c': System('a3c', 'atari', _PYTORCH_A3C),
  'a3c_blocks': System('a3c', 'atari', _A3C_BLOCKS),
}

# Of --preset=paper, by algorithm.
PAPERS = {
  'impala': 'impala_atari',
  'a3c': 'a3c_ff',
  'a2c': 'a2c',
  'ga3c': 'ga3c',
}


def general_values(name: str) -> dict[str, Any]:
  """Returns what a system says that is not of its levels alone."""
  values = SYSTEMS[name].values
  return {k: v for k, v in values.items() if k not in _OF_LEVELS}
