"""Benchmarks end when what they measure fails."""

import pathlib
import subprocess

import pytest
from tensorboard.backend.event_processing import event_accumulator

from benchmarks import probe
from scalable_agent import options
from tests import configs, programs

BENCHMARKS = pathlib.Path(__file__).parent.parent / 'benchmarks'
FAILING = 'lambda *_: (_ for _ in ()).throw(OSError("the worker broke"))'
CASES = {
  'throughput': f'throughput._rate({FAILING}, 2)',
  'training': f"""
    throughput.impala_local.Run.train = {FAILING}
    throughput._training(*throughput._config())
  """,
}


def run_throughput(code, *arguments):
  """Runs code in a process of its own: its flags are experiment.py's, too."""
  program = (
    f'import throughput\ndef main(argv):\n    {code.strip()}\n'
    'throughput.app.run(main)'
  )
  return programs.run(
    ['-c', program, *arguments],
    timeout=300,
    cwd=BENCHMARKS,
    stderr=subprocess.PIPE,
  )


@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
def test_a_failing_worker_ends_the_throughput_benchmark(case):
  result = run_throughput(case, '--level_name=catch')
  assert result.returncode == 1
  assert result.stderr.rstrip().endswith('OSError: the worker broke')


def test_throughput_is_that_of_the_actors_that_a_training_has_on_these_cores():
  result = run_throughput(
    """
    throughput.cores.usable_cores = lambda: 4
    print(throughput._config()[0].actors.num_actors)
    """,
    '--level_name=pong',
    '--preset=auto',
  )
  config = configs.resolve(configs.make_config(level_name='pong'), 'atari')
  suite = configs.SUITES['atari']
  expected = options.follow_cores(config, suite, (), 4).actors.num_actors
  assert expected != config.actors.num_actors
  assert result.stdout.split()[-1:] == [str(expected)], result.stderr


def test_a_probe_that_learned_nothing_says_so(tmp_path):
  accumulator = event_accumulator.EventAccumulator(str(tmp_path)).Reload()
  with pytest.raises(
    RuntimeError, match=r'^the training wrote no loss/entropy: .*Raise --frames'
  ):
    probe._mean_at_the_end(accumulator, 'loss/entropy')
