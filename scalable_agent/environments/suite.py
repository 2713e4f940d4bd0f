"""What a suite is: levels that are made and presented in one way."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from scalable_agent import options as options_lib

if TYPE_CHECKING:
  from scalable_agent.environments.batched import BatchedEnvironment


# ALE keeps seeds in signed 32 bits.
_SEED_END = 2**31
# The seeds from here on are of tests, those below of training.
TEST_SEEDS = _SEED_END - 2**24


class UnknownLevel(ValueError):
  """A name that a suite could have a level of, but has not; says why."""


class Level(NamedTuple):
  """What a level name stands for.

  Attributes:
    suite: that it is of.
    name: canonical name within the suite, e.g. 'pong', 'CartPole-v1'.
    options: that the level name implies, e.g. {'sticky_actions': 0.25} for
      ALE/Pong-v5.
  """

  suite: 'Suite'
  name: str
  options: Mapping[str, Any] = MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class Purpose:
  """What environments are made for, beyond playing.

  Attributes:
    render: `BatchedEnvironment.render` will be called.
    replayable: `BatchedEnvironment.get_state` will be called. Episodes may be
      others than without.
    probe: only its `spec` will be looked at.
    test: to measure what an agent is worth, on what no training plays where a
      suite keeps something apart for that.
  """

  render: bool = False
  replayable: bool = False
  probe: bool = False
  test: bool = False


class Suite:
  """Everything that is known of a suite; one object of a subclass each.

  Its file is imported by `--help`. What takes long to import, simulators and
  NumPy among them, belongs into the methods.

  Attributes:
    name: of the suite.
    help: which levels it has, for --help.
    options: frozen dataclass of all options that mean something to it; see
      `options.option`.
    defaults: values of options by name, for all algorithms.
    presets: the same by algorithm and --preset, where they differ from those
      of the algorithm.
    lists: names that stand for several levels.
    test_lists: those of `lists` that stand for others in a test.
    fps: frames in a second of video, for 1 action repeat.
    remedy_for_actions: what the user can do so that all levels have the same
      actions; '' if there is no option for it.
    frees_the_interpreter: whether environments step without Python's lock, so
      that more threads of them do not wait for each other.
    threads_option: name of the option that says how many threads step the
      environments of one actor; '' if it is one.
  """

  name: str = ''
  help: str = ''
  options: type = options_lib.NoOptions
  defaults: Mapping[str, Any] = MappingProxyType({})
  presets: Mapping[str, Mapping[str, Mapping[str, Any]]] = MappingProxyType({})
  lists: Mapping[str, tuple[str, ...]] = MappingProxyType({})
  test_lists: Mapping[str, tuple[str, ...]] = MappingProxyType({})
  fps: float = 30
  remedy_for_actions: str = ''
  frees_the_interpreter: bool = False
  threads_option: str = ''

  def parse(self, level_name: str) -> Level | None:
    """Returns the level that a name stands for, None if it is not of here.

    Args:
      level_name: what the user wrote.

    Raises:
      UnknownLevel: another suite may have it; if none does, the user is told.
      ValueError: it is of here, but cannot be played; the user is told.
    """
    raise NotImplementedError

  def level_names(self) -> tuple[str, ...]:
    """Returns every level that can be named without importing more modules."""
    return ()

  def other_names(self) -> tuple[str, ...]:
    """Returns more ways to name levels, to be suggested for unknown names."""
    return ()

  def make(
    self,
    level: Level,
    num_envs: int,
    options: Any,
    seed: int,
    purpose: Purpose,
  ) -> 'BatchedEnvironment':
    """Makes E environments of a level.

    Args:
      level: of `parse`.
      num_envs: E.
      options: instance of `options`, checked.
      seed: environment i is seeded with seed + i.
      purpose: what they are for.

    Raises:
      ValueError: the level cannot be made or presented like that.
    """
    raise NotImplementedError

  def are_alike(self, options: Any) -> bool:
    """Whether one agent can play all levels with these options, for sure."""
    del options
    return False

  def human_normalized_score(
    self, level_name: str, mean_return: float
  ) -> float | None:
    """Returns 0 for random play and 100 for a human, in percent.

    Args:
      level_name: name of the level.
      mean_return: mean raw return of whole games.

    Returns:
      None for a level without published scores.
    """
    del level_name, mean_return
    return None

  def training_scores(
    self, returns: Mapping[str, Sequence[float]]
  ) -> dict[str, float] | None:
    """Returns what the suite reports of a training, by TensorBoard tag.

    Args:
      returns: of the episodes of each level since this was not None.

    Returns:
      None where the suite has nothing of its own, or not all its levels have
      returns.
    """
    del returns
    return None

  def test_scores(
    self, returns: Mapping[str, Sequence[float]]
  ) -> dict[str, float] | None:
    """Returns what the suite makes of a test, by what its log line says.

    Args:
      returns: of the episodes of each level.

    Returns:
      None where the suite has nothing of its own, or not all its levels were
      played.
    """
    del returns
    return None

  def __repr__(self) -> str:
    return f'<suite {self.name}>'


def make(
  level: Level,
  num_envs: int,
  options: Any,
  seed: int,
  **purpose: bool,
) -> 'BatchedEnvironment':
  """Makes E environments of a level.

  Args:
    level: from `parse_level`.
    num_envs: E.
    options: how the level is presented, an instance of `level.suite.options`;
      see `options_of`.
    seed: environment i is seeded with seed + i.
    **purpose: see `Purpose`.

  Raises:
    ValueError: if an option has a bad value or is not one of this suite's, or
      if the level's actions or observations are not supported.
  """
  if not isinstance(options, level.suite.options):
    raise ValueError(
      f'{level.name}, a level of the {level.suite.name} suite, takes '
      f'{level.suite.options.__name__} and not {type(options).__name__}.'
    )
  options_lib.check_group(options)
  _check_arguments(level, num_envs, seed)
  return level.suite.make(level, num_envs, options, seed, Purpose(**purpose))


def _check_arguments(level: Level, num_envs: int, seed: int) -> None:
  """Raises ValueError unless `num_envs` and all seeds are usable."""
  if num_envs < 1:
    raise ValueError(
      f'num_envs={num_envs} for {level.name} must be at least 1.'
    )
  if seed < 0 or seed + num_envs > _SEED_END:
    raise ValueError(
      f'--seed={seed} for {level.name} must lie between 0 and '
      f'{_SEED_END - num_envs}: environment i is seeded with seed + i.'
    )


def options_of(level: Level, **values: Any) -> Any:
  """Returns a level's options: these, else what it implies, else defaults.

  Raises:
    ValueError: one of `values` is no option of the suite.
  """
  known = {field.name for field in dataclasses.fields(level.suite.options)}
  for name, value in values.items():
    if name not in known:
      raise ValueError(
        f'--{name}={value} has no effect on {level.name}, a level of the '
        f'{level.suite.name} suite. Leave it out.'
      )
  implied = {**level.suite.defaults, **level.options}
  implied = {k: v for k, v in implied.items() if k in known}
  return level.suite.options(**{**implied, **values})
