"""Nests come back from their file as they were."""

import json
import random
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
import tree

from scalable_agent import structures
from scalable_agent.storage import nest_files


class Foreign(NamedTuple):
  """A named tuple that is not of the package."""

  x: int


def snapshot_like_nest():
  generator = np.random.default_rng(1)
  f = np.float32
  return {
    'environment': [b'\x00\xffALE', generator.bit_generator.state],
    'random_state': random.Random(1).getstate(),
    'env_output': structures.StepOutput(
      step_type=np.zeros([2], np.int32),
      reward=np.array([np.nan, -0.0], f),
      discount=np.ones([2], f),
      observation=np.arange(8, dtype=np.uint8).reshape([2, 2, 2, 1]),
      info=structures.EpisodeInfo(np.zeros([2], f), np.zeros([2], np.int32)),
    ),
    'agent_state': ((np.zeros([2, 3], f),), ()),
    'empty': {},
    'numbers': [True, None, 2**100, -1.5, float('inf'), 'ü', b''],
    'numpy_scalars': (np.int64(3), np.float32(0.1), np.bool_(True)),
    3: {(1, 'a'): 'keys that are no strings'},
  }


def assert_same_nest(a, b):
  assert type(a) is type(b)
  if isinstance(a, dict):
    assert list(a) == list(b)
    for key in a:
      assert_same_nest(a[key], b[key])
  elif isinstance(a, list | tuple):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
      assert_same_nest(x, y)
  elif isinstance(a, np.ndarray | np.generic):
    assert a.dtype == b.dtype
    assert np.shape(a) == np.shape(b)
    assert a.tobytes() == b.tobytes()
  else:
    assert a == b


def test_a_nest_comes_back_with_its_types_and_bits(tmp_path):
  nest = snapshot_like_nest()
  nest_files.write(str(tmp_path / 'nest.npz'), nest)
  assert_same_nest(nest, nest_files.read(str(tmp_path / 'nest.npz')))


def test_tensors_come_back_as_arrays(tmp_path):
  nest = {'state': (tf.constant([1.0, 2.0]), keras.Variable(3.0))}
  nest_files.write(str(tmp_path / 'nest.npz'), nest)
  result = nest_files.read(str(tmp_path / 'nest.npz'))
  expected = tree.map_structure(np.asarray, nest)
  assert_same_nest(expected, result)


@pytest.mark.parametrize(
  'value', [object(), {1, 2}, Foreign(1), np.array([None]), print]
)
def test_what_cannot_be_saved_is_named_with_its_place(tmp_path, value):
  with pytest.raises(TypeError, match=r"state\['a'\]\[1\] is a "):
    nest_files.write(str(tmp_path / 'nest.npz'), {'a': [0, value]})


def read_structure(path):
  with np.load(path) as arrays:
    return arrays['structure'].tobytes().decode()


@pytest.mark.parametrize('module', ['networks', 'structures', 'gone.for.good'])
def test_a_class_is_found_wherever_it_was_when_it_was_saved(tmp_path, module):
  path = tmp_path / 'nest.npz'
  state = structures.AgentState(frames=(), core=(1, 2))
  nest_files.write(str(path), state)
  saved = read_structure(path)
  assert 'scalable_agent' not in saved
  # As it was once saved.
  old = saved.replace('AgentState', f'scalable_agent.{module}:AgentState')
  np.savez(path, structure=np.frombuffer(old.encode(), np.uint8))
  assert_same_nest(nest_files.read(str(path)), state)


def test_a_file_cannot_name_a_class_of_another_package(tmp_path):
  structure = json.dumps(['namedtuple', 'os:stat_result', [], []])
  array = np.frombuffer(structure.encode(), np.uint8)
  np.savez(tmp_path / 'nest.npz', structure=array)
  with pytest.raises(ValueError, match='os:stat_result is not of'):
    nest_files.read(str(tmp_path / 'nest.npz'))
