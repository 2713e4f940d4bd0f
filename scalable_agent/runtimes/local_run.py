"""What every training in one process has: environments, learner, an end."""

import contextlib
import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from scalable_agent import environments, policies
from scalable_agent.options import Config
from scalable_agent.runtimes import (
  assembly,
  interruption,
  threads,
  training,
  worlds,
)
from scalable_agent.storage import checkpointing, files, logdirs

# Seconds between two looks at signals and reports.
_TICK = 0.2


def train(run: Any, advice: str = 'Run the same command to go on.') -> None:
  """Trains until the frames are learned from, SIGINT or SIGTERM.

  Args:
    run: a LocalRun, or a LearnerProcess.
    advice: to whoever has stopped it.

  Raises:
    algorithm.Ended: it cannot go on; what was learned is saved.
    files.WriteError: a report or a checkpoint could not be written.
    Exception: the first failure of any thread, after everything has stopped.
  """
  with interruption.Interruption(run.stop) as interrupted:
    run.train()
  if interrupted:
    logging.info(
      'Stopped at %d frames by %s. %s', run.frames(), interrupted.name, advice
    )


def prepare(
  config: Config,
  levels: Sequence[environments.Level],
  given: Collection[str],
  make_run: Callable[[], 'LocalRun'],
) -> Callable[[], None]:
  """Makes a run with its logdir; see `Algorithm.prepare`.

  Args:
    config: resolved and validated.
    levels: of the run.
    given: names of the options that the user set.
    make_run: makes the run, once the logdir is found to be fit for it.

  Returns:
    The training.
  """
  with contextlib.ExitStack() as stack:
    logdir = config.run.logdir
    stack.enter_context(logdirs.prepare_logdir(logdir, config))
    assembly.describe(config, levels, given)
    run = make_run()
    if not run.done():
      logdirs.write_config(logdir, config)
    return within(stack.pop_all(), functools.partial(train, run))


def within(
  stack: contextlib.ExitStack, train: Callable[[], None]
) -> Callable[[], None]:
  """Returns `train`, at the end of which what is on the stack is closed."""

  def train_and_close() -> None:
    with stack:
      train()

  return train_and_close


class LocalRun:
  """One process's training; an algorithm's says how the parts are connected.

  Attributes:
    spec: EnvironmentSpec of what is played.
  """

  # Seconds that all threads together have to end.
  join_timeout = 60.0

  def __init__(
    self,
    config: Config,
    levels: Sequence[environments.Level],
    num_actors: int,
    strategy: tf.distribute.Strategy | None = None,
    replayable: bool = False,
  ):
    """Makes the parts; goes on with what is in the logdir.

    Args:
      config: resolved and validated.
      levels: what to play, alike to the agent; the actors take turns, see
        `environments.deal`.
      num_actors: each with environments of its own.
      strategy: that the learner works under; None = the default one.
      replayable: whether a run that goes on does so in the midst of episodes;
        else they begin anew.

    Raises:
      ValueError: a level cannot be made with these options, or the checkpoints
        in the logdir are damaged or of another agent.
    """
    self._config = config
    self._levels = levels
    self._num_envs = config.actors.envs_per_actor
    self._deal = worlds.deal(config, levels)
    seed = config.run.seed if replayable else _environment_seed(config)
    self._make_environment = functools.partial(
      _make_environment,
      config,
      [levels[i] for i in self._deal],
      seed,
      replayable,
    )
    self._environments = [
      self._make_environment(index) for index in range(num_actors)
    ]
    self.spec = self._environments[0].spec
    self._training = training.Training(config, levels, self.spec, strategy)
    self._metrics = self._training.metrics
    self._seeds = policies.Seeds(config.run.seed)
    self._stopped = False
    self._restored = self._training.restore()
    if 'seeds' in self._restored:
      self._seeds.set_state(self._restored['seeds'])

  def frames(self) -> int:
    """Returns the environment frames learned from so far."""
    return self._training.frames()

  def done(self) -> bool:
    """Whether enough has been learned from."""
    return self._training.done()

  def stop(self) -> None:
    """Has `train` save and return soon; takes no lock, for signal handlers."""
    self._stopped = True

  def train(self) -> None:
    """Runs until the frames are learned from, `stop` or a failure."""
    try:
      if not self._training.done():
        self._prepare()
        with self._metrics:
          self._metrics.set_gauges(self._gauges)
          self._train()
          self._training.save(self._state())
    finally:
      for environment in self._environments:
        environment.close()

  def _level_of(self, index: int) -> int:
    """Returns the index of the level that an actor plays."""
    return self._deal[index % len(self._deal)]

  def _prepare(self) -> None:
    """Makes what only a run that is not over needs."""
    raise NotImplementedError

  def _train(self) -> None:
    """Trains until `Training.done`, `_stopped` or a failure."""
    raise NotImplementedError

  def _gauges(self) -> dict[str, Any]:
    """Returns what to report; see `Metrics.set_gauges`."""
    raise NotImplementedError

  def _state(self) -> dict[str, Any]:
    """Returns what a checkpoint holds besides what the learner's side saves."""
    return {'seeds': self._seeds.get_state()}

  @contextlib.contextmanager
  def _threads(self, saves: str) -> Iterator[threads.ThreadGroup]:
    """Threads to start within; leaving it waits for their end.

    Args:
      saves: the thread that saves, begins with this; where one is stuck, what
        was learned is not saved beside it.
    """
    group = threads.ThreadGroup(self.join_timeout)
    try:
      with group:
        yield group
        while not group.wait_for_stop(_TICK):
          self._metrics.maybe_report()
          if self._stopped:
            group.stop()
    except (threads.StuckError, files.WriteError, training.RunError):
      # None of them must cost what was learned.
      if not any(name.startswith(saves) for name in group.running):
        self._training.rescue(self._state())
      raise


def _make_environment(
  config: Config,
  levels: Sequence[environments.Level],
  seed: int,
  replayable: bool,
  index: int,
  number: int | None = None,
) -> environments.BatchedEnvironment:
  """Returns the environments of an actor.

  Args:
    config: resolved and validated.
    levels: that actors take turns with.
    seed: of the first actor's first one.
    replayable: see `LocalRun`.
    index: of the actor, by which it has its level.
    number: by which it has its seeds, where another actor of the same index
      has had those of the index.
  """
  num_envs = config.actors.envs_per_actor
  return worlds.make_environment(
    config,
    levels[index % len(levels)],
    num_envs,
    seed=seed + (index if number is None else number) * num_envs,
    replayable=replayable,
  )


def _environment_seed(config: Config) -> int:
  """Returns the seed of the first environment, another at every start."""
  frames = checkpointing.saved_frames(config.run.logdir)
  if not frames:
    return config.run.seed
  word = np.random.SeedSequence([config.run.seed, frames[-1]]).generate_state(
    1
  )[0]
  # Environments take 31 bits and add their index.
  return int(word) >> 2
