"""Options and specs are checked, by name and value."""

import sys

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
    ({'timeout_ms': 2**31}, 'timeout_ms .* at most 2147483647 milliseconds'),
    ({'timeout_ms': sys.maxsize}, f'timeout_ms .* but was {sys.maxsize}'),
    ({'maximum_batch_size': 2**63}, 'maximum_batch_size .* below 2'),
  ],
)
def test_an_option_out_of_range_is_named(options, message):
  with pytest.raises(ValueError, match=message):
    dynamic_batching.Batcher(SPEC, SPEC, **options)
  with pytest.raises(ValueError, match=message):
    dynamic_batching.batch_fn_with_options(**options)


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


def test_the_longest_timeout_is_waited_for(make_batcher, threads):
  batcher = make_batcher(minimum_batch_size=2, timeout_ms=2**31 - 1)
  consumer = threads.start(batcher.get_inputs)
  threads.start(batcher.compute, tf.constant([1]))
  threads.until(lambda: batcher.statistics().waiting_rows == 1)
  assert not consumer.done()
  threads.start(batcher.compute, tf.constant([2]))
  assert threads.result(consumer)[0].shape == [2]


@pytest.mark.parametrize(
  'name', ['variant', 'resource', 'int4', 'qint8', 'float8_e5m2']
)
def test_types_whose_rows_cannot_be_copied_are_refused(implementation, name):
  spec = tf.TensorSpec([None], tf.as_dtype(name))
  for specs in ((spec, SPEC), (SPEC, spec)):
    with pytest.raises(ValueError, match=f'types .* but one is {name}'):
      dynamic_batching.Batcher(*specs, implementation=implementation)


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
