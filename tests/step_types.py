"""Episodes that begin and end anywhere."""

import numpy as np

from scalable_agent.structures import FIRST, LAST, MID


def random_step_types(rng, time, batch):
  """Returns [T, B] int32, FIRST at random places."""
  choices = rng.choice([FIRST, MID, LAST], (time, batch), p=[0.3, 0.5, 0.2])
  return choices.astype(np.int32)


def assert_every_case_occurs(step_types):
  """FIRST in column 0, next to another one and after two others."""
  first = step_types == FIRST
  assert first[0].any()
  assert not first[0].all()
  assert (first[1:] & first[:-1]).any()
  assert (~first[2:] & ~first[1:-1] & ~first[:-2]).any()
