"""Options and specs are checked, by name and value."""

import pytest
import tensorflow as tf

import dynamic_batching
from dynamic_batching import ops

SPEC = tf.TensorSpec([None], tf.int32)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'minimum_batch_size': 0}, 'minimum_batch_size .* but was 0'),
    ({'minimum_batch_size': 1.5}, 'minimum_batch_size .* but was 1.5'),
    ({'minimum_batch_size': True}, 'minimum_batch_size .* but was True'),
    ({'maximum_batch_size': 0}, 'maximum_batch_size .* but was 0'),
    (
      {'minimum_batch_size': 5, 'maximum_batch_size': 4},
      'maximum_batch_size .*minimum_batch_size=5 rows but was 4',
    ),
    ({'timeout_ms': -1}, 'timeout_ms .* but was -1'),
    ({'timeout_ms': 'soon'}, "timeout_ms .* but was 'soon'"),
  ],
)
def test_an_option_out_of_range_is_named(options, message):
  with pytest.raises(ValueError, match=message):
    dynamic_batching.Batcher(SPEC, SPEC, **options)
  with pytest.raises(ValueError, match=message):
    dynamic_batching.batch_fn_with_options(**options)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'minimum_batch_size': 0}, 'minimum_batch_size .* but was 0'),
    (
      {'minimum_batch_size': 5, 'maximum_batch_size': 4},
      'maximum_batch_size .*minimum_batch_size=5 rows but was 4',
    ),
    ({'timeout_ms': -2}, 'timeout_ms .* but was -2'),
    ({'input_types': [tf.int32]}, 'input_types and input_shapes .* 1 and 0'),
  ],
)
def test_the_op_names_an_option_out_of_range(options, message):
  with pytest.raises(tf.errors.InvalidArgumentError, match=message):
    ops.load().batcher(**options)


def test_batchers_of_one_shared_name_are_one_and_have_the_same_options():
  library = ops.load()
  options = {'shared_name': 'shared', 'minimum_batch_size': 2}
  one = library.batcher(**options)
  other = library.batcher(**options)
  library.batcher_close(one)
  assert library.batcher_statistics(other).closed
  with pytest.raises(
    tf.errors.InvalidArgumentError, match="shared_name='shared' exists"
  ):
    library.batcher(shared_name='shared', minimum_batch_size=1)


def test_specs_must_be_tensor_specs(implementation):
  with pytest.raises(ValueError, match='input_specs must hold at least one'):
    dynamic_batching.Batcher((), SPEC, implementation=implementation)
  with pytest.raises(ValueError, match='output_specs must be a nest of'):
    dynamic_batching.Batcher(SPEC, 3, implementation=implementation)
  with pytest.raises(
    ValueError, match=r'input_specs .* rows.* first dimension'
  ):
    dynamic_batching.Batcher(
      tf.TensorSpec([2], tf.int32), SPEC, implementation=implementation
    )
  with pytest.raises(
    ValueError, match=r'input_specs .* rows.* first dimension'
  ):
    dynamic_batching.Batcher(
      tf.TensorSpec([], tf.int32), SPEC, implementation=implementation
    )


def test_the_implementation_must_exist(monkeypatch):
  with pytest.raises(ValueError, match=r"implementation .* but was 'gpu'"):
    dynamic_batching.Batcher(SPEC, SPEC, implementation='gpu')
  monkeypatch.setenv(ops.ENVIRONMENT_VARIABLE, 'gpu')
  with pytest.raises(ValueError, match=r"DYNAMIC_BATCHING .* but was 'gpu'"):
    dynamic_batching.Batcher(SPEC, SPEC)


def test_the_environment_chooses_the_implementation(monkeypatch):
  for name in ('op', 'fallback'):
    monkeypatch.setenv(ops.ENVIRONMENT_VARIABLE, name)
    assert dynamic_batching.Batcher(SPEC, SPEC).implementation == name
