"""What runs on a GPU, or on the CPU in its place, measured case by case.

Each function measures one case, in a process of its own.
"""

import json
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tree

from benchmarks import children, meters, parts, settings
from scalable_agent import structures
from scalable_agent.distribution import strategies
from scalable_agent.runtimes import assembly, training, worlds

Result = dict[str, Any]
# That runs a case.
PROGRAM = str(pathlib.Path(__file__).with_name('accelerator.py'))
# Seconds for another process to use the GPU.
_OTHER_TIMEOUT = 120.0
# Environments that are made; more rows or columns repeat theirs.
_MOST_ENVS = 16
# Calls before those that are measured: tracing, choosing of algorithms.
_WARM_UP = 5
# Of one call at least, as many as the percentiles need.
_FEWEST = 20


def find(case: Mapping[str, Any]) -> Result:
  """Returns what there is to measure on."""
  del case
  return {
    'tensorflow': tf.__version__,
    'gpus': [
      tf.config.experimental.get_device_details(one).get(
        'device_name', one.name
      )
      for one in tf.config.list_physical_devices('GPU')
    ],
  }


def _config(case: Mapping[str, Any], **given: Any):
  """Returns options and level; `given` on top of those of the case."""
  level_name = case.get('level_name', 'pong')
  given = case.get('options', {}) | given
  config, level = settings.make_config(
    level_name, case.get('preset', 'auto'), given
  )
  assembly.use_threads(config)
  return config, level


def _environment(config, level, most: int):
  num_envs = min(most, _MOST_ENVS)
  return worlds.make_environment(config, level, num_envs, config.run.seed)


def _time(call: Callable[[], Any], seconds: float, size: int) -> Result:
  """Calls again and again.

  Args:
    call: returns when its results are there.
    seconds: to go on for.
    size: of what a call is for, in rows or agent steps.

  Returns:
    Latencies in milliseconds, and `size` by the second.
  """
  start = time.perf_counter()
  call()
  first = time.perf_counter() - start
  for _ in range(_WARM_UP):
    call()
  latencies = []
  start = time.perf_counter()
  end = start + seconds
  while time.perf_counter() < end or len(latencies) < _FEWEST:
    before = time.perf_counter()
    call()
    latencies.append(time.perf_counter() - before)
  p50, p99 = 1000 * np.percentile(latencies, [50, 99])
  elapsed = time.perf_counter() - start
  return {
    'p50_ms': p50,
    'p99_ms': p99,
    'per_second': size * len(latencies) / elapsed,
    'first_call_s': first,
    **_peak(),
  }


def _peak() -> Result:
  """Returns the most memory so far, of the first GPU or else of the process."""
  if not tf.config.list_physical_devices('GPU'):
    return {'peak_mib': meters.peak_rss_mib(), 'memory': 'process'}
  used = tf.config.experimental.get_memory_info('GPU:0')['peak']
  return {'peak_mib': used / 2**20, 'memory': 'GPU:0'}


def inference(case: Mapping[str, Any]) -> Result:
  """The agent's step, from arrays to arrays, called by one thread.

  Args:
    case: `rows`, `seconds`, `options`.
  """
  config, level = _config(case)
  rows = case['rows']
  env = _environment(config, level, rows)
  agent = assembly.make_agent(config, env.spec)
  policy = parts.make_policy(agent)
  output = tree.map_structure(
    lambda x: np.take(x, np.arange(rows) % env.num_envs, 0), env.reset()
  )
  action = structures.agent_output_spec(env.spec.action_space).action
  actions = np.zeros([rows, *action.shape], action.dtype)
  state = agent.initial_state(rows)

  def call() -> None:
    nonlocal state
    answer, state = policy(output, actions, state)
    np.asarray(answer.action)

  return _time(call, case['seconds'], rows)


def _learner(case: Mapping[str, Any]):
  """Returns options, a learner and a batch for it, the same on all devices."""
  config, level = _config(case)
  # The first use of TensorFlow, as of `learner_devices`.
  strategy = strategies.make_strategy(None, case.get('devices', 1))
  env = _environment(config, level, config.batches.batch_size)
  with strategy.scope():
    agent = assembly.make_agent(config, env.spec)
    learner = training.make_learner(config, agent, env.spec)
  batch = parts.make_batch(config, env, _Random(env), agent)
  return config, learner, batch


class _Random:
  """A policy that draws evenly, of any device the same."""

  def __init__(self, env):
    self._space = env.spec.action_space
    self._specs = structures.agent_output_spec(self._space)
    self._generator = np.random.default_rng(1)

  def __call__(self, env_output, last_action, state):
    """Returns actions for [E, ...] observations, and the state."""
    rows = len(last_action)
    zeros = tree.map_structure(
      lambda spec: np.zeros([rows, *spec.shape], spec.dtype), self._specs
    )
    return zeros._replace(
      action=self._space.sample(self._generator, rows)
    ), state


def learner(case: Mapping[str, Any]) -> Result:
  """Updates of one batch again and again.

  Args:
    case: `seconds`, `options`, and `devices` that share each of them, or one.
  """
  config, one, batch = _learner(case)
  size = config.batches.batch_size * config.actors.unroll_length
  return _time(
    lambda: float(one.update(batch)['gradient_norm']), case['seconds'], size
  )


def whole(case: Mapping[str, Any]) -> Result:
  """A training of a preset.

  Args:
    case: `level_name`, `preset`, `warm_up`, `seconds`, `options`.
  """
  config, level = _config(case)
  window = parts.Window(case['warm_up'], case['seconds'])
  return parts.PARTS['training'](config, level, window) | _peak()


def update(case: Mapping[str, Any]) -> Result:
  """What one update makes of some weights.

  Args:
    case: `device`, CPU or GPU; `file`, for the changes; `options`.

  Returns:
    Metrics of the update, by name.
  """
  if case['device'] == 'CPU':
    tf.config.set_visible_devices([], 'GPU')
  _, one, batch = _learner(case)
  variables = one.agent.trainable_variables
  before = [variable.numpy() for variable in variables]
  values = one.update(batch)
  # By place: layers of one kind share their name.
  changes = [
    variable.numpy() - old
    for variable, old in zip(variables, before, strict=True)
  ]
  np.savez(case['file'], *changes)
  return {
    'loss': {name: float(value) for name, value in values.items()},
    'device': variables[0].device,
  }


def hold(case: Mapping[str, Any]) -> Result:
  """Uses the GPU while other processes do, too.

  Args:
    case: `others`, how many more do.
  """
  held = tf.random.normal([1024, 1024])
  if case['others']:
    # Each starts the next, so that all hold memory at one time.
    others = {'function': 'hold', 'others': case['others'] - 1}
    result = children.run(
      PROGRAM, [f'--case={json.dumps(others)}'], _OTHER_TIMEOUT
    )
    if 'failed' in result:
      raise RuntimeError(f'a process beside it: {result["failed"]}')
  float(tf.reduce_sum(held))
  return _peak()


FUNCTIONS = {
  one.__name__: one for one in (find, inference, learner, whole, update, hold)
}
