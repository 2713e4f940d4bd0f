"""This package's own training, `experiment.py` as a user starts it.

How much it has learned from is read from its TensorBoard events.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import counts
from tensorboard.backend.event_processing import event_accumulator

_EXPERIMENT = os.path.join(
  os.path.dirname(os.path.abspath(__file__)), '..', '..', 'experiment.py'
)
# Every training writes it.
_TAG = 'policy_lag'


def make_command(options: argparse.Namespace, logdir: str) -> list[str]:
  """Returns what starts a training that does not end, with its defaults."""
  return [
    sys.executable,
    _EXPERIMENT,
    f'--level_name={counts.GAME}',
    f'--algorithm={options.algorithm}',
    f'--seed={options.seed}',
    f'--logdir={logdir}',
    '--total_environment_frames=1e12',
    '--learning_rate_schedule=constant',
    '--summary_secs=1',
  ]


def follow(process: subprocess.Popen, logdir: str, told: counts.Counts) -> None:
  """Hands on what the events tell until the training ends."""
  events = event_accumulator.EventAccumulator(logdir)
  last = 0.0
  while process.poll() is None:
    time.sleep(1)
    path = os.path.join(logdir, 'config.json')
    if not os.path.exists(path):
      continue
    with open(path, encoding='utf-8') as file:
      # Counts of experiment.py are frames.
      repeats = json.load(file)['num_action_repeats']
    events.Reload()
    if _TAG not in events.Tags()['tensors']:
      continue
    for event in events.Tensors(_TAG):
      if event.wall_time > last:
        told.write(event.step / repeats, event.wall_time)
        last = event.wall_time


def main() -> int:
  """Trains until it is ended, and returns how the training ended."""
  parser = counts.make_parser(__doc__)
  parser.add_argument('--algorithm', required=True)
  options = parser.parse_args()
  # SIGTERM ends the training, too.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
  with tempfile.TemporaryDirectory() as logdir:
    process = subprocess.Popen(make_command(options, logdir))
    try:
      follow(process, logdir, counts.Counts(options.counts))
    finally:
      process.terminate()
      process.wait()
  return process.returncode


if __name__ == '__main__':
  sys.exit(main())
