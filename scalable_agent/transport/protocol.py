"""What actors and learners say to each other.

```
actor                                learner
register  who I am, my options  ---> refused, or a session
begin     my arrays and weights ---> refused, or welcome
weights   the version I have    ---> newer weights, in pieces     <-- before
...                                  (or: nothing newer)              each
ready     an unroll is here     ---> send it, or wait so long         unroll
unroll    a piece of it         ---> taken, or begin the stream anew
gradients a piece of those of   ---> taken                        (instead
          an unroll                                               of unroll)
failed    why I must stop       ---> noted
```

Control messages are JSON objects, bulk data follows a fixed header.
"""

import json
import struct
from collections.abc import Sequence
from typing import Any

# Of the messages; the version of the package is compared, too.
VERSION = 1

# Session of the actor.
SESSION = struct.Struct('<Q')
# Session, version that the actor has (-1: none), version and index of the
# piece that it wants (-1: of the newest).
WEIGHTS_REQUEST = struct.Struct('<QqqI')
# Version, number of its pieces (0: nothing newer), whether training is over.
WEIGHTS_ANSWER = struct.Struct('<qI?')
# Session, index of the stream.
UNROLL = struct.Struct('<QI')
# Session, version of the weights that they are of, index of the piece.
GRADIENTS = struct.Struct('<QqI')
# To `ready`: milliseconds to wait (0: send it), whether training is over.
READY_ANSWER = struct.Struct('<I?')

TAKEN = b'taken'
RESTART = b'restart'

# Refusals after which an actor registers anew.
UNKNOWN = 'this actor is not registered'
STOPPING = 'the learner is stopping'
COME_BACK = (UNKNOWN, STOPPING)


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
