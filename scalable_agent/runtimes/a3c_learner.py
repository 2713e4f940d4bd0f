"""A3C's learner process: gradients of actors, one after the other.

It applies them in the order in which they came, with the optimizer that is
theirs together. Another thread evaluates.
"""

from collections.abc import Sequence
from typing import Any

from scalable_agent import (
  environments,
  gradient_queue,
  networks,
  options,
  queues,
)
from scalable_agent.distribution import cluster as cluster_lib
from scalable_agent.options import EvaluationOptions
from scalable_agent.runtimes import (
  differentiation,
  evaluator,
  learner_process,
  threads,
)
from scalable_agent.transport import credentials, gradient_service

# One that waits, so that the learner need not, and one under way to it. What
# waits gets older.
_CAPACITY = 2


class Run(learner_process.LearnerProcess):
  """Applies what actors compute."""

  def __init__(
    self,
    config: options.Config,
    levels: Sequence[environments.Level],
    cluster: cluster_lib.Cluster,
    own: credentials.Credentials,
  ):
    """Makes the parts; see the base class."""
    super().__init__(config, levels, cluster, own)
    self._evaluator: evaluator.Evaluator | None = None
    if config.of(EvaluationOptions).evaluation_secs:
      self._evaluator = evaluator.Evaluator(
        config, levels, self._training, self.spec
      )

  def _make_queue(self) -> gradient_queue.GradientQueue:
    return gradient_queue.GradientQueue(_CAPACITY)

  def _make_service(
    self, agent: networks.Agent, **arguments: Any
  ) -> gradient_service.GradientService:
    function = differentiation.make_gradient_function(self._config, agent)
    return gradient_service.GradientService(
      options=self._config.differentiating(),
      layout=differentiation.make_layout(self._config, self.spec, function),
      queue=self._queue,
      **arguments,
    )

  def _start_others(self, group: threads.ThreadGroup) -> None:
    if self._evaluator is not None:
      one = self._evaluator
      group.start('evaluator', lambda: one.run(group))

  def _learn_until_done(self, group: threads.ThreadGroup) -> None:
    while not self._training.done():
      try:
        computed = self._queue.get()
      except queues.Closed:
        break
      self._training.metrics.record_unroll(computed.unroll)
      self._training.apply(computed)
      self._publish()
      self._training.save_if_due()
    group.stop()
