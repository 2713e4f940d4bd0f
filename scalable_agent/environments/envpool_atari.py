"""Atari games of EnvPool, the same games as those of `atari`."""

import math
from typing import Any

import ale_py
import numpy as np
from ale_py import roms

from scalable_agent import structures
from scalable_agent.environments import (
  batched,
  envpool_registry,
  envpool_vector,
)


class EnvPoolAtariEnvironment(envpool_vector.EnvPoolEnvironment):
  """E games of one kind; observations are uint8 [height, width, 1 or 3]."""

  # EnvPool calls the end of a game at the limit a truncation, `terminated` is
  # what the emulator says.
  INFOS = ('lives', 'terminated')

  def __init__(self, level, env_id, num_envs, options, seed, purpose):
    """See base class."""
    super().__init__(level, env_id, num_envs, options, seed, purpose)
    self._life_loss_is_terminal = options.life_loss_is_terminal
    self._lives = np.zeros([num_envs], np.int32)
    # Where FIRE is to be pressed.
    self._waiting = np.zeros([num_envs], bool)
    meanings = self.spec.action_meanings or ()
    has_fire = options.fire_reset and 'FIRE' in meanings
    self._fire = meanings.index('FIRE') if has_fire else None

  def _settings_of(self, options: Any) -> dict[str, Any]:
    return {
      'stack_num': 1,
      'frame_skip': options.num_action_repeats,
      'noop_max': options.noop_max,
      'max_episode_steps': math.ceil(
        options.frame_limit / options.num_action_repeats
      ),
      'repeat_action_probability': options.sticky_actions,
      'full_action_space': options.full_action_space,
      'gray_scale': options.grayscale,
      'img_height': options.height,
      'img_width': options.width,
      'episodic_life': False,
      'zero_discount_on_life_loss': False,
      'reward_clip': False,
      # Before the first frame that the agent sees, and not after a lost life.
      'use_fire_reset': False,
    }

  def _spec_of(self, options: Any) -> structures.EnvironmentSpec:
    meanings = _action_meanings(
      envpool_registry.rom(self._env_id), options.full_action_space
    )
    spec = super()._spec_of(options)
    return spec._replace(
      action_meanings=meanings
      if len(meanings) == spec.action_space.num_parameters
      else None,
    )

  def _limit_of(self, options: Any) -> int:
    # EnvPool's own: `max_episode_steps`.
    return 0

  def _note(self, reply: envpool_vector.Reply, where: np.ndarray) -> None:
    self._lives = np.where(where, reply.info['lives'], self._lives)
    self._waiting = self._waiting | where

  def _advance(self, actions: np.ndarray) -> batched.Arrival:
    if self._fire is not None:
      actions = np.where(self._waiting, self._fire, actions)
    first = self._over
    reply = self._step_all(self._offer.decode(actions))
    over = reply.info['terminated'].astype(bool) & ~first
    # Where a game was over another one has begun, with lives of its own.
    life_lost = (reply.info['lives'] < self._lives) & ~first
    self._waiting = life_lost | first
    self._lives = reply.info['lives']
    self._over = (over | reply.truncated | reply.terminated) & ~first
    return batched.Arrival(
      observation=self._encode(reply.observation),
      reward=reply.reward,
      terminated=over,
      truncated=self._over & ~over,
      life_lost=life_lost if self._life_loss_is_terminal else None,
    )


def _action_meanings(rom: str, full: bool) -> tuple[str, ...]:
  """Returns the names of a game's actions, which EnvPool does not tell."""
  ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
  emulator = ale_py.ALEInterface()
  emulator.loadROM(roms.get_rom_path(rom))
  actions = (
    emulator.getLegalActionSet() if full else emulator.getMinimalActionSet()
  )
  return tuple(action.name for action in actions)
