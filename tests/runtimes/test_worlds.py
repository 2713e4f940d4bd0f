"""Levels that one run can play, and who plays which."""

import pytest

from scalable_agent import environments
from scalable_agent.runtimes import worlds
from tests.configs import make_config, resolve


def check_levels(level_name, **options):
  levels = environments.parse_levels(level_name)
  config = make_config(level_name=level_name, **options)
  config = resolve(config, levels[0].suite)
  worlds.check_levels(config, levels)


class TestCheckLevels:
  @pytest.mark.parametrize(
    ('level_name', 'options'),
    [
      ('catch', {'num_actors': 0}),
      ('catch,catch_hidden', {}),
      ('pong,space_invaders', {}),  # Both have the same six actions.
      ('pong,breakout', {'full_action_space': True}),
    ],
  )
  def test_levels_that_are_alike_pass(self, level_name, options):
    check_levels(level_name, **options)

  def test_games_with_all_actions_need_not_be_made(self, monkeypatch):
    monkeypatch.delattr(environments, 'make')
    check_levels('atari57', full_action_space=True, num_actors=57)

  def test_games_with_other_actions_are_refused(self):
    with pytest.raises(
      ValueError,
      match='^--level_name=pong,breakout: pong and breakout differ in their '
      r'kinds of actions, 6 actions and 4 actions\. Set --full_action_space\.$',
    ):
      check_levels('pong,breakout')

  def test_games_with_as_many_other_actions_are_refused(self):
    with pytest.raises(
      ValueError,
      match='^--level_name=pong,qbert: pong and qbert differ in their actions, '
      r'of which number 2 is RIGHT and UP\. Set --full_action_space\.$',
    ):
      check_levels('pong,qbert')

  def test_actions_without_names_are_only_counted(self):
    names = [f'tests.environments.toys:Toys/{n}-v0' for n in ('Gray', 'Named')]
    check_levels(','.join(names))

  @pytest.mark.parametrize(
    ('names', 'said'),
    [
      (
        ('Named', 'NamedOtherwise'),
        r'actions, of which number 0 is LEFT and STAY\. Wrap',
      ),
      (
        ('Gray', 'Colour'),
        r'observations, uint8 \[8, 6, 1\] and .* 3\]\. Wrap',
      ),
      (
        ('Gray', 'GrayOfTwo'),
        r'kinds of actions, 3 actions and 2 actions\. Wrap',
      ),
    ],
  )
  def test_what_differs_is_named(self, names, said):
    names = [f'tests.environments.toys:Toys/{name}-v0' for name in names]
    with pytest.raises(
      ValueError, match=f'{names[0]} and {names[1]} differ in their {said}'
    ):
      check_levels(','.join(names))

  @pytest.mark.parametrize('num_actors', [0, 1])
  def test_every_level_needs_an_actor(self, num_actors):
    with pytest.raises(
      ValueError,
      match=f'^--num_actors={num_actors} cannot play the 2 levels of '
      '--level_name=catch,catch_hidden, .* Set --num_actors=2 or more',
    ):
      check_levels('catch,catch_hidden', num_actors=num_actors)

  def test_shares_are_looked_at(self):
    check_levels('catch,catch_hidden', level_shares='catch:2')
    with pytest.raises(
      ValueError, match=r'^--level_shares=pong:2: pong is not'
    ):
      check_levels('catch,catch_hidden', level_shares='pong:2')
    with pytest.raises(ValueError, match=r'^--level_shares=.* with one level'):
      check_levels('catch', level_shares='catch:2')

  def test_levels_of_deepmind_lab_are_alike(self, monkeypatch):
    monkeypatch.delattr(environments, 'make')
    check_levels('dmlab30', num_actors=30)

  def test_a2c_plays_one(self):
    with pytest.raises(
      ValueError,
      match=r'^--algorithm=a2c plays one level, .*catch,catch_hidden names 2\. '
      '.*--algorithm=a3c',
    ):
      check_levels('catch,catch_hidden', algorithm='a2c')


class TestDescribeShares:
  @staticmethod
  def describe(level_name, **options):
    levels = environments.parse_levels(level_name)
    config = make_config(level_name=level_name, **options)
    return worlds.describe_shares(config, levels)

  def test_levels_with_more_actors_are_named(self):
    assert self.describe('pong,breakout', num_actors=3) == (
      '--num_actors=3 is no multiple of 2 levels, each actor plays one: 2 '
      '(66.7%) for pong; 1 (33.3%) for breakout. Levels with more actors are '
      'learned from more.'
    )

  def test_shares_that_were_asked_for_are_named_too(self):
    said = self.describe(
      'pong,breakout', num_actors=6, level_shares='breakout:2'
    )
    assert said.startswith(
      '--num_actors=6 with --level_shares=breakout:2: each actor plays one: 4 '
      '(66.7%) for breakout; 2 (33.3%) for pong.'
    )

  def test_of_many_levels_some_are_named(self):
    said = self.describe('atari57', num_actors=59)
    assert '2 (3.4%) for each of 2 (alien, amidar);' in said
    assert (
      '1 (1.7%) for each of 55 (assault, asterix, asteroids, atlantis, ...).'
    ) in said

  def test_each_learner_shares_out_its_own_actors(self):
    # Levels 0 0 1 1 0 0.
    said = self.describe('pong,breakout', num_actors=6, num_learners=2, task=0)
    assert '4 (66.7%) for pong; 2 (33.3%) for breakout' in said

  @pytest.mark.parametrize(
    ('level_name', 'num_actors'),
    [('pong', 3), ('catch', 0), ('pong,breakout', 4), ('atari57', 114)],
  )
  def test_equal_shares_are_not_worth_a_word(self, level_name, num_actors):
    assert self.describe(level_name, num_actors=num_actors) is None
