"""Measures what others train with beside this, all in one run, on Pong.

  make peers-setup NAME=stable_baselines3   # also: sample_factory, rllib
  python benchmarks/peers.py --output=peers.json

Each peer runs as its users start it, in an environment of its own, in processes
of its own; they take turns, `--rounds` times, because a shared machine changes
its speed by the minute, and the medians are compared. All play the same game
with the same preprocessing (84 x 84 grey pixels, 4 frames stacked, each action
4 times, the brighter of the last two screens) and learn with the same network
(two convolutions, 256 units) from all that they play. Steps are those learned
from, by the program's own count; CPU time is that of all its processes.

To measure in several commands, say one for each peer and round:

  python benchmarks/peers.py --peers=rllib --rounds=1 --append --output=p.json
"""

import argparse
import datetime
import json
import math
import os
import platform
import signal
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from rich import box, console, table

from benchmarks import peer as peer_lib
from benchmarks import peer_measurement

VALUES = ('steps_per_second', 'cpu_ms_per_step', 'cores_used')
# What may not differ between the commands whose rounds are put together.
_SAME = ('machine', 'cores', 'seconds', 'warm_up')


def measure_peer(peer: peer_lib.Peer, options) -> dict[str, Any]:
  """Returns the rates of a peer, or the error in their place."""
  with tempfile.TemporaryDirectory() as folder:
    counts = os.path.join(folder, 'counts.jsonl')
    try:
      return peer_measurement.measure(peer.command(counts), counts, options)
    except (peer_measurement.PeerError, FileNotFoundError) as error:
      return {'error': str(error)}


def median(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Returns the median of each value, and an error if no round has any."""
  good = [r for r in rounds if 'error' not in r]
  failed = f'{len(rounds) - len(good)} of {len(rounds)} rounds failed'
  if not good:
    return {'error': rounds[-1]['error']}
  result: dict[str, Any] = {
    name: statistics.median(r[name] for r in good) for name in VALUES
  }
  return result | ({'note': failed} if len(good) < len(rounds) else {})


def processor() -> str:
  """Returns what the machine's processor calls itself."""
  try:
    with open('/proc/cpuinfo', encoding='utf-8') as file:
      for line in file:
        name, _, value = line.partition(':')
        if name.strip() == 'model name':
          return value.strip()
  except FileNotFoundError:
    pass
  return platform.machine()


def make_report(options) -> dict[str, Any]:
  """Returns a report without any rounds, or with those of an earlier command.

  Raises:
    SystemExit: the earlier ones were measured in another way.
  """
  report = {
    'machine': processor(),
    'cores': len(os.sched_getaffinity(0)),
    'date': datetime.date.today().isoformat(),
    'seconds': options.seconds,
    'warm_up': options.warm_up,
    'peers': {},
  }
  if not options.append or not os.path.exists(options.output):
    return report
  with open(options.output, encoding='utf-8') as file:
    earlier = json.load(file)
  for key in _SAME:
    if earlier[key] != report[key]:
      sys.exit(
        f'--append: {options.output} was measured with {key} '
        f'{earlier[key]}, not {report[key]}. Choose another --output.'
      )
  return earlier


def add_round(report: dict[str, Any], name: str, result: dict) -> None:
  """Puts a result to those that a peer has with the same settings."""
  peer = peer_lib.PEERS[name]
  settings = {
    'title': peer.title,
    'versions': dict(peer.versions()),
    'settings': ' '.join(peer.arguments),
  }
  row = report['peers'].get(name, {})
  # Rounds of other settings or versions are of no use.
  if any(row.get(key) != value for key, value in settings.items()):
    row = settings | {'rounds': []}
  row['rounds'].append(result)
  row['median'] = median(row['rounds'])
  report['peers'][name] = row


def print_report(report: Mapping[str, Any]) -> None:
  """Prints a table, the fastest first and those that failed last."""
  ours = report['peers'].get('scalable_agent', {}).get('median', {})
  rows = table.Table(
    title=f'Pong: training, {report["cores"]} cores of {report["machine"]}, '
    f'{report["date"]}',
    box=box.MARKDOWN,
  )
  rows.add_column('peer')
  for title in ('steps/s', 'of ours', 'CPU-ms/step', 'cores used'):
    rows.add_column(title, justify='right')
  ordered = sorted(
    report['peers'].values(),
    key=lambda row: -row['median'].get('steps_per_second', 0),
  )
  notes = []
  for row in ordered:
    result = row['median']
    versions = ', '.join(f'{k} {v}' for k, v in row['versions'].items())
    note = result.get('error') or result.get('note') or ''
    notes.append(f'{row["title"]} ({versions}): {row["settings"]} {note}')
    if 'error' in result:
      rows.add_row(row['title'], '-', '-', '-', '-')
      continue
    share = result['steps_per_second'] / ours.get('steps_per_second', math.nan)
    rows.add_row(
      row['title'],
      f'{result["steps_per_second"]:,.0f}',
      f'{share:.2f}',
      f'{result["cpu_ms_per_step"]:.2f}',
      f'{result["cores_used"]:.2f}',
    )
  console.Console().print(rows)
  print('\n'.join(note.rstrip() for note in notes))


def parse(argv: Sequence[str]) -> argparse.Namespace:
  """Returns the options, checked."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    '--peers',
    type=lambda text: text.split(','),
    help=f'Which, of {",".join(peer_lib.PEERS)}. Default: all.',
  )
  parser.add_argument('--seconds', type=float, default=20.0, help='Measured.')
  parser.add_argument('--warm_up', type=float, default=10.0, help='Before.')
  parser.add_argument('--rounds', type=int, default=2, help='Turns of each.')
  parser.add_argument('--output', default='', help='JSON file for the results.')
  parser.add_argument(
    '--append', action='store_true', help='Adds to rounds in --output.'
  )
  options = parser.parse_args(argv)
  for name in ('seconds', 'rounds'):
    if getattr(options, name) <= 0:
      parser.error(f'--{name}={getattr(options, name)}: must be above 0.')
  if options.warm_up < 0:
    parser.error(f'--warm_up={options.warm_up}: must be 0 or more.')
  if options.append and not options.output:
    parser.error('--append: name the file to add to with --output.')
  for name in options.peers or ():
    if name not in peer_lib.PEERS:
      parser.error(f'--peers={name}: choose from {", ".join(peer_lib.PEERS)}.')
    # Who asks for it by name wants it measured.
    try:
      peer_lib.PEERS[name].python()
    except FileNotFoundError as error:
      parser.error(f'--peers={name}: {error}')
  return options


def main(argv: Sequence[str]) -> None:
  """Measures, prints and writes."""
  # Ends the programs that were started, as Ctrl-C does.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
  options = parse(argv)
  report = make_report(options)
  for _ in range(options.rounds):
    for name in options.peers or peer_lib.PEERS:
      result = measure_peer(peer_lib.PEERS[name], options)
      print(f'{name}: {result}', flush=True)
      add_round(report, name, result)
      # After each, so that a run that is stopped is not lost.
      if options.output:
        with open(options.output, 'w', encoding='utf-8') as file:
          json.dump(report, file, indent=2)
  print_report(report)


if __name__ == '__main__':
  main(sys.argv[1:])
