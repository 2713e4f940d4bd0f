"""The default command of the Docker image, as process 1 where that can be."""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import psutil

from tests.processes import (
  DEADLINE_S,
  ROOT,
  checkpoints,
  environment_variables,
  episodes,
  wait_for,
)

AS_PROCESS_1 = ['unshare', '--fork', '--pid', '--kill-child']


def default_command():
  dockerfile = (ROOT / 'Dockerfile').read_text(encoding='utf-8')
  found = re.search(r'^CMD (\[.*\])$', dockerfile, re.MULTILINE)
  return json.loads(found[1])


def prefix():
  """Returns what makes a command process 1, if this machine permits it."""
  try:
    subprocess.run([*AS_PROCESS_1, 'true'], check=True, capture_output=True)
  except (OSError, subprocess.CalledProcessError):
    return []
  return AS_PROCESS_1


def test_the_default_command_ends_with_a_checkpoint_on_sigterm(tmp_path):
  for name in ('experiment.py', 'scripts'):
    (tmp_path / name).symlink_to(ROOT / name)
  before = prefix()
  python = pathlib.Path(sys.executable).parent
  variables = {'PATH': f'{python}{os.pathsep}{os.environ["PATH"]}'}
  with subprocess.Popen(
    [*before, *default_command()],
    cwd=tmp_path,
    env=environment_variables() | variables,
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    start_new_session=True,
  ) as process:
    try:
      logdir = tmp_path / 'logs' / 'catch'
      wait_for(lambda: len(episodes(logdir)) > 10, process)
      first = psutil.Process(process.pid)
      if before:
        (first,) = first.children()
      first.send_signal(signal.SIGTERM)
      output, _ = process.communicate(timeout=DEADLINE_S)
    finally:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
  assert process.returncode == 0, output
  assert 'by SIGTERM. Run the same command to go on.' in output
  assert checkpoints(logdir)
