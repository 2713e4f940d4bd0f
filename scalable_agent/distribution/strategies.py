"""Which devices and learners share a batch, as a tf.distribute strategy."""

import os
import signal
import threading
from collections.abc import Callable

import tensorflow as tf

from scalable_agent.distribution import addresses
from scalable_agent.distribution.cluster import Cluster


def make_strategy(
  cluster: Cluster | None,
  learner_devices: int,
  meet: Callable[[], None] = lambda: None,
) -> tf.distribute.Strategy:
  """Returns the strategy under which this process creates its learner.

  Must come before any other use of TensorFlow. With several learners, waits
  for all of them; until then, Ctrl-C works.

  Args:
    cluster: who is where; None on a single machine.
    learner_devices: GPUs of this learner, or logical devices of the CPU.
    meet: returns when all learners are about to make theirs; see
      `transport.rendezvous`. May raise more than what follows.

  Raises:
    ValueError: there are fewer GPUs, several learners ask for several devices
      of the CPU each, or the port of the collectives is taken.
    RuntimeError: TensorFlow was used before.
  """
  if cluster is not None and cluster.job_name == 'actor':
    return tf.distribute.get_strategy()
  gpus = tf.config.list_physical_devices('GPU')
  first = _learners_before(cluster) * learner_devices
  if gpus and len(gpus) < first + learner_devices:
    most = len(gpus) // (first // learner_devices + 1)
    raise ValueError(
      f'--learner_devices={learner_devices}: this host has {len(gpus)} GPU(s), '
      f'of which learners before this one take {first}. Lower it to {most}, or '
      'hide all GPUs with CUDA_VISIBLE_DEVICES=.'
    )
  if cluster is not None and len(cluster.learners) > 1:
    return _make_multi_worker(
      cluster,
      gpus[first : first + learner_devices],
      learner_devices,
      meet,
    )
  if learner_devices == 1:
    return tf.distribute.get_strategy()
  if not gpus:
    _split_cpu(learner_devices)
  kind = 'GPU' if gpus else 'CPU'
  return tf.distribute.MirroredStrategy(
    [f'{kind}:{index}' for index in range(learner_devices)]
  )


def _learners_before(cluster: Cluster | None) -> int:
  """Returns how many learners of smaller index are on this one's host."""
  if cluster is None or cluster.task == 0:
    return 0
  hosts = [addresses.split(place)[0] for place in cluster.learners]
  return hosts[: cluster.task].count(hosts[cluster.task])


def _split_cpu(num_devices: int) -> None:
  (cpu,) = tf.config.list_physical_devices('CPU')
  devices = [tf.config.LogicalDeviceConfiguration()] * num_devices
  try:
    tf.config.set_logical_device_configuration(cpu, devices)
  except RuntimeError as error:
    raise RuntimeError(
      f'--learner_devices={num_devices}: TensorFlow was used before the CPU '
      'could be split. Make the strategy first.'
    ) from error


def _make_multi_worker(cluster, gpus, learner_devices, meet):
  if not gpus and learner_devices > 1:
    raise ValueError(
      f'--learner_devices={learner_devices} with --num_learners='
      f'{len(cluster.learners)}: on the CPU, TensorFlow allows one device per '
      'learner. Leave one of them out.'
    )
  own = cluster.collectives[cluster.task]
  addresses.check_free(own, f'{cluster.source} (collectives)')
  port = own.rpartition(':')[2]
  # TensorFlow listens on all interfaces, whatever the host.
  addresses.check_free(f'0.0.0.0:{port}', f'{cluster.source} (collectives)')
  if gpus:
    try:
      tf.config.set_visible_devices(gpus, 'GPU')
    except RuntimeError as error:
      raise RuntimeError(
        f'--learner_devices={learner_devices}: TensorFlow was used before the '
        'other GPUs could be hidden. Make the strategy first.'
      ) from error
  resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
    tf.train.ClusterSpec({'worker': list(cluster.collectives)}),
    task_type='worker',
    task_id=cluster.task,
    num_accelerators={'GPU': len(gpus)} if gpus else {},
    rpc_layer='grpc',
  )
  # Of TensorFlow's own channels; a proxy would be no learner.
  hosts = [addresses.split(place)[0] for place in cluster.collectives]
  os.environ.setdefault('no_grpc_proxy', ','.join(hosts))
  meet()
  # TensorFlow takes note of SIGTERM, for its checkpoints at preemption, and
  # goes on: neither `kill` nor the end of a pod would end this process.
  on_terminate = signal.getsignal(signal.SIGTERM)
  try:
    return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
  except RuntimeError as error:
    raise RuntimeError(
      f'--num_learners={len(cluster.learners)}: TensorFlow was used before the '
      'learners could be joined. Make the strategy first.'
    ) from error
  finally:
    if threading.current_thread() is threading.main_thread():
      signal.signal(signal.SIGTERM, on_terminate)
