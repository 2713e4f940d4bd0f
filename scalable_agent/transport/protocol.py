"""What actors and learners say to each other.

```
actor                                 learner
register   who I am, my options  ---> refused, or welcome
begin      my arrays and weights ---> refused, or not
weights    the version I have    ---> newer ones, if any         <-- before each
unroll     all of it             ---> taken, once there is room      unroll
gradients  those of an unroll    ---> the same                  <-- instead
step       what environments show --> what to do next           <-- instead of
failed     why I must stop       ---> noted                         both above
```

Control messages are JSON objects; bulk data is the memory of arrays, of which
both sides know the shapes, behind a fixed header.
"""

import json
import struct
from collections.abc import Sequence
from typing import Any

# Of the messages; the version of the package is compared, too.
VERSION = 2

# Bytes of a control message: parsed, it takes many times as much memory.
_MAX_CONTROL = 2**20

# Session of the actor.
SESSION = struct.Struct('<Q')
# Session, and the version of the weights: that the actor has, -1 for none; or
# that an unroll, or gradients, are of.
VERSIONED = struct.Struct('<Qq')
# Version of the weights that follow; none follow if it is what the actor has.
WEIGHTS_ANSWER = struct.Struct('<q')

# What is answered to actors after which they register anew.
UNKNOWN = 'this actor is not registered'
STOPPING = 'the learner is stopping'
# The value of an option that an actor leaves to its learner.
AUTO = 'auto'


def level_of(actor: int, num_learners: int, deal: Sequence[int]) -> int:
  """Returns the index of the level that an actor plays.

  Actor i belongs to learner i modulo num_learners; those of each learner take
  turns with what is dealt, so that each learner sees all levels.

  Args:
    actor: its task.
    num_learners: there are.
    deal: indices of levels.
  """
  return deal[actor // num_learners % len(deal)]


def to_json(**values: Any) -> bytes:
  """Returns a control message."""
  return json.dumps(values).encode()


def from_json(message: bytes) -> dict[str, Any]:
  """Returns the values of a control message; ValueError if it is none."""
  if len(message) > _MAX_CONTROL:
    raise ValueError('too long')
  try:
    values = json.loads(message.decode())
  except RecursionError as error:
    raise ValueError('too deep') from error
  if not isinstance(values, dict):
    raise ValueError('expected a JSON object')
  return values


def difference(mine: list, theirs: Any, what: str) -> str:
  """Returns a sentence on the first difference of two descriptions, or ''.

  Args:
    mine: lists of [name, shape, dtype].
    theirs: the same, of the other side; anything at all.
    what: what is described.
  """
  if mine == theirs:
    return ''
  if not isinstance(theirs, list) or len(mine) != len(theirs):
    count = len(theirs) if isinstance(theirs, list) else 'no'
    return f'{what}: the learner has {len(mine)}, the actor {count}'
  own, other = next(p for p in zip(mine, theirs, strict=True) if p[0] != p[1])
  return f'{what}: the learner has {_shown(own)}, the actor {_shown(other)}'


def _shown(entry: Any) -> str:
  return ' '.join(map(str, entry)) if isinstance(entry, list) else str(entry)
