"""Environments of EnvPool, stepped by one call for all of them.

EnvPool starts an environment anew at the step after the end of its episode, as
we do, and has no other way to cut one off than its own limits, which not every
family heeds. It has no way to seed one again, either: it is made anew.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tree

from scalable_agent import structures
from scalable_agent.environments import (
  batched,
  envpool_registry,
  envpool_spaces,
  gymnasium_spaces,
  replay,
)
from scalable_agent.environments.suite import Level, Purpose

if TYPE_CHECKING:
  from scalable_agent.environments.envpool_suite import PoolOptions


class Reply(NamedTuple):
  """What EnvPool gave for E environments.

  Attributes:
    observation: nest of [E, ...], as it is.
    reward: [E]
    terminated: [E]
    truncated: [E]
    info: dict of [E, ...], those that were asked for.
  """

  observation: Any
  reward: np.ndarray
  terminated: np.ndarray
  truncated: np.ndarray
  info: dict[str, np.ndarray]


class EnvPoolEnvironment(replay.ReplayedEnvironment):
  """E environments of one id of EnvPool."""

  # Names of infos that are of use.
  INFOS: tuple[str, ...] = ()

  def __init__(
    self,
    level: Level,
    env_id: str,
    num_envs: int,
    options: 'PoolOptions',
    seed: int,
    purpose: Purpose,
  ):
    """Looks at what there is to see and to do; `reset` makes the environments.

    Args:
      level: a level of EnvPool.
      env_id: what EnvPool calls it.
      num_envs: E.
      options: of the suite.
      seed: environment i is seeded with seed + i.
      purpose: what they are for.

    Raises:
      ValueError: it cannot be made or filmed, or is of an unsupported kind.
    """
    self._env_id, self._name = env_id, level.name
    self._threads = options.envpool_threads
    self._settings = self._settings_of(options)
    spec = envpool_registry.make_spec(env_id, level.name, **self._settings)
    self._frames_per_step = spec.frames_per_step
    self._parts = envpool_spaces.parts_of(
      spec.observation_space,
      spec.family,
      level.name,
      getattr(options, 'instruction_length', 1),
    )
    self._offer = envpool_spaces.actions_of(
      spec.action_space,
      spec.action_array,
      level.name,
      getattr(options, 'action_bounds', 'clip'),
    )
    if purpose.probe:
      # Some lack files, which shows only then.
      self._make_pool([seed])
    if purpose.render:
      envpool_registry.check_render(env_id, level.name)
    super().__init__(
      level,
      num_envs,
      self._spec_of(options),
      seed,
      render=purpose.render,
      replayable=purpose.replayable,
    )
    # Where each is to have new seeds at times, each is in a pool of its own.
    size = 1 if purpose.replayable else num_envs
    self._ranges = [slice(i, i + size) for i in range(0, num_envs, size)]
    self._pools: list[Any] = [None] * len(self._ranges)
    self._first: list[Any] = [None] * len(self._ranges)
    self._limit = self._limit_of(options)
    self._steps = np.zeros([num_envs], np.int64)
    self._over = np.zeros([num_envs], bool)
    # Whose episode we, not EnvPool, have ended.
    self._cut = np.zeros([num_envs], bool)

  def _settings_of(self, options: Any) -> dict[str, Any]:
    """Returns what EnvPool is to be told."""
    del options
    return {}

  def _spec_of(self, options: Any) -> structures.EnvironmentSpec:
    del options
    return structures.EnvironmentSpec(
      observation=tree.map_structure(lambda part: part.spec, self._parts),
      action_space=self._offer.space,
      frames_per_step=self._frames_per_step,
    )

  def _limit_of(self, options: Any) -> int:
    """Returns the agent steps after which we cut an episode off; 0: never."""
    return options.max_episode_length

  def _start(self, seeds: np.ndarray, where: np.ndarray) -> Any:
    for i, envs in enumerate(self._ranges):
      if not where[envs].any():
        continue
      render = self._render_enabled and i == 0
      pool = self._pools[i] = self._make_pool(seeds[envs], render)
      observation, info = pool.reset()
      self._first[i] = self._reply(envs.stop - envs.start, observation, info)
    reply = _join(self._first)
    self._steps = np.where(where, 0, self._steps)
    self._over, self._cut = self._over & ~where, self._cut & ~where
    self._note(reply, where)
    return self._encode(reply.observation)

  def _advance(self, actions: np.ndarray) -> batched.Arrival:
    reply = self._step_all(self._offer.decode(actions))
    first = self._over | self._cut
    self._steps = np.where(first, 0, self._steps + 1)
    self._over = (reply.terminated | reply.truncated) & ~first
    self._cut = np.zeros_like(first)
    if self._limit:
      self._cut = (self._steps >= self._limit) & ~self._over
    return batched.Arrival(
      observation=self._encode(reply.observation),
      reward=reply.reward,
      terminated=reply.terminated,
      truncated=reply.truncated | self._cut,
    )

  def _make_pool(self, seeds: Any, render: bool = False) -> Any:
    return envpool_registry.make_pool(
      self._env_id,
      self._name,
      seeds,
      min(self._threads, len(seeds)),
      render,
      **self._settings,
    )

  def _step_all(self, actions: np.ndarray) -> Reply:
    """Steps all pools; those that we cut off start anew."""
    return _join(
      [
        self._step_pool(pool, actions[envs], self._cut[envs])
        for pool, envs in zip(self._pools, self._ranges, strict=True)
      ]
    )

  def _step_pool(
    self, pool: Any, actions: np.ndarray, cut: np.ndarray
  ) -> Reply:
    if not cut.any():
      return self._stepped(pool.step(actions))
    anew = np.flatnonzero(cut).astype(np.int32)
    replies = [self._reply(len(anew), *pool.reset(anew))]
    order = anew
    if not cut.all():
      going = np.flatnonzero(~cut).astype(np.int32)
      replies.append(self._stepped(pool.step(actions[going], going)))
      order = np.concatenate([anew, going])
    places = np.argsort(order)
    return tree.map_structure(lambda x: x[places], _join(replies))

  def _stepped(self, output: Any) -> Reply:
    observation, reward, terminated, truncated, info = output
    infos = {name: info[name] for name in self.INFOS}
    return Reply(observation, reward, terminated, truncated, infos)

  def _reply(self, size: int, observation: Any, info: Any) -> Reply:
    """Returns what starts `size` episodes."""
    nothing = np.zeros([size], bool)
    infos = {name: info[name] for name in self.INFOS}
    return Reply(
      observation, np.zeros([size], np.float32), nothing, nothing, infos
    )

  def _note(self, reply: Reply, where: np.ndarray) -> None:
    """Called with what starts episodes from seeds, of which `where` are."""

  def _encode(self, observation: Any) -> Any:
    return gymnasium_spaces.encode(self._parts, observation)

  def _render(self) -> np.ndarray:
    return np.array(self._pools[0].render(env_ids=[0])[0], np.uint8)

  def _close(self, healthy: bool) -> None:
    for pool in self._pools:
      if healthy and pool is not None:
        pool.close()
    # Their threads end with them.
    self._pools = []


def _join(replies: list[Reply]) -> Reply:
  if len(replies) == 1:
    return replies[0]
  return tree.map_structure(lambda *xs: np.concatenate(xs), *replies)
