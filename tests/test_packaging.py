"""What is installed agrees with what is imported, declared and pinned."""

import ast
import pathlib
import re
import sys

import pytest
from packaging import requirements

import scalable_agent

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGES = ('dynamic_batching', 'scalable_agent')
# Where a module is not named like what installs it.
DISTRIBUTIONS = {'sonnet': 'dm-sonnet', 'tree': 'dm-tree', 'absl': 'absl-py'}
# Who uses them asks for them: one has no wheels, the other few have a use for.
# 'stable_baselines3' is a peer to compare with, in an environment of its own.
OPTIONAL = {'deepmind_lab', 'kubernetes', 'stable_baselines3'}


def normalized(name):
  return re.sub(r'[-_.]+', '-', name).lower()


def read_pins(path):
  """Returns the pins of a requirements file as {name: [requirement]}."""
  pins = {}
  for line in (ROOT / path).read_text(encoding='utf-8').splitlines():
    if line and not line.startswith(('#', '-r ')):
      pin = requirements.Requirement(line)
      pins.setdefault(normalized(pin.name), []).append(pin)
  return pins


def read_declared(section):
  """Returns the requirements in a list of pyproject.toml."""
  text = (ROOT / 'pyproject.toml').read_text(encoding='utf-8')
  # Not by tomllib, which Python 3.10 lacks.
  items = re.search(rf'^{section} = \[(.*?)\]$', text, re.M | re.S).group(1)
  quoted = re.findall(r"'([^']*)'", items)
  return [requirements.Requirement(item) for item in quoted]


def imported_modules():
  paths = [ROOT / 'experiment.py', *(ROOT / 'benchmarks').glob('*.py')]
  for package in PACKAGES:
    paths += (ROOT / package).rglob('*.py')
  modules = set()
  for path in paths:
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
      if isinstance(node, ast.Import):
        modules.update(alias.name.split('.')[0] for alias in node.names)
      elif isinstance(node, ast.ImportFrom) and not node.level:
        modules.add(node.module.split('.')[0])
  return modules


def test_everything_imported_is_declared():
  own = {*PACKAGES, 'benchmarks', 'experiment', *OPTIONAL}
  foreign = imported_modules() - own - set(sys.stdlib_module_names)
  assert {'tensorflow', 'sonnet', 'gymnasium'} <= foreign
  declared = {normalized(r.name) for r in read_declared('dependencies')}
  needed = {normalized(DISTRIBUTIONS.get(name, name)) for name in foreign}
  assert needed <= declared


@pytest.mark.parametrize(
  ('section', 'path'),
  [('dependencies', 'requirements.txt'), ('dev', 'requirements-dev.txt')],
)
@pytest.mark.parametrize('python', ['3.10', '3.11', '3.12', '3.13'])
def test_declared_pins_are_the_resolved_ones(section, path, python):
  environment = {
    'python_version': python,
    'python_full_version': f'{python}.0',
  }

  def versions(candidates):
    return {
      str(r.specifier)
      for r in candidates
      if r.marker is None or r.marker.evaluate(environment)
    }

  pins = read_pins(path)
  declared = {}
  for requirement in read_declared(section):
    declared.setdefault(normalized(requirement.name), []).append(requirement)
  assert declared
  for name, candidates in declared.items():
    assert versions(candidates) == versions(pins[name]), name
    assert len(versions(candidates)) == 1, name


@pytest.mark.parametrize('path', ['requirements.txt', 'requirements-dev.txt'])
def test_every_requirement_is_pinned_and_from_no_particular_host(path):
  for pins in read_pins(path).values():
    for pin in pins:
      assert pin.url is None
      assert re.fullmatch(r'==[0-9][^,*]*', str(pin.specifier)), pin
  text = (ROOT / path).read_text(encoding='utf-8')
  assert '://' not in text
  assert '--hash' not in text


def test_the_wheel_compiles_against_the_tensorflow_that_it_runs_on():
  build = {r.name: r for r in read_declared('requires')}
  run = {r.name: r for r in read_declared('dependencies')}
  assert build['tensorflow'].specifier == run['tensorflow'].specifier


def test_the_version_is_the_same_everywhere():
  version = scalable_agent.__version__
  module = (ROOT / 'MODULE.bazel').read_text(encoding='utf-8')
  assert f'version = "{version}"' in module
  changelog = (ROOT / 'CHANGELOG.md').read_text(encoding='utf-8')
  assert re.search(rf'^## .*{re.escape(version)}', changelog, re.M)


def test_documents_name_only_targets_that_the_makefile_has():
  makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
  targets = set(re.findall(r'^([a-z-]+):', makefile, re.M))
  assert {'train', 'test', 'help'} <= targets
  for path in [*ROOT.glob('*.md'), *(ROOT / 'docs').rglob('*.md')]:
    text = path.read_text(encoding='utf-8')
    # At the start of a line of code, or of code within a line.
    for named in re.findall(r'(?:^|`)make ([a-z-]+)', text, re.M):
      assert named in targets, f'{path.name}: make {named}'
