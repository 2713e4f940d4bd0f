"""Dynamic adjustment, with a clock and a speed that the tests make up."""

import random

import pytest

from scalable_agent.options import AdjustmentOptions
from scalable_agent.runtimes import adjustment


class FakePool:
  """A number; of those who leave, each takes a while."""

  def __init__(self, count):
    self.count = count
    self.looks = 0
    self.added = self.removed = 0

  def __len__(self):
    return self.count

  @property
  def settled(self):
    self.looks -= 1
    return self.looks <= 0

  @property
  def shrinkable(self):
    return self.count > 1

  def add(self):
    self.count += 1
    self.added += 1

  def remove(self):
    assert self.shrinkable
    self.count -= 1
    self.removed += 1
    self.looks = 3


class World:
  """Time passes when somebody waits, and so many steps are made in it."""

  def __init__(self, speed, noise=0.0, counts=(2, 2, 2), most=1e9, **options):
    names = ('num_agents', 'num_predictors', 'num_trainers')
    self.pools = {
      name: FakePool(count) for name, count in zip(names, counts, strict=True)
    }
    self.now = self.steps = 0.0
    self._speed, self._noise, self._most = speed, noise, most
    self._random = random.Random(7)
    self.adjuster = adjustment.Adjuster(
      self.pools,
      lambda: self.steps,
      self.wait,
      AdjustmentOptions(dynamic_settings=True, **options),
      seed=3,
      clock=lambda: self.now,
    )

  @property
  def counts(self):
    return tuple(pool.count for pool in self.pools.values())

  def wait(self, seconds):
    self.now += seconds
    speed = self._speed(*self.counts) + self._random.gauss(0, self._noise)
    self.steps += speed * seconds
    return self.now > self._most


def test_what_makes_training_faster_is_kept():
  world = World(lambda agents, *_: 100.0 * agents)
  before = world.counts
  for _ in range(60):
    world.adjuster.try_one()
  assert world.counts[0] > before[0] + 5
  # No other number matters, and none of them moved.
  assert world.counts[1:] == before[1:]
  assert world.pools['num_agents'].removed > 0  # Tried, and taken back.


def test_it_climbs_to_the_best_and_stays_there():
  def speed(agents, predictors, trainers):
    return (
      1000 - 10 * (agents - 5) ** 2 - 30 * (predictors - 1) ** 2 - 30 * trainers
    )

  world = World(speed, noise=3.0)
  for _ in range(100):
    world.adjuster.try_one()
  assert world.counts == (5, 1, 1)


def test_what_makes_it_slower_is_taken_back():
  world = World(lambda *counts: 1000.0 if counts == (2, 2, 2) else 900.0)
  for _ in range(30):
    assert not world.adjuster.try_one()
    assert world.counts == (2, 2, 2)
  assert all(pool.added and pool.removed for pool in world.pools.values())


def test_noise_is_no_reason_for_a_change():
  world = World(lambda *_: 1000.0, noise=100.0, dynamic_settings_confidence=3.0)
  kept = sum(world.adjuster.try_one() for _ in range(300))
  # A comparison of two sums would keep half of them.
  assert kept <= 6


def test_with_less_confidence_asked_for_more_is_believed():
  def tries(confidence):
    world = World(
      lambda *_: 1000.0, noise=100.0, dynamic_settings_confidence=confidence
    )
    return sum(world.adjuster.try_one() for _ in range(100))

  assert tries(0.0) > 30 > 10 > tries(3.0)


def test_a_gain_of_several_standard_errors_is_believed():
  # That of a difference of means of ten parts each is 4.5.
  world = World(
    lambda agents, *_: 1000.0 + 25 * agents,
    noise=10.0,
    dynamic_settings_confidence=3.0,
  )
  kept = sum(world.adjuster.try_one() for _ in range(100))
  assert world.counts[0] > 10
  assert kept < 30


def counts_of_tries():
  """Returns the numbers of threads at each wait of thirty tries."""
  world = World(lambda *_: 1.0)
  seen, wait = [], world.wait

  def record(seconds):
    seen.append(world.counts)
    return wait(seconds)

  world.adjuster._wait = record
  for _ in range(30):
    world.adjuster.try_one()
  return seen


def test_the_seed_decides_the_order_of_tries():
  assert counts_of_tries() == counts_of_tries()


def test_a_drift_of_the_speed_alone_is_no_gain_of_the_first_try():
  world = World(lambda *_: 1000.0)
  world._speed = lambda *_: 1000.0 - world.now / 100
  assert not any(world.adjuster.try_one() for _ in range(20))


def test_one_number_changes_at_a_time_by_one():
  seen = counts_of_tries()
  for counts in seen:
    assert sum(abs(count - 2) for count in counts) <= 1
  assert len(set(seen)) == 7  # As it was, and one more or less of each.


def test_nothing_is_measured_before_all_who_leave_have_left():
  world = World(lambda *_: 1.0, counts=(9, 9, 9))
  for _ in range(30):
    world.adjuster.try_one()
    assert all(pool.looks <= 0 for pool in world.pools.values())


def test_the_moment_after_a_change_is_not_measured():
  # While new threads make their environments, little happens.
  before = [(2, 2, 2)]

  def speed(*counts):
    changed, before[0] = counts != before[0], counts
    return 0.0 if changed else 1000.0 + counts[0]

  world = World(speed)
  for _ in range(30):
    world.adjuster.try_one()
  assert world.counts[0] > 2
  assert world.counts[1:] == (2, 2)


def test_the_last_of_a_kind_stays():
  world = World(lambda *counts: 1000.0 - sum(counts), counts=(1, 1, 1))
  for _ in range(30):
    world.adjuster.try_one()
  assert world.counts == (1, 1, 1)


@pytest.mark.parametrize('most', [5.0, 15.0, 25.0, 31.0, 45.0, 100.0])
def test_it_ends_with_the_run(most):
  world = World(
    lambda *_: 1.0,
    most=most,
    dynamic_settings_initial_wait=10.0,
    dynamic_settings_step_wait=10.0,
  )
  world.adjuster.run()
  assert most < world.now < most + 10.1


def test_the_first_try_waits(caplog):
  world = World(
    lambda *_: 1.0,
    most=99.9,
    dynamic_settings_initial_wait=100.0,
  )
  world.adjuster.run()
  assert world.now == 100.0
