"""What is installed agrees with what is imported, declared and pinned."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest
from packaging import requirements

import scalable_agent

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGES = ('dynamic_batching', 'scalable_agent')
# Where a module is not named like what installs it.
DISTRIBUTIONS = {
  'absl': 'absl-py',
  'PIL': 'pillow',
  'grpc': 'grpcio',
  'sonnet': 'dm-sonnet',
  'tree': 'dm-tree',
}
# Extras of pyproject.toml.
EXTRAS = ('envpool', 'minigrid', 'mujoco', 'vizdoom')
# 'deepmind_lab' has no wheels, so that its users ask for it themselves;
# 'stable_baselines3' is a peer to compare with, in an environment of its own.
OPTIONAL = {'deepmind_lab', 'stable_baselines3'}


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
  items = re.sub(r'#.*', '', items)
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
  declared = {
    normalized(r.name)
    for section in ('dependencies', *EXTRAS)
    for r in read_declared(section)
  }
  needed = {normalized(DISTRIBUTIONS.get(name, name)) for name in foreign}
  assert needed <= declared


@pytest.mark.parametrize(
  ('section', 'path'),
  [
    ('dependencies', 'requirements.txt'),
    ('dev', 'requirements-dev.txt'),
    *((extra, f'requirements-{extra}.txt') for extra in EXTRAS),
  ],
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
  if section in EXTRAS:
    pins = read_pins('requirements.txt') | pins
  declared = {}
  for requirement in read_declared(section):
    declared.setdefault(normalized(requirement.name), []).append(requirement)
  assert declared
  for name, candidates in declared.items():
    assert versions(candidates) == versions(pins[name]), name
    # EnvPool has no wheels for the oldest.
    none = (name, python) == ('envpool', '3.10')
    assert len(versions(candidates)) == (0 if none else 1), name


def test_every_extra_has_its_file_and_nothing_is_pinned_twice():
  files = {path.name for path in ROOT.glob('requirements-*.txt')}
  assert files == {f'requirements-{name}.txt' for name in ('dev', *EXTRAS)}
  for extra in EXTRAS:
    path = f'requirements-{extra}.txt'
    assert not set(read_pins(path)) & set(read_pins('requirements.txt'))
    lines = (ROOT / path).read_text(encoding='utf-8').splitlines()
    assert lines[1] == '-r requirements.txt'


def test_extras_do_not_disagree():
  pins = {}
  for extra in EXTRAS:
    for name, found in read_pins(f'requirements-{extra}.txt').items():
      versions = {str(pin.specifier) for pin in found}
      assert pins.setdefault(name, versions) == versions, name


def make(*arguments):
  return subprocess.run(
    ['make', *arguments], cwd=ROOT, capture_output=True, text=True, check=False
  )


def test_make_setup_installs_the_extras_that_are_named(tmp_path):
  environment = f'VENV={tmp_path}'
  planned = make('--dry-run', 'packages', environment, 'EXTRAS=minigrid,mujoco')
  for name in 'requirements', 'requirements-minigrid', 'requirements-mujoco':
    assert f'install --requirement={name}.txt\n' in planned.stdout
  assert 'vizdoom' not in planned.stdout
  planned = make('--dry-run', 'packages', environment)
  assert 'install --requirement=requirements.txt' in planned.stdout
  assert 'requirements-' not in planned.stdout


def test_make_knows_its_extras():
  refused = make('setup', 'EXTRAS=minigird,vizdoom')
  assert refused.returncode == 2
  assert 'there is no minigird. Choose from' in refused.stderr
  for extra in EXTRAS:
    assert extra in refused.stderr


@pytest.mark.parametrize(
  'path', sorted(path.name for path in ROOT.glob('requirements*.txt'))
)
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


def test_the_image_and_ci_install_extras():
  dockerfile = (ROOT / 'Dockerfile').read_text(encoding='utf-8')
  assert 'COPY Makefile requirements*.txt' in dockerfile
  assert 'ARG EXTRAS=\n' in dockerfile
  assert 'make packages EXTRAS="${EXTRAS}"' in dockerfile
  ci = (ROOT / '.ci' / 'run').read_text(encoding='utf-8')
  assert f'\nEXTRAS={",".join(EXTRAS)}\n' in ci


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
