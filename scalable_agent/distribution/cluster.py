"""Who is where in a distributed run."""

from collections.abc import Collection
from typing import NamedTuple

from absl import logging

from scalable_agent.distribution import addresses, schedulers
from scalable_agent.options import ClusterOptions, Config


class Cluster(NamedTuple):
  """The processes of a distributed run, and which of them this one is.

  Attributes:
    learners: host:port where each learner listens to its actors.
    collectives: host:port where each learner listens to the other learners.
    job_name: 'learner' or 'actor'.
    task: index of this process among the learners, or among the actors.
    num_actors: actor processes of the run.
    source: option or environment variable that told the addresses.
    listen_address: where this learner listens, if elsewhere; '' else.
  """

  learners: tuple[str, ...]
  collectives: tuple[str, ...]
  job_name: str
  task: int
  num_actors: int
  source: str = '--learner_address'
  listen_address: str = ''

  @property
  def is_chief(self) -> bool:
    """Whether this is the learner that reads and writes the logdir."""
    return self.job_name == 'learner' and self.task == 0

  @property
  def learner_address(self) -> str:
    """The learner that this actor serves, or where actors find this learner."""
    if self.job_name == 'actor':
      return self.learners[self.task % len(self.learners)]
    return self.learners[self.task]

  @property
  def listens_at(self) -> str:
    """Where this learner listens."""
    return self.listen_address or self.learner_address

  @property
  def listen_source(self) -> str:
    """Option or environment variable that told where this learner listens."""
    return '--listen_address' if self.listen_address else self.source

  def check_place(self, encrypted: bool) -> None:
    """Raises ValueError if this learner cannot listen where it has to.

    Warns of an address that other hosts can reach, or cannot by mistake.

    Args:
      encrypted: whether it uses TLS.
    """
    addresses.check_free(self.listens_at, self.listen_source)
    addresses.warn_of_reach(self.listens_at, encrypted)
    if len(self.learners) > 1:
      logging.warning(
        'TensorFlow listens to the other learners on port %s of all network '
        'interfaces, and does whatever it is told there. Close that port to '
        'all others; see docs/distributed.md.',
        self.collectives[self.task].rpartition(':')[2],
      )


def resolve(
  config: Config, given: Collection[str]
) -> tuple[Config, Cluster] | None:
  """Returns who is where, None where everything is on a single machine.

  Flags decide. Where they leave something open, TF_CONFIG does, if it has
  learners; or else Slurm, but only if --learner_address says so, as a program
  inside of it may well be alone.

  Args:
    config: resolved options.
    given: names of the options that the user set.

  Returns:
    `config` with job_name, task, num_learners and num_actors as they are, and
    the cluster.

  Raises:
    ValueError: names the option or environment variable that is malformed, or
      both where they contradict each other.
  """
  if config.run.mode != 'train':
    return None
  placement = _find_placement(config, given)
  if placement is None:
    return None
  config = _fill_in(config, placement, given)
  own = config.cluster
  source = placement.source
  if source == '--job_name':
    source = '--learner_address'  # Of which it has the default.
  if len(placement.learners) != own.num_learners:
    raise ValueError(
      f'{source}: {len(placement.learners)} address(es) for --num_learners='
      f'{own.num_learners}. Give one for each learner.'
    )
  peers = (
    own.num_learners if own.job_name == 'learner' else config.actors.num_actors
  )
  if own.task >= peers:
    raise ValueError(
      f'{f"--task={own.task}" if placement.task is None else source}: '
      f'{own.job_name} {own.task} is not one of '
      f'--num_{own.job_name}s={peers}, which count from 0. Lower the task '
      'or raise their number.'
    )
  cluster = Cluster(
    learners=placement.learners,
    collectives=addresses.collectives_of(placement.learners, source),
    job_name=own.job_name,
    task=own.task,
    num_actors=config.actors.num_actors,
    source=source,
    listen_address=own.listen_address if own.job_name == 'learner' else '',
  )
  if cluster.listen_address:
    addresses.check(cluster.listen_address, '--listen_address')
  if own.insecure_loopback:
    _check_local(cluster)
  return config, cluster


def _check_local(cluster: Cluster) -> None:
  for address in (*cluster.learners, cluster.listen_address):
    if address and not addresses.is_local(address):
      raise ValueError(
        f'--insecure_loopback does without a secret, and others can reach '
        f'{address}. Leave it out, or choose localhost or unix:/path.'
      )


def _find_placement(
  config: Config, given: Collection[str]
) -> schedulers.Placement | None:
  own = config.cluster
  if own.learner_address == 'slurm':
    return schedulers.from_slurm(own.num_learners)
  placement = schedulers.from_tf_config()
  if placement is None and own.task >= 0:
    return schedulers.Placement('--learner_address', _listed(own))
  if placement is None and 'job_name' in given and 'task' not in given:
    if own.job_name == 'learner' and own.num_learners == 1:
      return schedulers.Placement('--job_name', _listed(own), task=0)
    raise ValueError(
      f'--job_name={own.job_name} needs --task, the index of this process '
      f'among the {own.job_name}s: 0 for the first.'
    )
  if placement is not None and own.learner_address:
    listed = _listed(own)
    if listed != placement.learners:
      raise ValueError(
        f'--learner_address={own.learner_address} contradicts '
        f'{placement.source}, which says {",".join(placement.learners)}. Leave '
        'one of them out.'
      )
  return placement


def _listed(own: ClusterOptions) -> tuple[str, ...]:
  if own.learner_address:
    return tuple(part.strip() for part in own.learner_address.split(','))
  return tuple(
    f'localhost:{schedulers.BASE_PORT + index}'
    for index in range(own.num_learners)
  )


def _fill_in(config, placement, given) -> Config:
  """Returns `config` with what only the placement knows."""
  known = {
    'job_name': placement.job_name,
    'task': placement.task,
    'num_actors': placement.num_actors,
  }
  if placement.source != '--learner_address':
    known['num_learners'] = len(placement.learners)
  known = {name: value for name, value in known.items() if value is not None}
  for name, value in known.items():
    flag = config.values[name]
    if name in given and flag != value:
      raise ValueError(
        f'--{name}={flag} contradicts {placement.source}, which says {value}. '
        'Leave one of them out.'
      )
  config = config.replace(**known)
  if config.cluster.task < 0:
    raise ValueError(
      f'{placement.source} does not say which task this process is. Give '
      '--task and --job_name.'
    )
  return config
