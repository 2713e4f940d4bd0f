"""What a user hears who has no EnvPool."""

import sys

import pytest

from scalable_agent import environments


@pytest.fixture
def missing(monkeypatch):
  monkeypatch.setitem(sys.modules, 'envpool', None)
  name = 'scalable_agent.environments.envpool_registry'
  monkeypatch.delitem(sys.modules, name, raising=False)
  monkeypatch.delattr(
    sys.modules['scalable_agent.environments'],
    'envpool_registry',
    raising=False,
  )


@pytest.mark.parametrize('name', ['envpool:Pong-v5', 'envpool:CartPole-v1'])
def test_its_levels_say_what_to_install(missing, name):
  with pytest.raises(
    ValueError,
    match=rf'^{name} needs EnvPool, .*pip install .scalable-agent\[envpool\].*'
    'make setup EXTRAS=envpool',
  ) as caught:
    environments.parse_level(name)
  assert '\n' not in str(caught.value)


def test_other_levels_are_there_all_the_same(missing):
  assert environments.parse_level('CartPole-v1').suite.name == 'gymnasium'
  assert not [n for n in environments.level_names() if n.startswith('envpool')]
  with pytest.raises(ValueError, match='There is no level Pnog'):
    environments.parse_level('Pnog')
