"""Benchmarks end when what they measure fails."""

import pathlib
import subprocess

import pytest

from tests import programs

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
  program = (
    f'import throughput\ndef main(argv):\n    {case.strip()}\n'
    'throughput.app.run(main)'
  )
  result = programs.run(
    ['-c', program, '--level_name=catch'],
    timeout=300,
    cwd=BENCHMARKS,
    stderr=subprocess.PIPE,
  )
  assert result.returncode == 1
  assert result.stderr.rstrip().endswith('OSError: the worker broke')
