"""Gradients that were computed elsewhere: they do what a worker's own do."""

import numpy as np
import pytest
import tensorflow as tf
import tree

from scalable_agent import gradients
from scalable_agent.transport import malformed
from tests import acting, differentiating

LENGTH = 5  # T
COLUMNS = 3


def make_acting(**options):
  """Alike but for their experience; images, whose mean is learned as well."""
  tf.random.set_seed(1)
  return acting.Acting(
    acting.ImageEnvironment(COLUMNS, episode_steps=3),
    **({'frame_stack': 2, 'unroll_length': LENGTH} | options),
  )


def state_of(one):
  """Returns everything that an update changes."""
  variables = [
    *one.agent.variables,
    *(v.value for o in one.optimizers for v in o.variables),
    one.frames,
    one.updates,
  ]
  return [v.numpy() for v in variables]


def fetch(copy, one):
  for own, value in zip(copy.variables, one.agent.variables, strict=True):
    own.assign(value)


@pytest.mark.parametrize(
  ('lstm', 'optimizer'),
  [(False, 'rmsprop'), (True, 'adam')],
  ids=['rmsprop', 'lstm_adam'],
)
def test_over_a_wire_they_change_all_that_a_worker_changes(lstm, optimizer):
  mine, other = make_acting(lstm=lstm), make_acting(lstm=lstm)
  worked = differentiating.make_learner(
    make_acting(lstm=lstm).agent, optimizer=optimizer
  )
  worker = worked.make_worker(make_acting(lstm=lstm).agent)
  applied = differentiating.make_learner(mine.agent, optimizer=optimizer)
  layout, function = differentiating.make_layout(other, COLUMNS)
  clipped = []
  for version in range(4):
    worker.synchronise()
    fetch(other.agent, applied)
    other.version = version
    unroll = other.unroll()
    expected = worker.update(unroll)
    data = layout.write(function(unroll), unroll)
    assert len(data) == layout.num_bytes(COLUMNS)
    given, _ = layout.read(data, 0, COLUMNS, level=0)
    values = applied.apply(given, version)
    assert values.keys() == expected.keys()
    for name, value in expected.items():
      np.testing.assert_array_equal(values[name], value, err_msg=name)
    for one, two in zip(state_of(worked), state_of(applied), strict=True):
      np.testing.assert_array_equal(one, two)
    clipped.append(float(values['gradient_norm']) > 0.5)
  assert any(clipped)
  assert int(applied.updates.numpy()) == 4
  assert int(mine.agent._pixels.count) > 0


def test_a_part_has_gradients_of_what_it_depends_on_alone():
  one = make_acting()
  function = gradients.GradientFunction(
    one.agent, differentiating.LOSS, differentiating.CLIP, num_parts=2
  )
  names = [v.name for v in one.agent.trainable_variables]
  parts = function(one.unroll()).parts
  for part, others in zip(parts, ('baseline', 'policy_logits'), strict=True):
    mine = {i for i, name in enumerate(names) if others not in name}
    assert set(part) == mine
    assert len(mine) == len(names) - 2


def test_lag_is_that_of_the_weights_they_are_of():
  one = make_acting()
  learner = differentiating.make_learner(make_acting().agent)
  _, function = differentiating.make_layout(one)
  computed = function(one.unroll())
  for lag in range(3):
    values = learner.apply(computed, 0)
    assert float(values['policy_lag']) == lag
    assert float(values['max_policy_lag']) == lag


def test_a_description_is_what_a_call_returns_whatever_the_columns():
  one = make_acting()
  _, function = differentiating.make_layout(one)
  specs = function.specs(one.spec, LENGTH)
  returned = tree.map_structure(
    lambda x: (tuple(x.shape), x.dtype), function(one.unroll())
  )
  described = tree.map_structure(lambda x: (tuple(x.shape), x.dtype), specs)
  tree.map_structure(lambda a, b: None, returned, described)
  assert tree.flatten(returned) == tree.flatten(described)


def test_a_layout_describes_what_it_writes():
  one = make_acting()
  layout, function = differentiating.make_layout(one, COLUMNS)
  unroll = one.unroll()
  data = layout.write(function(unroll), unroll)
  described = [(name, dtype) for name, _, dtype in layout.describe()]
  given, read = layout.read(data, 0, COLUMNS, level=0)
  parts = {
    'gradients': given,
    'unroll': (read.env_outputs, read.agent_outputs),
  }
  assert described == [
    ('/'.join(map(str, path)), array.dtype.name)
    for path, array in tree.flatten_with_path(parts)
  ]
  assert ('unroll/0/step_type', 'int32') in described
  with pytest.raises(malformed.Malformed):
    layout.read(data[:-1], 0, COLUMNS, level=0)


def test_to_describe_them_and_to_call_it_is_one_tracing():
  one = make_acting(lstm=True)
  _, function = differentiating.make_layout(one, COLUMNS)
  for unroll in one.unrolls(2):
    function(unroll)
  assert function._function.experimental_get_tracing_count() == 1


@pytest.mark.parametrize(
  ('what', 'value'),
  [
    ('gradient', np.nan),
    ('gradient', np.inf),
    ('gradient', 1e30),  # Its square is not.
    ('moment', np.nan),
    ('moment', np.inf),
    ('norm', np.nan),
    ('norm', np.inf),
  ],
)
def test_what_is_not_finite_changes_nothing(what, value):
  one = make_acting()
  learner = differentiating.make_learner(make_acting().agent)
  _, function = differentiating.make_layout(one)
  given = tree.map_structure(np.array, function(one.unroll()))
  if what == 'gradient':
    given.parts[0][1].flat[0] = value
  elif what == 'moment':
    given.moments[1].flat[0] = value
  else:
    given.metrics['gradient_norm'] = np.float32(value)
  before = state_of(learner)
  values = learner.apply(given, 0)
  assert int(values['skipped_steps']) == 1
  for old, new in zip(before, state_of(learner), strict=True):
    np.testing.assert_array_equal(old, new)
  # It goes on.
  assert int(learner.apply(function(one.unroll()), 0)['skipped_steps']) == 0
