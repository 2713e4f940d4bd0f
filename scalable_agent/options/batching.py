"""How actors share inference, but for processes that have their own."""

import dataclasses
from typing import Any

from scalable_agent.options.declaration import Part, option

_IDLE: dict[str, Any] = {
  'idle_with': {'num_actors': (0,), 'inference': ('actor',)},
}
_IDLE_WITHOUT: dict[str, Any] = {
  'idle_with': {**_IDLE['idle_with'], 'batcher': ('none',)}
}


@dataclasses.dataclass(frozen=True)
class BatchingOptions:
  """Dynamic batching."""

  inference: str = option(
    'auto',
    'Who evaluates the agent in a distributed run: actor = each actor process, '
    'with weights that it fetches before each unroll; learner = the learner, '
    'behind the dynamic batcher, for actors that are environments only. auto = '
    'learner where it has a GPU. Actors follow what their learner has.',
    choices=('auto', 'actor', 'learner'),
    part=Part.ACTING,
    idle_with={'task': (-1,)},
  )
  batcher: str = option(
    'auto',
    'Dynamic batcher: op = the C++ operations, python = the fallback, auto = '
    'op where it can be built; none = each actor thread evaluates the agent '
    'for itself.',
    choices=('auto', 'op', 'python', 'none'),
    **_IDLE,
  )
  inference_minimum_batch_size: int = option(
    1,
    'Rows that the dynamic batcher waits for.',
    unit='rows',
    minimum=1,
    **_IDLE_WITHOUT,
  )
  inference_maximum_batch_size: int = option(
    1024,
    'Rows that the dynamic batcher puts into one batch.',
    aliases=('prediction_batch_size',),
    unit='rows',
    by_preset=True,
    minimum=1,
    **_IDLE_WITHOUT,
  )
  inference_timeout_ms: int = option(
    20,
    'Time after which the dynamic batcher serves fewer rows than '
    '--inference_minimum_batch_size; 0 = at once.',
    unit='milliseconds',
    minimum=0,
    **_IDLE_WITHOUT,
  )

  inference_threads: int = option(
    1,
    'Threads that evaluate the agent, each a batch of its own.',
    aliases=('num_predictors',),
    unit='threads',
    by_preset=True,
    minimum=1,
    **_IDLE_WITHOUT,
  )

  def check(self) -> None:
    """Refuses a minimum above the maximum."""
    most = self.inference_maximum_batch_size
    if most is not None and self.inference_minimum_batch_size > most:
      raise ValueError(
        f'--inference_minimum_batch_size={self.inference_minimum_batch_size} '
        f'exceeds --inference_maximum_batch_size={most}.'
      )
