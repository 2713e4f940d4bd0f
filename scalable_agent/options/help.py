"""The text of --help: every option, grouped, with its unit and its place."""

import textwrap
from collections.abc import Iterator

from scalable_agent.options.catalog import Catalog
from scalable_agent.options.declaration import Option, Part

_WIDTH = 80


def format_help(catalog: Catalog) -> str:
  """Returns what --help prints of the options, their suites and algorithms."""
  lines = []
  titles = dict.fromkeys(one.title for one in catalog.options.values())
  for title in titles:
    lines.append(f'{title}:')
    for one in catalog.options.values():
      if one.title == title:
        lines.append(f'  {_head(one)}')
        lines += _wrap(' '.join(_sentences(one, catalog)), indent=6)
    lines.append('')
  for title, parts in (
    ('Levels (--level_name)', catalog.suites),
    ('Algorithms (--algorithm)', catalog.algorithms.values()),
  ):
    lines.append(f'{title}:')
    for part in parts:
      lines += _wrap(f'{part.name}: {part.help}', indent=2)
    lines.append('')
  return '\n'.join(lines[:-1])


def help_of(one: Option, catalog: Catalog) -> str:
  """Returns the help text of one option."""
  return ' '.join(_sentences(one, catalog))


def _head(one: Option) -> str:
  if one.kind is bool:
    return f'--[no]{one.name}'
  value = (
    '|'.join(map(str, one.choices)) or f'<{one.unit or one.kind.__name__}>'
  )
  return f'--{one.name}={value}'


def _sentences(one: Option, catalog: Catalog) -> Iterator[str]:
  yield one.help
  if one.aliases:
    yield f'Also {_list(tuple(f"--{name}" for name in one.aliases))}.'
  if one.minimum is not None and one.maximum is not None:
    yield f'From {one.minimum} to {one.maximum}.'
  if one.unit:
    yield f'Unit: {one.unit}.'
  if 'Default:' not in one.help:
    if one.by_preset:
      yield 'Default: of the preset.'
    else:
      default = one.default if one.default != '' else 'none'
      yield f'Default: {str(default).lower() if one.kind is bool else default}.'
  if suites := catalog.suites_of(one.name):
    yield f'Only with levels of {_list(suites)}.'
  if algorithms := catalog.algorithms_of(one.name):
    yield f'Only with --algorithm={_list(algorithms)}.'
  if one.part is Part.TEST:
    yield 'Only with --mode=test or play.'
  for owner, values in one.idle_with.items():
    yield f'No effect with --{owner}={_list(values)}.'


def _list(values: tuple) -> str:
  *first, last = map(str, values)
  return f'{", ".join(first)} or {last}' if first else last


def _wrap(text: str, indent: int) -> list[str]:
  pad = ' ' * indent
  return textwrap.wrap(
    text,
    _WIDTH,
    initial_indent=pad,
    subsequent_indent=pad,
    break_on_hyphens=False,
    break_long_words=False,
  )
