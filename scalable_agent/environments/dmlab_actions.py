"""Sets of actions for DeepMind Lab, in the engine's own terms."""

from typing import NamedTuple


class Action(NamedTuple):
  """What `Lab.step` takes, in its order.

  Attributes:
    look_left_right: pixels of the mouse per frame, right is positive.
    look_down_up: likewise, down is positive.
    strafe: -1 left, 1 right.
    move: -1 back, 1 forward.
    fire: 0 or 1.
    jump: 0 or 1.
    crouch: 0 or 1.
  """

  look_left_right: int = 0
  look_down_up: int = 0
  strafe: int = 0
  move: int = 0
  fire: int = 0
  jump: int = 0
  crouch: int = 0


# Table D.2 of the IMPALA paper (Espeholt et al. 2018), and its code.
_IMPALA = {
  'forward': Action(move=1),
  'backward': Action(move=-1),
  'strafe_left': Action(strafe=-1),
  'strafe_right': Action(strafe=1),
  'look_left': Action(look_left_right=-20),
  'look_right': Action(look_left_right=20),
  'forward_look_left': Action(move=1, look_left_right=-20),
  'forward_look_right': Action(move=1, look_left_right=20),
  'fire': Action(fire=1),
}

# "Larger action set" of R2D2 (Kapturowski et al. 2019), from PopArt (Hessel et
# al. 2019). Not read there: these are the numbers that Sample Factory and
# Dreamer have for it, which agree.
_R2D2 = {
  'forward': Action(move=1),
  'backward': Action(move=-1),
  'strafe_left': Action(strafe=-1),
  'strafe_right': Action(strafe=1),
  'small_look_left': Action(look_left_right=-10),
  'small_look_right': Action(look_left_right=10),
  'large_look_left': Action(look_left_right=-60),
  'large_look_right': Action(look_left_right=60),
  'look_down': Action(look_down_up=10),
  'look_up': Action(look_down_up=-10),
  'forward_small_look_left': Action(move=1, look_left_right=-10),
  'forward_small_look_right': Action(move=1, look_left_right=10),
  'forward_large_look_left': Action(move=1, look_left_right=-60),
  'forward_large_look_right': Action(move=1, look_left_right=60),
  'fire': Action(fire=1),
}

# By --action_set.
ACTION_SETS = {'impala': _IMPALA, 'r2d2': _R2D2}
