"""What TF_CONFIG, Slurm or Kubernetes say about a cluster and this process.

TensorFlow's resolvers read them, from `os.environ` and the API of Kubernetes.
"""

import os
import re
import time
import types
from typing import Any, NamedTuple

import tensorflow as tf
from absl import logging

# The first port on each host, and the only one in each pod.
BASE_PORT = 8000

_NAMESPACE = '/var/run/secrets/kubernetes.io/serviceaccount/namespace'
_POLL_SECONDS = 2.0


class Placement(NamedTuple):
  """A cluster and the place of this process in it.

  Attributes:
    source: who says so, for messages.
    learners: host:port where each learner listens to its actors.
    num_actors: None where the source does not know.
    job_name: 'learner' or 'actor'; None where the source does not know.
    task: index among the learners or actors; None likewise.
  """

  source: str
  learners: tuple[str, ...]
  num_actors: int | None = None
  job_name: str | None = None
  task: int | None = None


def from_tf_config() -> Placement | None:
  """Returns what TF_CONFIG says, None without one that has learners.

  Raises:
    ValueError: it is malformed.
  """
  resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
  try:
    spec = resolver.cluster_spec()
    job_name, task = resolver.task_type, resolver.task_id
    jobs = {name: _tasks_of(spec, name) for name in spec.jobs}
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    raise ValueError(
      f'TF_CONFIG={os.environ.get("TF_CONFIG")} cannot be read: {error}. '
      'Correct or unset it.'
    ) from error
  if not jobs.get('learner'):
    if jobs:
      # Platforms set one for every program, also where it is the only one.
      logging.log_first_n(
        logging.WARNING,
        'TF_CONFIG has the job(s) %s but no job "learner": it is ignored.',
        1,
        ', '.join(sorted(jobs)),
      )
    return None
  for index, address in enumerate(jobs['learner']):
    if address is None:
      raise ValueError(
        f'TF_CONFIG: learner {index} has no address. List all of them.'
      )
  if job_name not in (None, 'learner', 'actor'):
    raise ValueError(
      f'TF_CONFIG: the task has the type {job_name!r}. It must be "learner" or '
      '"actor".'
    )
  num_actors = len(jobs['actor']) if 'actor' in jobs else None
  learners = tuple(jobs['learner'])
  return Placement('TF_CONFIG', learners, num_actors, job_name, task)


def _tasks_of(spec: tf.train.ClusterSpec, job: str) -> list[str]:
  """Returns the addresses of a job, None for gaps; `job_tasks` fails on []."""
  return spec.job_tasks(job) if spec.num_tasks(job) else []


def from_slurm(num_learners: int) -> Placement:
  """Returns the cluster of a Slurm step: learners first, then actors.

  Args:
    num_learners: tasks of the step that are learners.

  Raises:
    ValueError: this process is not part of a step, the step has no task for
      an actor, or its tasks are not distributed block by block.
  """
  option = '--learner_address=slurm'
  try:
    num_tasks = int(os.environ.get('SLURM_STEP_NUM_TASKS', 0))
    rank = int(os.environ.get('SLURM_PROCID', -1))
    # One make-believe GPU for each task: the resolver lists no more tasks per
    # node than GPUs, and would ask nvidia-smi for their number. Slurm itself
    # sets CUDA_VISIBLE_DEVICES.
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
      {'task': num_tasks},
      port_base=BASE_PORT,
      gpus_per_node=num_tasks,
      gpus_per_task=1,
      auto_set_gpu=False,
    )
    places = resolver.cluster_spec().job_tasks('task')
  except (RuntimeError, ValueError) as error:
    raise ValueError(
      f'{option}: this is no step of Slurm ({error}). Start all processes with '
      'one srun.'
    ) from error
  # The resolver has n10 before n9, Slurm the other way round.
  places.sort(
    key=lambda place: [
      int(part) if part.isdigit() else part
      for part in re.split(r'(\d+)', place)
    ]
  )
  if num_tasks <= num_learners:
    raise ValueError(
      f'{option}: SLURM_STEP_NUM_TASKS={num_tasks} leaves no task for an actor '
      f'beside --num_learners={num_learners}. Raise --ntasks of srun.'
    )
  node = os.environ.get('SLURMD_NODENAME')
  host = places[rank].rpartition(':')[0]
  if node not in (None, host):
    raise ValueError(
      f'{option}: SLURM_PROCID={rank} runs on SLURMD_NODENAME={node}, not on '
      f'{host}. Give srun --distribution=block, or list the addresses in '
      '--learner_address.'
    )
  is_learner = rank < num_learners
  return Placement(
    f'Slurm (SLURM_PROCID={rank}, SLURM_STEP_NUM_TASKS={num_tasks})',
    tuple(places[:num_learners]),
    num_tasks - num_learners,
    'learner' if is_learner else 'actor',
    rank if is_learner else rank - num_learners,
  )


def from_kubernetes(num_learners: int, timeout: float) -> Placement:
  """Returns the cluster of two indexed Jobs, the learners' named `learner`.

  Waits until all learners have an address. Which Job is this process's is up
  to --job_name.

  Args:
    num_learners: completions of the Job `learner`.
    timeout: seconds to wait.

  Raises:
    ValueError: no client, no access, or more learners than expected.
    TimeoutError: not all learners run in time.
  """
  option = '--learner_address=kubernetes'
  kubernetes, pods = _connect(option)
  resolver = tf.distribute.cluster_resolver.KubernetesClusterResolver(
    {'learner': ['job-name=learner']},
    tf_server_port=BASE_PORT,
    override_client=pods,
  )
  deadline = time.monotonic() + timeout
  while True:
    try:
      learners = _tasks_of(resolver.cluster_spec(), 'learner')
      reason = f'{len(learners)} of --num_learners={num_learners} run'
    except kubernetes.client.ApiException as error:
      raise ValueError(
        f'{option}: pods cannot be listed ({error.status} {error.reason}). '
        'Allow its service account to list pods.'
      ) from error
    except RuntimeError as error:  # A pod that does not run yet.
      learners, reason = [], str(error)
    if len(learners) > num_learners:
      raise ValueError(
        f'{option}: {len(learners)} pods have the label job-name=learner, but '
        f'--num_learners={num_learners}. Correct one of them.'
      )
    if len(learners) == num_learners:
      break
    if time.monotonic() >= deadline:
      raise TimeoutError(
        f'{option}: no address of every learner after {timeout:g} s: {reason}. '
        'Look at: kubectl get pods -l job-name=learner'
      )
    time.sleep(_POLL_SECONDS)
  index = os.environ.get('JOB_COMPLETION_INDEX')
  return Placement(
    'Kubernetes' + (f' (JOB_COMPLETION_INDEX={index})' if index else ''),
    tuple(learners),
    task=int(index) if index else None,
  )


def _connect(option: str):
  """Returns the module of Kubernetes' client, and the pods to be seen."""
  try:
    # Not among the requirements, as few have a use for it.
    import kubernetes
  except ImportError as error:
    raise ValueError(
      f'{option} needs the client of Kubernetes. Run: pip install kubernetes'
    ) from error
  try:
    kubernetes.config.load_incluster_config()
    with open(_NAMESPACE, encoding='utf-8') as file:
      namespace = file.read().strip()
  except (kubernetes.config.ConfigException, OSError) as error:
    raise ValueError(
      f'{option}: this is no pod with a service account ({error}). List the '
      'addresses in --learner_address.'
    ) from error
  return kubernetes, _Pods(kubernetes.client.CoreV1Api(), namespace)


class _Pods:
  """What TensorFlow's resolver needs of the API of Kubernetes, in one place.

  The resolver asks for the pods of all namespaces, which few may see; takes
  the address of the node, which is not the pod's; sorts learner-10 before
  learner-2; and stumbles over pods that failed and were replaced.
  """

  def __init__(self, client: Any, namespace: str):
    self._client = client
    self._namespace = namespace

  def list_pod_for_all_namespaces(self, label_selector: str):
    pods = self._client.list_namespaced_pod(
      self._namespace, label_selector=label_selector
    )
    return types.SimpleNamespace(
      items=[
        types.SimpleNamespace(
          metadata=types.SimpleNamespace(name=_sortable(pod.metadata.name)),
          status=types.SimpleNamespace(
            phase=pod.status.phase, host_ip=_bracketed(pod.status.pod_ip)
          ),
        )
        for pod in pods.items
        if pod.status.phase not in ('Failed', 'Succeeded')
      ]
    )


def _sortable(name: str) -> str:
  """learner-2-x7k4q becomes learner-000002-x7k4q."""
  return re.sub(r'(?<=-)\d+(?=-|$)', lambda m: m[0].zfill(6), name, count=1)


def _bracketed(ip: str | None) -> str:
  return f'[{ip}]' if ip and ':' in ip else str(ip)
