"""Every option of a run: its default, unit, help text and check.

`Config` is plain data. `experiment.py` turns its fields into flags; everything
else receives the finished object, or only the values it needs. A default of
None means that the level's suite decides: `presets.resolve` fills it in.
"""

import dataclasses
import math
import typing
from collections.abc import Collection, Mapping
from typing import Any


def _option(default: Any, help_text: str, *, choices=None, minimum=None):
  metadata = {'help': help_text, 'choices': choices, 'minimum': minimum}
  return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Config:
  """All options of a run. The help text of each field is its documentation."""

  # The run.
  mode: str = _option(
    'train',
    'Train an agent, or test the one in --logdir.',
    choices=('train', 'test'),
  )
  algorithm: str = _option(
    'impala', 'Member of the actor-critic family.', choices=('impala',)
  )
  level_name: str = _option(
    'pong',
    'What to play: an Atari game (pong, ALE/Pong-v5, PongNoFrameskip-v4), a '
    'Gymnasium id with discrete actions (CartPole-v1), catch or catch_hidden. '
    'Several, separated by commas, take turns among the actors; atari57 stands '
    'for 57 Atari games.',
  )
  logdir: str | None = _option(
    None,
    'Folder of checkpoints, TensorBoard events, episodes.csv and config.json. '
    'Default: logs/<level_name>, with a + for each comma.',
  )
  preset: str = _option(
    'auto',
    'Where unset options come from: auto = settings found for a single game on '
    'a small machine; paper = the IMPALA paper, Table G.1.',
    choices=('auto', 'paper'),
  )
  total_environment_frames: float | None = _option(
    None,
    'Frames (agent steps x action repeat) after which training stops and a '
    'decaying learning rate reaches zero.',
    minimum=1,
  )
  seed: int = _option(
    1,
    'Seed of weights, environments and action sampling. Exact '
    'reproduction needs --num_actors=0. Tests play other episodes than any '
    'training.',
    minimum=0,
  )

  # A distributed run.
  job_name: str = _option(
    'learner',
    'Role of this process in a distributed run; no effect on a single machine.',
    choices=('learner', 'actor'),
  )
  task: int = _option(
    -1,
    'Index of this process among the actors, or among the learners, of a '
    'distributed run; -1 = single machine, or what --learner_address or '
    'TF_CONFIG say.',
    minimum=-1,
  )
  num_learners: int = _option(
    1,
    'Learner processes, each with --batch_size / --num_learners trajectories '
    'of every update; actor i serves learner i modulo --num_learners.',
    minimum=1,
  )
  learner_devices: int = _option(
    1,
    'Devices of each learner that share its trajectories: GPUs, or logical '
    'devices of the CPU where there is no GPU.',
    minimum=1,
  )
  learner_address: str = _option(
    '',
    'Where the learners listen to their actors: host:port, separated by '
    'commas; or slurm, for the tasks of a Slurm step, learners first; or '
    'kubernetes, for the pods of a Job named learner. Default: of TF_CONFIG '
    'if it has a job named learner, else localhost:8000 and the ports that '
    'follow. Learners reach each other 1000 ports above.',
  )
  reconnect_timeout: float = _option(
    300.0,
    'Seconds that an actor waits for a learner that does not answer, and a '
    'learner at its start for the other learners.',
    minimum=0,
  )

  # Actors and batches.
  num_actors: int | None = _option(
    None,
    'Actor threads, or processes of a distributed run, each with '
    '--envs_per_actor environments; 0 = serial mode, everything in one thread '
    'and reproducible bit for bit. Default: of the preset for two cores; for '
    'Atari on one machine, more actors of fewer environments each where more '
    'cores may be used.',
    minimum=0,
  )
  envs_per_actor: int | None = _option(
    None, 'Environments that one actor steps together.', minimum=1
  )
  batch_size: int | None = _option(
    None, 'Trajectories (columns) per learner update.', minimum=1
  )
  unroll_length: int | None = _option(
    None, 'Agent steps per trajectory.', minimum=1
  )
  queue_capacity: int = _option(
    1,
    'Unrolls of which nothing was learned from yet that may wait for the '
    'learner before actors block.',
    minimum=1,
  )
  updates_per_batch: int | None = _option(
    None, 'Optimizer steps taken on each batch.', minimum=1
  )
  intra_op_threads: int = _option(
    0,
    'Threads that one TensorFlow operation may use; 0 = half of the cores.',
    minimum=0,
  )
  batcher: str = _option(
    'auto',
    'Dynamic batcher: op = the C++ operations, python = the fallback, auto = '
    'op where it can be built.',
    choices=('auto', 'op', 'python'),
  )
  inference_minimum_batch_size: int = _option(
    1, 'Rows that the dynamic batcher waits for.', minimum=1
  )
  inference_maximum_batch_size: int = _option(
    1024, 'Rows that the dynamic batcher puts into one batch.', minimum=1
  )
  inference_timeout_ms: int = _option(
    20,
    'Milliseconds after which the dynamic batcher serves fewer rows than '
    '--inference_minimum_batch_size; 0 = at once.',
    minimum=0,
  )

  # Loss.
  discounting: float | None = _option(None, 'Discount per agent step (gamma).')
  baseline_cost: float | None = _option(
    None, 'Weight of the baseline loss.', minimum=0
  )
  entropy_cost: float | None = _option(
    None, 'Weight of the entropy bonus.', minimum=0
  )
  reward_clipping: str = _option(
    'abs_one',
    'Rewards in the loss: abs_one = clipped to [-1, 1]; soft_asymmetric = '
    'tanh(r / 5), times 0.3 where negative, times 5 (the code of 2018); '
    'optimistic_asymmetric = 0.3 min(tanh r, 0) + 5 max(tanh r, 0) (the IMPALA '
    'paper, figure D.1); none.',
    choices=('abs_one', 'soft_asymmetric', 'optimistic_asymmetric', 'none'),
  )
  correction: str = _option(
    'vtrace',
    'Off-policy correction (IMPALA paper, Table 2): V-trace, 1-step importance '
    'sampling, epsilon-correction, or none.',
    choices=('vtrace', 'one_step_is', 'epsilon', 'none'),
  )
  clip_rho_threshold: float = _option(
    1.0, 'Clip of the importance weights in the targets; 0 = none.', minimum=0
  )
  clip_pg_rho_threshold: float = _option(
    1.0,
    'Clip of the importance weights in the policy gradient; 0 = none.',
    minimum=0,
  )
  lambda_: float | None = _option(
    None,
    'Mixing parameter of the V-trace targets, in [0, 1]. Below 1, advantages '
    "of the policy gradient are not GAE's: see LossOptions.",
    minimum=0,
  )

  # Optimizer.
  optimizer: str | None = _option(
    None, 'Optimizer.', choices=('rmsprop', 'adam')
  )
  learning_rate: float | None = _option(
    None, 'Learning rate at the first frame.'
  )
  learning_rate_schedule: str | None = _option(
    None,
    'linear = to zero at --total_environment_frames; late_linear = the same, '
    'but constant for the first three quarters; or constant.',
    choices=('linear', 'late_linear', 'constant'),
  )
  decay: float = _option(0.99, 'RMSProp: decay of the mean square.', minimum=0)
  momentum: float = _option(0.0, 'RMSProp: momentum.', minimum=0)
  epsilon: float | None = _option(
    None,
    'RMSProp: added to the mean square inside the root. Adam: added to the '
    'root.',
  )
  rmsprop_initial_slot: float = _option(
    1.0,
    'RMSProp: value at which the mean square starts: 1 as in TensorFlow 1, 0 '
    'as in Keras 3.',
    minimum=0,
  )
  clip_gradient_norm: float | None = _option(
    None,
    'Global norm to which gradients are clipped; 0 = no clipping.',
    minimum=0,
  )

  # Agent.
  network: str | None = _option(
    None,
    'Torso: shallow (two convolutions), nature (three: Mnih et al. 2015), deep '
    '(15), mlp, auto (shallow for images, mlp for vectors), or your own as '
    'module:Class.',
  )
  lstm: bool = _option(False, 'Put an LSTM of 256 units behind the torso.')
  last_action_reward: bool = _option(
    False, 'Feed the last action and the clipped last reward to the agent.'
  )
  frame_stack: int | None = _option(
    None, 'Latest observations that the agent sees.', minimum=1
  )

  # Environment.
  num_action_repeats: int | None = _option(
    None, 'Frames for which an action is repeated.', minimum=1
  )
  width: int | None = _option(None, 'Width of a frame in pixels.', minimum=8)
  height: int | None = _option(None, 'Height of a frame in pixels.', minimum=8)
  grayscale: bool = _option(True, 'Atari: grey frames instead of colour.')
  sticky_actions: float | None = _option(
    None,
    'Atari: probability that the emulator repeats the previous action. '
    'Default: what the level id implies (0.25 for ALE/*-v5 and *-v0, else 0).',
    minimum=0,
  )
  noop_max: int = _option(
    30,
    'Atari: an episode starts with a random number of no-ops, in frames, from '
    '0 to this.',
    minimum=0,
  )
  life_loss_is_terminal: bool = _option(
    True,
    'Atari: a lost life ends the episode for the learner; the game goes on.',
  )
  fire_reset: bool = _option(
    False, 'Atari: press FIRE at the start of an episode where it exists.'
  )
  full_action_space: bool = _option(
    False, 'Atari: all 18 actions instead of the minimal set of the game.'
  )
  max_episode_frames: int = _option(
    108000, 'Atari: frames after which an episode is cut off.', minimum=1
  )
  env_processes: int = _option(
    0,
    'Gymnasium: 1 = each environment in a process of its own; 0 = in the '
    "actor's thread.",
    minimum=0,
  )
  dataset_path: str = _option(
    '', 'DeepMind Lab: folder of the psychlab data sets.'
  )

  # Reports.
  save_checkpoint_secs: float = _option(
    60.0, 'Seconds between two checkpoints.', minimum=0
  )
  keep_checkpoints: int = _option(
    3, 'Newest checkpoints to keep, besides the best.', minimum=1
  )
  summary_secs: float = _option(
    10.0, 'Seconds between two TensorBoard summaries.', minimum=0
  )
  progress_secs: float = _option(
    2.0, 'Seconds between two progress lines.', minimum=0
  )

  # Test.
  checkpoint: str = _option(
    'newest',
    '--mode=test: the newest checkpoint, or the one of the best return; of '
    'several levels, of the best median of human-normalised scores.',
    choices=('newest', 'best'),
  )
  test_num_episodes: int = _option(
    10, 'Episodes per level in --mode=test.', minimum=1
  )
  test_policy: str = _option(
    'sample',
    'Actions in --mode=test: sampled from the policy, or greedy.',
    choices=('sample', 'greedy'),
  )
  video_dir: str = _option(
    '', '--mode=test: folder for a video of the first episode per level.'
  )


FIELDS: Mapping[str, dataclasses.Field] = {
  field.name: field for field in dataclasses.fields(Config)
}


# Leaves room for an index of each environment below those of tests.
_LARGEST_SEED = 2_000_000_000


def validate(config: Config) -> None:
  """Raises ValueError that names the first option with a bad value.

  Args:
    config: options, resolved or not; None passes.
  """
  for name, field in FIELDS.items():
    value = getattr(config, name)
    if value is None:
      continue
    choices, minimum = field.metadata['choices'], field.metadata['minimum']
    if choices is not None and value not in choices:
      raise ValueError(
        f'--{name}={value} is not known. Choose one of: {", ".join(choices)}.'
      )
    if minimum is not None and not value >= minimum:
      raise ValueError(f'--{name}={value} must be at least {minimum}.')
  for name in ('discounting', 'lambda_', 'sticky_actions', 'decay'):
    value = getattr(config, name)
    if value is not None and not 0 <= value <= 1:
      raise ValueError(f'--{name}={value} must lie between 0 and 1.')
  for name in ('learning_rate', 'epsilon'):
    value = getattr(config, name)
    if value is not None and not value > 0:
      raise ValueError(f'--{name}={value} must be greater than 0.')
  for name in FIELDS:
    value = getattr(config, name)
    if isinstance(value, float) and not math.isfinite(value):
      raise ValueError(f'--{name}={value} must be finite.')
  if config.seed > _LARGEST_SEED:
    raise ValueError(
      f'--seed={config.seed} must be at most {_LARGEST_SEED}, as environments '
      'take 31 bits, of which tests have a part of their own.'
    )
  _validate_combinations(config)


def _validate_combinations(config: Config) -> None:
  if config.dataset_path:
    raise ValueError(
      f'--dataset_path={config.dataset_path} is for DeepMind Lab levels only; '
      f'{config.level_name} takes no data set. Leave it empty.'
    )
  if config.env_processes > 1:
    raise ValueError(
      f'--env_processes={config.env_processes} must be 0 (environments in the '
      "actor's thread) or 1 (one process for each environment)."
    )
  if config.inference_minimum_batch_size > config.inference_maximum_batch_size:
    raise ValueError(
      f'--inference_minimum_batch_size={config.inference_minimum_batch_size} '
      'exceeds --inference_maximum_batch_size='
      f'{config.inference_maximum_batch_size}.'
    )
  devices = config.num_learners * config.learner_devices
  if config.batch_size is not None and config.batch_size % devices:
    raise ValueError(
      f'--batch_size={config.batch_size} cannot be shared equally by '
      f'--num_learners={config.num_learners} times --learner_devices='
      f'{config.learner_devices}. Make it a multiple of {devices}.'
    )
  if is_distributed(config):
    _validate_distributed(config)
    return
  if None in (config.num_actors, config.envs_per_actor, config.batch_size):
    return
  columns = max(config.num_actors, 1) * config.envs_per_actor
  # Threads fill a batch with several unrolls of each.
  if config.num_actors == 0 and config.batch_size > columns:
    raise ValueError(
      f'--batch_size={config.batch_size} cannot be filled: --num_actors=0 with '
      f'--envs_per_actor={config.envs_per_actor} gives {columns} trajectories '
      'at a time. Lower the batch size, raise --envs_per_actor, or use actor '
      'threads: --num_actors=1.'
    )
  if config.num_actors > 0:
    _validate_inference(config, columns)


def is_distributed(config: Config) -> bool:
  """Whether options say that other processes take part; TF_CONFIG apart."""
  return config.task >= 0 or config.learner_address in ('slurm', 'kubernetes')


def _validate_distributed(config: Config) -> None:
  """Refuses a run without actors and a process that is not part of it."""
  if config.num_actors == 0:
    raise ValueError(
      '--num_actors=0 is serial mode, which is for a single machine. Give the '
      'number of actor processes, or leave --task and --learner_address out.'
    )
  if config.num_actors is not None and config.num_actors < config.num_learners:
    raise ValueError(
      f'--num_actors={config.num_actors} leaves some of --num_learners='
      f'{config.num_learners} without an actor, and all learners wait for each '
      'other. Raise the first or lower the other.'
    )
  name = f'num_{config.job_name}s'
  peers = getattr(config, name)
  if peers is not None and config.task >= peers:
    raise ValueError(
      f'--task={config.task} is no {config.job_name} of --{name}={peers}, '
      f'which count from 0. Lower --task or raise --{name}.'
    )


def _validate_inference(config: Config, rows: int) -> None:
  """Refuses batches that the actors, with `rows` in all, cannot make."""
  if config.inference_maximum_batch_size < config.envs_per_actor:
    raise ValueError(
      f'--inference_maximum_batch_size={config.inference_maximum_batch_size} '
      f'has no room for the {config.envs_per_actor} rows of one actor '
      f'(--envs_per_actor={config.envs_per_actor}). Raise it or lower the '
      'other.'
    )
  if config.inference_minimum_batch_size > rows:
    raise ValueError(
      f'--inference_minimum_batch_size={config.inference_minimum_batch_size} '
      f'cannot be reached: --num_actors={config.num_actors} with '
      f'--envs_per_actor={config.envs_per_actor} give {rows} rows at a time. '
      'Lower it or raise one of the others.'
    )


# How a test is done; a training has no use for them.
_TEST_ONLY = ('checkpoint', 'test_num_episodes', 'test_policy', 'video_dir')

# How actor threads share inference; an actor process has its own.
_BATCHING = (
  'batcher',
  'inference_minimum_batch_size',
  'inference_maximum_batch_size',
  'inference_timeout_ms',
)

# Options that mean nothing while another one has a certain value.
_WITHOUT_EFFECT: Mapping[tuple[str, Any], tuple[str, ...]] = {
  ('mode', 'train'): _TEST_ONLY,
  ('optimizer', 'adam'): ('decay', 'momentum', 'rmsprop_initial_slot'),
  ('correction', 'one_step_is'): ('clip_rho_threshold',),
  ('correction', 'epsilon'): ('clip_rho_threshold', 'clip_pg_rho_threshold'),
  ('correction', 'none'): ('clip_rho_threshold', 'clip_pg_rho_threshold'),
  ('num_actors', 0): ('queue_capacity', *_BATCHING),
  ('task', -1): ('num_learners', 'learner_address', 'reconnect_timeout'),
}


def check_given(config: Config, given: Collection[str]) -> None:
  """Raises ValueError that names an option that was set without effect.

  Args:
    config: resolved options.
    given: names of the options that the user set.
  """
  for (owner, value), names in _WITHOUT_EFFECT.items():
    if getattr(config, owner) != value:
      continue
    for name in names:
      if name in given:
        raise ValueError(
          f'--{name}={getattr(config, name)} has no effect with '
          f'--{owner}={value}. Leave it out, or change --{owner}.'
        )
  if is_distributed(config):
    for name in _BATCHING:
      if name in given:
        raise ValueError(
          f'--{name}={getattr(config, name)} has no effect on a distributed '
          'run, in which each actor evaluates its own policy. Leave it out.'
        )


def from_dict(values: Any) -> Config:
  """Returns the Config of which `dataclasses.asdict` made `values`.

  Raises:
    ValueError: `values` is no dict, or has an option or a value that this
      version does not know.
  """
  if not isinstance(values, dict):
    raise ValueError('expected a JSON object of options')
  unknown = sorted(set(values) - set(FIELDS))
  if unknown:
    raise ValueError(f'unknown options: {", ".join(unknown)}')
  types = typing.get_type_hints(Config)
  for name, value in values.items():
    kinds = typing.get_args(types[name]) or (types[name],)
    # JSON may drop the point of a float; True is no number here.
    fits = type(value) in kinds or (float in kinds and type(value) is int)
    if not fits:
      raise ValueError(f'{name} cannot be {value!r}')
  config = Config(**values)
  validate(config)
  return config


# What an actor process does; its learner must know it.
_ACTING = (
  'algorithm',
  'level_name',
  'num_actors',
  'num_learners',
  'unroll_length',
  'network',
  'lstm',
  'last_action_reward',
  'frame_stack',
  'num_action_repeats',
  'width',
  'height',
  'grayscale',
  'sticky_actions',
  'noop_max',
  'life_loss_is_terminal',
  'fire_reset',
  'full_action_space',
  'max_episode_frames',
)


# Who and where a process is: says nothing of what it does.
PLACE = ('job_name', 'task', 'logdir', 'learner_address', 'reconnect_timeout')
# What differs between processes of a run, or may.
_OF_ONE_PROCESS = (
  *PLACE,
  'intra_op_threads',
  'save_checkpoint_secs',
  'keep_checkpoints',
  'summary_secs',
  'progress_secs',
)


def learning_options(config: Config) -> dict[str, Any]:
  """Returns the options in which all learners must agree, by name."""
  return {n: getattr(config, n) for n in FIELDS if n not in _OF_ONE_PROCESS}


def acting_options(config: Config) -> dict[str, Any]:
  """Returns the options in which actors and learners must agree, by name."""
  return {name: getattr(config, name) for name in _ACTING}


def describe(
  config: Config, given: Collection[str], hidden: Collection[str] = ()
) -> str:
  """Returns the options that decide what is learned, one line per group.

  Args:
    config: resolved.
    given: names of the options that the user set; they are marked with a *.
    hidden: names of options to leave out, as they mean nothing to the level.
  """
  groups = {
    'level': (
      'level_name num_action_repeats height width frame_stack sticky_actions '
      'noop_max life_loss_is_terminal'
    ),
    'agent': 'network lstm last_action_reward',
    'batch': (
      'num_actors envs_per_actor batch_size unroll_length updates_per_batch'
    ),
    'loss': (
      'discounting lambda_ entropy_cost baseline_cost reward_clipping '
      'correction'
    ),
    'optimizer': (
      'optimizer learning_rate learning_rate_schedule epsilon '
      'clip_gradient_norm'
    ),
    'run': 'algorithm preset total_environment_frames seed logdir',
  }
  lines = ['Options (* = set by you, the others by preset or default):']
  for group, names in groups.items():
    items = (
      f'{name}={_shown(getattr(config, name))}{"*" if name in given else ""}'
      for name in names.split()
      if name not in hidden
    )
    lines.append(f'  {group + ":":10} {" ".join(items)}')
  return '\n'.join(lines)


def _shown(value: Any) -> str:
  """15000000, not 15000000.0."""
  return f'{value:.15g}' if isinstance(value, float) else str(value)


# What a test may choose anew; everything else is part of what was trained.
_TEST_OPTIONS = frozenset(
  {
    'mode',
    'logdir',
    'seed',
    'envs_per_actor',
    'intra_op_threads',
    'sticky_actions',
    'noop_max',
    'max_episode_frames',
    'env_processes',
    *_TEST_ONLY,
  }
)


def for_test(config: Config, trained: Config, given: Collection[str]) -> Config:
  """Returns the options of a test: those of the training, and what may differ.

  Args:
    config: options of the test as given.
    trained: options of the run that is to be tested.
    given: names of the options that the user set.

  Raises:
    ValueError: the user set an option that is part of what was trained to
      another value; names all of them.
  """
  differ = [
    f'--{name}={getattr(config, name)} (trained with {getattr(trained, name)})'
    for name in sorted(set(given) & set(FIELDS) - _TEST_OPTIONS)
    if getattr(config, name) != getattr(trained, name)
  ]
  if differ:
    raise ValueError(
      f'--logdir={config.logdir} holds an agent of other options than '
      f'{", ".join(differ)}. Leave them out, or name another logdir.'
    )
  chosen = {
    name: getattr(config, name)
    for name in _TEST_OPTIONS & (set(given) | {'mode', 'logdir'})
  }
  untouched = {name: getattr(config, name) for name in _TEST_ONLY}
  return dataclasses.replace(trained, **(untouched | chosen))
