"""Who is where in a distributed run."""

import dataclasses

from scalable_agent.options.declaration import Part, option

_ALONE = {'task': (-1,)}


@dataclasses.dataclass(frozen=True)
class ClusterOptions:
  """A distributed run."""

  job_name: str = option(
    'learner',
    'Role of this process in a distributed run; no effect on a single machine.',
    choices=('learner', 'actor'),
    part=Part.PLACE,
  )
  task: int = option(
    -1,
    'Index of this process among the actors, or among the learners, of a '
    'distributed run; -1 = single machine, or what --learner_address or '
    'TF_CONFIG say.',
    minimum=-1,
    part=Part.PLACE,
  )
  num_learners: int = option(
    1,
    'Learner processes, each with --batch_size / --num_learners trajectories '
    'of every update; actor i serves learner i modulo --num_learners.',
    unit='processes',
    minimum=1,
    part=Part.ACTING,
    idle_with=_ALONE,
  )
  learner_devices: int = option(
    1,
    'Devices of each learner that share its trajectories: GPUs, or logical '
    'devices of the CPU where there is no GPU.',
    unit='devices',
    minimum=1,
  )
  learner_address: str = option(
    '',
    'Where the learners listen to their actors: host:port, separated by '
    'commas; or slurm, for the tasks of a Slurm step, learners first; or '
    'kubernetes, for the pods of a Job named learner. Default: of TF_CONFIG '
    'if it has a job named learner, else localhost:8000 and the ports that '
    'follow. Learners reach each other 1000 ports above.',
    part=Part.PLACE,
    idle_with=_ALONE,
  )
  reconnect_timeout: float = option(
    300.0,
    'How long an actor waits for a learner that does not answer, and a '
    'learner at its start for the other learners.',
    unit='seconds',
    minimum=0,
    part=Part.PLACE,
    idle_with=_ALONE,
  )
  actor_timeout: float = option(
    600.0,
    'How long a learner waits without a word of any actor, also at the start, '
    'before it saves and ends with an error; 0 = for ever.',
    unit='seconds',
    minimum=0,
    part=Part.PLACE,
    idle_with=_ALONE,
  )

  @property
  def is_distributed(self) -> bool:
    """Whether options say that other processes take part; TF_CONFIG apart."""
    return self.task >= 0 or self.learner_address in ('slurm', 'kubernetes')
