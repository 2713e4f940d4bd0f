"""How an agent is tested."""

import dataclasses

from scalable_agent.options.declaration import Part, option


@dataclasses.dataclass(frozen=True)
class TestOptions:
  """Test."""

  checkpoint: str = option(
    'newest',
    'The newest checkpoint, or the one of the best return; of several levels, '
    'of the best median of human-normalised scores.',
    choices=('newest', 'best'),
    part=Part.TEST,
  )
  test_num_episodes: int = option(
    10, 'Episodes per level.', unit='episodes', minimum=1, part=Part.TEST
  )
  test_policy: str = option(
    'sample',
    'Actions: sampled from the policy, or greedy.',
    choices=('sample', 'greedy'),
    part=Part.TEST,
  )
  video_dir: str = option(
    '',
    'Folder for a video of the first episode per level.',
    part=Part.TEST,
  )
