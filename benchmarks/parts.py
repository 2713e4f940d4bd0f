"""The parts of a training, and the training, each measured alone.

Environments in one thread per actor, inference in one thread per actor, the
learner with one operation spread over all cores.
"""

import tempfile
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from benchmarks import meters
from scalable_agent import actor as actor_lib
from scalable_agent import environments, options, policies, structures
from scalable_agent.runtimes import (
  assembly,
  cores,
  impala_local,
  threads,
  training,
  worlds,
)


class Window(NamedTuple):
  """When to measure.

  Attributes:
    warm_up: seconds before, after the first step.
    seconds: measured.
  """

  warm_up: float
  seconds: float


def _environments(config, level) -> list[environments.BatchedEnvironment]:
  actors = config.actors
  return [
    worlds.make_environment(
      config, level, actors.envs_per_actor, seed=i * actors.envs_per_actor
    )
    for i in range(actors.num_actors)
  ]


def environment(config, level, window: Window) -> dict[str, Any]:
  """Random actions, by as many threads as there are actors."""
  envs = _environments(config, level)
  generators = [np.random.default_rng(i) for i in range(len(envs))]
  for env in envs:
    env.reset()

  def step(index: int) -> int:
    env = envs[index]
    env.step(env.spec.action_space.sample(generators[index], env.num_envs))
    return env.num_envs

  return meters.measure_threads(step, len(envs), *window)


def make_policy(agent) -> policies.Direct:
  """Returns what evaluates the agent in the thread that asks."""
  return policies.Direct(policies.make_step(agent, policies.Seeds(1)))


def inference(config, level, window: Window) -> dict[str, Any]:
  """The agent on the rows of an actor, by as many threads as there are."""
  env = _environments(config, level)[0]
  agent = assembly.make_agent(config, env.spec)
  policy = make_policy(agent)
  output = env.reset()
  action = structures.agent_output_spec(env.spec.action_space).action
  actions = np.zeros([env.num_envs, *action.shape], action.dtype)
  states = [agent.initial_state(env.num_envs)] * config.actors.num_actors

  def step(index: int) -> int:
    answer, states[index] = policy(output, actions, states[index])
    np.asarray(answer.action)
    return env.num_envs

  return meters.measure_threads(step, config.actors.num_actors, *window)


def make_batch(
  config, env: environments.BatchedEnvironment, policy, agent
) -> structures.ActorOutput:
  """Returns a batch of what a policy does in some environments.

  Args:
    config: resolved.
    env: fewer environments than columns are repeated.
    policy: that acts; see `policies`.
    agent: that has the state.
  """
  batch = actor_lib.Actor(
    env,
    policy,
    agent.initial_state(env.num_envs),
    config.actors.unroll_length,
  ).unroll()
  size = config.batches.batch_size

  def columns(axis: int, x: np.ndarray) -> np.ndarray:
    return np.take(x, np.arange(size) % x.shape[axis], axis)

  return structures.map_columns(columns, batch)


def learner(config, level, window: Window) -> dict[str, Any]:
  """Updates of the same batch again and again."""
  env = _environments(config, level)[0]
  agent = assembly.make_agent(config, env.spec)
  one = training.make_learner(config, agent, env.spec)
  batch = make_batch(config, env, make_policy(agent), agent)

  def step(_) -> int:
    int(one.update(batch)['updates'])
    return config.batches.batch_size * config.actors.unroll_length

  return meters.measure_threads(step, 1, *window)


class _Run(impala_local.Run):
  """A training that tells where its time goes."""

  def read(self) -> meters.Counts:
    """Returns seconds of each stage, per thread, and CPU seconds."""
    return {
      'busy': self._gauges()['stage_seconds'],
      'cpu': meters.cpu_of_threads(),
    }


def whole(config, level, window: Window) -> dict[str, Any]:
  """A training.

  Returns:
    See `meters.measure`. `busy`: seconds per second that a thread of each stage
    works, or waits for a core or for Python's lock; `cpu`: CPU seconds per
    second by kind of thread.
  """
  with tempfile.TemporaryDirectory() as logdir:
    config = config.replace(logdir=logdir)
    run = _Run(config, [level])
    with threads.ThreadGroup() as group:
      group.on_stop(run.stop)
      group.start('training', run.train)
      return meters.measure(
        group,
        lambda: run.frames() / run.spec.frames_per_step,
        *window,
        run.read,
      )


PARTS = {
  'environment': environment,
  'inference': inference,
  'learner': learner,
  'training': whole,
}


def measure(
  part: str, config: options.Config, level: environments.Level, window: Window
) -> dict[str, Any]:
  """Measures one of `PARTS`; before any other use of TensorFlow.

  Returns:
    What the part says, and `peak_rss_mib`, `num_actors`, `envs_per_actor`.
  """
  if part == 'learner':
    tf.config.threading.set_intra_op_parallelism_threads(cores.usable_cores())
  else:
    assembly.use_threads(config)
  result = PARTS[part](config, level, window)
  # Only now: the training may still have been growing.
  return result | {
    'peak_rss_mib': meters.peak_rss_mib(),
    'num_actors': config.actors.num_actors,
    'envs_per_actor': config.actors.envs_per_actor,
  }
