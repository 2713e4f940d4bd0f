"""A suite, an algorithm, their options and a torso, all from outside.

--plugin=tests.plugin makes them known.
"""

import dataclasses
import functools

import numpy as np
import sonnet as snt
import tensorflow as tf

from scalable_agent import (
  action_spaces,
  actor,
  environments,
  objectives,
  options,
  policies,
  structures,
)
from scalable_agent.environments import Level
from scalable_agent.options import option
from scalable_agent.runtimes import Algorithm, training, worlds
from scalable_agent.storage import logdirs

# The suite.


@dataclasses.dataclass(frozen=True)
class CountingOptions(options.RepeatOptions):
  """Counting."""

  counting_length: int = option(
    4,
    'Steps of an episode.',
    unit='agent steps',
    minimum=1,
    part=options.Part.ACTING,
    fixed=True,
    line=options.Line.LEVEL,
  )


class CountingEnvironment(environments.BatchedEnvironment):
  """Observations count the steps; the action 1 gives a reward of 1."""

  def __init__(self, level, num_envs, chosen, seed, render):
    spec = structures.EnvironmentSpec(
      observation=structures.TensorSpec((1,), np.dtype(np.float32)),
      action_space=action_spaces.Discrete(2),
      frames_per_step=chosen.num_action_repeats,
    )
    super().__init__(level, num_envs, spec, seed, render)
    self._length = chosen.counting_length
    self._count = 0

  def _observation(self):
    return np.full([self.num_envs, 1], self._count, np.float32)

  def _reset(self):
    self._count = 0
    return self._observation()

  def _step(self, actions):
    # All environments start together and last as long as each other.
    self._count = (self._count + 1) % (self._length + 1)
    ended = np.full([self.num_envs], self._count == self._length)
    return environments.Arrival(
      observation=self._observation(),
      reward=(actions == 1).astype(np.float32),
      terminated=ended,
      truncated=np.zeros_like(ended),
    )


class Counting(environments.Suite):
  name = 'counting'
  help = 'up and down.'
  options = CountingOptions
  defaults = {'num_action_repeats': 3}  # noqa: RUF012
  presets = {'onestep': {'auto': {'learning_rate': 0.25}}}  # noqa: RUF012

  def parse(self, level_name):
    return Level(self, level_name) if level_name in ('up', 'down') else None

  def level_names(self):
    return ('up', 'down')

  def make(self, level, num_envs, chosen, seed, purpose):
    return CountingEnvironment(level, num_envs, chosen, seed, purpose.render)


# The torso.


class Affine(snt.Module):
  """One layer."""

  def __init__(self, observation):
    super().__init__()
    self._layer = snt.Linear(8)

  def __call__(self, observation):
    return self._layer(snt.flatten(tf.cast(observation, tf.float32)))


# The algorithm.


@dataclasses.dataclass(frozen=True)
class OneStepOptions:
  """One step."""

  onestep_greeting: str = option(
    'hello', 'What is said at the end.', line=options.Line.RUN
  )


class OneStep(Algorithm):
  """One actor and one learner, turn by turn."""

  name = 'onestep'
  help = 'one after the other.'
  options = (OneStepOptions, options.ActorOptions, options.VTraceOptions)
  presets = {'auto': {'learning_rate': 0.5, 'batch_size': 4}}  # noqa: RUF012

  def make_loss(self, config):
    return functools.partial(
      objectives.vtrace_loss, config.of(options.VTraceOptions)
    )

  def prepare(self, config, levels, cluster, given):
    lock = logdirs.prepare_logdir(config.run.logdir, config)
    print(options.describe(config, given, levels[0].suite))
    num_envs = config.actors.envs_per_actor
    environment = worlds.make_environment(
      config, levels[0], num_envs, config.run.seed
    )
    run = training.Training(config, levels, environment.spec)
    logdirs.write_config(config.run.logdir, config)
    one = actor.Actor(
      environment,
      policies.Direct(
        policies.make_step(run.agent, policies.Seeds(config.run.seed))
      ),
      run.agent.initial_state(num_envs),
      config.actors.unroll_length,
      level=0,
      policy_version=run.updates,
    )

    def train():
      with lock, run.metrics:
        while not run.done():
          unroll = one.unroll()
          run.metrics.record_unroll(unroll)
          run.update(unroll)
        run.save()
      print(f'{config.of(OneStepOptions).onestep_greeting} {run.frames()}')

    return train


SUITES = (Counting(),)
ALGORITHMS = (OneStep(),)
