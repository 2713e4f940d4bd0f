"""One wiring file for each way to run; the algorithms that are made of them."""

import importlib

from scalable_agent import environments
from scalable_agent.options import Catalog
from scalable_agent.runtimes.a2c import A2C
from scalable_agent.runtimes.a3c import A3C
from scalable_agent.runtimes.algorithm import Algorithm, Ended
from scalable_agent.runtimes.ga3c import GA3C
from scalable_agent.runtimes.impala import IMPALA

__all__ = (
  'ALGORITHMS',
  'Algorithm',
  'Ended',
  # Modules that are not imported here: --help needs no TensorFlow.
  'assembly',
  'cores',
  'make_catalog',
  'startup',
  'test',
  'training',
  'worlds',
)

# All there are; --plugin adds to them.
ALGORITHMS: tuple[Algorithm, ...] = (IMPALA, GA3C, A3C, A2C)


def make_catalog(plugins: str = '') -> Catalog:
  """Returns all options, suites and algorithms there are.

  Args:
    plugins: value of --plugin: names of modules, separated by commas. Their
      tuples SUITES and ALGORITHMS, if they have them, are added; their suites
      are asked first for a level name.

  Raises:
    ValueError: a module cannot be imported or adds nothing, or something in
      it has a name that is taken.
  """
  suites: tuple[environments.Suite, ...] = environments.SUITES
  algorithms = ALGORITHMS
  for plugin in filter(None, plugins.split(',')):
    try:
      module = importlib.import_module(plugin)
    except (ImportError, ValueError, TypeError) as error:
      raise ValueError(
        f'--plugin={plugin} cannot be imported: {error}. Give a module on the '
        'Python path.'
      ) from error
    more_suites = getattr(module, 'SUITES', ())
    more_algorithms = getattr(module, 'ALGORITHMS', ())
    if not (more_suites or more_algorithms):
      raise ValueError(
        f'--plugin={plugin} has neither SUITES nor ALGORITHMS. Give it a tuple '
        'of one of these names.'
      )
    for name, things, base in (
      ('SUITES', more_suites, environments.Suite),
      ('ALGORITHMS', more_algorithms, Algorithm),
    ):
      if not (
        isinstance(things, list | tuple)
        and all(isinstance(one, base) for one in things)
      ):
        raise ValueError(
          f'--plugin={plugin}: its {name} is {things!r}. Make it a tuple of '
          f'objects of subclasses of {base.__name__}.'
        )
    suites = (*more_suites, *suites)
    algorithms = (*algorithms, *more_algorithms)
  for kind, things in ('suite', suites), ('algorithm', algorithms):
    names = [one.name for one in things]
    for name in names:
      if names.count(name) > 1:
        raise ValueError(
          f'--plugin={plugins}: there are two of the {kind} {name}. '
          'Name yours otherwise.'
        )
  return Catalog(suites, algorithms)
