"""How many act, and what the learner makes of it."""

import dataclasses

from scalable_agent.options.declaration import Line, Part, option


@dataclasses.dataclass(frozen=True)
class UnrollOptions:
  """Actors and batches."""

  envs_per_actor: int = option(
    16,
    'Environments that one actor steps together.',
    aliases=('envs_per_worker',),
    unit='environments',
    by_preset=True,
    minimum=1,
    free_in_test=True,
    line=Line.BATCH,
  )
  unroll_length: int = option(
    20,
    'Agent steps per trajectory.',
    aliases=('time_max',),
    unit='agent steps',
    by_preset=True,
    minimum=1,
    part=Part.ACTING,
    line=Line.BATCH,
  )


@dataclasses.dataclass(frozen=True)
class ActorOptions(UnrollOptions):
  """Actors and batches."""

  num_actors: int = option(
    2,
    'Actor threads, or processes of a distributed run, each with '
    '--envs_per_actor environments; with impala, 0 = serial mode, everything '
    'in one thread and reproducible bit for bit. Default: of the preset for '
    'two cores; on one machine where more may be used, and environments step '
    "without Python's lock, more: of impala, actors of fewer environments "
    'each, unless the suite steps those in more threads; of a3c, workers of as '
    'many each. That of ga3c is adjusted by --dynamic_settings.',
    aliases=('num_agents', 'num_workers'),
    unit='actors',
    by_preset=True,
    minimum=0,
    part=Part.ACTING,
    line=Line.BATCH,
  )


@dataclasses.dataclass(frozen=True)
class QueueOptions:
  """Actors and batches."""

  queue_capacity: int = option(
    1,
    'Unrolls of which nothing was learned from yet that may wait for the '
    'learner before actors block.',
    aliases=('max_queue_size',),
    unit='unrolls',
    by_preset=True,
    minimum=1,
    idle_with={'num_actors': (0,)},
  )


@dataclasses.dataclass(frozen=True)
class BatchOptions(QueueOptions):
  """Actors and batches."""

  batch_size: int = option(
    16,
    'Trajectories (columns) per learner update.',
    unit='trajectories',
    by_preset=True,
    minimum=1,
    line=Line.BATCH,
  )
  updates_per_batch: int = option(
    1,
    'Optimizer steps taken on each batch.',
    unit='updates',
    by_preset=True,
    minimum=1,
    line=Line.BATCH,
  )


@dataclasses.dataclass(frozen=True)
class ThreadOptions:
  """Threads."""

  intra_op_threads: int = option(
    0,
    'Threads that one TensorFlow operation may use; 0 = half of the cores.',
    unit='threads',
    minimum=0,
    part=Part.PROCESS,
    free_in_test=True,
  )
