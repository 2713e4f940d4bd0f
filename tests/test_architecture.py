"""The import rules of the design, enforced on the syntax trees of all files.

Higher layers may import lower ones and their own, never the reverse, and there
are no cycles. A file without a layer fails: add it to LAYERS. Of a room,
others use what its __init__.py hands on.
"""

import ast
import pathlib
import sys
from collections.abc import Iterator
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

# A room stands for everything inside it.
LAYERS = (
  ('dynamic_batching', 'scalable_agent'),
  (
    'scalable_agent.vtrace',
    'scalable_agent.returns',
    'scalable_agent.actions',
    'scalable_agent.action_spaces',
    'scalable_agent.structures',
    'scalable_agent.options',
    'scalable_agent.suites',
  ),
  (
    'scalable_agent.networks',
    'scalable_agent.environments',
    'scalable_agent.losses',
    'scalable_agent.objectives',
    'scalable_agent.optimizers',
    'scalable_agent.distribution',
  ),
  (
    'scalable_agent.policies',
    'scalable_agent.actor',
    'scalable_agent.queues',
    'scalable_agent.unroll_queue',
    'scalable_agent.gradients',
    'scalable_agent.gradient_queue',
    'scalable_agent.worker',
    'scalable_agent.learner',
  ),
  (
    'scalable_agent.transport',
    'scalable_agent.storage',
    'scalable_agent.reports',
    'scalable_agent.evaluation',
  ),
  ('scalable_agent.runtimes',),
  ('experiment', 'setup'),
)

# Who alone may import it, `dynamic_batching` itself apart.
BATCHER_USERS = ('scalable_agent.policies', 'scalable_agent.runtimes')

SIMULATORS = (
  'gymnasium',
  'ale_py',
  'deepmind_lab',
  'envpool',
  'minigrid',
  'mujoco',
  'vizdoom',
)

PURE = (
  'scalable_agent.vtrace',
  'scalable_agent.actions',
  'scalable_agent.action_spaces',
  'scalable_agent.returns',
  'scalable_agent.losses',
  'scalable_agent.objectives',
)
PURE_MAY_IMPORT = (
  'tensorflow',
  'numpy',
  'scalable_agent.structures',
  'scalable_agent.options',
  *PURE,
)

MUST_NOT_IMPORT = {
  # It hands its unrolls to a callable.
  'scalable_agent.actor': (
    'scalable_agent.learner',
    'scalable_agent.queues',
    'scalable_agent.unroll_queue',
  ),
}

# What a process needs before it knows whether it evaluates the agent, and all
# that carries or queues bytes and arrays: rooms and files that do not even
# import TENSORFLOW through others, but in functions.
WITHOUT_TENSORFLOW = (
  'experiment',
  'scalable_agent.actor',
  'scalable_agent.distribution.addresses',
  'scalable_agent.distribution.cluster',
  'scalable_agent.distribution.schedulers',
  'scalable_agent.environments',
  'scalable_agent.options',
  'scalable_agent.queues',
  'scalable_agent.runtimes.actor_process',
  'scalable_agent.runtimes.cores',
  'scalable_agent.runtimes.impala',
  'scalable_agent.runtimes.impala_actor',
  'scalable_agent.runtimes.interruption',
  'scalable_agent.runtimes.processes',
  'scalable_agent.runtimes.processor',
  'scalable_agent.runtimes.startup',
  'scalable_agent.runtimes.worlds',
  'scalable_agent.storage.files',
  'scalable_agent.structures',
  'scalable_agent.suites',
  'scalable_agent.transport.credentials',
  'scalable_agent.transport.learner_link',
  'scalable_agent.transport.learner_service',
  'scalable_agent.transport.malformed',
  'scalable_agent.transport.packing',
  'scalable_agent.transport.protocol',
  'scalable_agent.transport.rendezvous',
  'scalable_agent.transport.rpc',
  'scalable_agent.transport.sessions',
  'scalable_agent.transport.step_codec',
  'scalable_agent.transport.step_service',
  'scalable_agent.transport.unroll_service',
  'scalable_agent.transport.weights',
  'scalable_agent.unroll_queue',
)
TENSORFLOW = ('tensorflow', 'keras', 'sonnet', 'tensorboard')

# Who alone may import gRPC: bytes leave and enter there, past the token.
GRPC_USERS = (
  'scalable_agent.transport.credentials',
  'scalable_agent.transport.rpc',
)
# Nothing that comes in may be run.
PICKLES = ('pickle', 'marshal', 'shelve', 'dill', 'cloudpickle')

# (module, name) of every use of tf.*.experimental. Only ever remove.
EXPERIMENTAL_ALLOWED: frozenset[tuple[str, str]] = frozenset()


class Import(NamedTuple):
  """One imported name: `module`, or `module.name` of a from-import."""

  target: str
  line: int
  at_module_level: bool
  for_types: bool = False  # Under TYPE_CHECKING: never executed.


def is_in(module: str, packages: tuple[str, ...] | str) -> bool:
  """Whether a module is one of the packages, or inside of one."""
  if isinstance(packages, str):
    packages = (packages,)
  return any(module == p or module.startswith(p + '.') for p in packages)


def layer_of(module: str) -> int | None:
  """Returns the layer of a module of this repository, None without one."""
  for layer, packages in enumerate(LAYERS):
    for package in packages:
      if module == package:
        return layer
      if package != 'scalable_agent' and is_in(module, package):
        return layer
  return None


def find_imports(tree: ast.Module, module: str, is_package: bool):
  """Yields an Import for everything imported, also inside of functions."""

  def visit(
    node: ast.AST, at_module_level: bool, for_types: bool = False
  ) -> Iterator[Import]:
    line = getattr(node, 'lineno', 0)
    if isinstance(node, ast.Import):
      for alias in node.names:
        yield Import(alias.name, line, at_module_level, for_types)
    elif isinstance(node, ast.ImportFrom):
      base = node.module or ''
      if node.level:
        parents = module.split('.')
        parents = parents[: len(parents) - node.level + is_package]
        base = '.'.join([*parents, *([base] if base else [])])
      for alias in node.names:
        yield Import(f'{base}.{alias.name}', line, at_module_level, for_types)
    elif isinstance(node, ast.Call):
      name = ast.unparse(node.func).rpartition('.')[-1]
      arguments = [a.value for a in node.args if isinstance(a, ast.Constant)]
      if name in ('import_module', '__import__') and arguments:
        yield Import(str(arguments[0]), line, at_module_level)
    inside = isinstance(
      node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    )
    if isinstance(node, ast.If):
      for_types |= dotted_name(node.test)[-1] == 'TYPE_CHECKING'
    for child in ast.iter_child_nodes(node):
      yield from visit(child, at_module_level and not inside, for_types)

  yield from visit(tree, True)


def find_tensorflow_names(tree: ast.Module) -> Iterator[tuple[str, int]]:
  """Yields what is used of TensorFlow ('tensorflow.data'), and the line."""
  aliases = {}
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      for alias in node.names:
        if is_in(alias.name, 'tensorflow'):
          yield alias.name, node.lineno
          name = alias.name if alias.asname else 'tensorflow'
          aliases[alias.asname or 'tensorflow'] = name
    elif isinstance(node, ast.ImportFrom) and is_in(
      node.module or '', 'tensorflow'
    ):
      for alias in node.names:
        name = f'{node.module}.{alias.name}'
        yield name, node.lineno
        aliases[alias.asname or alias.name] = name
  attributes = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute)]
  inner = {id(n.value) for n in attributes}
  for node in attributes:
    root, *rest = dotted_name(node)
    if id(node) not in inner and root in aliases:
      yield '.'.join([aliases[root], *rest]), node.lineno


def dotted_name(node: ast.expr) -> list[str]:
  """Returns ['a', 'b'] for a.b, [''] where something else is inside."""
  names: list[str] = []
  while isinstance(node, ast.Attribute):
    names.append(node.attr)
    node = node.value
  return [node.id, *reversed(names)] if isinstance(node, ast.Name) else ['']


def uses_of_experimental(tree: ast.Module) -> Iterator[tuple[str, int]]:
  for name, line in find_tensorflow_names(tree):
    if 'experimental' in name.split('.'):
      yield name, line


def check(
  module: str, source: str, modules: set[str], is_package: bool = False
) -> list[str]:
  """Returns what a file does that it must not, one sentence each."""
  tree = ast.parse(source)
  errors = check_tensorflow(module, tree)
  if is_in(module, ('tests', 'benchmarks')):
    return errors
  layer = layer_of(module)
  if layer is None:
    return [
      *errors,
      f'{module} has no layer: add it to LAYERS in test_architecture.py, next '
      'to its equals.',
    ]
  for imported in find_imports(tree, module, is_package):
    target = module_of(imported.target, modules)
    where = f'{module}:{imported.line} imports {target}'
    if target in modules:
      errors += check_own_import(module, target, layer, where)
      errors += check_room(module, imported.target, where)
    errors += check_foreign_import(module, imported, target, where)
  return errors


def check_own_import(module, target, layer, where) -> Iterator[str]:
  """Yields errors about an import of a file of this repository."""
  if is_in(target, 'dynamic_batching'):
    if not is_in(module, ('dynamic_batching', *BATCHER_USERS)):
      yield f'{where}; only {" and ".join(BATCHER_USERS)} may.'
  elif is_in(module, 'dynamic_batching'):
    yield f'{where}; it is to know nothing of what uses it.'
  target_layer = layer_of(target)
  if target_layer is not None and target_layer > layer:
    yield f'{where}; that is layer {target_layer}, above its own, {layer}.'
  if is_in(target, ('tests', 'benchmarks')):
    yield f'{where}; code must not depend on {target.split(".")[0]}.'
  if is_in(target, MUST_NOT_IMPORT.get(module, ())):
    yield f'{where}; see Ownership in the design.'


def room_of(module: str) -> str | None:
  """Returns the room that a module lies in, None at the top."""
  return next((room for room in HANDED_ON if is_in(module, room)), None)


def check_room(module, target, where) -> Iterator[str]:
  """Yields errors about what a room keeps to itself."""
  room = room_of(target)
  if room in (None, room_of(module)) or target == room:
    return
  name = target.removeprefix(f'{room}.')
  if name not in HANDED_ON[room]:
    yield (
      f'{where}; {room} does not hand on {name}. Use what its __init__.py has '
      'in __all__, or add it there.'
    )


def check_foreign_import(module, imported, target, where) -> Iterator[str]:
  """Yields errors about an import of any package, this one's among them."""
  if is_in(target, SIMULATORS):
    if not is_in(module, 'scalable_agent.environments'):
      yield f'{where}; only scalable_agent.environments may.'
    elif is_in(target, 'deepmind_lab') and imported.at_module_level:
      yield f'{where} at module level; few have it: do so in a function.'
  if is_in(target, 'grpc') and module not in GRPC_USERS:
    yield f'{where}; only {" and ".join(GRPC_USERS)} may.'
  if is_in(target, PICKLES) and is_in(module, 'scalable_agent.transport'):
    yield f'{where}; what others send is never run.'
  if is_in(target, 'absl.flags') and module != 'experiment':
    yield f'{where}; only experiment.py reads flags.'
  if target == 'argparse' and is_in(module, 'scalable_agent'):
    yield f'{where}; only experiment.py reads flags.'
  if (
    is_in(module, PURE)
    and not is_in(target, PURE_MAY_IMPORT)
    and target.split('.')[0] not in sys.stdlib_module_names
  ):
    yield f'{where}; it is pure: {", ".join(PURE_MAY_IMPORT)} and stdlib only.'


def check_tensorflow(module: str, tree: ast.Module) -> list[str]:
  """Returns errors about parts of TensorFlow that are not public or stable."""
  errors = []
  for name, line in find_tensorflow_names(tree):
    where = f'{module}:{line} uses {name}'
    if is_in(name, 'tensorflow.python'):
      errors.append(f'{where}, which is private.')
    if is_in(name, 'tensorflow.compat.v1'):
      errors.append(f'{where}, which is TensorFlow 1.')
  for imported in find_imports(tree, module, is_package=False):
    if is_in(imported.target, ('tensorflow_core', 'tf_keras')):
      errors.append(
        f'{module}:{imported.line} imports {imported.target}: use tensorflow '
        'and keras.'
      )
  if is_in(module, ('tests', 'benchmarks')):
    return errors
  for name, line in uses_of_experimental(tree):
    where = f'{module}:{line} uses {name}'
    if not any(module == m and is_in(name, n) for m, n in EXPERIMENTAL_ALLOWED):
      errors.append(f'{where}, which may change or go.')
  return errors


def module_of(target: str, modules: set[str]) -> str:
  """Returns the file that an imported name comes from; itself if not ours."""
  module = target
  while module and module not in modules:
    module = module.rpartition('.')[0]
  return module or target


def find_way(
  module: str, goals: tuple[str, ...], imports: dict[str, set[str]]
) -> list[str]:
  """Returns modules that import each other up to one of `goals`, [] if none.

  Args:
    module: the first of them.
    goals: packages.
    imports: what each module imports when it is imported itself.
  """
  ways = [[module]]
  seen = {module}
  for way in ways:
    for target in sorted(imports.get(way[-1], ())):
      if is_in(target, goals):
        return [*way, target]
      if target not in seen:
        seen.add(target)
        ways.append([*way, target])
  return []


def find_cycle(imports: dict[str, set[str]]) -> list[str]:
  """Returns the modules of some cycle of imports in order, [] if none."""
  done: set[str] = set()

  def visit(module: str, path: list[str]) -> list[str]:
    if module in path:
      return [*path[path.index(module) :], module]
    if module in done:
      return []
    for target in sorted(imports.get(module, ())):
      if cycle := visit(target, [*path, module]):
        return cycle
    done.add(module)
    return []

  for module in sorted(imports):
    if cycle := visit(module, []):
      return cycle
  return []


# The files of this repository.


def find_files() -> dict[str, pathlib.Path]:
  """Returns the path of every module, hidden and build folders apart."""
  paths = [p for p in ROOT.glob('*.py') if p.name != 'conftest.py']
  for folder in ('dynamic_batching', 'scalable_agent', 'tests', 'benchmarks'):
    paths += (ROOT / folder).rglob('*.py')
  files = {}
  for path in paths:
    parts = path.relative_to(ROOT).with_suffix('').parts
    if parts[-1] == '__init__':
      parts = parts[:-1]
    files['.'.join(parts)] = path
  return files


FILES = find_files()
MODULES = set(FILES)


def find_handed_on() -> dict[str, tuple[str, ...]]:
  """Returns the names that each room hands on to others."""
  handed_on = {}
  for module, path in FILES.items():
    if path.name == '__init__.py' and module.startswith('scalable_agent.'):
      names = ()
      for node in ast.parse(path.read_text(encoding='utf-8')).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == '__all__':
          names = ast.literal_eval(node.value)
      handed_on[module] = names
  return handed_on


HANDED_ON = find_handed_on()


@pytest.mark.parametrize('module', sorted(FILES))
def test_a_file_keeps_to_the_rules(module):
  path = FILES[module]
  errors = check(
    module,
    path.read_text(encoding='utf-8'),
    MODULES,
    is_package=path.name == '__init__.py',
  )
  assert not errors, '\n'.join(errors)


def test_imports_have_no_cycle():
  imports = {}
  for module, path in FILES.items():
    if layer_of(module) is None:
      continue
    tree = ast.parse(path.read_text(encoding='utf-8'))
    found = find_imports(tree, module, path.name == '__init__.py')
    targets = {module_of(i.target, MODULES) for i in found if not i.for_types}
    imports[module] = (targets & MODULES) - {module}
  cycle = find_cycle(imports)
  assert not cycle, ' -> '.join(cycle)


def imports_at_once() -> dict[str, set[str]]:
  """Returns what each file imports when it is imported, its rooms included."""
  imports = {}
  for module, path in FILES.items():
    tree = ast.parse(path.read_text(encoding='utf-8'))
    found = find_imports(tree, module, path.name == '__init__.py')
    targets = {
      module_of(one.target, MODULES)
      for one in found
      if one.at_module_level and not one.for_types
    }
    for target in (module, *targets):
      rooms = target.split('.')
      targets |= {'.'.join(rooms[:n]) for n in range(1, len(rooms))} & MODULES
    imports[module] = targets - {module}
  return imports


def test_what_comes_before_the_agent_imports_no_tensorflow():
  assert set(WITHOUT_TENSORFLOW) <= MODULES
  imports = imports_at_once()
  for module in MODULES:
    if is_in(module, WITHOUT_TENSORFLOW):
      way = find_way(module, TENSORFLOW, imports)
      assert not way, ' -> '.join(way)


def test_every_allowed_experimental_name_is_still_used():
  for module, name in EXPERIMENTAL_ALLOWED:
    assert module in FILES, f'{module} is gone: remove it from the list.'
    tree = ast.parse(FILES[module].read_text(encoding='utf-8'))
    used = [n for n, _ in uses_of_experimental(tree)]
    assert any(is_in(u, name) for u in used), (
      f'{module} no longer uses {name}: remove it from the list.'
    )


def test_the_files_of_this_test_are_found():
  assert {'scalable_agent.vtrace', 'tests.test_architecture'} <= MODULES


# The rules themselves.

KNOWN = {
  *(package for packages in LAYERS for package in packages),
  'scalable_agent.environments.atari',
  'scalable_agent.runtimes.a3c',
  'dynamic_batching.batcher',
  'tests.helper',
}


@pytest.mark.parametrize(
  ('module', 'source', 'message'),
  [
    ('scalable_agent.vtrace', 'from scalable_agent import losses', 'above'),
    ('scalable_agent.vtrace', 'import scalable_agent.losses', 'above'),
    ('scalable_agent.vtrace', 'from . import losses', 'above'),
    ('scalable_agent.vtrace', 'from .losses import align', 'above'),
    ('scalable_agent.options.config', 'def f(): import experiment', 'above'),
    (
      'scalable_agent.environments.atari',
      'from ..learner import Learner',
      'above',
    ),
    (
      'scalable_agent.learner',
      'import importlib\nimportlib.import_module("scalable_agent.reports")',
      'above',
    ),
    ('scalable_agent', 'from scalable_agent import vtrace', 'above'),
    ('scalable_agent.novelty', '', 'has no layer'),
    ('novelty', '', 'has no layer'),
    ('scalable_agent.vtraces', '', 'has no layer'),
    ('scalable_agent.reports', 'import tests.helper', 'not depend on tests'),
    ('scalable_agent.actor', 'from dynamic_batching import batch_fn', 'only'),
    ('scalable_agent.learner', 'import dynamic_batching.batcher', 'only'),
    ('experiment', 'import dynamic_batching', 'only'),
    (
      'dynamic_batching.batcher',
      'from scalable_agent import structures',
      'know nothing',
    ),
    ('dynamic_batching', 'import scalable_agent', 'know nothing'),
    (
      'scalable_agent.actor',
      'from scalable_agent.unroll_queue import UnrollQueue',
      'Ownership',
    ),
    ('scalable_agent.networks', 'import gymnasium as gym', 'environments may'),
    ('experiment', 'def f():\n  from ale_py import x', 'environments may'),
    (
      'scalable_agent.environments',
      'try:\n  import deepmind_lab\nexcept ImportError:\n  pass',
      'module level',
    ),
    (
      'scalable_agent.runtimes.a3c',
      'from scalable_agent.storage import nest_files',
      'does not hand on nest_files',
    ),
    (
      'scalable_agent.runtimes.a3c',
      'import scalable_agent.storage.nest_files',
      'does not hand on nest_files',
    ),
    (
      'scalable_agent.runtimes.a3c',
      'from scalable_agent.storage.logdirs import LogdirLock',
      'does not hand on logdirs.LogdirLock',
    ),
    ('scalable_agent.learner', 'from absl import flags', 'reads flags'),
    ('scalable_agent.learner', 'import absl.flags', 'reads flags'),
    ('dynamic_batching.batcher', 'from absl.flags import FLAGS', 'reads flags'),
    ('scalable_agent.options.config', 'import argparse', 'reads flags'),
    ('scalable_agent.vtrace', 'import keras', 'pure'),
    ('scalable_agent.returns', 'from absl import logging', 'pure'),
    ('scalable_agent.losses', 'import sonnet as snt', 'pure'),
    ('scalable_agent.losses', 'from scalable_agent import networks', 'pure'),
    ('scalable_agent.losses', 'from scalable_agent import config', 'pure'),
    ('tests.helper', 'from tensorflow.python.ops import x', 'private'),
    ('experiment', 'import tensorflow as tf\ntf.python.ops.x()', 'private'),
    ('experiment', 'import tensorflow.compat.v1 as tf', 'TensorFlow 1'),
    ('tests.helper', 'from tensorflow.compat import v1', 'TensorFlow 1'),
    (
      'scalable_agent.learner',
      'import tensorflow as t\nx = t.compat.v1.train.Saver()',
      'TensorFlow 1',
    ),
    ('scalable_agent.learner', 'import tf_keras', 'use tensorflow'),
    (
      'scalable_agent.learner',
      'import tensorflow as tf\ntf.config.experimental.get_memory_info("")',
      'experimental',
    ),
    (
      'scalable_agent.learner',
      'import tensorflow as tf\nf(tf.data.experimental.x().y).z(1)[0].w',
      'experimental',
    ),
    (
      'scalable_agent.learner',
      'from tensorflow import data as d\nd.experimental.cardinality(x)',
      'experimental',
    ),
    (
      'scalable_agent.learner',
      'from tensorflow.data.experimental import cardinality',
      'experimental',
    ),
    (
      'scalable_agent.distribution.cluster',
      'import grpc',
      'only scalable_agent.transport.credentials and',
    ),
    (
      'scalable_agent.transport.sessions',
      'def f():\n  from grpc import aio',
      'only scalable_agent.transport.credentials and',
    ),
    (
      'scalable_agent.transport.rpc',
      'import tensorflow as tf\ntf.distribute.experimental.rpc.Server',
      'experimental',
    ),
    ('scalable_agent.transport.rpc', 'import pickle', 'never run'),
  ],
)
def test_a_violation_is_caught(module, source, message):
  errors = check(module, source, KNOWN, is_package=module in PACKAGES)
  assert any(message in error for error in errors), errors


PACKAGES = ('scalable_agent', 'scalable_agent.environments', 'dynamic_batching')


@pytest.mark.parametrize(
  ('module', 'source'),
  [
    (
      'experiment',
      'from absl import app, flags\nimport scalable_agent.options',
    ),
    ('experiment', 'from scalable_agent.runtimes import assembly'),
    (
      'scalable_agent.storage.checkpointing',
      'from scalable_agent.storage import nest_files',
    ),
    (
      'scalable_agent.runtimes.a3c',
      'from scalable_agent import storage\nimport scalable_agent.reports',
    ),
    ('scalable_agent.policies', 'import dynamic_batching'),
    ('scalable_agent.runtimes.a3c', 'from dynamic_batching import batcher'),
    ('dynamic_batching', 'from . import batcher\nimport argparse'),
    ('dynamic_batching.batcher', 'import tensorflow as tf\ntf.nest.flatten(x)'),
    ('scalable_agent.losses', 'import os.path\nimport numpy as np'),
    ('scalable_agent.losses', 'from scalable_agent import structures, vtrace'),
    ('scalable_agent.learner', 'from scalable_agent import __version__'),
    ('scalable_agent.actor', 'from scalable_agent import policies'),
    ('scalable_agent.environments', 'from . import atari\nimport ale_py'),
    ('scalable_agent.environments', 'def f():\n  import deepmind_lab'),
    ('scalable_agent.transport.rpc', 'import grpc'),
    ('scalable_agent.transport.credentials', 'import grpc'),
    ('scalable_agent.storage', 'import pickle'),
    ('tests.helper', 'import grpc'),
    ('scalable_agent.reports', 'f(x).experimental.y\nself.tf.compat.v1.z'),
    ('tests.helper', 'import gymnasium\nimport dynamic_batching'),
    ('benchmarks.throughput', 'from absl import flags'),
    ('scalable_agent.reports', '"""tf.compat.v1, import experiment"""'),
    (
      'scalable_agent.reports',
      'import tensorflow as tf\ntf.constant("a.experimental.b").numpy',
    ),
  ],
)
def test_what_is_allowed_passes(module, source):
  errors = check(module, source, KNOWN, is_package=module in PACKAGES)
  assert errors == []


@pytest.mark.parametrize(
  ('imports', 'cycle'),
  [
    ({'a': {'b'}, 'b': {'c'}, 'c': set()}, []),
    ({'a': {'b', 'c'}, 'b': {'d'}, 'c': {'d'}}, []),
    ({'a': {'b'}, 'b': {'c'}, 'c': {'b'}}, ['b', 'c', 'b']),
  ],
)
def test_cycles_are_found(imports, cycle):
  assert find_cycle(imports) == cycle


@pytest.mark.parametrize(
  ('imports', 'way'),
  [
    ({'a': {'b', 'c'}, 'b': {'a'}, 'c': {'os'}}, []),
    ({'a': {'b', 'c'}, 'c': {'goal.part'}}, ['a', 'c', 'goal.part']),
    ({'a': {'b'}, 'b': {'c', 'goal'}, 'c': {'goal'}}, ['a', 'b', 'goal']),
    ({'b': {'goal'}}, []),
  ],
)
def test_ways_of_imports_are_found(imports, way):
  assert find_way('a', ('goal',), imports) == way
