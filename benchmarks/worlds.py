"""Which levels of a suite can be played and trained on: tries them all.

  python benchmarks/worlds.py --suite=envpool --output=envpool.csv
  python benchmarks/worlds.py --levels=pong,CartPole-v1 --output=some.csv

Each is made, stepped 200 times at random, and trained on for two updates by the
actor, agent and learner of a training, without TensorFlow's graphs, which would
take most of the time. Each line of the table tells how far a level got:

  trains   both updates were taken, and changed weights
  refused  an error message says why it cannot be played, and what to do
  fails    anything else: an exception, a crash, no answer in time

Levels are tried in processes that are replaced when they crash, hang or grow.
With the same --output, levels that are in it already are not tried again.
"""

import argparse
import contextlib
import csv
import dataclasses
import multiprocessing
import os
import pathlib
import queue
import re
import resource
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent import futures
from typing import Any

# Run as a script, Python looks for packages in this folder only.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from scalable_agent import environments

OUTCOMES = ('trains', 'refused', 'fails')
_NUM_ENVS = 2
_UNROLL_LENGTH = 5
_UPDATES = 2
_GIB = 2**30
# To import TensorFlow, on a busy machine.
_START_SECS = 600
# Characters of an error message, of which all fits in.
_MOST_SAID = 300


@dataclasses.dataclass(frozen=True)
class World:
  """How far a level got.

  Attributes:
    level: name.
    family: what it is of.
    outcome: one of OUTCOMES.
    episodes: that ended within the steps, of two environments.
    said: by what stopped it.
  """

  level: str
  family: str
  outcome: str
  episodes: int = 0
  said: str = ''


def family_of(level: environments.Level) -> str:
  """Returns what a level is of: its suite, or its family within EnvPool."""
  if not level.suite.name.startswith('envpool'):
    return level.suite.name
  from scalable_agent.environments import envpool_registry, envpool_suite

  return envpool_registry.family(envpool_suite.env_id_of(level))


def try_level(name: str, steps: int) -> World:
  """Plays a level and trains on it; see the module.

  Args:
    name: of the level.
    steps: agent steps of each environment.
  """
  family, episodes = '', 0
  with contextlib.ExitStack() as stack:
    try:
      level = environments.parse_level(name)
      family = family_of(level)
      config = _config(level)
      environment = _make(config, level)
      stack.callback(environment.close)
      # Some make nothing before.
      output = environment.reset()
    except ValueError as error:
      return World(name, family, 'refused', said=_shortened(error))
    except Exception as error:
      return World(name, family, 'fails', said=_described(error))
    try:
      episodes, output = _play(environment, output, steps)
      _train(config, _Going(environment, output))
    except Exception as error:
      return World(name, family, 'fails', episodes, _described(error))
    return World(name, family, 'trains', episodes)


class _Going:
  """An environment in the midst of its episodes, for an actor to go on with."""

  def __init__(self, environment: Any, output: Any):
    self._output = output
    self.num_envs, self.spec = environment.num_envs, environment.spec
    self.level, self.step = environment.level, environment.step

  def reset(self) -> Any:
    return self._output


def _config(level: environments.Level) -> Any:
  from scalable_agent import options, runtimes

  config = runtimes.make_catalog().make(
    level_name=level.name,
    num_actors=0,
    envs_per_actor=_NUM_ENVS,
    unroll_length=_UNROLL_LENGTH,
    batch_size=_NUM_ENVS,
  )
  implied = environments.implied_options([level], config)
  return options.resolve(config, level.suite, implied)


def _make(config: Any, level: environments.Level) -> Any:
  from scalable_agent.runtimes import worlds

  return worlds.make_environment(config, level, _NUM_ENVS, seed=1)


def _play(environment: Any, output: Any, steps: int) -> tuple[int, Any]:
  """Steps at random; returns how many episodes ended, and the last output."""
  import numpy as np
  import tree

  from scalable_agent import structures

  def check(spec, array):
    if array.shape != (_NUM_ENVS, *spec.shape) or array.dtype != spec.dtype:
      raise TypeError(f'{spec} came as {array.dtype} {list(array.shape)}')
    if array.dtype.kind == 'f' and not np.isfinite(array).all():
      raise ValueError(f'not finite: {spec}')
    if isinstance(spec, structures.CategorySpec) and (
      array.min() < 0 or array.max() >= spec.num_values
    ):
      raise ValueError(f'{spec} came with values up to {array.max()}')

  generator = np.random.default_rng(1)
  specs = structures.step_output_spec(environment.spec)
  episodes = 0
  for _ in range(steps):
    actions = environment.spec.action_space.sample(generator, _NUM_ENVS)
    output = environment.step(actions)
    episodes += int((output.step_type == structures.LAST).sum())
    tree.map_structure(check, specs, output)
  return episodes, output


def _train(config: Any, environment: Any) -> None:
  """Trains for two updates; raises RuntimeError if one was not taken."""
  import numpy as np

  from scalable_agent import actor, policies
  from scalable_agent.runtimes import assembly, training

  agent = assembly.make_agent(config, environment.spec)
  learner = training.make_learner(config, agent, environment.spec)
  player = actor.Actor(
    environment,
    policies.Direct(policies.make_step(agent, policies.Seeds(1))),
    agent.initial_state(_NUM_ENVS),
    _UNROLL_LENGTH,
    policy_version=lambda: 0,
  )
  for _ in range(_UPDATES):
    before = [v.numpy() for v in agent.trainable_variables]
    metrics = learner.update(player.unroll())
    if int(metrics['skipped_steps']):
      raise RuntimeError('an update was dropped: its gradients are not finite')
    after = [v.numpy() for v in agent.trainable_variables]
    if all(np.array_equal(a, b) for a, b in zip(before, after, strict=True)):
      raise RuntimeError('an update changed no weight')


def _described(error: Exception) -> str:
  return _shortened(f'{type(error).__name__}: {error}')


def _shortened(error: Any) -> str:
  # Where packages lie is nobody else's business.
  text = re.sub(r'\S*/site-packages/', '', str(error))
  return ' '.join(text.split())[:_MOST_SAID]


def _work(connection: Any, log: str, steps: int, memory: float) -> None:
  """Tries levels whose names come, until there is none."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  limit = int(memory * _GIB)
  resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
  # Simulators in C++ write there, too.
  file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
  os.dup2(file, 1)
  os.dup2(file, 2)

  import tensorflow as tf

  tf.config.threading.set_intra_op_parallelism_threads(1)
  tf.config.threading.set_inter_op_parallelism_threads(1)
  tf.config.run_functions_eagerly(True)
  connection.send(None)
  while name := connection.recv():
    os.truncate(log, 0)
    connection.send(try_level(name, steps))


class Worker:
  """A process that tries levels, and a new one where it has ended."""

  def __init__(
    self, log: pathlib.Path, steps: int, memory: float, seconds: float
  ):
    """Initialises.

    Args:
      log: file for what simulators write, of the last level only.
      steps: of `try_level`.
      memory: most that a process may take, in GiB; at half of it, it is
        replaced.
      seconds: to wait for a level.
    """
    self._arguments = (steps, memory)
    self._memory = memory
    self._seconds = seconds
    self._process: Any = None
    self._log = log

  def try_level(self, name: str) -> World:
    """Returns how far a level got."""
    try:
      if self._process is None:
        self._start()
      self._connection.send(name)
      if self._connection.poll(self._seconds):
        world = self._connection.recv()
        if self._has_grown():
          self.stop()
        return world
      said = f'no answer within {self._seconds:g} seconds'
    except (EOFError, OSError):
      self._process.join()
      said = f'the process died, exit code {self._process.exitcode}'
      lines = self._log.read_text(errors='replace').split()
      said = _shortened(f'{said}: {" ".join(lines[-30:])}')
    self.stop()
    family = family_of(environments.parse_level(name))
    return World(name, family, 'fails', said=said)

  def stop(self) -> None:
    """Ends the process."""
    if self._process is not None:
      self._process.kill()
      self._process.join()
      self._connection.close()
      self._process = None

  def _start(self) -> None:
    context = multiprocessing.get_context('spawn')
    self._connection, theirs = context.Pipe()
    self._process = context.Process(
      target=_work, args=(theirs, str(self._log), *self._arguments), daemon=True
    )
    self._process.start()
    theirs.close()
    if self._connection.poll(_START_SECS):
      self._connection.recv()

  def _has_grown(self) -> bool:
    # A process has these numbers until it is joined.
    statm = pathlib.Path(f'/proc/{self._process.pid}/statm').read_text()
    resident = int(statm.split()[1]) * resource.getpagesize()
    return resident > self._memory / 2 * _GIB


def read(path: pathlib.Path) -> list[World]:
  """Returns the worlds of a table; none where it does not exist."""
  if not path.exists():
    return []
  with path.open(newline='') as file:
    return [
      World(**{**row, 'episodes': int(row['episodes'])})
      for row in csv.DictReader(file)
    ]


def write(path: pathlib.Path, worlds: Iterable[World]) -> None:
  """Writes a table, in the order of families and names."""
  names = [field.name for field in dataclasses.fields(World)]
  partial = path.with_suffix('.partial')
  with partial.open('w', newline='') as file:
    writer = csv.DictWriter(file, names, lineterminator='\n')
    writer.writeheader()
    for world in sorted(worlds, key=lambda one: (one.family, one.level)):
      writer.writerow(dataclasses.asdict(world))
  partial.replace(path)


def summary(worlds: Sequence[World]) -> str:
  """Returns how many of each family got how far, as a table of Markdown."""
  lines = [
    f'| family | levels | {" | ".join(OUTCOMES)} |',
    f'|---|---{"|---" * len(OUTCOMES)}|',
  ]
  families = sorted({world.family for world in worlds})
  for family in [*families, 'all']:
    of = [world for world in worlds if family in (world.family, 'all')]
    counts = [
      str(sum(world.outcome == outcome for world in of)) for outcome in OUTCOMES
    ]
    lines.append(f'| {family} | {len(of)} | {" | ".join(counts)} |')
  return '\n'.join(lines)


def try_all(names: Sequence[str], path: pathlib.Path, options: Any) -> None:
  """Tries levels and adds them to the table at `path`."""
  worlds = {world.level: world for world in read(path)}
  left: queue.SimpleQueue[str] = queue.SimpleQueue()
  for name in names:
    if name not in worlds or worlds[name].outcome in options.again:
      left.put(name)
  total, lock, start = left.qsize(), threading.Lock(), time.monotonic()

  def work(log: pathlib.Path) -> None:
    worker = Worker(log, options.steps, options.memory, options.seconds)
    try:
      while True:
        world = worker.try_level(left.get_nowait())
        with lock:
          worlds[world.level] = world
          write(path, worlds.values())
          minutes = (time.monotonic() - start) / 60
          print(
            f'{minutes:.1f} min, {total - left.qsize()} of {total}: '
            f'{world.level} {world.outcome} {world.said}',
            flush=True,
          )
    except queue.Empty:
      pass
    finally:
      worker.stop()

  with (
    tempfile.TemporaryDirectory() as folder,
    futures.ThreadPoolExecutor(options.processes) as executor,
  ):
    logs = [pathlib.Path(folder, str(i)) for i in range(options.processes)]
    list(executor.map(work, logs))


def main(arguments: Sequence[str] | None = None) -> None:
  """Parses the command line, tries the levels, and prints the summary."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--suite', default='', help='All levels of it.')
  parser.add_argument('--levels', default='', help='Or these, by commas.')
  parser.add_argument('--output', required=True, help='CSV file of the table.')
  parser.add_argument(
    '--again', default='', help='Outcomes to try again, by commas.'
  )
  parser.add_argument(
    '--steps', type=int, default=200, help='Random ones. 200.'
  )
  parser.add_argument(
    '--seconds', type=float, default=300, help='To wait for a level. 300.'
  )
  parser.add_argument(
    '--memory', type=float, default=8, help='Of a process, in GiB. 8.'
  )
  parser.add_argument('--processes', type=int, default=2, help='2.')
  options = parser.parse_args(arguments)
  options.again = options.again.split(',')
  names = options.levels.split(',') if options.levels else []
  for suite in environments.SUITES:
    if options.suite and suite.name.startswith(options.suite):
      names.extend(suite.level_names())
  path = pathlib.Path(options.output)
  try_all(names, path, options)
  print(summary(read(path)))


if __name__ == '__main__':
  main()
