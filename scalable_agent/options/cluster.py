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
    'Where actors find the learners: host:port, separated by commas; '
    'unix:/path of one learner for actors on its host; or slurm, for the tasks '
    'of a Slurm step, learners first. Default: of TF_CONFIG if it names '
    'learners, else localhost:8000 and the ports that follow. Learners reach '
    'each other 1000 ports above.',
    part=Part.PLACE,
    idle_with=_ALONE,
  )
  listen_address: str = option(
    '',
    'Where this learner listens, host:port, if not at its --learner_address: '
    'behind a NAT, in a container. Default: the same.',
    part=Part.PLACE,
    idle_with=_ALONE,
  )
  cluster_token_file: str = option(
    '',
    'File with the secret that all processes of a run share, readable by its '
    'owner alone; learner 0 makes it if it is missing, the others wait for it. '
    'Default: cluster_token in --logdir.',
    part=Part.PLACE,
    idle_with=_ALONE,
  )
  insecure_loopback: bool = option(
    False,
    'Do without the secret, where learners listen to nobody but this machine: '
    'then every user of it may act, and read the weights.',
    part=Part.PLACE,
    idle_with=_ALONE,
  )
  tls_certificate: str = option(
    '',
    'File (PEM) with the certificate that this process shows to others; all '
    'that is sent is encrypted then. Actors need one only if learners have '
    '--tls_authority.',
    part=Part.PLACE,
    idle_with=_ALONE,
  )
  tls_key: str = option(
    '',
    'File (PEM) with the private key of --tls_certificate.',
    part=Part.PLACE,
    idle_with=_ALONE,
  )
  tls_authority: str = option(
    '',
    'File (PEM) with the certificates by which this process knows others: '
    'actors need it where learners have --tls_certificate; with it, learners '
    'take only actors that show one, too.',
    part=Part.PLACE,
    idle_with=_ALONE,
  )
  tls_name: str = option(
    '',
    "Name that learners' certificates are for, if it is not the host of "
    '--learner_address: behind a tunnel, or for an IP address.',
    part=Part.PLACE,
    idle_with=_ALONE,
  )
  cluster_proxy: bool = option(
    False,
    'Have actors reach learners over the proxy that http_proxy names.',
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

  def check(self) -> None:
    """Refuses what contradicts itself."""
    if self.insecure_loopback and self.cluster_token_file:
      raise ValueError(
        f'--insecure_loopback does without the secret in --cluster_token_file='
        f'{self.cluster_token_file}. Leave one of them out.'
      )
    if bool(self.tls_certificate) != bool(self.tls_key):
      raise ValueError(
        f'--tls_certificate={self.tls_certificate} and --tls_key='
        f'{self.tls_key} belong together. Give both, or neither.'
      )
    self._check_tls()

  def _check_tls(self) -> None:
    """Refuses half of it: what is sent would not be encrypted."""
    if self.learner_address == 'slurm' and self.task < 0:
      return  # Slurm says later whether this is a learner.
    several = self.num_learners > 1
    if self.job_name == 'actor':
      for name in ('tls_certificate', 'tls_name'):
        if getattr(self, name) and not self.tls_authority:
          raise ValueError(
            f'--{name}={getattr(self, name)} is of no use to an actor without '
            '--tls_authority, by which it knows learners. Give that, too.'
          )
    elif self.tls_authority and not self.tls_certificate:
      raise ValueError(
        f'--tls_authority={self.tls_authority} is of no use to a learner '
        'without --tls_certificate and --tls_key of its own. Give them, too.'
      )
    elif self.tls_certificate and not self.tls_authority and several:
      raise ValueError(
        f'--tls_certificate={self.tls_certificate} with --num_learners='
        f'{self.num_learners} needs --tls_authority, by which learners know '
        'each other; actors then need certificates, too.'
      )

  @property
  def is_distributed(self) -> bool:
    """Whether options say that other processes take part; TF_CONFIG apart."""
    return self.task >= 0 or self.learner_address == 'slurm'
