"""Throughput and latency of the dynamic batcher beside TensorFlow's own.

Callers are Python threads that ask for something about what they carry, again
and again: one row of bytes, in one tensor, or what an actor of some Atari games
asks its agent for, a nest of five. The model is next to nothing, so that what
is measured is the batching. `contestants.py` says who is compared. They take
turns, `--rounds` times, and the table shows medians; a ratio is the median of
the ratios within a round.

For each number of callers, tensorflow gets the better of two settings: batches
as large as the callers can fill (`max_batch_size` = all their rows, 5 ms
timeout), and whatever comes within 0.1 ms. The batcher likewise:
`minimum_batch_size` = all their rows with a 5 ms timeout, and 1. Neither queue
is ever full.

Kinds of callers, the same for all contestants of a row of the table:
  eager:    one op per call: `Batcher.compute`, and the op behind
            `tf.nondifferentiable_batch_function`, `tf.raw_ops.BatchFunction`,
            given flat lists (the decorator itself would trace anew in every
            eager call).
  function: a `tf.function` around either. `bare` is the most that callers of
            this kind can reach.
Inputs are tensors or NumPy arrays. Ratios are `tf`: to tensorflow and the same
kind; `public`: to tensorflow in the cheapest way that its public interface can
be called, inside a `tf.function`, however the contestant is called; `packed`:
to the op without nests.

Run `python benchmarks/batcher.py --output=batcher.json`.
"""

import functools
import gc
import itertools
import json
import os
import platform
import statistics
import sys
import threading
import time
from typing import NamedTuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np
import tensorflow as tf
from absl import app, flags

from benchmarks import contestants
from scalable_agent.runtimes import threads

FLAGS = flags.FLAGS
flags.DEFINE_list('callers', ['1', '8', '32', '128'], 'Numbers of threads.')
flags.DEFINE_list('row_bytes', ['40', '28224'], 'Sizes of a row, bytes.')
flags.DEFINE_list(
  'environments', ['1', '16'], 'Rows of a call of the nest of an agent.'
)
flags.DEFINE_list('kinds', ['eager', 'function'], 'Kinds of callers.')
flags.DEFINE_float('seconds', 1.0, 'Duration of one measurement.', 0.01)
flags.DEFINE_integer('rounds', 3, 'Measurements of each contestant.', 1)
flags.DEFINE_string('output', None, 'Where to write the results as JSON.')


class Measurement(NamedTuple):
  """What one contestant did in one round."""

  calls_per_second: float
  p50_ms: float
  p99_ms: float


def measure(
  contestant: contestants.Contestant, callers: int, load: contestants.Load
) -> Measurement:
  """Calls from many threads for `--seconds`."""
  latencies: list[list[float]] = [[] for _ in range(callers)]
  barrier = threading.Barrier(callers + 1)

  def run(mine: list[float]) -> None:
    inputs = load.values()
    if contestant.flat:
      inputs = tf.nest.flatten(inputs)
    contestant.call(inputs)
    mine.clear()
    barrier.wait()
    while not group.stopping:
      start = time.perf_counter()
      contestant.call(inputs)
      mine.append(time.perf_counter() - start)

  with threads.ThreadGroup() as group:
    for index, mine in enumerate(latencies):
      group.start(f'caller_{index}', functools.partial(run, mine))
    barrier.wait()
    start = time.perf_counter()
    group.wait_for_stop(FLAGS.seconds)
  elapsed = time.perf_counter() - start
  flat = 1000 * np.concatenate(latencies)
  p50, p99 = np.percentile(flat, [50, 99])
  return Measurement(len(flat) / elapsed, float(p50), float(p99))


def best_of(
  factories: list[contestants.Factory], callers: int, load: contestants.Load
) -> Measurement:
  """Measures the settings of one contestant and returns the best."""
  measurements = []
  for factory in factories:
    with factory() as contestant:
      measurements.append(measure(contestant, callers, load))
  return max(measurements)


def median(measurements: list[Measurement]) -> Measurement:
  """Returns the measurement with medians as fields."""
  return Measurement(
    *(statistics.median(x) for x in zip(*measurements, strict=True))
  )


def run(callers: int, load: contestants.Load) -> list[dict]:
  """Measures all kinds and contestants for one load; returns table rows."""
  rounds: dict[tuple[str, str], list[Measurement]] = {}
  for _ in range(FLAGS.rounds):
    for kind in FLAGS.kinds:
      for name, factories in contestants.make(kind, callers, load).items():
        rounds.setdefault((kind, name), []).append(
          best_of(factories, callers, load)
        )

  def ratio(mine: tuple[str, str], other: tuple[str, str]) -> float | None:
    if mine not in rounds or other not in rounds:
      return None
    return statistics.median(
      a.calls_per_second / b.calls_per_second
      for a, b in zip(rounds[mine], rounds[other], strict=True)
    )

  return [
    {
      'callers': callers,
      'load': load.name,
      'inputs': 'arrays' if load.arrays else 'tensors',
      'kind': kind,
      'contestant': name,
      **median(measurements)._asdict(),
      'ratio_to_tensorflow': ratio((kind, name), (kind, 'tensorflow')),
      'ratio_to_tensorflow_public': ratio(
        (kind, name), ('function', 'tensorflow')
      ),
      'ratio_to_packed': ratio((kind, name), (kind, 'packed')),
    }
    for (kind, name), measurements in rounds.items()
  ]


def loads() -> list[contestants.Load]:
  """Returns what the flags name."""
  return [
    *(contestants.bytes_load(int(size)) for size in FLAGS.row_bytes),
    *(
      contestants.agent_load(int(environments), arrays)
      for environments in FLAGS.environments
      for arrays in (False, True)
    ),
  ]


def line(row: dict) -> str:
  """Returns a line of the table."""
  ratios = (
    ''
    if row[f'ratio_to_{other}'] is None
    else f'{row[f"ratio_to_{other}"]:.2f}'
    for other in ('tensorflow', 'tensorflow_public', 'packed')
  )
  return (
    f'{row["callers"]:7} {row["load"]:>8} {row["inputs"]:<8}{row["kind"]:<9}'
    f'{row["contestant"]:<11}{row["calls_per_second"]:8.0f} '
    f'{row["p50_ms"]:8.3f} {row["p99_ms"]:8.3f} '
    + ' '.join(f'{ratio:>6}' for ratio in ratios)
  )


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  print(
    f'{"callers":>7} {"load":>8} {"inputs":<8}{"kind":<9}{"contestant":<11}'
    f'{"calls/s":>8} {"p50 ms":>8} {"p99 ms":>8} {"tf":>6} {"public":>6} '
    f'{"packed":>6}'
  )
  results: list[dict] = []
  # What TensorFlow's import made is not the contestants' garbage.
  gc.freeze()
  for load, callers in itertools.product(loads(), FLAGS.callers):
    for row in run(int(callers), load):
      results.append(row)
      print(line(row), flush=True)
  if FLAGS.output:
    report = {
      'tensorflow': tf.__version__,
      'machine': platform.machine(),
      'cpus': os.cpu_count(),
      'seconds': FLAGS.seconds,
      'rounds': FLAGS.rounds,
      'results': results,
    }
    with open(FLAGS.output, 'w', encoding='utf-8') as file:
      json.dump(report, file, indent=2)


if __name__ == '__main__':
  app.run(main)
