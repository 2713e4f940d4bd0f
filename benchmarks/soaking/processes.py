"""Processes of a soak, and what is wrong if something is."""

import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

Start = Callable[[Sequence[str], dict[str, str], Any], Any]


class Violation(Exception):
  """Something is not as it must be."""


def start(command: Sequence[str], env: dict[str, str], output: Any) -> Any:
  """Starts a Python program; returns a subprocess.Popen."""
  return subprocess.Popen(
    [sys.executable, *command],
    env=env,
    stdin=subprocess.DEVNULL,
    stdout=output,
    stderr=subprocess.STDOUT,
  )


class Process:
  """One of experiment.py.

  Attributes:
    number: among all that were started.
    path: of what it prints.
    since: when it was started.
    asked: the signal that is to end it; 0 as long as none was sent.
    frozen: whether it is.
    rivals: whether another has its task.
    resumed: whether it has been looked at where it goes on.
  """

  def __init__(self, number: int, popen: Any, path: pathlib.Path):
    self.number = number
    self.path = path
    self.since = time.monotonic()
    self.asked = 0
    self.asked_at = 0.0
    self.frozen = False
    self.rivals = False
    self.resumed = False
    self.popen = popen
    self._said: set[str] = set()

  def output(self) -> str:
    return self.path.read_text(encoding='utf-8', errors='replace')

  def has_said(self, text: str) -> bool:
    """Whether it has printed a text."""
    if text not in self._said and text in self.output():
      self._said.add(text)
    return text in self._said

  def ask(self, what: int) -> None:
    """Notes why it is to end."""
    if not self.asked:
      self.asked, self.asked_at = what, time.monotonic()

  def send(self, number: int) -> None:
    """Sends a signal; one that is frozen thaws for SIGTERM."""
    if number in (signal.SIGKILL, signal.SIGTERM):
      self.ask(number)
    if number == signal.SIGTERM and self.frozen:
      self.send(signal.SIGCONT)
    self.frozen = number == signal.SIGSTOP
    self.popen.send_signal(number)
