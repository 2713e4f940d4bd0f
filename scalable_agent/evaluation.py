"""Plays whole games with an agent and reports what it scored."""

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import rich.box
import rich.console
import rich.table
from absl import logging

from scalable_agent import actions, policies, structures
from scalable_agent.reports import videos
from scalable_agent.storage import files


class LevelResult(NamedTuple):
  """What an agent scored on one level.

  Attributes:
    level: name of the level.
    policy: 'sample' or 'greedy'.
    returns: sum of the raw rewards of each episode.
    lengths: agent steps of each episode.
    human_normalized: mean return in percent of the way from random play (0) to
      a human (100); None for levels without such scores.
  """

  level: str
  policy: str
  returns: list[float]
  lengths: list[int]
  human_normalized: float | None


def evaluate(
  agent: Any,
  environment: Any,
  num_episodes: int,
  greedy: bool = False,
  seed: int = 1,
  video_path: str | None = None,
  window: Any = None,
) -> LevelResult:
  """Plays whole episodes; a lost life does not end one.

  Every environment plays a number of episodes that is fixed beforehand. To
  take whichever are finished first would favour short episodes.

  Args:
    agent: networks.Agent.
    environment: a BatchedEnvironment of E environments, made with `render` if
      there is to be a video. It is reset, and not closed.
    num_episodes: episodes to play; at least 1.
    greedy: takes the most probable action instead of sampling one.
    seed: of the sampling.
    video_path: .mp4 or .gif for the first episode of environment 0.
    window: a windows.Window, or the like, that shows all its episodes.

  Returns:
    The result of exactly `num_episodes` episodes: first every environment's
    first, then every environment's second, and so on.

  Raises:
    ValueError: `num_episodes` is less than 1, or the video cannot be written.
  """
  if num_episodes < 1:
    raise ValueError(f'num_episodes={num_episodes} must be at least 1.')
  level = environment.level.name
  logging.info('Testing level: %s', level)
  quotas = [
    len(range(i, num_episodes, environment.num_envs))
    for i in range(environment.num_envs)
  ]
  policy = policies.Direct(policies.make_step(agent, policies.Seeds(seed)))
  state = agent.initial_state(environment.num_envs)
  space = environment.spec.action_space
  action = np.zeros([environment.num_envs, *space.shape], space.dtype)
  played: list[list[tuple[float, int]]] = [[] for _ in quotas]
  env_output = environment.reset()

  def show() -> None:
    if window is not None:
      window.add(environment.render())

  with _Film(environment, video_path) as film:
    film.shoot()
    show()
    while any(map(_falls_short, played, quotas)):
      agent_output, state = policy(env_output, action, state)
      action = np.asarray(agent_output.action)
      if greedy:
        action = actions.mode(space, agent_output.policy_logits).numpy()
      env_output = environment.step(action)
      film.shoot()
      show()
      ended = env_output.step_type == structures.LAST
      if ended[0]:
        film.close()
      for i in np.flatnonzero(ended):
        if _falls_short(played[i], quotas[i]):
          played[i].append(
            (
              float(env_output.info.episode_return[i]),
              int(env_output.info.episode_step[i]),
            )
          )
          logging.debug('Level: %s Episode return: %f', level, played[i][-1][0])
  episodes = [
    played[i % len(quotas)][i // len(quotas)] for i in range(num_episodes)
  ]
  returns = [episode_return for episode_return, _ in episodes]
  logging.info('Mean episode return: %f', np.mean(returns))
  return LevelResult(
    level=level,
    policy='greedy' if greedy else 'sample',
    returns=returns,
    lengths=[length for _, length in episodes],
    human_normalized=_human_normalized(environment.level, returns),
  )


class Episode(NamedTuple):
  """An episode that was played.

  Attributes:
    episode_return: sum of the raw rewards.
    length: agent steps.
  """

  episode_return: float
  length: int


def play_episode(
  policy: Callable,
  environment: Any,
  initial_state: Any,
  most_equal_actions: int,
  stopping: Callable[[], bool] = lambda: False,
) -> Episode | None:
  """Plays an episode, taking the most probable action of each step.

  Args:
    policy: see `policies`.
    environment: a BatchedEnvironment of one environment; it is reset, and not
      closed.
    initial_state: the agent's, of one row.
    most_equal_actions: so many in a row, during which the return stays what it
      was, end the episode: it might go on for ever.
    stopping: asked at each step whether to leave off.

  Returns:
    None where it was left off.
  """
  space = environment.spec.action_space
  state, action = initial_state, np.zeros([1, *space.shape], space.dtype)
  equal_actions, episode_return = 0, 0.0
  env_output = environment.reset()
  while env_output.step_type[0] != structures.LAST:
    if stopping():
      return None
    agent_output, state = policy(env_output, action, state)
    chosen = actions.mode(space, agent_output.policy_logits).numpy()
    equal_actions = equal_actions + 1 if (chosen == action).all() else 1
    action = chosen
    env_output = environment.step(action)
    now = env_output.info.episode_return[0]
    # Not where it is no number, which differs from itself.
    if now != episode_return and now == now:
      episode_return, equal_actions = now, 0
    if equal_actions == most_equal_actions:
      break
  info = env_output.info
  return Episode(float(info.episode_return[0]), int(info.episode_step[0]))


def report(
  results: Sequence[LevelResult],
  path: str | None = None,
  console: rich.console.Console | None = None,
  circumstances: Mapping[str, Any] = types.MappingProxyType({}),
  scores: Mapping[str, float] | None = None,
) -> None:
  """Prints a table of results and writes them to a JSON file.

  Args:
    results: of one or more levels.
    path: of the JSON file; None writes none.
    console: where to print; default: standard output.
    circumstances: what else the file says: of what agent the results are, and
      how they came about.
    scores: `Suite.test_scores` of these results.

  Raises:
    files.WriteError: the file cannot be written; the table has been printed.
  """
  console = console or rich.console.Console()
  console.print(_table(results))
  normalized = [
    r.human_normalized for r in results if r.human_normalized is not None
  ]
  aggregate = None
  if len(normalized) > 1:
    aggregate = {
      'levels': len(normalized),
      'median_human_normalized': float(np.median(normalized)),
      'mean_human_normalized': float(np.mean(normalized)),
    }
    console.print(
      f'Human-normalised over {len(normalized)} levels: median '
      f'{aggregate["median_human_normalized"]:.1f}%, mean '
      f'{aggregate["mean_human_normalized"]:.1f}%'
    )
  if scores is not None:
    line = ' '.join(f'{name}: {score:f}' for name, score in scores.items())
    logging.info('%s', line)
  if path is not None:
    levels = [{**r._asdict(), **_statistics(r.returns)} for r in results]
    try:
      files.write_json(
        path,
        {
          **circumstances,
          'levels': levels,
          'aggregate': aggregate,
          **({} if scores is None else {'scores': dict(scores)}),
        },
      )
    except OSError as error:
      raise files.write_error(path, error) from error


class _Film:
  """Films environment 0 until it is closed; without a path, nothing."""

  def __init__(self, environment: Any, path: str | None):
    self._environment = environment
    self._writer: videos.VideoWriter | None = None
    if path is not None:
      # An environment that cannot render says so before there is a file.
      environment.render()
      self._writer = videos.VideoWriter(
        path, environment.level.suite.fps / environment.spec.frames_per_step
      )

  def shoot(self) -> None:
    """Adds what environment 0 looks like now."""
    if self._writer is not None:
      self._writer.add(self._environment.render())

  def close(self) -> None:
    """Finishes the video; what comes after is not filmed."""
    if self._writer is not None:
      self._writer.close()
      self._writer = None

  def __enter__(self) -> '_Film':
    return self

  def __exit__(self, kind, failure, traceback) -> None:
    self.close()


def _falls_short(episodes: list[tuple[float, int]], quota: int) -> bool:
  return len(episodes) < quota


def _human_normalized(level: Any, returns: list[float]) -> float | None:
  return level.suite.human_normalized_score(level.name, float(np.mean(returns)))


def _statistics(returns: list[float]) -> dict[str, float]:
  return {
    'mean': float(np.mean(returns)),
    'std': float(np.std(returns)),
    'min': float(np.min(returns)),
    'max': float(np.max(returns)),
  }


def _table(results: Sequence[LevelResult]) -> rich.table.Table:
  """Returns a table of at most 80 columns, unless the console has fewer."""
  scored = any(r.human_normalized is not None for r in results)
  table = rich.table.Table(
    box=rich.box.SIMPLE_HEAD,
    padding=(0, 1, 0, 0),
    pad_edge=False,
    show_edge=False,
  )
  # Of all columns this one gives way, and loses nothing by it.
  table.add_column('level', overflow='fold')
  table.add_column('policy', no_wrap=True)
  names = ['episodes', 'mean', 'std', 'min', 'max', 'steps']
  for name in [*names, *(['human'] if scored else [])]:
    table.add_column(name, justify='right', no_wrap=True)
  for r in results:
    row = [
      r.level,
      r.policy,
      str(len(r.returns)),
      *(_format_return(value) for value in _statistics(r.returns).values()),
      f'{np.mean(r.lengths):.0f}',
    ]
    if scored:
      known = r.human_normalized is not None
      row.append(f'{r.human_normalized:.1f}%' if known else '-')
    table.add_row(*row)
  return table


def _format_return(value: float) -> str:
  return f'{value:.2f}' if abs(value) < 1000 else f'{value:.0f}'
