"""Learner batches with every kind of end of an episode, for tests of losses."""

import dataclasses

import numpy as np
import tensorflow as tf

from scalable_agent import action_spaces, structures

FIRST, MID, LAST = structures.FIRST, structures.MID, structures.LAST

NUM_STEPS = 8
NUM_ACTIONS = 4
SPACE = action_spaces.Discrete(NUM_ACTIONS)

# [B, T + 1]: a termination, a truncation, both in one column, an episode that
# ends in column 0 and in column T, one without an end, a lost life.
STEP_TYPES = (
  (FIRST, MID, LAST, FIRST, MID, MID, MID, MID, MID),
  (MID, MID, MID, MID, LAST, FIRST, MID, MID, MID),
  (MID, LAST, FIRST, MID, MID, LAST, FIRST, LAST, FIRST),
  (LAST, FIRST, MID, MID, MID, MID, MID, MID, LAST),
  (MID, MID, MID, MID, MID, MID, MID, MID, MID),
  (MID, MID, MID, MID, MID, MID, MID, MID, MID),
)
TERMINATIONS = ((0, 2), (2, 1), (3, 0), (3, 8), (5, 4))  # (b, t)
NUM_COLUMNS = len(STEP_TYPES)


@dataclasses.dataclass
class Batch:
  """What an objective receives, in numpy."""

  learner_logits: np.ndarray
  learner_baselines: np.ndarray
  env_outputs: structures.StepOutput
  agent_outputs: structures.AgentOutput

  def loss(self, function, options):
    """Returns loss, metrics and gradients with respect to what was learned.

    Args:
      function: of `objectives`.
      options: its first argument.
    """
    logits = tf.constant(self.learner_logits, tf.float32)
    baselines = tf.constant(self.learner_baselines, tf.float32)
    with tf.GradientTape() as tape:
      tape.watch([logits, baselines])
      loss = function(
        options,
        SPACE,
        logits,
        baselines,
        self.env_outputs,
        self.agent_outputs,
      )
      total = loss.total
    gradients = tape.gradient(total, [logits, baselines])
    return total, loss.metrics, [np.asarray(g) for g in gradients]


def episode_ends():
  """Returns step types and discounts, [T + 1, B], of STEP_TYPES."""
  step_type = np.array(STEP_TYPES, np.int32).T
  discount = np.ones(step_type.shape, np.float32)
  for b, t in TERMINATIONS:
    discount[t, b] = 0.0
  return step_type, discount


def make_batch(seed=0):
  random = np.random.RandomState(seed)
  step_type, discount = episode_ends()
  shape = step_type.shape
  reward = 2 * random.normal(size=shape).astype(np.float32)
  learner_logits = random.normal(size=(*shape, NUM_ACTIONS))
  # Some actions have a probability around and below the epsilon of 1e-6.
  learner_logits[::3, :, 0] -= 14.0
  return Batch(
    learner_logits=learner_logits.astype(np.float32),
    learner_baselines=random.normal(size=shape).astype(np.float32),
    env_outputs=structures.StepOutput(
      step_type=step_type,
      reward=np.where(step_type == FIRST, np.float32(0), reward),
      discount=discount,
      observation=None,
      info=None,
    ),
    agent_outputs=structures.AgentOutput(
      action=random.randint(NUM_ACTIONS, size=shape).astype(np.int32),
      policy_logits=random.normal(size=(*shape, NUM_ACTIONS)).astype(
        np.float32
      ),
      baseline=1e6 * np.ones(shape, np.float32),  # Of no use to the learner.
    ),
  )


def log_softmax(logits):
  """Returns log-probabilities in float64."""
  logits = logits.astype(np.float64)
  return logits - np.log(np.exp(logits).sum(-1, keepdims=True))
