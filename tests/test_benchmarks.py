"""Benchmarks end when what they measure fails."""

import os
import pathlib
import subprocess
import sys

import pytest
from tensorboard.backend.event_processing import event_accumulator

from benchmarks import probe

BENCHMARKS = pathlib.Path(__file__).parent.parent / 'benchmarks'
FAILING = 'lambda *_: (_ for _ in ()).throw(OSError("the worker broke"))'
CASES = {
  'throughput': f'throughput._rate({FAILING}, 2)',
  'training': f"""
    throughput.impala_local.Run.train = {FAILING}
    throughput._training(*throughput._config())
  """,
}


@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
def test_a_failing_worker_ends_the_throughput_benchmark(case):
  # In a process of its own, as its flags are those of experiment.py, too.
  result = subprocess.run(
    [
      sys.executable,
      '-c',
      f'import throughput\ndef main(argv):\n    {case.strip()}\n'
      'throughput.app.run(main)',
      '--level_name=catch',
    ],
    cwd=BENCHMARKS,
    env=os.environ | {'PYTHONPATH': str(BENCHMARKS)},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert result.returncode == 1
  assert result.stderr.rstrip().endswith('OSError: the worker broke')


def test_a_probe_that_learned_nothing_says_so(tmp_path):
  accumulator = event_accumulator.EventAccumulator(str(tmp_path)).Reload()
  with pytest.raises(
    RuntimeError, match=r'^the training wrote no loss/entropy: .*Raise --frames'
  ):
    probe._mean_at_the_end(accumulator, 'loss/entropy')
