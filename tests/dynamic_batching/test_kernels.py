"""What the ops do with inputs that `Batcher` would never give them.

Eagerly, no shape function sees the inputs, and a failed CHECK would end the
process.
"""

import pytest
import tensorflow as tf

from dynamic_batching import ops

INT32 = {
  'input_types': [tf.int32],
  'input_shapes': [[None]],
  'output_types': [tf.int32],
  'output_shapes': [[None, 3]],
}
ID = tf.constant(0, tf.int64)
ONE = tf.ones([1], tf.int32)
ROW = tf.ones([1, 3], tf.int32)


@pytest.fixture
def library():
  return ops.load()


@pytest.fixture
def refused(library):
  """Calls an op with a batcher; returns what it says against its inputs."""
  handle = library.batcher(timeout_ms=0, **INT32)

  def call(name, *inputs, handle=handle):
    with pytest.raises(tf.errors.InvalidArgumentError) as info:
      getattr(library, name)(handle, *inputs)
    return str(info.value)

  yield call
  library.batcher_close(handle)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'minimum_batch_size': 0}, 'minimum_batch_size .* but was 0'),
    (
      {'minimum_batch_size': 5, 'maximum_batch_size': 4},
      'maximum_batch_size .*minimum_batch_size=5 rows but was 4',
    ),
    ({'timeout_ms': -2}, 'timeout_ms .* but was -2'),
    ({'timeout_ms': 2**31}, 'timeout_ms .* but was 2147483648'),
    (
      {'allowed_batch_sizes': [2, 1]},
      r'allowed_batch_sizes .* increasing .*=1024, but was \[2, 1\]',
    ),
    ({'allowed_batch_sizes': [0, 2000]}, 'allowed_batch_sizes .* but was'),
    ({'allowed_batch_sizes': [1000]}, 'the last at least .* but was .1000.'),
    ({'input_shapes': [[], []]}, 'input_types and input_shapes .* 1 and 2'),
    ({'output_types': [tf.variant]}, 'cannot copy rows of type variant'),
  ],
)
def test_an_option_out_of_range_is_named(library, options, message):
  with pytest.raises(tf.errors.InvalidArgumentError, match=message):
    library.batcher(**{**INT32, **options})


@pytest.mark.parametrize('shape', [[0], [1], [2], [1, 1]])
def test_a_computation_id_must_be_a_scalar(refused, shape):
  ids = tf.zeros(shape, tf.int64)
  message = f'computation_id must be a scalar but has the shape {shape}'
  message = message.replace(' ', '')
  for error in (
    refused('batcher_set_outputs', [ROW], ids),
    refused('batcher_set_error', ids, 3, 'error'),
  ):
    assert message in error.replace(' ', '')


def test_an_error_must_be_scalars_with_a_code_in_range(refused):
  for code in ([], [3], [3, 3]):
    assert 'error_code must be a scalar' in refused(
      'batcher_set_error', ID, tf.constant(code, tf.int32), 'error'
    )
  for message in ([], ['error']):
    assert 'error_message must be a scalar' in refused(
      'batcher_set_error', ID, 3, tf.constant(message, tf.string)
    )
  for code in (-1, 0, 17):
    assert f'error_code must be in 1 ... 16 but was {code}' in refused(
      'batcher_set_error', ID, code, 'error'
    )


@pytest.mark.parametrize('shape', [[1], [2]])
def test_a_handle_must_be_a_scalar(library, refused, shape):
  handles = tf.fill(shape, library.batcher(**INT32))
  for name, inputs in {
    'batcher_compute': ([ONE], [tf.int32]),
    'batcher_get_inputs': ([tf.int32],),
    'batcher_set_outputs': ([ROW], ID),
    'batcher_set_error': (ID, 3, 'error'),
    'batcher_close': (),
    'batcher_statistics': (),
  }.items():
    error = refused(name, *inputs, handle=handles)
    assert 'handle must be a scalar' in error


def test_types_must_be_those_of_the_batcher(refused):
  float_row = tf.ones([1, 3])
  wrong = 'must be int32 of shape [?] but was float'
  assert f'Input 0 {wrong}' in refused(
    'batcher_compute', [tf.ones([1])], [tf.int32]
  )
  assert f'Input 0 {wrong}' in refused('batcher_get_inputs', [tf.float32])
  wrong = 'must be int32 of shape [?,3] but was float'
  assert f'Output 0 {wrong}' in refused('batcher_compute', [ONE], [tf.float32])
  assert f'Output 0 {wrong}' in refused('batcher_set_outputs', [float_row], ID)
  for error in (
    refused('batcher_compute', [ONE, ONE], [tf.int32]),
    refused('batcher_get_inputs', [tf.int32, tf.int32]),
  ):
    assert 'Inputs of the batcher are 1 tensors but these are 2' in error
  for error in (
    refused('batcher_compute', [ONE], [tf.int32, tf.int32]),
    refused('batcher_set_outputs', [ROW, ROW], ID),
  ):
    assert 'Outputs of the batcher are 1 tensors but these are 2' in error
