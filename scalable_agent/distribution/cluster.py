"""Who is where in a distributed run."""

import dataclasses
from collections.abc import Collection
from typing import NamedTuple

from absl import logging

from scalable_agent.distribution import addresses, schedulers
from scalable_agent.options import config as config_lib


class Cluster(NamedTuple):
  """The processes of a distributed run, and which of them this one is.

  Attributes:
    learners: host:port where each learner listens to its actors.
    collectives: host:port where each learner listens to the other learners.
    job_name: 'learner' or 'actor'.
    task: index of this process among the learners, or among the actors.
    num_actors: actor processes of the run.
    source: option or environment variable that told the addresses.
  """

  learners: tuple[str, ...]
  collectives: tuple[str, ...]
  job_name: str
  task: int
  num_actors: int
  source: str = '--learner_address'

  @property
  def own_address(self) -> str:
    """Where this learner listens, or the learner that this actor serves."""
    if self.job_name == 'actor':
      return self.learner_of(self.task)
    return self.learners[self.task]

  def learner_of(self, actor: int) -> str:
    """Returns the address of the learner that an actor serves."""
    return self.learners[actor % len(self.learners)]

  def check(self) -> None:
    """Raises ValueError if this process cannot do its part from here.

    A learner has to be able to listen, an actor to find its learner's host.
    Warns of an address that other hosts can reach, or cannot by mistake.
    """
    if self.job_name == 'actor':
      addresses.check_resolvable(self.own_address, self.source)
      return
    addresses.check_free(self.own_address, self.source)
    addresses.warn_of_reach(self.own_address)
    if len(self.learners) > 1:
      logging.warning(
        'TensorFlow listens to the other learners on port %s of all network '
        'interfaces, and does whatever it is told there. Close that port to '
        'all others; see docs/distributed.md.',
        self.collectives[self.task].rpartition(':')[2],
      )


def resolve(
  config: config_lib.Config, given: Collection[str]
) -> tuple[config_lib.Config, Cluster] | None:
  """Returns who is where, None where everything is on a single machine.

  Flags decide. Where they leave something open, TF_CONFIG does, if it has a
  job named `learner`; or else Slurm or Kubernetes, but only if
  --learner_address says so, as a program inside of them may well be alone.

  Args:
    config: resolved options.
    given: names of the options that the user set.

  Returns:
    `config` with job_name, task, num_learners and num_actors as they are, and
    the cluster.

  Raises:
    ValueError: names the option or environment variable that is malformed, or
      both where they contradict each other.
    TimeoutError: the pods of the learners do not run in time.
  """
  if config.mode != 'train':
    return None
  placement = _find_placement(config, given)
  if placement is None:
    return None
  config = _fill_in(config, placement, given)
  source = placement.source
  if len(placement.learners) != config.num_learners:
    raise ValueError(
      f'{source}: {len(placement.learners)} address(es) for --num_learners='
      f'{config.num_learners}. Give one for each learner.'
    )
  peers = (
    config.num_learners if config.job_name == 'learner' else config.num_actors
  )
  if config.task >= peers:
    raise ValueError(
      f'{f"--task={config.task}" if placement.task is None else source}: '
      f'{config.job_name} {config.task} is not one of '
      f'--num_{config.job_name}s={peers}, which count from 0. Lower the task '
      'or raise their number.'
    )
  cluster = Cluster(
    learners=placement.learners,
    collectives=addresses.collectives_of(placement.learners, source),
    job_name=config.job_name,
    task=config.task,
    num_actors=config.num_actors,
    source=source,
  )
  return config, cluster


def _find_placement(
  config: config_lib.Config, given: Collection[str]
) -> schedulers.Placement | None:
  if config.learner_address == 'slurm':
    return schedulers.from_slurm(config.num_learners)
  if config.learner_address == 'kubernetes':
    return schedulers.from_kubernetes(
      config.num_learners, config.reconnect_timeout
    )
  placement = schedulers.from_tf_config()
  if placement is None and config.task >= 0:
    return schedulers.Placement('--learner_address', _listed(config))
  if placement is None and 'job_name' in given and 'task' not in given:
    if config.job_name == 'learner' and config.num_learners == 1:
      return schedulers.Placement('--job_name', _listed(config), task=0)
    raise ValueError(
      f'--job_name={config.job_name} needs --task, the index of this process '
      f'among the {config.job_name}s: 0 for the first.'
    )
  if placement is not None and config.learner_address:
    listed = _listed(config)
    if listed != placement.learners:
      raise ValueError(
        f'--learner_address={config.learner_address} contradicts '
        f'{placement.source}, which says {",".join(placement.learners)}. Leave '
        'one of them out.'
      )
  return placement


def _listed(config: config_lib.Config) -> tuple[str, ...]:
  if config.learner_address:
    return tuple(part.strip() for part in config.learner_address.split(','))
  return tuple(
    f'localhost:{schedulers.BASE_PORT + index}'
    for index in range(config.num_learners)
  )


def _fill_in(config, placement, given) -> config_lib.Config:
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
    flag = getattr(config, name)
    if name in given and flag != value:
      raise ValueError(
        f'--{name}={flag} contradicts {placement.source}, which says {value}. '
        'Leave one of them out.'
      )
  config = dataclasses.replace(config, **known)
  if config.task < 0:
    raise ValueError(
      f'{placement.source} does not say which task this process is. Give '
      '--task and --job_name.'
    )
  return config
