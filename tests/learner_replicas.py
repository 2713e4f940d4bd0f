"""A learner under each strategy, for `test_learner_strategies`.

As a program, `main` writes what happened to a file. It is one of its own since
logical devices and a process's place in a cluster are fixed once TensorFlow
runs:

```
mirrored RESULT REPLICAS
worker RESULT INDEX PORT PORT SAVED_BY_ONE
```
"""

import functools
import itertools
import os
import pickle
import signal
import sys

import numpy as np
import tensorflow as tf

from scalable_agent import (
  action_spaces,
  learner,
  networks,
  objectives,
  optimizers,
  policies,
  structures,
)
from scalable_agent.distribution.agreement import Step
from scalable_agent.options import OptimizerOptions, VTraceOptions
from scalable_agent.storage import checkpointing
from scalable_agent.structures import FIRST, LAST, MID

LENGTH = 6
COLUMNS = 8
NUM_ACTIONS = 3
SEED = 2
CASES = {
  'clipped': {'optimizer': 'rmsprop', 'clip': 0.5},
  'lstm': {'optimizer': 'rmsprop', 'clip': 0.0, 'lstm': True},
  'pixels': {'optimizer': 'rmsprop', 'clip': 0.0, 'pixels': True},
  'adam': {'optimizer': 'adam', 'clip': 1e4, 'updates_per_batch': 2},
}
SPEC = structures.EnvironmentSpec(
  observation=structures.TensorSpec((4,), np.dtype(np.float32)),
  action_space=action_spaces.Discrete(NUM_ACTIONS),
  frames_per_step=4,
)
PIXELS = structures.TensorSpec((2, 3, 1), np.dtype(np.uint8))


def make_learner(case, seed=SEED):
  """Returns one of CASES; its learning rate depends on the frames."""
  tf.random.set_seed(seed)
  spec = SPEC._replace(observation=PIXELS) if case.get('pixels') else SPEC
  agent = networks.Agent(
    spec, network='mlp', lstm=case.get('lstm', False), frame_stack=2
  )
  return learner.Learner(
    agent,
    [
      optimizers.make_optimizer(
        OptimizerOptions(optimizer=case['optimizer'], epsilon=0.01)
      )
    ],
    optimizers.learning_rate_schedule(0.01, 2000, 'linear'),
    functools.partial(
      objectives.vtrace_loss,
      VTraceOptions(discounting=0.9, entropy_cost=0.01),
    ),
    functools.partial(
      optimizers.clip_gradients, clip_gradient_norm=case['clip']
    ),
    frames_per_step=SPEC.frames_per_step,
    updates_per_batch=case.get('updates_per_batch', 1),
  )


def make_batches(agent, count=3):
  """Returns batches in which columns have more and more ends of episodes."""
  random = np.random.default_rng(1)
  shape = (LENGTH + 1, COLUMNS)
  has_pixels = len(agent.variables) > len(agent.trainable_variables)

  def floats(*last):
    return random.normal(size=[*shape, *last]).astype(np.float32)

  batches = []
  for _ in range(count):
    step_type = np.full(shape, MID, np.int32)
    for column in range(1, COLUMNS):
      for t in range(0, LENGTH, COLUMNS - column + 1):
        step_type[t, column], step_type[t + 1, column] = LAST, FIRST
    if has_pixels:
      observation = random.integers(
        256, size=[*shape, *PIXELS.shape], dtype=np.uint8
      )
    else:
      observation = floats(4)
    discount = np.where(step_type == LAST, 0, 1).astype(np.float32)
    batches.append(
      structures.ActorOutput(
        agent_state=agent.initial_state(COLUMNS),
        env_outputs=structures.StepOutput(
          step_type, floats(), discount, observation, ()
        ),
        agent_outputs=structures.AgentOutput(
          random.integers(NUM_ACTIONS, size=shape, dtype=np.int32),
          floats(NUM_ACTIONS),
          floats(),
        ),
        policy_version=-random.integers(9, size=COLUMNS),
        level=np.zeros([COLUMNS], np.int32),
      )
    )
  return batches


def state(one):
  """Returns all variables as numpy arrays, by name."""
  slots = {
    f'slots/{i}': v.value for i, v in enumerate(one.optimizers[0].variables)
  }
  weights = {f'weights/{i}': v for i, v in enumerate(one.agent.variables)}
  counters = {'frames': one.frames, 'updates': one.updates}
  return {
    name: variable.numpy()
    for name, variable in {**weights, **slots, **counters}.items()
  }


def train(one, part=slice(None)):
  """Learns from some columns; returns metrics, variables and a snapshot."""
  batches = make_batches(one.agent)
  one.update(cut(batches[0], part))
  weights = [v.numpy() for v in one.agent.variables]
  snapshot = one.snapshot()
  # A batch that only the last replica sees anything wrong with.
  before = state(one)
  dropped = one.update(cut(poisoned(batches[0]), part))
  after = state(one)
  metrics = [one.update(cut(batch, part)) for batch in batches]
  return {
    'dropped': {
      'skipped_steps': int(dropped['skipped_steps']),
      'before': before,
      'after': after,
    },
    'metrics': [{k: v.numpy() for k, v in m.items()} for m in metrics],
    'state': state(one),
    'weights_at_snapshot': weights,
    'snapshot': [x.numpy() for x in snapshot],
  }


def poisoned(batch):
  reward = batch.env_outputs.reward.copy()
  # Of a real transition, which the first of a batch is not.
  reward[2, -1] = np.nan
  return batch._replace(env_outputs=batch.env_outputs._replace(reward=reward))


def cut(batch, part):
  start, stop, _ = part.indices(COLUMNS)
  return structures.slice_columns(batch, start, stop)


def logits_of(one):
  """Returns what a policy with the learner's variables computes."""
  batch = make_batches(one.agent, 1)[0]
  step = policies.make_step(one.agent, policies.Seeds(0))
  output, _ = step(
    structures.StepOutput(*[x[0] for x in batch.env_outputs[:-1]], ()),
    batch.agent_outputs.action[0],
    batch.agent_state,
  )
  return output.policy_logits.numpy()


def checkpointer(one, folder):
  return checkpointing.Checkpointer(folder, one.checkpoint_items())


def run_mirrored(num_replicas):
  cpu = tf.config.list_physical_devices('CPU')[0]
  tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * num_replicas
  )
  devices = [f'CPU:{i}' for i in range(num_replicas)]
  strategy = tf.distribute.MirroredStrategy(devices)
  result = {}
  for name, case in CASES.items():
    with strategy.scope():
      one = make_learner(case)
    result[name] = train(one)
    result[name]['replicas'] = [
      [x.numpy() for x in strategy.experimental_local_results(v)]
      for v in (*one.agent.variables, one.frames, one.updates)
    ]
  result['logits'] = logits_of(one)
  one.broadcast()
  result['agreed'] = [one.agree(step) for step in Step]
  result['traces'] = one._update.experimental_get_tracing_count()
  try:
    one.update(cut(make_batches(one.agent)[0], slice(0, num_replicas + 1)))
  except ValueError as error:
    result['uneven'] = str(error)
  return result


def run_worker(index, ports, saved, folder):
  cluster = tf.train.ClusterSpec({'worker': [f'localhost:{p}' for p in ports]})
  strategy = tf.distribute.MultiWorkerMirroredStrategy(
    tf.distribute.cluster_resolver.SimpleClusterResolver(
      cluster, task_type='worker', task_id=index, rpc_layer='grpc'
    )
  )
  half = COLUMNS // 2
  part = slice(index * half, (index + 1) * half)
  result = {}
  for name, case in CASES.items():
    with strategy.scope():
      one = make_learner(case, SEED + index)
    result[name] = train(one, part)
  result['logits'] = logits_of(one)
  result['agreed'] = [
    one.agree(pair[index]) for pair in itertools.product(Step, Step)
  ]

  # The first alone writes, then reads what a process without strategy wrote.
  if index == 0:
    checkpointer(one, folder).save(int(one.frames.numpy()), None)
    checkpointer(one, saved).restore()
    one.agent.variables[0].assign([-0.0])
    one.agent.variables[2].assign(hard_floats())
    one.frames.assign(2**40 + 1)
  result['before_broadcast'] = state(one)
  one.broadcast()
  result['after_broadcast'] = state(one)

  one.agree(Step.LEARN)
  if index == 1:
    write(result)
    os.kill(os.getpid(), signal.SIGKILL)
  for name in ('failure', 'next_failure'):
    try:
      one.update(cut(make_batches(one.agent)[0], part))
    except tf.errors.OpError as error:
      result[name] = type(error).__name__
  result['after_failure'] = state(one)
  return result


def hard_floats():
  """Returns what a sum with zeros may change, as weights of one layer."""
  values = np.zeros([NUM_ACTIONS], np.float32)
  values[:] = -0.0, 1e-40, np.nan
  return values


def write(result):
  with open(sys.argv[2], 'wb') as file:
    pickle.dump(result, file)


def main():
  kind, result = sys.argv[1:3]
  if kind == 'mirrored':
    write(run_mirrored(int(sys.argv[3])))
  else:
    index, one, two, saved = sys.argv[3:]
    write(run_worker(int(index), [one, two], saved, result + '.logdir'))
  # At once: TensorFlow would wait for a dead process to say goodbye.
  os._exit(0)
