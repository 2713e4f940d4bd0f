"""Compiled functions do what tf.nest does, or say that they cannot."""

import collections
from typing import Any, NamedTuple

import pytest
import tensorflow as tf

from dynamic_batching import nest_code


class Leaf(int):
  """Not even a number is one in itself."""


class Pair(NamedTuple):
  x: Any
  y: Any


class OtherPair(NamedTuple):
  x: Any
  y: Any


def leaves(*numbers):
  return [Leaf(i) for i in numbers]


ONE, TWO, THREE, FOUR = leaves(1, 2, 3, 4)
NESTS = [
  ONE,
  (ONE,),
  [ONE],
  (ONE, TWO),
  [ONE, [TWO], (THREE,)],
  Pair(ONE, TWO),
  Pair(x=(), y=Pair(ONE, [])),
  {'b': ONE, 'a': TWO},
  {2: ONE, 1: {'x': (TWO, THREE)}},
  {"'\n": ONE, '"': {}},
  (Pair(ONE, (TWO, ())), THREE, {'state': [FOUR]}),
]


@pytest.mark.parametrize('example', NESTS, ids=str)
def test_leaves_come_in_the_order_of_tensorflow_and_go_back(example):
  read = nest_code.make_reader(example, Leaf)
  write = nest_code.make_writer(example, Leaf)
  flat = tf.nest.flatten(example)
  assert read(example) == flat
  other = [-leaf for leaf in flat]
  assert read(write(other)) == other
  packed = write(flat)
  assert packed == example
  assert type(packed) is type(example)
  if isinstance(example, dict):
    assert list(packed) == list(example)


@pytest.mark.parametrize(
  ('example', 'nest'),
  [
    ((ONE,), (ONE, TWO)),
    ((ONE, TWO), (ONE,)),
    ((ONE, TWO), [ONE, TWO]),
    ([ONE], ONE),
    ((ONE, TWO), Pair(ONE, TWO)),
    (Pair(ONE, TWO), (ONE, TWO)),
    (Pair(ONE, TWO), OtherPair(ONE, TWO)),
    (Pair(ONE, ()), Pair(ONE, TWO)),
    (Pair(ONE, ()), Pair(ONE, (TWO,))),
    ({'a': ONE}, {'b': ONE}),
    ({'a': ONE}, {'a': ONE, 'b': TWO}),
    ({'a': ONE}, collections.OrderedDict(a=ONE)),
    (((ONE,), TWO), ((ONE, TWO), TWO)),
    ((ONE,), None),
  ],
  ids=str,
)
def test_another_structure_is_seen(example, nest):
  assert nest_code.make_reader(example, Leaf)(nest) is None


def test_what_lies_deeper_than_the_leaves_is_not_looked_at():
  nest = ([1, 2], None)
  assert nest_code.make_reader((ONE, TWO), Leaf)(nest) == [[1, 2], None]


@pytest.mark.parametrize(
  'example', [collections.OrderedDict(a=ONE), (ONE, None), (ONE, 'text')]
)
def test_a_node_that_is_rare_is_refused(example):
  for make in (nest_code.make_reader, nest_code.make_writer):
    with pytest.raises(nest_code.RareError):
      make(example, Leaf)


def test_a_nest_that_is_too_deep_for_python_is_rare():
  deep = ONE
  for _ in range(250):
    deep = (deep,)
  with pytest.raises(nest_code.RareError, match='too deeply'):
    nest_code.make_writer(deep, Leaf)


def test_as_many_leaves_are_packed_as_there_are():
  write = nest_code.make_writer((ONE, TWO), Leaf)
  for flat in ([1], [1, 2, 3]):
    with pytest.raises(ValueError, match='values to unpack'):
      write(flat)
