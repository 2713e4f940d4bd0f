"""Benchmarks measure what they say, and end when what they measure fails."""

import json
import os
import pathlib
import re
import subprocess
import threading
import time

import numpy as np
import pytest
from tensorboard.backend.event_processing import event_accumulator

from benchmarks import (
  accelerator_cases,
  children,
  devices,
  meters,
  probe,
  scaling,
  settings,
)
from scalable_agent import options
from scalable_agent.runtimes import cores as cores_lib
from tests import configs, programs

BENCHMARKS = pathlib.Path(__file__).parent.parent / 'benchmarks'
FAILING = 'lambda *_: (_ for _ in ()).throw(OSError("the worker broke"))'
CASES = {
  'throughput': f'parts.meters.measure_threads({FAILING}, 2, 0, 1)',
  'training': f"""
    parts.impala_local.Run.train = {FAILING}
    parts.whole(
      *settings.make_config('catch', 'auto', {{}}), parts.Window(0, 1)
    )
  """,
}
pins = pytest.mark.skipif(
  not hasattr(os, 'sched_setaffinity'), reason='pins processes on Linux only'
)


@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
def test_a_failing_worker_ends_the_throughput_benchmark(case):
  program = (
    'from benchmarks import parts, settings\ndef main():\n'
    f'    {case.strip()}\nmain()'
  )
  result = programs.run(['-c', program], timeout=300, stderr=subprocess.PIPE)
  assert result.returncode == 1
  assert result.stderr.rstrip().endswith('OSError: the worker broke')


def test_throughput_is_that_of_the_actors_that_a_training_has_on_these_cores(
  monkeypatch,
):
  monkeypatch.setattr(cores_lib, 'usable_cores', lambda: 4)
  measured, _ = settings.make_config('pong', 'auto', {})
  config = configs.resolve(configs.make_config(level_name='pong'), 'atari')
  suite = configs.SUITES['atari']
  expected = options.follow_cores(config, suite, (), 4)
  assert expected != config
  names = 'num_actors', 'envs_per_actor', suite.threads_option
  assert [measured.values[one] for one in names] == [
    expected.values[one] for one in names
  ]
  assert measured.threads.intra_op_threads == 2


class TestSettings:
  def test_are_options_of_a_training_by_any_of_their_names(self):
    assert settings.parse(['--num_predictors=2', '--nofire_reset']) == {
      'inference_threads': 2,
      'fire_reset': False,
    }

  @pytest.mark.parametrize(
    ('arguments', 'message'),
    [
      (['--inference_thread=2'], 'inference_thread'),
      (['--inference_threads=two'], 'inference_threads=two'),
      (['more'], 'unexpected arguments: more'),
      (['--preset=paper'], r'--preset=paper .*Leave it out'),
      (['--num_actors=0'], r'--num_actors=0 .*Set --num_actors=1'),
    ],
  )
  def test_that_are_none_are_refused(self, arguments, message):
    with pytest.raises(ValueError, match=message):
      settings.parse(arguments)

  def test_of_no_effect_are_refused(self):
    with pytest.raises(ValueError, match='--fire_reset'):
      settings.make_config('catch', 'auto', {'fire_reset': True})


class TestChildren:
  def write(self, tmp_path, text):
    path = tmp_path / 'child.py'
    path.write_text(text, encoding='utf-8')
    return str(path)

  def test_hand_back_their_last_line(self, tmp_path):
    program = self.write(
      tmp_path,
      'import sys; print("note"); print(\'{"x": "%s"}\' % sys.argv[1])',
    )
    assert children.run(program, ['a'], 60) == {'x': 'a'}

  @pins
  def test_are_pinned_to_as_many_cores_and_their_parent_is_not(self, tmp_path):
    before = os.sched_getaffinity(0)
    program = self.write(
      tmp_path,
      'import json, os; print(json.dumps({"n": len(os.sched_getaffinity(0))}))',
    )
    for count in {1, cores_lib.usable_cores()}:
      assert children.run(program, [], 60, count) == {'n': count}
    assert os.sched_getaffinity(0) == before

  @pins
  @pytest.mark.parametrize('more', [-1_000_000, 1])
  def test_are_refused_more_cores_than_there_are(self, more):
    most = cores_lib.usable_cores()
    with pytest.raises(ValueError, match=rf'{most + more}: .*use {most} core'):
      children.check_cores(most + more)

  @pytest.mark.parametrize(
    ('text', 'message'),
    [
      ('raise OSError("broke")', 'OSError: broke'),
      ('pass', 'printed no result'),
      ('print("no JSON")', 'printed no result:\nno JSON'),
      ('while True: pass', 'did not end within 1 s'),
    ],
  )
  def test_that_fail_say_why(self, tmp_path, text, message):
    program = self.write(tmp_path, text)
    with pytest.raises(children.Failure, match=message):
      children.run(program, [], 60 if 'while' not in text else 1)


def spin(until):
  while time.thread_time() < until:
    pass


def test_cpu_time_is_told_by_kind_of_thread():
  before = meters.cpu_of_threads().get('spinner', 0)
  gate = threading.Barrier(3)

  def work():
    spin(0.3)
    gate.wait()
    gate.wait()

  threads = [
    threading.Thread(target=work, name=f'spinner_{i}') for i in range(2)
  ]
  for thread in threads:
    thread.start()
  gate.wait()
  spent = meters.cpu_of_threads()['spinner'] - before
  gate.wait()
  for thread in threads:
    thread.join()
  # The kernel counts in hundredths.
  assert 0.5 < spent < 2


def part(rate, **more):
  return {
    'steps_per_second': rate,
    'cpu_ms_per_step': 500 / rate,
    'used_by_others': 0.3 if rate == 300 else 0.0,
    **more,
  }


def training(rate, used, busy, cpu):
  return part(
    rate,
    cores_used=used,
    busy=busy,
    cpu=cpu,
    num_actors=2,
    envs_per_actor=8,
    peak_rss_mib=rate,
  )


def summarise(cores, used, **busy):
  cpu = {'actor': 0.2, 'native': 0.7}
  rounds = {
    'environment': [part(100), part(300), part(200)],
    'inference': [part(400)] * 3,
    'learner': [part(400)] * 3,
    'training': [training(r, used, busy, cpu) for r in (50, 80, 60)],
  }
  return scaling.summarise(cores, rounds)


class TestScaling:
  def test_compares_medians(self):
    summary = summarise(2, 1.0, environment=0.5)
    assert summary['steps_per_second'] == {
      'environment': 200,
      'inference': 400,
      'learner': 400,
      'training': 60,
    }
    assert summary['sum_of_parts'] == pytest.approx(100)
    assert summary['training_to_sum_of_parts'] == pytest.approx(0.6)
    assert summary['training_peak_rss_mib'] == 80
    assert summary['cpu_ms_per_step']['environment'] == 2.5
    assert summary['cpu_ms_per_step_by_thread']['native'] == pytest.approx(
      1000 * 0.7 / 60
    )
    json.dumps(summary)

  @pytest.mark.parametrize(
    ('cores', 'used', 'busy', 'message'),
    [
      (2, 1.9, {'learner': 0.99}, 'the cores: 1.90 of 2 .* environment '),
      (4, 1.9, {'learner': 0.99, 'inference': 0.5}, 'learner: 0.99 .*GPU'),
      (4, 1.9, {'inference': 0.95}, 'inference: 0.95 .*--inference_threads'),
      (4, 1.9, {'environment': 0.5}, 'nothing; next is environment: 0.50'),
      (4, 1.9, {'environment': 0.1}, "nothing; next is Python's lock: 0.20"),
    ],
  )
  def test_names_what_is_saturated_first(self, cores, used, busy, message):
    summary = summarise(cores, used, **busy)
    assert re.match(message, summary['saturated_first']), summary[
      'saturated_first'
    ]

  def test_shows_a_column_for_each_number_of_cores(self, capsys):
    scaling.show(
      {
        'level_name': 'pong',
        'preset': 'auto',
        'by_cores': [summarise(1, 1.0), summarise(4, 1.0)],
      }
    )
    output = capsys.readouterr().out
    assert '1 core(s)   4 core(s)' in output
    # The same rate on four times the cores.
    assert '1.00        0.25' in output
    assert 'other processes used up to 0.30 cores' in output


@pins
def test_throughput_refuses_more_cores_than_there_are():
  most = cores_lib.usable_cores()
  result = programs.run(
    [BENCHMARKS / 'throughput.py', f'--cores={most + 1}'], timeout=300
  )
  assert result.returncode == 1
  assert f'this process may use {most} core(s)' in result.stdout


def test_a_probe_that_learned_nothing_says_so(tmp_path):
  accumulator = event_accumulator.EventAccumulator(str(tmp_path)).Reload()
  with pytest.raises(
    RuntimeError, match=r'^the training wrote no loss/entropy: .*Raise --frames'
  ):
    probe._mean_at_the_end(accumulator, 'loss/entropy')


CHOICES = {
  'precision': ('float32', 'bfloat16'),
  'jit_compile': ('all', 'pixels', 'none'),
}


def make_plan(tmp_path, gpus=0, small=True):
  return accelerator_cases.Plan(
    level_name='pong',
    gpus=gpus,
    small=small,
    seconds=1,
    warm_up=0,
    folder=str(tmp_path),
    choices=CHOICES,
  )


def write_changes(path, *changes):
  np.savez(path, *(np.array(one, np.float32) for one in changes))
  return str(path)


class TestAccelerator:
  def test_updates_that_differ_by_rounding_agree(self, tmp_path):
    one = write_changes(tmp_path / 'one.npz', [3, 0], [[4]])
    other = write_changes(tmp_path / 'other.npz', [3, 0.05], [[4]])
    losses = {'gradient_norm': 1.0}, {'gradient_norm': 1.001}
    row = accelerator_cases.compare_updates(*losses, one, other)
    assert 'failed' not in row
    assert row['difference'] == pytest.approx(0.01)
    assert row['of_loss'] == pytest.approx(0.001)

  @pytest.mark.parametrize(
    ('changes', 'norm'),
    [(([3, 0], [[-4]]), 1.0), (([3, 0], [[4]]), 1.1), ((['nan', 0], [[4]]), 1)],
  )
  def test_updates_that_differ_by_more_fail(self, tmp_path, changes, norm):
    one = write_changes(tmp_path / 'one.npz', [3, 0], [[4]])
    other = write_changes(tmp_path / 'other.npz', *changes)
    losses = {'gradient_norm': 1.0}, {'gradient_norm': norm}
    row = accelerator_cases.compare_updates(*losses, one, other)
    assert 'rounding' in row['failed']

  @pytest.mark.parametrize('name', accelerator_cases.SECTIONS)
  @pytest.mark.parametrize(
    ('gpus', 'small'), [(0, True), (1, False), (4, False)]
  )
  def test_a_case_that_fails_is_a_row_with_its_reason(
    self, tmp_path, capsys, name, gpus, small
  ):
    plan = make_plan(tmp_path, gpus, small)
    cases = []

    def spawn(case):
      json.dumps(case)
      cases.append(case)
      return {'failed': 'out of memory'}

    rows = accelerator_cases.SECTIONS[name](plan, spawn)
    assert {row.get('failed', 'out of memory') for row in rows} == {
      'out of memory'
    }
    assert all('failed' in row or 'unmeasured' in row for row in rows)
    assert {case['function'] for case in cases} <= set(devices.FUNCTIONS)
    accelerator_cases.show(name, rows, ['H'] * gpus, small)
    assert 'out of memory' in capsys.readouterr().out

  def test_what_needs_a_gpu_is_unmeasured_without_one(self, tmp_path):
    result = {'loss': {'gradient_norm': 1.0}, 'device': 'CPU:0'}

    def spawn(case):
      write_changes(case['file'], [1])
      return result

    update, share = accelerator_cases.check(make_plan(tmp_path), spawn)
    assert update['difference'] == 0
    assert share['unmeasured'] == 'needs a GPU'

  def test_weights_that_are_not_on_the_gpu_fail_the_check(self, tmp_path):
    result = {'loss': {'gradient_norm': 1.0}, 'device': 'CPU:0'}
    row = accelerator_cases.check(make_plan(tmp_path, 1), lambda _: result)[0]
    assert row['failed'] == 'the weights were on CPU:0'

  def test_processes_beside_each_other_that_fail_fail_the_check(
    self, monkeypatch
  ):
    monkeypatch.setattr(
      devices.children, 'run', lambda *_: {'failed': 'out of memory'}
    )
    with pytest.raises(RuntimeError, match='beside it: out of memory'):
      devices.hold({'others': 1})

  def test_says_which_stage_of_a_training_is_the_busiest(
    self, tmp_path, capsys
  ):
    result = {
      'steps_per_second': 5.0,
      'cpu_ms_per_step': 1.0,
      'busy': {'learner': 0.75, 'environment': 0.5},
    }
    rows = accelerator_cases.training(make_plan(tmp_path), lambda _: {**result})
    assert [row['preset'] for row in rows] == ['paper', 'auto']
    accelerator_cases.show('training', rows, [], True)
    assert 'learner 0.75' in capsys.readouterr().out

  def test_measures_all_that_the_options_offer(self, tmp_path):
    assert settings.choices_of(('precision', 'jit_compile')) == CHOICES
    rows = accelerator_cases.learner(make_plan(tmp_path), lambda _: {})
    assert len(rows) == 6
    rows = accelerator_cases.learner(
      make_plan(tmp_path, 1, False), lambda _: {}
    )
    assert len(rows) == 24

  @pytest.mark.parametrize(
    ('arguments', 'message'),
    [
      (['--sections=chekc'], 'no chekc. Choose from: check, '),
      (['more'], 'unexpected arguments: more'),
    ],
  )
  def test_refuses_what_it_does_not_know(self, arguments, message):
    result = programs.run([devices.PROGRAM, *arguments], timeout=300)
    assert result.returncode == 1
    assert message in result.stdout

  def test_an_update_tells_the_change_of_every_layer(self, tmp_path):
    file = str(tmp_path / 'update.npz')
    case = {
      'function': 'update',
      'device': 'CPU',
      'file': file,
      'level_name': 'pong',
      'options': {'batch_size': 1, 'unroll_length': 2, 'network': 'shallow'},
    }
    programs.run([devices.PROGRAM, f'--case={json.dumps(case)}'], timeout=300)
    with np.load(file) as arrays:
      shapes = sorted(arrays[name].shape for name in arrays.files)
    # Two of the layers are convolutions.
    assert len(shapes) == 10
    assert {(8, 8, 4, 16), (4, 4, 16, 32)} <= set(shapes)

  def test_a_case_tells_why_it_failed_in_a_line(self):
    case = {'function': 'whole', 'level_name': 'pnog'}
    result = programs.run(
      [devices.PROGRAM, f'--case={json.dumps(case)}'],
      timeout=300,
      stderr=subprocess.PIPE,
    )
    line = json.loads(result.stdout.splitlines()[-1])
    assert line['failed'].startswith('ValueError: ')
    assert 'pnog' in line['failed']
    assert 'Traceback' in result.stderr
