"""Plays an episode now and then while the training goes on."""

import contextlib
from collections.abc import Sequence
from typing import Any

from scalable_agent import environments, evaluation, policies
from scalable_agent.options import Config, EvaluationOptions
from scalable_agent.runtimes import assembly, test, threads, training, worlds

# As pytorch-a3c's guard, which counts rewarded ones as well: a policy that does
# the same for ever, such as never to press FIRE, would play for ever, too.
_MOST_EQUAL_ACTIONS = 100


class Evaluator:
  """As pytorch-a3c's test process; a thread runs it.

  Each episode is another one, and none of a training; levels take turns.
  """

  def __init__(
    self,
    config: Config,
    levels: Sequence[environments.Level],
    training_: training.Training,
    spec: Any,
  ):
    """Initialises.

    Args:
      config: resolved and validated.
      levels: to play.
      training_: whose weights play; not under a strategy.
      spec: EnvironmentSpec of the levels.
    """
    self._config = config
    self._levels = levels
    self._training = training_
    # It never updates.
    self._copy = training_.learner.make_worker(
      assembly.make_agent(config, spec)
    )
    seeds = policies.Seeds(test.sampling_seed(config.run.seed))
    self._policy = policies.Direct(policies.make_step(self._copy.agent, seeds))

  def run(self, group: threads.ThreadGroup) -> None:
    """Plays, waits and plays again until the group stops."""
    secs = self._config.of(EvaluationOptions).evaluation_secs
    number = self._training.metrics.num_evaluations
    while not group.stopping:
      self._play(number, group)
      number += 1
      group.wait_for_stop(secs)

  def _play(self, number: int, group: threads.ThreadGroup) -> None:
    index = number % len(self._levels)
    environment = worlds.make_environment(
      self._config,
      self._levels[index],
      num_envs=1,
      seed=test.environment_seed(self._config.run.seed) + number % 2**16,
      test=True,
    )
    with contextlib.closing(environment):
      frames = self._training.frames()
      self._copy.synchronise()
      episode = evaluation.play_episode(
        self._policy,
        environment,
        self._copy.agent.initial_state(1),
        _MOST_EQUAL_ACTIONS,
        lambda: group.stopping,
      )
    if episode is not None:
      now = self._training.frames()
      self._training.metrics.record_evaluation(frames, now, index, *episode)
