"""Measures what it costs a learner to serve its actors, without learning.

  python benchmarks/service.py --output=service.json

A learner's server in one process, actors that only send in others, whose
unrolls and observations are made up; no agent is evaluated. For each kind of
call: how many a second, the CPU time for one of the server's process and of the
caller's, and the part of the server's that is spent in handlers, of which only
one can run at a time while it holds Python's lock. docs/distributed.md
calculates with these.
"""

import json
import os
import subprocess
import sys
import threading
import time

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np
import psutil
import tree
from absl import app, flags, logging
from rich import box, console, table

from scalable_agent import (
  actor,
  environments,
  options,
  runtimes,
  structures,
  unroll_queue,
)
from scalable_agent.runtimes import assembly, cores, worlds
from scalable_agent.transport import (
  learner_link,
  rpc,
  step_codec,
  step_service,
  unroll_service,
  weights,
)

CALLS = ('unroll', 'weights', 'step')

_LEVEL = flags.DEFINE_string('level_name', 'pong', 'What would be played.')
_CLIENTS = flags.DEFINE_integer('clients', 2, 'Processes that send.')
_SECONDS = flags.DEFINE_float('seconds', 8.0, 'Measured seconds per call.')
_PORT = flags.DEFINE_integer('port', 8800, 'Port of the server.')
_OUTPUT = flags.DEFINE_string('output', '', 'JSON file for the results.')
_CALL = flags.DEFINE_enum('call', None, CALLS, 'Sends this, in this process.')
_TASK = flags.DEFINE_integer('task', 0, 'Of the sender.')


def _parts():
  """Returns config, spec and agent as an actor and its learner have them."""
  levels = environments.parse_levels(_LEVEL.value)
  config = options.resolve(
    runtimes.make_catalog().make(level_name=_LEVEL.value),
    levels[0].suite,
    levels[0].options,
  )
  config = assembly.resolve_machine(config)
  assembly.use_threads(config)
  spec = worlds.find_spec(config, levels[0])
  return config, spec, assembly.make_agent(config, spec)


class _Drain(unroll_queue.UnrollQueue):
  """A queue that is never full: the learner is infinitely fast."""

  def __init__(self):
    super().__init__(1, 1)

  def put(self, unroll, actor=0):
    """See base class."""


def _zeros(*shape):
  return lambda spec: np.zeros((*shape, *spec.shape), spec.dtype)


def _send() -> None:
  """One sender, until it is killed."""
  config, spec, agent = _parts()
  num_envs = config.actors.envs_per_actor
  link = learner_link.LearnerLink(
    f'localhost:{_PORT.value}', _TASK.value, {}, 30.0, threading.Event()
  )
  link.register()
  if _CALL.value == 'step':
    layout = step_codec.Layout(spec)
    link.begin('observations', layout=layout.describe(), columns=num_envs)
    step = tree.map_structure(
      _zeros(num_envs), structures.step_output_spec(spec)
    )
    while True:
      link.ask('step', lambda header: layout.write(step, header))
  unrolls = assembly.make_layout(config, spec, agent)
  link.begin(
    'unrolls', agent.variables, layout=unrolls.describe(), columns=num_envs
  )
  link.update_weights()
  make = _zeros(config.actors.unroll_length + 1, num_envs)
  unroll = structures.ActorOutput(
    agent_state=tree.map_structure(np.asarray, agent.initial_state(num_envs)),
    env_outputs=tree.map_structure(make, structures.step_output_spec(spec)),
    agent_outputs=tree.map_structure(
      make, structures.agent_output_spec(spec.action_space)
    ),
    policy_version=np.zeros([num_envs], np.int64),
    level=np.zeros([num_envs], np.int32),
  )
  while True:
    if _CALL.value == 'unroll':
      link.send('unroll', lambda header: unrolls.write(unroll, header))
    else:
      link._version = -1
      link.update_weights()


def _measure(call: str, service, seconds_in_python) -> dict[str, float]:
  command = [sys.executable, os.path.abspath(__file__), f'--call={call}']
  command += [f'--port={_PORT.value}', f'--level_name={_LEVEL.value}']
  senders = [
    subprocess.Popen([*command, f'--task={task}'], stdout=subprocess.DEVNULL)
    for task in range(_CLIENTS.value)
  ]
  process = psutil.Process()

  def state():
    times = process.cpu_times()
    count, seconds = seconds_in_python[call]
    gauges = service.gauges()
    return np.array(
      [
        time.monotonic(),
        count,
        times.user + times.system,
        seconds,
        gauges['actors/agent_steps'],
        sum(n for name, n in gauges.items() if name.endswith('_bytes')),
        sum(_cpu_of(sender.pid) for sender in senders),
      ]
    )

  # Starting and the first calls are no part of it.
  enough = seconds_in_python[call][0] + 10 * _CLIENTS.value
  try:
    pause = threading.Event()
    while any(s.poll() is None for s in senders) and (
      seconds_in_python[call][0] < enough
    ):
      pause.wait(0.1)
    begin = state()
    pause.wait(_SECONDS.value)
    seconds, count, cpu, python, steps, sent, client_cpu = state() - begin
  finally:
    for sender in senders:
      sender.kill()
      sender.wait()
  if not count:
    sys.exit(f'no sender of {call} has come')
  return {
    'calls_per_second': count / seconds,
    'agent_steps_per_call': steps / count,
    'bytes_per_call': sent / count,
    'cpu_ms_per_call': 1000 * cpu / count,
    'of_it_in_handlers': 1000 * python / count,
    'client_cpu_ms_per_call': 1000 * client_cpu / count,
  }


def _cpu_of(pid: int) -> float:
  times = psutil.Process(pid).cpu_times()
  return times.user + times.system


def _services():
  """Yields services and the calls that each is to answer."""
  config, spec, agent = _parts()
  arguments = {
    'options': {},
    'num_actors': _CLIENTS.value,
    'index': 0,
    'num_learners': 1,
    'deal': (0,),
    'weights_description': weights.describe(agent.variables),
    'queue': _Drain(),
    'record_unroll': lambda unroll: None,
  }

  def make_unroller(columns: int, level: int) -> actor.Unroller:
    answer = tree.map_structure(
      _zeros(columns), structures.agent_output_spec(spec.action_space)
    )
    return actor.Unroller(
      lambda env_output, action, state: (answer, state),
      agent.initial_state(columns),
      spec,
      columns,
      config.actors.unroll_length,
      level,
    )

  unrolls = unroll_service.UnrollService(
    layout=assembly.make_layout(config, spec, agent), **arguments
  )
  snapshot = weights.Snapshot(0, [v.read_value() for v in agent.variables])
  unrolls.publish(snapshot, 0)
  yield unrolls, ('unroll', 'weights')
  steps = step_service.StepService(
    layout=step_codec.Layout(spec),
    make_unroller=make_unroller,
    most_columns=2**16,
    **arguments,
  )
  steps.publish(weights.Snapshot(0, ()), 0)
  yield steps, ('step',)


def main(argv: list[str]) -> None:
  del argv
  logging.set_verbosity(logging.ERROR)
  if _CALL.value:
    _send()
    return
  seconds_in_python = {call: [0, 0.0] for call in CALLS}

  def timed(name, handler):
    if name not in CALLS:
      return handler

    def answer(request):
      start = time.thread_time()
      try:
        return handler(request)
      finally:
        seconds_in_python[name][0] += 1
        seconds_in_python[name][1] += time.thread_time() - start

    return answer

  results = {}
  for service, calls in _services():
    handlers = {n: timed(n, h) for n, h in service.handlers().items()}
    server = rpc.Server(f'localhost:{_PORT.value}', handlers)
    for call in calls:
      results[call] = _measure(call, service, seconds_in_python)
    server.stop()
  rows = table.Table(
    title=f'{_LEVEL.value}, {_CLIENTS.value} senders, '
    f'{cores.usable_cores()} cores',
    box=box.SIMPLE,
  )
  for title in ('call', *(k.replace('_', ' ') for k in results['unroll'])):
    rows.add_column(title, justify='left' if title == 'call' else 'right')
  for call, values in results.items():
    rows.add_row(call, *(f'{value:,.3f}' for value in values.values()))
  console.Console(width=110).print(rows)
  if _OUTPUT.value:
    with open(_OUTPUT.value, 'w', encoding='utf-8') as file:
      json.dump(results, file, indent=2)


if __name__ == '__main__':
  app.run(main)
