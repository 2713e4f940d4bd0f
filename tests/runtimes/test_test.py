"""Which agent of a logdir is tested."""

import pytest

from scalable_agent import environments
from scalable_agent.runtimes import assembly, test, training
from scalable_agent.storage import checkpointing, logdirs
from tests.configs import make_config, resolve


@pytest.fixture
def logdir(tmp_path):
  """A logdir with checkpoints of 100 (the best) and 200 frames."""
  config = make_config(
    level_name='catch', logdir=str(tmp_path), intra_op_threads=1
  )
  config = resolve(config, 'catch')
  logdirs.write_config(config.run.logdir, config)
  environment = assembly.make_environment(
    config, environments.parse_level('catch'), 1, seed=1
  )
  agent = assembly.make_agent(config, environment.spec)
  learner = training.make_learner(config, agent, environment.spec)
  items = learner.checkpoint_items()
  checkpointer = checkpointing.Checkpointer(config.run.logdir, items)
  for frames, score in (100, 2.0), (200, 1.0):
    items['frames'].assign(frames)
    checkpointer.save(frames, {}, score)
  environment.close()
  return config.run.logdir


def test_where_no_result_can_be_written_no_game_is_played(logdir, monkeypatch):
  def fail(dir):
    raise PermissionError(13, 'Permission denied')

  monkeypatch.setattr(logdirs.tempfile, 'TemporaryFile', fail)
  config = make_config(mode='test', logdir=logdir)
  with pytest.raises(
    ValueError, match=f'--logdir={logdir} cannot be written: Permission denied'
  ):
    test.prepare(config, {'mode', 'logdir'})


@pytest.mark.parametrize(
  ('options', 'frames'),
  [({}, 200), ({'checkpoint': 'newest'}, 200), ({'checkpoint': 'best'}, 100)],
)
def test_the_checkpoint_that_was_asked_for_is_tested(
  logdir, capsys, monkeypatch, options, frames
):
  # The threads of a process can be set once only.
  monkeypatch.setattr(assembly, 'use_threads', lambda config: None)
  config = make_config(mode='test', logdir=logdir, **options)
  test.prepare(config, {'mode', 'logdir', *options})
  assert capsys.readouterr().out == (
    f'Testing the agent of {logdir} on catch after {frames} frames.\n'
  )
