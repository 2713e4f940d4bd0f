"""Unrolls as bytes: what is read is what an actor made, or an error."""

import tracemalloc

import numpy as np
import pytest
import tree

from scalable_agent import action_spaces, environments, structures
from scalable_agent.environments import catch
from scalable_agent.structures import FIRST, LAST, MID
from scalable_agent.transport import malformed, rpc, unroll_codec
from tests import acting, clockwork

LENGTH = 5  # T
NUM_ENVS = 3
HEADER = b'what comes before'
# Step type, reward, discount, return, step; action, logits, baseline.
SMALL = 5 * 4 + (1 + 5 + 1) * 4


def make_catch():
  return catch.CatchEnvironment(
    environments.parse_level('catch'), NUM_ENVS, seed=0
  )


def make_clocks():
  return clockwork.ClockworkEnvironment(NUM_ENVS, episode_steps=3)


def make_images():
  return acting.ImageEnvironment(NUM_ENVS, episode_steps=3)


def make_nests_of_choices():
  space = action_spaces.MultiDiscrete((3, 2))
  return acting.NestEnvironment(space, NUM_ENVS, episode_steps=3)


def make_nests_of_numbers():
  space = action_spaces.Box((-1.0, 0.0), (1.0, 5.0))
  return acting.NestEnvironment(space, NUM_ENVS, episode_steps=3)


def assert_same(actual, expected):
  """Bit for bit, with shapes and dtypes."""
  tree.assert_same_structure(actual, expected)
  for one, two in zip(
    tree.flatten(actual), tree.flatten(expected), strict=True
  ):
    one, two = np.asarray(one), np.asarray(two)
    assert (one.shape, one.dtype) == (two.shape, two.dtype)
    assert one.tobytes() == two.tobytes()


def read_again(one, unroll, columns=NUM_ENVS):
  """Writes an unroll and reads it."""
  message = one.layout.write(unroll, HEADER)
  assert message.startswith(HEADER)
  version, level = int(unroll.policy_version[0]), int(unroll.level[0])
  return one.layout.read(message, len(HEADER), columns, version, level)


def assert_episodes_end_everywhere(unrolls):
  """In mid-unroll and on both sides of the columns that are shared."""
  step_types = [u.env_outputs.step_type for u in unrolls]
  for kind in (FIRST, MID, LAST):
    assert any((s[-1] == kind).any() for s in step_types)
    if len(step_types[0]) > 2:
      assert any((s[1:-1] == kind).any() for s in step_types)


class TestIdentity:
  @pytest.mark.parametrize(
    ('make_environment', 'frame_stack', 'lstm', 'length'),
    [
      (make_clocks, 1, False, LENGTH),
      (make_clocks, 3, True, LENGTH),
      (make_catch, 2, False, 3),
      (make_images, 1, False, LENGTH),
      (make_images, 4, True, LENGTH),
      # Unrolls that are shorter than the stack.
      (make_images, 4, False, 1),
      (make_clocks, 4, False, 1),
      (make_nests_of_choices, 1, False, LENGTH),
      (make_nests_of_choices, 4, True, 3),
      (make_nests_of_numbers, 1, True, LENGTH),
      (make_nests_of_numbers, 3, False, 2),
    ],
  )
  def test_an_unroll_comes_out_as_it_went_in(
    self, make_environment, frame_stack, lstm, length
  ):
    one = acting.Acting(make_environment(), frame_stack, lstm, length, level=2)
    unrolls = []
    for version in range(40 // length):
      one.version = 2**33 * version
      unrolls.append(one.unroll())
      assert_same(read_again(one, unrolls[-1]), unrolls[-1])
    assert_episodes_end_everywhere(unrolls)

  @pytest.mark.parametrize('columns', [1, 2, 7, 33])
  def test_of_any_number_of_columns(self, columns):
    one = acting.Acting(
      acting.ImageEnvironment(columns), frame_stack=2, lstm=True
    )
    unroll = one.unroll()
    assert_same(read_again(one, unroll, columns), unroll)

  def test_each_stands_for_itself(self):
    """In any order, left out, or twice: it is as if it were alone."""
    one = acting.Acting(make_images(), frame_stack=4)
    unrolls = one.unrolls(4)
    for index in (3, 1, 1, 0):
      assert_same(read_again(one, unrolls[index]), unrolls[index])

  def test_reading_does_not_change_what_was_read_before(self):
    one = acting.Acting(make_images(), frame_stack=4, lstm=True)
    unrolls = one.unrolls(4)
    read = [read_again(one, unroll) for unroll in unrolls]
    assert_same(read, unrolls)

  def test_columns_taken_out_of_an_unroll_are_one(self):
    one = acting.Acting(make_images(), frame_stack=4, lstm=True)
    part = structures.slice_columns(one.unroll(), 1, 3)
    assert_same(read_again(one, part, 2), part)

  def test_version_and_level_are_the_readers(self):
    one = acting.Acting(make_clocks(), level=1)
    message = one.layout.write(one.unroll())
    unroll = one.layout.read(message, 0, NUM_ENVS, 2**40, 3)
    assert unroll.policy_version.tolist() == [2**40] * NUM_ENVS
    assert unroll.level.tolist() == [3] * NUM_ENVS
    assert unroll.policy_version.dtype == np.int64
    assert unroll.level.dtype == np.int32


class TestLength:
  FRAME = acting.ImageEnvironment.HEIGHT * acting.ImageEnvironment.WIDTH

  @pytest.mark.parametrize('lstm', [False, True])
  @pytest.mark.parametrize('frame_stack', [1, 4])
  def test_each_frame_is_sent_once(self, lstm, frame_stack):
    """And those that came before the unroll, as part of the agent's state."""
    one = acting.Acting(make_images(), frame_stack=frame_stack, lstm=lstm)
    core = 2 * 256 * 4 if lstm else 0
    state = core + (0 if frame_stack == 1 else frame_stack * self.FRAME)
    expected = NUM_ENVS * (state + (LENGTH + 1) * (self.FRAME + SMALL))
    for unroll in one.unrolls(3):
      assert len(one.layout.write(unroll)) == expected
      assert len(one.layout.write(unroll, HEADER)) == expected + len(HEADER)
    assert one.layout.num_bytes(NUM_ENVS) == expected
    assert one.layout.num_bytes(1) * 7 == one.layout.num_bytes(7)

  def test_a_step_of_pong_takes_little_more_than_a_frame(self):
    """As whole unrolls repeat a column, and the frames of a stack."""
    pixels = structures.TensorSpec((84, 84, 1), np.dtype(np.uint8))
    spec = structures.EnvironmentSpec(pixels, action_spaces.Discrete(6), 4)
    from scalable_agent import networks

    agent = networks.Agent(spec, network='shallow', frame_stack=4)
    layout = unroll_codec.Layout(spec, agent.initial_state(1), 20)
    small = 21 * (5 * 4 + (1 + 6 + 1) * 4)
    per_step = (layout.num_bytes(32) / 32 - small) / 20
    assert per_step <= 1.3 * 84 * 84

  def test_layouts_differ_where_agents_and_environments_do(self):
    descriptions = [
      acting.Acting(environment, **options).layout.describe()
      for environment, options in [
        (make_images(), {'frame_stack': 4}),
        (make_images(), {'frame_stack': 3}),
        (make_images(), {'lstm': True}),
        (make_clocks(), {}),
        (clockwork.ClockworkEnvironment(NUM_ENVS, num_actions=4), {}),
        (make_nests_of_choices(), {}),
        (make_nests_of_numbers(), {}),
      ]
    ]
    for i, one in enumerate(descriptions):
      assert [one == other for other in descriptions].count(True) == 1, i

  def test_the_number_of_columns_makes_no_difference(self):
    layouts = [
      acting.Acting(acting.ImageEnvironment(columns), frame_stack=4).layout
      for columns in (1, 5)
    ]
    assert layouts[0].describe() == layouts[1].describe()
    assert layouts[0].num_bytes(3) == layouts[1].num_bytes(3)


def changed(unroll, name, value, column=1, time=2):
  """An unroll with another number in one place of one array."""
  part, _, field = name.partition('/')
  parts = getattr(unroll, part)
  array = getattr(parts, field)
  if field == 'core':
    array = array[0]
  copy = np.array(array)
  copy[(column,) if part == 'agent_state' else (time, column)] = value
  if field == 'core':
    copy = (copy, parts.core[1])
  return unroll._replace(**{part: parts._replace(**{field: copy})})


IMPOSSIBLE = [
  ('env_outputs/step_type', -1),
  ('env_outputs/step_type', 3),
  ('agent_outputs/action', -1),
  ('agent_outputs/action', 5),
  ('env_outputs/reward', np.nan),
  ('env_outputs/reward', np.inf),
  ('env_outputs/discount', np.nan),
  ('env_outputs/discount', 1.5),
  ('env_outputs/discount', -0.5),
  ('env_outputs/observation', np.nan),
  ('env_outputs/observation', -np.inf),
  ('agent_outputs/policy_logits', np.inf),
  ('agent_outputs/baseline', np.nan),
  ('agent_state/core', np.nan),
]


@pytest.fixture(scope='module')
def one():
  return acting.Acting(make_clocks(), lstm=True)


class TestMalformed:
  def read(self, one, message, columns=NUM_ENVS):
    return one.layout.read(message, 0, columns, 0, 0)

  @pytest.mark.parametrize('change', [-1, 1, 4, -4, 10**6])
  def test_another_length(self, one, change):
    good = one.layout.write(one.unroll())
    bad = good[:change] if change < 0 else good + bytes(change)
    with pytest.raises(
      malformed.Malformed, match=f'^{len(bad)} bytes instead of {len(good)}$'
    ):
      self.read(one, bad)

  @pytest.mark.parametrize('columns', [1, 2, 4, 2**16])
  def test_another_number_of_columns(self, one, columns):
    with pytest.raises(malformed.Malformed, match='bytes instead of'):
      self.read(one, one.layout.write(one.unroll()), columns)

  @pytest.mark.parametrize('message', [b'', b'x', bytes(1000)])
  def test_no_unroll_at_all(self, one, message):
    with pytest.raises(malformed.Malformed, match='bytes instead of'):
      self.read(one, message)

  @pytest.mark.parametrize(('name', 'value'), IMPOSSIBLE)
  def test_what_no_actor_makes(self, one, name, value):
    bad = changed(one.unroll(), name, value)
    with pytest.raises(malformed.Malformed) as error:
      self.read(one, one.layout.write(bad))
    assert name.rpartition('/')[2].replace('_', ' ') in str(
      error.value
    ).replace('_', ' ')

  def test_a_number_that_is_none_is_no_action(self):
    one = acting.Acting(make_nests_of_numbers())
    bad = changed(one.unroll(), 'agent_outputs/action', np.nan)
    with pytest.raises(malformed.Malformed, match='finite floats'):
      self.read(one, one.layout.write(bad))

  def test_a_choice_that_is_none_is_no_action(self):
    one = acting.Acting(make_nests_of_choices())
    bad = changed(one.unroll(), 'agent_outputs/action', [0, 2])
    with pytest.raises(malformed.Malformed, match=r'in 0 to \[2, 1\]'):
      self.read(one, one.layout.write(bad))

  def test_bytes_make_nobody_allocate(self, one):
    message = bytes(one.layout.num_bytes(NUM_ENVS) - 1)
    tracemalloc.start()
    try:
      for columns in (NUM_ENVS, 2**16, 2**31):
        with pytest.raises(malformed.Malformed):
          self.read(one, message, columns)
      _, peak = tracemalloc.get_traced_memory()
    finally:
      tracemalloc.stop()
    assert peak < 100_000

  def test_random_damage_is_an_error_or_an_unroll(self):
    """Whatever comes: its fields are in range, or it raises what is said."""
    one = acting.Acting(make_images(), frame_stack=4)
    rng = np.random.default_rng(0)
    message = one.layout.write(one.unroll())
    outcomes = {'unroll': 0, 'Malformed': 0}
    for _ in range(1000):
      try:
        unroll = self.read(one, damaged(message, rng))
      except malformed.Malformed as error:
        outcomes[type(error).__name__] += 1
      else:
        outcomes['unroll'] += 1
        assert_in_range(unroll)
    assert min(outcomes.values()) > 20, outcomes


def damaged(message, rng):
  """A message cut off, with random bits or bytes, or nothing but these."""
  kind = rng.integers(4)
  if kind == 0:
    return message[: rng.integers(len(message))]
  if kind == 1:
    return rng.bytes(len(message))
  changed = bytearray(message)
  for _ in range(int(rng.integers(1, 4))):
    place = int(rng.integers(len(message)))
    changed[place] ^= 1 << int(rng.integers(8))
  return bytes(changed)


def assert_in_range(unroll):
  step, output = unroll.env_outputs, unroll.agent_outputs
  for array in tree.flatten((step, output)):
    assert array.shape[:2] == (LENGTH + 1, NUM_ENVS)
    assert np.isfinite(array).all()
  assert set(np.unique(step.step_type)) <= {0, 1, 2}
  assert ((output.action >= 0) & (output.action < 5)).all()
  assert ((step.discount >= 0) & (step.discount <= 1)).all()


class TestCheckSize:
  def make_layout(self, unroll_length):
    spec = structures.EnvironmentSpec(
      structures.TensorSpec((210, 160, 3), np.dtype(np.uint8)),
      action_spaces.Discrete(5),
      1,
    )
    return unroll_codec.Layout(spec, (), unroll_length)

  def test_is_refused_from_the_first_byte_that_does_not_fit(self):
    one = acting.Acting(make_images(), lstm=True)
    most = (rpc.MAX_BYTES - 1024) // one.layout.num_bytes(1)
    one.layout.check_size(most)
    with pytest.raises(ValueError, match='Lower either'):
      one.layout.check_size(most + 1)

  def test_shows_its_arithmetic(self):
    layout = self.make_layout(100)
    columns = 30
    observation = 101 * columns * 210 * 160 * 3
    total = observation + 101 * columns * SMALL
    assert layout.num_bytes(columns) == total > rpc.MAX_BYTES
    with pytest.raises(ValueError, match='unroll_length') as error:
      layout.check_size(columns)
    assert str(error.value) == (
      f'--unroll_length=100 and --envs_per_actor=30: an unroll takes {total:,} '
      'bytes, of which 1/0/observation 101 x 30 x 210 x 160 x 3 x 1 = '
      f'{observation:,}, and at most {rpc.MAX_BYTES:,} travel in one message. '
      'Lower either of them, or --width and --height.'
    )

  def test_what_fits_leaves_room_for_the_header(self):
    """Of the longest unroll that passes, the whole message can be sent."""
    from scalable_agent.transport import protocol

    assert protocol.VERSIONED.size <= 1024
