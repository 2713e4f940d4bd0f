"""What an algorithm is: who evaluates, who learns, and with which options."""

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from scalable_agent import environments
from scalable_agent.options import Config

if TYPE_CHECKING:
  from scalable_agent.distribution import cluster as cluster_lib


class Ended(RuntimeError):
  """A run has ended for a reason that its user can do something about.

  The message says what; where in the code it happened is of no interest.
  """


class Algorithm:
  """Everything that is known of an algorithm; one object of a subclass each.

  Its file is imported by `--help`: TensorFlow belongs into the methods.

  Attributes:
    name: value of --algorithm.
    help: what it is, for --help.
    options: groups of options that mean something to it, besides those that
      always do; see `options.option`.
    presets: values of options by name, by --preset.
    log_formats: values of --log_format that it has something to print in.
    counts_episodes: whether the learner counts the episodes it learns from.
  """

  name: str = ''
  help: str = ''
  options: tuple[type, ...] = ()
  presets: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
  log_formats: tuple[str, ...] = ('auto',)
  counts_episodes: bool = False

  def make_loss(self, config: Config) -> Callable[..., Any]:
    """Returns what the learner minimises: one of `objectives`."""
    raise NotImplementedError

  def num_optimizers(self, config: Config) -> int:
    """Returns 1, or 2 for one of each part of the loss; see `Learner`."""
    del config
    return 1

  def anneal(
    self,
    config: Config,
    episodes: Any,
    loss: Callable[..., Any],
    schedule: Callable[[Any], Any],
  ) -> tuple[Callable[..., Any], Callable[[Any], Any]]:
    """Has what the learner minimises, and how fast, follow the episodes.

    Args:
      config: resolved and validated.
      episodes: int64 variable, those learned from so far.
      loss: of `make_loss`.
      schedule: frames -> learning rate.

    Returns:
      The last two, or what takes their place.
    """
    del config, episodes
    return loss, schedule

  def translate(
    self, arguments: Sequence[str]
  ) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the options that arguments which are no flags stand for.

    Args:
      arguments: of the command line.

    Returns:
      Those that they set, and those that they imply where no flag says more.

    Raises:
      ValueError: they stand for none.
    """
    raise ValueError(
      f'unexpected arguments: {" ".join(arguments)}. Options are written '
      '--name=value; --help lists them.'
    )

  def follow_cores(
    self, config: Config, cores: int, threaded: bool
  ) -> dict[str, int]:
    """Returns the options that other cores than two would have differ.

    Args:
      config: resolved, of a run on a single machine.
      cores: for environments.
      threaded: whether those of one actor step in several threads.
    """
    del config, cores, threaded
    return {}

  def check(self, config: Config) -> None:
    """Raises ValueError where options are wrong together.

    Args:
      config: options, resolved or not; None passes.
    """

  def begins_without_tensorflow(
    self, cluster: 'cluster_lib.Cluster | None'
  ) -> bool:
    """Returns whether this process may turn out to need no TensorFlow.

    If so, `prepare` must neither import it nor read what `startup.resolve`
    has yet to resolve; its training calls that where it does need it.

    Args:
      cluster: who is where; None for everything in this process.
    """
    del cluster
    return False

  def prepare(
    self,
    config: Config,
    levels: Sequence[environments.Level],
    cluster: 'cluster_lib.Cluster | None',
    given: Collection[str],
  ) -> Callable[[], None]:
    """Makes everything that the user may have to be told is wrong.

    Args:
      config: resolved and validated; see `begins_without_tensorflow`.
      levels: of the run, alike to the agent.
      cluster: who is where; None for everything in this process.
      given: names of the options that the user set.

    Returns:
      The training. It raises `Ended`, or whatever went wrong in it.

    Raises:
      ValueError: an option, or what is found in the logdir, does not do.
      OSError: a file cannot be read or written.
      Ended: see there.
    """
    raise NotImplementedError

  def __repr__(self) -> str:
    return f'<algorithm {self.name}>'
