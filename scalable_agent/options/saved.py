"""The options of a run that was saved: read, and tested again."""

from collections.abc import Collection
from typing import Any

from scalable_agent.options import checks
from scalable_agent.options.catalog import Catalog
from scalable_agent.options.config import Config
from scalable_agent.options.declaration import Part


def from_dict(catalog: Catalog, values: Any) -> Config:
  """Returns the Config whose values were saved.

  Args:
    catalog: all options there are.
    values: what was read from config.json; options that did not exist when it
      was written have their defaults.

  Raises:
    ValueError: `values` is no dict, or has an option or a value that this
      version does not know.
  """
  if not isinstance(values, dict):
    raise ValueError('expected a JSON object of options')
  unknown = sorted(set(values) - set(catalog.options))
  algorithm = values.get('algorithm')
  if isinstance(algorithm, str) and algorithm not in catalog.algorithms:
    unknown.append(f'algorithm={algorithm}')
  if unknown:
    remedy = ''
    if values.get('plugin'):
      remedy = f'. The run had --plugin={values["plugin"]}: give it again'
    raise ValueError(f'unknown options: {", ".join(unknown)}{remedy}')
  for name, value in values.items():
    if not catalog.options[name].fits(value):
      raise ValueError(f'{name} cannot be {value!r}')
  config = catalog.make(**values)
  checks.validate(config)
  return config


def for_test(config: Config, trained: Config, given: Collection[str]) -> Config:
  """Returns the options of a test: those of the training, and what may differ.

  Args:
    config: options of the test as given.
    trained: options of the run that is to be tested.
    given: names of the options that the user set.

  Raises:
    ValueError: the user set an option that is part of what was trained to
      another value; names all of them.
  """
  if trained.run.plugin != config.run.plugin and 'plugin' not in given:
    raise ValueError(
      f'--logdir={config.run.logdir} holds an agent that was trained with '
      f'--plugin={trained.run.plugin}: give it again.'
    )
  options = config.catalog.options.values()
  of_test = {one.name for one in options if one.part is Part.TEST}
  free = of_test | {one.name for one in options if one.free_in_test}
  differ = [
    f'--{name}={config.values[name]} (trained with {trained.values[name]})'
    for name in sorted(set(given) & set(config.values) - free)
    if config.values[name] != trained.values[name]
  ]
  if differ:
    raise ValueError(
      f'--logdir={config.run.logdir} holds an agent of other options than '
      f'{", ".join(differ)}. Leave them out, or name another logdir.'
    )
  chosen = free & (set(given) | {'mode', 'logdir'})
  return trained.replace(**config.pick(of_test | chosen))
