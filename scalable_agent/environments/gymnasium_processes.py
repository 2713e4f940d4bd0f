"""Gymnasium environments in a process each.

What AsyncVectorEnv lacks: processes without TensorFlow, exceptions that say
where they were raised, and an end of all when one of them dies.
"""

import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gymnasium
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

_MAIN_MODULE_LOCK = threading.Lock()
_EXIT_TIMEOUT_SECS = 5.0


class ProcessVectorEnv(AsyncVectorEnv):
  """An AsyncVectorEnv whose processes end when one of them fails."""

  def __init__(
    self, name: str, factories: Sequence[Callable[[], gymnasium.Env]]
  ):
    """Starts one process for each factory, none of them with TensorFlow.

    A plain fork would copy TensorFlow's locks without its threads.

    Args:
      name: of the environments, for messages.
      factories: make one environment each, and can be pickled.

    Raises:
      RuntimeError: a process could not make its environment.
    """
    self._name = name
    context = 'spawn'
    if 'forkserver' in multiprocessing.get_all_start_methods():
      context = 'forkserver'
      # Imported once for all processes, with Gymnasium and ALE.
      preload = [__name__, factories[0].__module__]
      multiprocessing.set_forkserver_preload(preload)
    try:
      with _main_module_hidden():
        super().__init__(
          [_InProcess(factory, os.getpid()) for factory in factories],
          context=context,
          autoreset_mode=AutoresetMode.NEXT_STEP,
        )
    except (EOFError, ConnectionError) as error:
      raise RuntimeError(
        f'A process of {name} could not make its environment; its traceback '
        'is in the output above.'
      ) from error

  def reset(self, **arguments: Any) -> Any:
    """See base class; raises RuntimeError where a process has died."""
    with self._failures_end_processes():
      return super().reset(**arguments)

  def step(self, actions: Any) -> Any:
    """See base class; raises RuntimeError where a process has died."""
    with self._failures_end_processes():
      return super().step(actions)

  @contextlib.contextmanager
  def _failures_end_processes(self) -> Iterator[None]:
    """Leaves no process behind, and tells an exception from a death."""
    try:
      yield
    except BaseException as error:
      died = isinstance(error, (EOFError, ConnectionError))
      if died:
        # The pipe may break a moment before the exit code is there.
        multiprocessing.connection.wait(
          [process.sentinel for process in self.processes], _EXIT_TIMEOUT_SECS
        )
      codes = [process.exitcode for process in self.processes]
      for process in self.processes:
        process.terminate()
      for process in self.processes:
        process.join()
      # Else the destructor would wait for the answers of the dead.
      self.closed = True
      if not died:
        raise
      raise RuntimeError(
        f'A process of {self._name} died; exit codes of all (None = '
        f'none yet): {codes}. A negative code is the signal that killed it.'
      ) from error


@dataclasses.dataclass(frozen=True)
class _InProcess:
  """Makes what a factory does, for a process of its own.

  Attributes:
    factory: makes an environment.
    parent: process that AsyncVectorEnv is in, which makes one, too, to look at
      its spaces.
  """

  factory: Callable[[], gymnasium.Env]
  parent: int

  def __call__(self) -> gymnasium.Env:
    if os.getpid() == self.parent:
      return self.factory()
    # Ctrl-C reaches every process of the group; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return _Explained(self.factory())


class _Explained(gymnasium.Wrapper):
  """Exceptions that survive the way to the parent, with their traceback.

  AsyncVectorEnv pickles the exception, which fails for many a class, and then
  its parent waits for ever.
  """

  def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
    with _explained('reset'):
      return self.env.reset(seed=seed, options=options)

  def step(self, action: Any) -> Any:
    with _explained('step'):
      return self.env.step(action)


@contextlib.contextmanager
def _explained(method: str) -> Iterator[None]:
  try:
    yield
  except Exception:
    text = traceback.format_exc()
    raise RuntimeError(
      f'{method} failed in the process of an environment:\n{text}'
    ) from None


@contextlib.contextmanager
def _main_module_hidden() -> Iterator[None]:
  """Keeps new processes from importing the program that was started.

  multiprocessing makes every child import the parent's __main__, and with it
  TensorFlow: seconds and hundreds of megabytes for each environment.
  """
  with _MAIN_MODULE_LOCK:
    main = sys.modules['__main__']
    sys.modules['__main__'] = types.ModuleType('__main__')
    try:
      yield
    finally:
      sys.modules['__main__'] = main
