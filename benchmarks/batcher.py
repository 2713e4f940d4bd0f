"""Throughput and latency of the dynamic batcher beside TensorFlow's own.

Callers are Python threads that carry one row of bytes each and ask for one
number about it, again and again. The model is next to nothing, so that what is
measured is the batching. Contestants take turns, `--rounds` times, and the
table shows medians; a ratio is the median of the ratios within a round.

Contestants:
  op:         `dynamic_batching.Batcher` with the native op and one server.
  fallback:   the same in pure Python.
  tensorflow: `tf.nondifferentiable_batch_function` with one batch thread.

For each number of callers, tensorflow gets the better of two settings: batches
as large as the callers can fill (`max_batch_size` = callers, 5 ms timeout), and
whatever comes within 0.1 ms (`max_batch_size` = 1024). The batcher likewise:
`minimum_batch_size` = callers with a 5 ms timeout, and 1. Neither queue is ever
full: `max_enqueued_batches` = 100, `maximum_batch_size` = 1024.

Kinds of callers, the same for all contestants of a row of the table:
  eager:    one op per call: `Batcher.compute`, and the op behind
            `tf.nondifferentiable_batch_function`, `tf.raw_ops.BatchFunction`
            (the decorator itself would trace anew in every eager call).
  function: a `tf.function` around either. `bare` is the same without batching:
            the most that callers of this kind can reach.
`public` compares each in the cheapest way that its public interface can be
called: `Batcher.compute` eagerly, `tf.nondifferentiable_batch_function` inside
a `tf.function`.

Run `python benchmarks/batcher.py --output=batcher.json`.
"""

import contextlib
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
from collections.abc import Callable, Iterator
from typing import NamedTuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np
import tensorflow as tf
from absl import app, flags

import dynamic_batching
from scalable_agent.runtimes import threads

FLAGS = flags.FLAGS
flags.DEFINE_list('callers', ['1', '8', '32', '128'], 'Numbers of threads.')
flags.DEFINE_list('row_bytes', ['40', '28224'], 'Sizes of a row, bytes.')
flags.DEFINE_list('kinds', ['eager', 'function'], 'Kinds of callers.')
flags.DEFINE_float('seconds', 1.0, 'Duration of one measurement.', 0.01)
flags.DEFINE_integer('rounds', 3, 'Measurements of each contestant.', 1)
flags.DEFINE_string('output', None, 'Where to write the results as JSON.')

Call = Callable[[tf.Tensor], tf.Tensor]
Factory = Callable[[], contextlib.AbstractContextManager[Call]]


class Measurement(NamedTuple):
  """What one contestant did in one round."""

  calls_per_second: float
  p50_ms: float
  p99_ms: float


def model(rows: tf.Tensor) -> tf.Tensor:
  """Returns the sum of the first bytes of each row, `int32 [B]`."""
  return tf.reduce_sum(tf.cast(rows[:, :8], tf.int32), axis=1)


def measure(call: Call, callers: int, row_bytes: int) -> Measurement:
  """Calls from many threads for `--seconds`."""
  row = tf.zeros([1, row_bytes], tf.uint8)
  call(row)
  latencies: list[list[float]] = [[] for _ in range(callers)]
  barrier = threading.Barrier(callers + 1)

  def run(mine: list[float]) -> None:
    barrier.wait()
    while not group.stopping:
      start = time.perf_counter()
      call(row)
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


def spec_of(row_bytes: int) -> tf.TensorSpec:
  """Returns the spec of a batch of rows."""
  return tf.TensorSpec([None, row_bytes], tf.uint8)


@contextlib.contextmanager
def ours(
  implementation: str, kind: str, minimum: int, row_bytes: int
) -> Iterator[Call]:
  """A running `dynamic_batching.Batcher`."""
  spec = spec_of(row_bytes)
  batcher = dynamic_batching.Batcher(
    spec,
    tf.TensorSpec([None], tf.int32),
    minimum_batch_size=minimum,
    timeout_ms=5,
    implementation=implementation,
  )
  server = threading.Thread(
    target=batcher.serve_forever, args=(tf.function(model),)
  )
  server.start()
  call = batcher.compute
  if kind == 'function':
    call = tf.function(batcher.compute, input_signature=[spec])
  try:
    yield call
  finally:
    batcher.close()
    server.join()


@contextlib.contextmanager
def tensorflows(
  kind: str, maximum: int, timeout_us: int, row_bytes: int
) -> Iterator[Call]:
  """TensorFlow's own batching."""
  spec = spec_of(row_bytes)
  options = {
    'num_batch_threads': 1,
    'max_batch_size': maximum,
    'batch_timeout_micros': timeout_us,
    'max_enqueued_batches': 100,
  }
  name = f'benchmark_{kind}_{maximum}_{timeout_us}_{row_bytes}'
  if kind == 'function':
    batched = tf.nondifferentiable_batch_function(**options)(model)

    def named(rows: tf.Tensor) -> tf.Tensor:
      # The queue is shared by all that are traced in a scope of this name, and
      # has the options of the first.
      with tf.name_scope(name):
        return batched(rows)

    yield tf.function(named, input_signature=[spec])
    return
  concrete = tf.function(model).get_concrete_function(spec)

  def call(rows: tf.Tensor) -> tf.Tensor:
    (result,) = tf.raw_ops.BatchFunction(
      in_tensors=[rows],
      captured_tensors=[],
      f=concrete,
      Tout=[tf.int32],
      shared_name=name,
      **options,
    )
    return result

  yield call


@contextlib.contextmanager
def bare(row_bytes: int) -> Iterator[Call]:
  """No batching."""
  yield tf.function(model, input_signature=[spec_of(row_bytes)])


def contestants(
  kind: str, callers: int, row_bytes: int
) -> dict[str, list[Factory]]:
  """Returns, by name, factories of contexts; the best of each name counts."""
  settings = ((callers, 5000), (1024, 100))
  result: dict[str, list[Factory]] = {
    name: [
      functools.partial(ours, name, kind, minimum, row_bytes)
      for minimum in sorted({1, callers})
    ]
    for name in ('op', 'fallback')
  }
  result['tensorflow'] = [
    functools.partial(tensorflows, kind, maximum, timeout_us, row_bytes)
    for maximum, timeout_us in settings
  ]
  if kind == 'function':
    result['bare'] = [functools.partial(bare, row_bytes)]
  return result


def best_of(
  factories: list[Factory], callers: int, row_bytes: int
) -> Measurement:
  """Measures the settings of one contestant and returns the best."""
  measurements = []
  for factory in factories:
    with factory() as call:
      measurements.append(measure(call, callers, row_bytes))
  return max(measurements)


def median(measurements: list[Measurement]) -> Measurement:
  """Returns the measurement with medians as fields."""
  return Measurement(
    *(statistics.median(x) for x in zip(*measurements, strict=True))
  )


def run(callers: int, row_bytes: int) -> list[dict]:
  """Measures all kinds and contestants for one load; returns table rows."""
  rounds: dict[tuple[str, str], list[Measurement]] = {}
  for _ in range(FLAGS.rounds):
    for kind in FLAGS.kinds:
      for name, factories in contestants(kind, callers, row_bytes).items():
        rounds.setdefault((kind, name), []).append(
          best_of(factories, callers, row_bytes)
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
      'row_bytes': row_bytes,
      'kind': kind,
      'contestant': name,
      **median(measurements)._asdict(),
      'ratio_to_tensorflow': ratio((kind, name), (kind, 'tensorflow')),
      'ratio_to_tensorflow_public': ratio(
        (kind, name), ('function', 'tensorflow')
      ),
    }
    for (kind, name), measurements in rounds.items()
  ]


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  print(
    f'{"callers":>7} {"row":>6} {"kind":<9}{"contestant":<11}'
    f'{"calls/s":>9} {"p50 ms":>8} {"p99 ms":>8} {"ratio":>6} {"public":>7}'
  )
  results: list[dict] = []
  # What TensorFlow's import made is not the contestants' garbage.
  gc.freeze()
  loads = itertools.product(FLAGS.row_bytes, FLAGS.callers)
  for row_bytes, callers in loads:
    for row in run(int(callers), int(row_bytes)):
      results.append(row)
      ratios = [
        '' if row[key] is None else f'{row[key]:.2f}'
        for key in ('ratio_to_tensorflow', 'ratio_to_tensorflow_public')
      ]
      print(
        f'{row["callers"]:7} {row["row_bytes"]:6} {row["kind"]:<9}'
        f'{row["contestant"]:<11}{row["calls_per_second"]:9.0f} '
        f'{row["p50_ms"]:8.3f} {row["p99_ms"]:8.3f} '
        f'{ratios[0]:>6} {ratios[1]:>7}',
        flush=True,
      )
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
