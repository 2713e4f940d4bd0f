"""Peers are measured from outside: their own counts, all their processes."""

import json
import os
import subprocess
import sys
import textwrap
import types

import psutil
import pytest

from benchmarks import peer, peer_measurement, peers, process_tree
from tests.waiting import wait_until

WINDOW = types.SimpleNamespace(warm_up=0.0, seconds=0.6)

# Tells, more often than a window is long, what its own clock makes the truth.
STEADY = """
  import json, sys, time
  start = time.time()
  with open(sys.argv[1], 'a') as file:
    while True:
      now = time.time()
      row = {'time': now, 'steps': 1000 * (now - start)}
      file.write(json.dumps(row) + chr(10))
      file.flush()
      time.sleep(0.01)
"""
# Uses CPU time in a child and a grandchild, says how much, and waits.
BUSY = """
  import subprocess, sys, time
  child = len(sys.argv) < 2 and subprocess.Popen(
    [sys.executable, '-c', open('busy.py').read(), 'child'],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE)
  while time.process_time() < 0.3:
    pass
  if child:
    child.stdout.readline()
  print('used', flush=True)
  sys.stdin.read()
"""


def write(path, source):
  path.write_text(textwrap.dedent(source), encoding='utf-8')
  return str(path)


@pytest.fixture
def busy(tmp_path):
  path = write(tmp_path / 'busy.py', BUSY)
  with subprocess.Popen(
    [sys.executable, path],
    cwd=tmp_path,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
  ) as process:
    tree = process_tree.ProcessTree(process.pid)
    assert process.stdout.readline() == b'used\n'
    yield tree, process
    tree.end(10.0)


def test_cpu_time_is_that_of_all_processes_of_a_tree(busy):
  tree, _ = busy
  used = tree.cpu_seconds()
  # Each has spun for 0.3 s. The system counts in hundredths.
  assert used >= 0.58
  assert used == pytest.approx(tree.cpu_seconds(), abs=0.1)


def test_cpu_time_of_a_process_that_has_ended_is_kept(busy):
  tree, process = busy
  before = tree.cpu_seconds()
  (child,) = psutil.Process(process.pid).children()
  child.kill()
  wait_until(lambda: not process_tree._is_alive(child))
  assert tree.cpu_seconds() >= before


def test_what_lost_its_parent_is_still_ended(busy):
  tree, process = busy
  tree.cpu_seconds()
  (child,) = psutil.Process(process.pid).children()
  process.kill()
  process.wait()
  tree.end(10.0)
  assert not process_tree._is_alive(child)


def test_rates_are_those_between_the_first_and_last_count_of_a_window():
  # A core and a half at work all the time, 1,000 steps a second.
  counts = [(t, 1000 * t) for t in (9.0, 10.5, 12.5, 14.5, 16.0)]
  cpu = [(10.0, 5.0), (13.0, 9.5), (15.0, 12.5)]
  assert peer_measurement.rates(counts, cpu) == pytest.approx(
    {'steps_per_second': 1000, 'cpu_ms_per_step': 1.5, 'cores_used': 1.5}
  )


@pytest.mark.parametrize(
  'counts', [[], [(12.0, 5)], [(11.0, 5), (12.0, 5)], [(1.0, 5), (99.0, 9)]]
)
def test_a_window_in_which_nothing_was_learned_is_an_error(counts):
  with pytest.raises(peer_measurement.PeerError, match='raise --seconds'):
    peer_measurement.rates(counts, [(10.0, 1.0), (20.0, 2.0)])


def test_counts_end_with_the_last_complete_line(tmp_path):
  path = tmp_path / 'counts'
  assert peer_measurement.read_counts(str(path)) == []
  path.write_text('{"time": 1.5, "steps": 20}\n{"time": 2.5, "st')
  assert peer_measurement.read_counts(str(path)) == [(1.5, 20)]


def test_a_program_is_measured_by_its_own_count(tmp_path):
  counts = str(tmp_path / 'counts')
  program = write(tmp_path / 'steady.py', STEADY)
  result = peer_measurement.measure(
    [sys.executable, program, counts], counts, WINDOW
  )
  assert result['steps_per_second'] == pytest.approx(1000)
  assert set(result) == set(peers.VALUES)


def test_a_program_that_fails_says_so_with_the_end_of_its_log(tmp_path, capfd):
  with pytest.raises(
    peer_measurement.PeerError, match=r'^ended by itself with status 3$'
  ):
    peer_measurement.measure(
      [sys.executable, '-c', 'print("no games here"); raise SystemExit(3)'],
      str(tmp_path / 'counts'),
      WINDOW,
    )
  assert 'no games here' in capfd.readouterr().err


def test_medians_are_of_the_rounds_that_did_not_fail():
  def row(value):
    return dict.fromkeys(peers.VALUES, value)

  rounds = [row(1.0), row(5.0), {'error': 'broke'}, row(2.0)]
  assert peers.median(rounds) == {**row(2.0), 'note': '1 of 4 rounds failed'}
  assert peers.median([{'error': 'a'}, {'error': 'b'}]) == {'error': 'b'}


def test_an_environment_that_is_missing_is_named_with_its_remedy(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'make peers-setup NAME=rllib$'):
    peer.PEERS['rllib'].python(str(tmp_path))


def test_a_peer_asked_for_by_name_must_be_installed(
  capsys, monkeypatch, tmp_path
):
  monkeypatch.setattr(peer.Peer.python, '__defaults__', (str(tmp_path),))
  with pytest.raises(SystemExit):
    peers.parse(['--peers=rllib'])
  assert capsys.readouterr().err.endswith(
    '--peers=rllib: not installed: make peers-setup NAME=rllib\n'
  )


@pytest.mark.parametrize(
  ('arguments', 'error'),
  [
    (['--peers=dopamine'], '--peers=dopamine: choose from scalable_agent, '),
    (['--seconds=0'], '--seconds=0.0: must be above 0.'),
    (['--rounds=0'], '--rounds=0: must be above 0.'),
    (['--warm_up=-1'], '--warm_up=-1.0: must be 0 or more.'),
    (['--append'], '--append: name the file to add to with --output.'),
  ],
)
def test_wrong_options_are_refused_with_a_reason(capsys, arguments, error):
  with pytest.raises(SystemExit):
    peers.parse(arguments)
  assert error in capsys.readouterr().err


def test_a_report_has_rounds_of_earlier_commands_and_reasons(tmp_path, capsys):
  output = str(tmp_path / 'peers.json')
  options = peers.parse(
    [f'--output={output}', '--append', '--peers=scalable_agent']
  )
  first = peers.make_report(options)
  assert first['peers'] == {}
  value = {'steps_per_second': 3000, 'cpu_ms_per_step': 0.5, 'cores_used': 1.5}
  peers.add_round(first, 'scalable_agent', value)
  peers.add_round(first, 'rllib', {'error': 'does not install'})
  with open(output, 'w', encoding='utf-8') as file:
    json.dump(first, file)
  second = peers.make_report(options)
  peers.add_round(second, 'scalable_agent', value | {'steps_per_second': 1000})
  row = second['peers']['scalable_agent']
  assert row['median']['steps_per_second'] == 2000
  assert row['settings'] == '--algorithm=impala'
  peers.print_report(second)
  table = capsys.readouterr().out
  assert '2,000' in table
  assert 'does not install' in table
  options.seconds = 1.0
  with pytest.raises(SystemExit, match='Choose another --output'):
    peers.make_report(options)


def test_what_can_be_set_up_is_what_peers_need():
  folder = os.path.join(peer.ROOT, 'benchmarks', 'peers')
  files = {
    name.removeprefix('requirements-').removesuffix('.txt')
    for name in os.listdir(folder)
    if name.startswith('requirements-')
  }
  needed = {p.environment for p in peer.PEERS.values()}
  assert files == needed - {None}
  for one in peer.PEERS.values():
    assert os.path.exists(os.path.join(folder, one.program))
