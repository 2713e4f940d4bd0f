"""IMPALA in one process.

Actor threads step their environments and have the agent evaluated by an
inference thread behind the dynamic batcher, with the learner's live variables.
A learner thread takes their unrolls from a bounded queue. The main thread
waits, reports and listens to signals.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from dynamic_batching import ops
from scalable_agent import actor, environments, policies
from scalable_agent.options import Config
from scalable_agent.runtimes import assembly, interruption, threads, training
from scalable_agent.storage import checkpointing, files

# Seconds between two looks at signals and reports.
_TICK = 0.2
# Seconds that all threads together have to end.
_JOIN_TIMEOUT = 60.0
# Of the dynamic batcher, by --batcher.
_IMPLEMENTATIONS = {'auto': None, 'op': 'op', 'python': 'fallback'}


def train(run: 'Run') -> None:
  """Trains until the frames are learned from, SIGINT or SIGTERM.

  Raises:
    training.RunError: it cannot go on; what was learned is saved.
    files.WriteError: a report or a checkpoint could not be written.
    Exception: the first failure of any thread, after everything has stopped.
  """
  with interruption.Interruption(run.stop) as interrupted:
    run.train()
  if interrupted:
    logging.info(
      'Stopped at %d frames by %s. Run the same command to go on.',
      run.frames(),
      interrupted.name,
    )


class Run:
  """One process's training: the parts, and how they are connected.

  Attributes:
    spec: EnvironmentSpec of what is played.
  """

  def __init__(
    self,
    config: Config,
    levels: Sequence[environments.Level],
    strategy: tf.distribute.Strategy | None = None,
  ):
    """Makes the parts; goes on with what is in the logdir.

    Args:
      config: resolved and validated.
      levels: what to play, alike to the agent; actor i plays
        levels[i % len(levels)].
      strategy: that the learner works under; None = the default one.

    Raises:
      ValueError: a level cannot be made with these options, the checkpoints
        in the logdir are damaged or of another agent, or there is no native
        batcher though --batcher=op asks for it.
    """
    if config.batching.batcher == 'op':
      _check_native_batcher()
    self._config = config
    self._levels = levels
    seed = _environment_seed(config)
    self._environments = [
      assembly.make_environment(
        config,
        levels[index % len(levels)],
        config.actors.envs_per_actor,
        seed=seed + index * config.actors.envs_per_actor,
        # In serial mode a resumed run goes on bit for bit.
        replayable=config.actors.num_actors == 0,
      )
      for index in range(max(config.actors.num_actors, 1))
    ]
    self.spec = self._environments[0].spec
    self._training = training.Training(config, levels, self.spec, strategy)
    self._queue = self._training.queue
    self._metrics = self._training.metrics
    self._seeds = policies.Seeds(config.run.seed)
    self._actors: list[actor.Actor] = []
    self._policy: Any = None
    self._stopped = False
    self._restored = self._training.restore()
    self._seeds.count = int(self._restored.get('seeds', 0))

  def frames(self) -> int:
    """Returns the environment frames learned from so far."""
    return self._training.frames()

  def stop(self) -> None:
    """Has `train` save and return soon; takes no lock, for signal handlers."""
    self._stopped = True

  def train(self) -> None:
    """Runs until the frames are learned from, `stop` or a failure."""
    try:
      if not self._training.done():
        self._train()
    finally:
      for environment in self._environments:
        environment.close()

  def _train(self) -> None:
    serial = self._config.actors.num_actors == 0
    self._make_actors(serial)
    with self._metrics:
      self._metrics.set_gauges(self._gauges)
      if serial:
        self._restore_serial()
        self._train_serially()
      else:
        self._train_in_threads()
      self._save()

  def _make_actors(self, serial: bool) -> None:
    config = self._config
    step = policies.make_step(self._training.agent)
    initial_state = self._training.agent.initial_state(
      config.actors.envs_per_actor
    )
    if serial:
      self._policy = policies.Direct(step, self._seeds)
    else:
      self._policy = policies.Batched(
        step,
        self._seeds,
        self.spec,
        initial_state,
        config.batching.inference_minimum_batch_size,
        config.batching.inference_maximum_batch_size,
        config.batching.inference_timeout_ms,
        _IMPLEMENTATIONS[config.batching.batcher],
      )
    self._actors = [
      actor.Actor(
        environment,
        self._policy,
        initial_state,
        config.actors.unroll_length,
        level=index % len(self._levels),
        policy_version=self._training.updates,
      )
      for index, environment in enumerate(self._environments)
    ]

  def _train_serially(self) -> None:
    try:
      while not self._training.done() and not self._stopped:
        while not self._queue.ready:
          unroll = self._actors[0].unroll()
          # First what a checkpoint holds: a report may fail.
          self._queue.put(unroll)
          self._metrics.record_unroll(unroll)
        self._training.learn()
        self._training.save_if_due(self._state)
    except (files.WriteError, training.RunError):
      self._training.rescue(self._state())
      raise

  def _train_in_threads(self) -> None:
    group = threads.ThreadGroup(_JOIN_TIMEOUT)
    try:
      with group:
        group.on_stop(self._queue.close)
        group.on_stop(self._policy.close)
        group.start('inference', lambda: self._policy.serve(group.fail))
        for index in range(len(self._actors)):
          group.start(
            f'actor_{index}', functools.partial(self._act, index, group)
          )
        group.start('learner', lambda: self._learn_until_done(group))
        while not group.wait_for_stop(_TICK):
          self._metrics.maybe_report()
          if self._stopped:
            group.stop()
    except (threads.StuckError, files.WriteError, training.RunError):
      # None of them must cost what was learned.
      if 'learner' not in group.running:
        self._training.rescue(self._state())
      raise

  def _act(self, index: int, group: threads.ThreadGroup) -> None:
    while not group.stopping:
      unroll = self._actors[index].unroll()
      self._metrics.record_unroll(unroll)
      self._queue.put(unroll, index)

  def _learn_until_done(self, group: threads.ThreadGroup) -> None:
    while not group.stopping and not self._training.done():
      self._training.learn()
      self._training.save_if_due(self._state)
    group.stop()

  def _save(self) -> None:
    self._training.save(self._state())

  def _state(self) -> dict[str, Any]:
    """What a checkpoint holds besides what the learner's side saves."""
    state: dict[str, Any] = {'seeds': self._seeds.count}
    if self._config.actors.num_actors == 0:
      state['serial'] = {
        'sizes': self._sizes(),
        'actor': self._actors[0].snapshot(),
        'queue': self._queue.snapshot(),
      }
    return state

  def _restore_serial(self) -> None:
    state = self._restored.get('serial')
    if state is None:
      return
    if list(state['sizes']) != self._sizes():
      logging.warning(
        'Episodes begin anew: --envs_per_actor or --unroll_length has changed.'
      )
      return
    self._actors[0].restore(state['actor'])
    self._queue.restore(state['queue'])

  def _sizes(self) -> list[int]:
    """What a saved state must share with the run that goes on from it."""
    return [
      self._config.actors.envs_per_actor,
      self._config.actors.unroll_length,
    ]

  def _gauges(self) -> dict[str, Any]:
    # Seconds of each stage are per thread: that is what can reach one a second.
    gauges: dict[str, Any] = {
      'stage_seconds': {
        'environment': sum(one.environment_seconds for one in self._actors)
        / len(self._actors),
        'inference': self._policy.seconds,
        'learner': self._training.learner_seconds,
      },
    }
    if isinstance(self._policy, policies.Batched):
      gauges['queue_fill'] = self._training.queue_fill()
      gauges['batcher'] = self._policy.statistics()
    return gauges


def _check_native_batcher() -> None:
  try:
    ops.load()
  except ImportError as error:
    raise ValueError(
      f'--batcher=op: {error} Install a C++ compiler (apt-get install g++), or '
      'choose --batcher=auto to do without.'
    ) from error


def _environment_seed(config: Config) -> int:
  """Returns the seed of the first environment.

  Where episodes begin anew at every start of a run, they are to be others.
  """
  frames = checkpointing.saved_frames(config.run.logdir)
  if config.actors.num_actors == 0 or not frames:
    return config.run.seed
  word = np.random.SeedSequence([config.run.seed, frames[-1]]).generate_state(
    1
  )[0]
  # Environments take 31 bits and add their index.
  return int(word) >> 2
