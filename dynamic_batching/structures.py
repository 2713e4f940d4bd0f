"""What a batcher is told and what it tells of itself."""

import dataclasses
import itertools
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

# 24 days; as in `cc/checks.h`.
LONGEST_TIMEOUT_MS = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Options:
  """When a batch is served; sizes in rows.

  Attributes:
    minimum_batch_size: A batch is served as soon as so many rows wait.
    maximum_batch_size: No batch is larger; calls are never split.
    timeout_ms: A smaller batch is served once its oldest call has waited for so
      many milliseconds: 0 serves whatever waits at once, None waits for
      `minimum_batch_size` rows however long it takes.
    allowed_batch_sizes: Increasing, the last at least `maximum_batch_size`. A
      batch is padded up to the next of them. Empty: any size.
  """

  minimum_batch_size: int = 1
  maximum_batch_size: int = 1024
  timeout_ms: int | None = 100
  allowed_batch_sizes: Sequence[int] = ()

  def __post_init__(self):
    minimum = _integer('minimum_batch_size', self.minimum_batch_size)
    maximum = _integer('maximum_batch_size', self.maximum_batch_size)
    if minimum < 1:
      raise ValueError(
        f'minimum_batch_size must be at least 1 row but was {minimum}'
      )
    if maximum < minimum:
      raise ValueError(
        'maximum_batch_size must be at least minimum_batch_size='
        f'{minimum} rows but was {maximum}'
      )
    if self.timeout_ms is not None and (
      _integer('timeout_ms', self.timeout_ms) < 0
    ):
      raise ValueError(
        'timeout_ms must be at least 0 milliseconds, or None for no timeout, '
        f'but was {self.timeout_ms}'
      )
    if self.timeout_ms is not None and self.timeout_ms > LONGEST_TIMEOUT_MS:
      raise ValueError(
        f'timeout_ms must be at most {LONGEST_TIMEOUT_MS} milliseconds, or '
        f'None for no timeout, but was {self.timeout_ms}'
      )
    self._check_allowed(maximum)

  def _check_allowed(self, maximum: int) -> None:
    name = 'allowed_batch_sizes'
    if not isinstance(self.allowed_batch_sizes, Sequence):
      raise ValueError(
        f'{name} must be a list of numbers of rows but was '
        f'{self.allowed_batch_sizes!r}'
      )
    sizes = [_integer(f'Each of {name}', x) for x in self.allowed_batch_sizes]
    if sizes and (
      sizes[0] < 1
      or sizes[-1] < maximum
      or any(a >= b for a, b in itertools.pairwise(sizes))
    ):
      raise ValueError(
        f'{name} must be increasing numbers of rows, the last at least '
        f'maximum_batch_size={maximum}, but was {sizes}'
      )

  def padded(self, rows: int) -> int:
    """Returns the rows of a batch of so many calls' rows, with its padding."""
    sizes = self.allowed_batch_sizes
    return next((size for size in sizes if size >= rows), rows)


class Statistics(NamedTuple):
  """What a batcher has done so far.

  Attributes:
    waiting_calls: Calls that wait for a batch now.
    waiting_rows: Their rows.
    batches: Batches handed to a consumer.
    calls: Calls in these batches.
    rows: Rows in these batches, without padding.
    batch_sizes: Histogram: rows of a batch, without padding -> number of
      batches.
    mean_wait_ms: Mean over `calls` of the time until a call's batch was formed,
      in milliseconds; 0 before the first batch.
  """

  waiting_calls: int
  waiting_rows: int
  batches: int
  calls: int
  rows: int
  batch_sizes: dict[int, int]
  mean_wait_ms: float


def _integer(name: str, value: Any) -> int:
  try:
    if isinstance(value, bool):
      raise TypeError
    value = operator.index(value)
  except TypeError:
    raise ValueError(f'{name} must be an integer but was {value!r}') from None
  if value >= 2**63:
    raise ValueError(f'{name} must be below 2**63 but was {value}')
  return value
