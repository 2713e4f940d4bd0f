"""An actor of experiment.py that takes the time of its calls.

  python benchmarks/timed_actor.py --job_name=actor --task=0 ...

It imports nothing that the actor itself would not. Its last line is JSON: the
round trips of its calls, when it was ready, and its memory.
"""

import json
import os
import statistics
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import psutil
from absl import app

import experiment
from scalable_agent.transport import learner_link

_round_trips: list[float] = []
_ready: list[float] = []


def _timed(function):
  def call(self, *args):
    if not _ready:
      started = psutil.Process().create_time()
      _ready.append(time.time() - started)
    start = time.perf_counter()
    answer = function(self, *args)
    _round_trips.append(time.perf_counter() - start)
    return answer

  return call


def _report() -> None:
  memory = psutil.Process().memory_full_info()
  cuts = statistics.quantiles(_round_trips, n=100)
  values = {
    'round_trip_ms': 1000 * cuts[49],
    'round_trip_p99_ms': 1000 * cuts[98],
    'ready_seconds': _ready[0],
    'rss_mib': memory.rss / 2**20,
    'private_mib': memory.uss / 2**20,
  }
  print(json.dumps(values), flush=True)


def main(argv: list[str]) -> None:
  experiment.main(argv)
  _report()


if __name__ == '__main__':
  link = learner_link.LearnerLink
  # What an actor waits for before it acts: actions, or weights.
  link.ask = _timed(link.ask)
  link.update_weights = _timed(link.update_weights)
  app.run(main, flags_parser=experiment.parse_flags)
