"""What an option is: one declaration that everything else derives from.

Options stand in groups, frozen dataclasses whose fields are made by `option`:

```python
@dataclasses.dataclass(frozen=True)
class LossOptions:
  '''Loss.'''

  entropy_cost: float = option(
    0.01, 'Weight of the entropy bonus.', minimum=0, line=Line.LOSS
  )
```

Flags, checks, config.json, what actors and learners compare, what a test may
change, the printed summary and --help follow from it.
"""

import dataclasses
import enum
import inspect
import math
import typing
from collections.abc import Iterator, Mapping
from typing import Any

# Stands for the names of all algorithms, which are not known here.
ALGORITHMS = ('<algorithms>',)

_KEY = 'option'

# Of whole numbers: libraries that take them keep no more than 31 bits.
_MOST = 2_000_000_000


class Part(enum.Enum):
  """What an option is part of, and so which processes must agree on it."""

  ACTING = 'what actors do: they and all learners agree'
  GRADIENTS = 'what gradients are: as ACTING, of actors that compute them'
  LEARNING = 'what learners do: all of them agree'
  PROCESS = 'how a process does its part: may differ between them'
  PLACE = 'who and where a process is: says nothing of what it does'
  TEST = 'how a test is done: a training has no use for it'


class Line(enum.Enum):
  """A line of the summary that is printed when a run starts, in order."""

  LEVEL = 'level'
  AGENT = 'agent'
  BATCH = 'batch'
  LOSS = 'loss'
  OPTIMIZER = 'optimizer'
  RUN = 'run'


@dataclasses.dataclass(frozen=True)
class Option:
  """One option; see `option` for most of the attributes.

  Attributes:
    name: of the flag, and of the entry in config.json.
    kind: bool, int, float or str.
    group: dataclass that declares it.
  """

  default: Any
  help: str
  aliases: tuple[str, ...] = ()
  unit: str = ''
  by_preset: bool = False
  choices: tuple[Any, ...] = ()
  minimum: float | None = None
  maximum: float | None = None
  above: float | None = None
  part: Part = Part.LEARNING
  fixed: bool = False
  free_in_test: bool = False
  line: Line | None = None
  idle_with: Mapping[str, tuple[Any, ...]] = dataclasses.field(
    default_factory=dict
  )
  name: str = ''
  kind: type = str
  group: type = object

  @property
  def flag_default(self) -> Any:
    """What the value is before presets; None where they decide."""
    return None if self.by_preset else self.default

  @property
  def title(self) -> str:
    """Heading of the group, the first line of its docstring."""
    return (self.group.__doc__ or '').partition('\n')[0].rstrip('.')

  def fits(self, value: Any) -> bool:
    """Whether a value is of the option's type; None is one not set."""
    if value is None:
      return self.flag_default is None
    # JSON may drop the point of a float; True is no number here.
    return type(value) is self.kind or (
      self.kind is float and type(value) is int
    )

  def check_default(self) -> None:
    """Raises ValueError if the default is none, or of a type without flags."""
    if self.kind not in (bool, int, float, str) or not (
      self.default is None or self.fits(self.default)
    ):
      raise ValueError(
        f'the option {self.name} is a {self.kind.__name__} of default '
        f'{self.default!r}. Make it a bool, int, float or str with a default '
        'of its type.'
      )
    self.check(self.default)

  def check(self, value: Any) -> None:
    """Raises ValueError that names the option, a bad value and a good one."""
    if value is None:
      return
    where = f'--{self.name}={value}'
    if self.choices and value not in self.choices:
      raise ValueError(
        f'{where} is not known. Choose one of: '
        f'{", ".join(map(str, self.choices))}.'
      )
    if isinstance(value, float) and math.isinf(value):
      raise ValueError(f'{where} must be finite.')
    low, high = self.minimum, self.maximum
    # Written so that NaN is refused as well.
    if low is not None and high is not None and not low <= value <= high:
      raise ValueError(f'{where} must lie between {low} and {high}.')
    if low is not None and not value >= low:
      raise ValueError(f'{where} must be at least {low}.')
    if high is not None and not value <= high:
      raise ValueError(f'{where} must be at most {high}.')
    if self.kind is int and value > _MOST:
      raise ValueError(f'{where} must be at most {_MOST}.')
    if self.above is not None and not value > self.above:
      raise ValueError(f'{where} must be greater than {self.above}.')
    if isinstance(value, float) and not math.isfinite(value):
      raise ValueError(f'{where} must be finite.')


def option(default: Any, help: str, **declaration: Any) -> Any:
  """Declares an option, as the field of a group.

  A group may have a method `check` for what concerns several of its options;
  it raises ValueError, and takes a value of None as one that is not known yet.

  Args:
    default: its value where neither the user nor, with `by_preset`, the level
      or the preset say another.
    help: whole sentences, for --help.
    **declaration: what else there is to say, if there is.
      aliases: other names of the flag.
      unit: of a number, such as 'frames'.
      by_preset: whether level, suite and preset are asked before the default.
      choices: all values there are.
      minimum: least value.
      maximum: greatest value.
      above: excluded lower bound.
      part: see `Part`; default: LEARNING.
      fixed: whether a checkpoint cannot be carried across to another value.
      free_in_test: whether a test may differ from the training.
      line: of the summary at the start, None for none.
      idle_with: values of other options with which this one means nothing.
  """
  metadata = {_KEY: Option(default, help, **declaration)}
  return dataclasses.field(default=default, metadata=metadata)


def declared_by(group: type) -> Iterator[Option]:
  """Yields the options of a group, inherited ones included."""
  kinds = typing.get_type_hints(group)
  for field in dataclasses.fields(group):
    if _KEY not in field.metadata:
      continue
    owner = next(
      base
      for base in group.__mro__
      if field.name in inspect.get_annotations(base)
    )
    yield dataclasses.replace(
      field.metadata[_KEY],
      name=field.name,
      kind=_without_none(kinds[field.name]),
      group=owner,
    )


def choices_of(group: type, name: str) -> tuple[Any, ...]:
  """Returns all values that an option of a group can have."""
  return next(one.choices for one in declared_by(group) if one.name == name)


def check_group(group: Any) -> None:
  """Raises ValueError that names the first bad value in a group."""
  for one in declared_by(type(group)):
    one.check(getattr(group, one.name))
  if hasattr(group, 'check'):
    group.check()


def _without_none(kind: Any) -> type:
  kinds = [t for t in typing.get_args(kind) if t is not type(None)]
  return kinds[0] if kinds else kind
