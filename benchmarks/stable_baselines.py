"""Trains Stable-Baselines3's PPO or A2C on an Atari game for some minutes.

  .venv-peers-stable_baselines3/bin/python benchmarks/stable_baselines.py \\
    --algorithm=ppo --game=Breakout --minutes=30 --output=ppo_breakout

Settings are those of its "zoo" for Atari. It needs an environment of its own:

  make peers-setup NAME=stable_baselines3

`--output` becomes a folder with an episodes.csv as experiment.py writes it, for
benchmarks/plot.py: raw returns of whole games over frames and seconds.
"""

import argparse
import csv
import os
import time

import ale_py
import gymnasium
from stable_baselines3 import A2C, PPO
from stable_baselines3.common import callbacks, env_util, vec_env
from stable_baselines3.common.sb2_compat import rmsprop_tf_like

_ACTION_REPEAT = 4
_TOTAL_STEPS = 10_000_000
_FIELDS = (
  'frames',
  'seconds',
  'level',
  'episode_return',
  'episode_length',
  'episode_frames',
)


def _linear(start: float):
  return lambda remaining: remaining * start


def make_ppo(env, seed: int) -> PPO:
  """PPO as in the zoo, for 8 environments."""
  return PPO(
    'CnnPolicy',
    env,
    n_steps=128,
    n_epochs=4,
    batch_size=256,
    learning_rate=_linear(2.5e-4),
    clip_range=_linear(0.1),
    vf_coef=0.5,
    ent_coef=0.01,
    seed=seed,
    device='cpu',
  )


def make_a2c(env, seed: int) -> A2C:
  """A2C as in the zoo, for 16 environments."""
  return A2C(
    'CnnPolicy',
    env,
    ent_coef=0.01,
    vf_coef=0.25,
    policy_kwargs={
      'optimizer_class': rmsprop_tf_like.RMSpropTFLike,
      'optimizer_kwargs': {'eps': 1e-5},
    },
    seed=seed,
    device='cpu',
  )


ALGORITHMS = {'ppo': (make_ppo, 8), 'a2c': (make_a2c, 16)}


class _Log(callbacks.BaseCallback):
  """Writes a row for each game, and ends the training in time."""

  def __init__(self, file, game: str, seconds: float):
    super().__init__()
    self._writer = csv.writer(file, lineterminator='\n')
    self._writer.writerow(_FIELDS)
    self._file, self._game, self._seconds = file, game, seconds
    self._start = time.monotonic()

  def _on_step(self) -> bool:
    elapsed = time.monotonic() - self._start
    for info in self.locals['infos']:
      # Of the game, not of a life, and not clipped.
      episode = info.get('episode')
      if episode is not None:
        frames = int(episode['l'])
        self._writer.writerow(
          [
            self.num_timesteps * _ACTION_REPEAT,
            f'{elapsed:.3f}',
            self._game,
            float(episode['r']),
            frames // _ACTION_REPEAT,
            frames,
          ]
        )
        self._file.flush()
    return elapsed < self._seconds


def main() -> None:
  """Parses the command line and trains."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--algorithm', choices=ALGORITHMS, required=True)
  parser.add_argument('--game', default='Breakout', help='As in Gymnasium ids.')
  parser.add_argument('--minutes', type=float, default=30.0)
  parser.add_argument('--seed', type=int, default=1)
  parser.add_argument(
    '--processes',
    action='store_true',
    help='Environments in processes; default: one after the other.',
  )
  parser.add_argument('--output', required=True, help='Folder to make.')
  options = parser.parse_args()
  gymnasium.register_envs(ale_py)
  make, num_envs = ALGORITHMS[options.algorithm]
  vector = vec_env.SubprocVecEnv if options.processes else vec_env.DummyVecEnv
  env = env_util.make_atari_env(
    f'{options.game}NoFrameskip-v4',
    num_envs,
    options.seed,
    vec_env_cls=vector,
  )
  env = vec_env.VecFrameStack(env, 4)
  os.makedirs(options.output)
  path = os.path.join(options.output, 'episodes.csv')
  with open(path, 'w', newline='', encoding='utf-8') as file:
    log = _Log(file, options.game.lower(), options.minutes * 60)
    make(env, options.seed).learn(_TOTAL_STEPS, callback=log)
  print(f'{log.num_timesteps * _ACTION_REPEAT:,} frames')
  env.close()


if __name__ == '__main__':
  main()
