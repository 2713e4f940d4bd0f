"""A learner without actors says so, and does not wait for ever."""

import logging as python_logging

import pytest

from scalable_agent.runtimes import patience, training
from tests import learning


class Actors:
  """Heard of when a test says so."""

  def __init__(self, clock):
    self._clock = clock
    self.heard = float('-inf')

  def silence(self):
    return self._clock() - self.heard


@pytest.fixture
def clock():
  return learning.Clock()


@pytest.fixture
def actors(clock):
  return Actors(clock)


@pytest.fixture
def log(caplog):
  with caplog.at_level(python_logging.WARNING, logger='absl'):
    yield caplog


@pytest.mark.parametrize('came', [False, True])
def test_it_ends_after_so_many_seconds_of_silence(clock, actors, came):
  one = patience.Patience(600, actors.silence, clock)
  if came:
    clock.now += 599
    actors.heard = clock.now
  clock.now += 599
  one.check()
  clock.now += 1
  with pytest.raises(
    training.RunError, match=r'no actor .* --actor_timeout=600 seconds\. Look'
  ):
    one.check()


def test_it_says_once_in_each_silence_that_it_waits(clock, actors, log):
  one = patience.Patience(600, actors.silence, clock)
  for silence in (1, 2):
    for _ in range(35):
      clock.now += 1
      one.check()
    assert log.text.count('No actor was heard of for 30 s') == silence
    actors.heard = clock.now
    one.check()
  assert 'until it is 600 s (--actor_timeout), then ends' in log.text


def test_0_is_for_ever(clock, actors, log):
  one = patience.Patience(0, actors.silence, clock)
  clock.now += 1e9
  one.check()
  assert 'waits for ever (--actor_timeout=0)' in log.text
