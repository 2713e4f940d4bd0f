"""What a program of a peer tells the driver: how much it has learned from."""

import argparse
import json
import time

GAME = 'pong'


class Counts:
  """Appends a line of JSON for each count to a file."""

  def __init__(self, path: str):
    self._file = open(path, 'a', encoding='utf-8')  # noqa: SIM115

  def write(self, steps: int, when: float | None = None) -> None:
    """Tells that `steps` agent steps have been learned from since the start.

    Args:
      steps: a cumulative number.
      when: Unix time at which that was so. Default: now.
    """
    line = {'time': time.time() if when is None else when, 'steps': int(steps)}
    self._file.write(json.dumps(line) + '\n')
    self._file.flush()


def make_parser(doc: str, *numbers: str) -> argparse.ArgumentParser:
  """Returns a parser with what each program takes.

  Args:
    doc: of the program.
    *numbers: names of the whole numbers that it needs beside.
  """
  parser = argparse.ArgumentParser(
    description=doc.splitlines()[0],
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_argument(
    '--counts', required=True, help='File to append counts to.'
  )
  parser.add_argument('--seed', type=int, default=1, help='Of everything.')
  for name in numbers:
    parser.add_argument(f'--{name}', type=int, required=True)
  return parser
