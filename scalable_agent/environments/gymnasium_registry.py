"""What Gymnasium knows by its id, and how one of it is made."""

import contextlib
import copy
import dataclasses
import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import ale_py
import gymnasium
from gymnasium.envs.registration import EnvSpec

from scalable_agent.environments import gymnasium_wrapper

if TYPE_CHECKING:
  from scalable_agent.environments.gymnasium_suite import GymnasiumOptions

gymnasium.register_envs(ale_py)


def ids(
  entry_points: tuple[str, ...] = ('',), other_than: tuple[str, ...] = ()
) -> tuple[str, ...]:
  """Returns the ids registered so far.

  Args:
    entry_points: beginnings of the modules that their code is in.
    other_than: those that it is not in.
  """
  return tuple(
    sorted(
      spec.id
      for spec in gymnasium.registry.values()
      if str(spec.entry_point).startswith(entry_points)
      and not str(spec.entry_point).startswith(other_than)
    )
  )


def entry_point(env_id: str) -> str:
  """Returns where the code of an id is, '' if there is none of that name."""
  spec = gymnasium.registry.get(env_id)
  return '' if spec is None else str(spec.entry_point)


def find_spec(level_name: str) -> EnvSpec:
  """Returns the registered specification of an id.

  Args:
    level_name: an id, or `module:id` with a module that registers it.

  Raises:
    ValueError: if there is no such module or id; says what Gymnasium said.
  """
  module, _, env_id = level_name.rpartition(':')
  if module:
    try:
      importlib.import_module(module)
    except (ImportError, ValueError, TypeError) as error:
      raise ValueError(
        f'The module {module} cannot be imported ({error}). It must be on '
        'PYTHONPATH and register its environments when imported.'
      ) from error
  try:
    return gymnasium.spec(env_id)
  except gymnasium.error.Error as error:
    said = str(error)
    raise ValueError(said if said[-1:] in '.?' else f'{said}.') from error


def cut_off(spec: EnvSpec, options: 'GymnasiumOptions') -> EnvSpec:
  """Returns a specification whose episodes are no longer than asked for."""
  steps = options.max_episode_length * options.num_action_repeats
  known = spec.max_episode_steps
  if not steps or (known is not None and known <= steps):
    return spec
  spec = copy.deepcopy(spec)
  spec.max_episode_steps = steps
  return spec


@dataclasses.dataclass(frozen=True)
class Factory:
  """Makes one wrapped environment, in whichever process it is called.

  Those of other suites derive from it.

  Attributes:
    name: of the level.
    spec: of `find_spec`.
    options: of the suite.
    render: whether it can be filmed.
  """

  name: str
  spec: EnvSpec
  options: 'GymnasiumOptions'
  render: bool

  def __call__(self) -> gymnasium.Env:
    """Raises ValueError: it cannot be made or filmed, or is unsupported."""
    module = self.name.rpartition(':')[0]
    if module:
      importlib.import_module(module)
    with impossible(f'{self.name} cannot be made', '--level_name'):
      environment = self.make()
    if self.render:
      modes = environment.metadata.get('render_modes', [])
      environment.close()
      if 'rgb_array' not in modes:
        raise ValueError(
          f'{self.name} cannot be filmed: its render_modes are '
          f'{modes}, without rgb_array. Leave --video_dir out, or render off.'
        )
      with impossible(f'{self.name} cannot be filmed', '--video_dir'):
        environment = self.make(render_mode='rgb_array')
    return gymnasium_wrapper.Plain(environment, self.name, self.stepped)

  @property
  def stepped(self) -> 'GymnasiumOptions':
    """The options but for those that the simulator sees to itself."""
    return self.options

  def make(self, **arguments: Any) -> gymnasium.Env:
    """Returns the environment as it is to be presented.

    Args:
      **arguments: of `gymnasium.make`.
    """
    return gymnasium.make(cut_off(self.spec, self.stepped), **arguments)


@contextlib.contextmanager
def impossible(what: str, flag: str) -> Iterator[None]:
  """Turns what Gymnasium refuses, or misses, into a message for the user."""
  try:
    yield
  except (gymnasium.error.Error, ImportError) as error:
    raise ValueError(
      f'{what}: {str(error).rstrip(".")}. Install what is missing, or change '
      f'{flag}.'
    ) from error
