"""Unrolls as bytes: what is decoded is what an actor made, or an error."""

import struct
import tracemalloc

import numpy as np
import pytest
import tree

from scalable_agent import action_spaces, environments, structures
from scalable_agent.environments import catch
from scalable_agent.structures import FIRST, LAST, MID
from scalable_agent.transport import unroll_codec
from tests import acting, clockwork

HEADER = struct.Struct('<IIqi')  # Number, columns, version, level.
LENGTH = 5  # T
NUM_ENVS = 3
MAX_COLUMNS = 8


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


def decoder_of(one, max_columns=MAX_COLUMNS):
  return unroll_codec.Decoder(one.layout, one.agent.skip_frames, max_columns)


def assert_same(actual, expected):
  """Bit for bit, with shapes and dtypes."""
  tree.assert_same_structure(actual, expected)
  for one, two in zip(
    tree.flatten(actual), tree.flatten(expected), strict=True
  ):
    one, two = np.asarray(one), np.asarray(two)
    assert (one.shape, one.dtype) == (two.shape, two.dtype)
    assert one.tobytes() == two.tobytes()


def assert_episodes_end_everywhere(unrolls):
  """In mid-unroll and on both sides of the columns that are shared."""
  step_types = [u.env_outputs.step_type for u in unrolls]
  for kind in (FIRST, MID, LAST):
    assert any((s[-1] == kind).any() for s in step_types)
    if len(step_types[0]) > 2:
      assert any((s[1:-1] == kind).any() for s in step_types)


class TestAStream:
  @pytest.mark.parametrize(
    ('make_environment', 'frame_stack', 'lstm', 'length'),
    [
      (make_clocks, 1, False, LENGTH),
      (make_clocks, 3, False, LENGTH),
      (make_clocks, 1, True, LENGTH),
      (make_catch, 2, False, 3),
      (make_images, 1, False, LENGTH),
      (make_images, 2, False, LENGTH),
      (make_images, 4, False, LENGTH),
      (make_images, 4, True, LENGTH),
      # Unrolls that are shorter than the stack, packed and not.
      (make_images, 4, False, 1),
      (make_images, 4, False, 3),
      (make_images, 5, False, 2),
      (make_clocks, 4, False, 1),
      (make_nests_of_choices, 1, False, LENGTH),
      (make_nests_of_choices, 4, True, 3),
      (make_nests_of_numbers, 1, True, LENGTH),
      (make_nests_of_numbers, 3, False, 2),
    ],
  )
  def test_comes_out_as_it_went_in(
    self, make_environment, frame_stack, lstm, length
  ):
    one = acting.Acting(make_environment(), frame_stack, lstm, length, level=2)
    encoder, decoder = unroll_codec.Encoder(one.layout), decoder_of(one)
    unrolls = []
    for version in range(40 // length):
      one.version = 2**33 * version
      unrolls.append(one.unroll())
      message = encoder.encode(unrolls[-1])
      assert_same(decoder.decode(message), unrolls[-1])
    assert_episodes_end_everywhere(unrolls)

  def test_pieces_of_an_unroll_are_streams_of_their_own(self):
    one = acting.Acting(make_images(), frame_stack=4)
    decoders = [decoder_of(one) for _ in range(2)]
    encoders = [unroll_codec.Encoder(one.layout) for _ in range(2)]
    for unroll in one.unrolls(4):
      pieces = unroll_codec.split(unroll, 2)
      assert [len(p.level) for p in pieces] == [1, 2]
      for piece, encoder, decoder in zip(
        pieces, encoders, decoders, strict=True
      ):
        assert_same(decoder.decode(encoder.encode(piece)), piece)

  def test_does_not_change_what_was_decoded_before(self):
    one = acting.Acting(make_images(), frame_stack=4, lstm=True)
    encoder, decoder = unroll_codec.Encoder(one.layout), decoder_of(one)
    unrolls = one.unrolls(4)
    decoded = [decoder.decode(encoder.encode(u)) for u in unrolls]
    assert_same(decoded, unrolls)


class TestLength:
  # Step type, reward, discount, return, step; action, logits, baseline.
  SMALL = 5 * 4 + (1 + 5 + 1) * 4
  FRAME = acting.ImageEnvironment.HEIGHT * acting.ImageEnvironment.WIDTH

  @pytest.mark.parametrize('lstm', [False, True])
  def test_each_frame_is_sent_once(self, lstm):
    one = acting.Acting(make_images(), frame_stack=4, lstm=lstm)
    encoder = unroll_codec.Encoder(one.layout)
    first, *others = [len(encoder.encode(u)) for u in one.unrolls(4)]
    core = 2 * 256 * 4 if lstm else 0
    step = self.FRAME + self.SMALL
    # Only the first has a column 0 and a stack of four frames.
    assert first == HEADER.size + NUM_ENVS * (
      4 * self.FRAME + core + (LENGTH + 1) * step
    )
    assert others == [HEADER.size + NUM_ENVS * (core + LENGTH * step)] * 3

  def test_is_what_the_layout_says(self):
    one = acting.Acting(make_images(), frame_stack=4, lstm=True)
    encoder = unroll_codec.Encoder(one.layout)
    for whole in (True, False, False):
      message = encoder.encode(one.unroll())
      assert len(message) == one.layout.num_bytes(NUM_ENVS, whole)

  def test_columns_per_message_is_exact(self):
    layout = acting.Acting(make_images(), frame_stack=4).layout
    for columns in (1, 2, 7, 100):
      size = layout.num_bytes(columns, whole=True)
      assert layout.columns_per_message(size) == columns
      assert layout.columns_per_message(size - 1) == columns - 1

  def test_the_layout_knows_what_each_array_takes(self):
    layout = acting.Acting(make_images(), frame_stack=4, lstm=True).layout
    assert layout.names == [e[0] for e in layout.describe()]
    assert layout.bytes_of('1/observation') == (LENGTH + 1) * self.FRAME
    assert layout.bytes_of('0/frames') == 4 * self.FRAME
    assert layout.bytes_of('2/policy_logits') == (LENGTH + 1) * 5 * 4
    total = sum(map(layout.bytes_of, layout.names))
    assert total + HEADER.size == layout.num_bytes(1, whole=True)

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


class TestAMessageThatIsMissing:
  @pytest.fixture
  def one(self):
    return acting.Acting(make_images(), frame_stack=4)

  def test_is_noticed_and_a_restart_mends_it(self, one):
    encoder, decoder = unroll_codec.Encoder(one.layout), decoder_of(one)
    decoder.decode(encoder.encode(one.unroll()))
    encoder.encode(one.unroll())
    unroll = one.unroll()
    with pytest.raises(unroll_codec.OutOfStep, match='2 came when 1 was due'):
      decoder.decode(encoder.encode(unroll))
    encoder.restart()
    assert_same(decoder.decode(encoder.encode(unroll)), unroll)
    unroll = one.unroll()
    assert_same(decoder.decode(encoder.encode(unroll)), unroll)

  def test_is_noticed_at_the_beginning(self, one):
    encoder, decoder = unroll_codec.Encoder(one.layout), decoder_of(one)
    encoder.encode(one.unroll())
    with pytest.raises(unroll_codec.OutOfStep):
      decoder.decode(encoder.encode(one.unroll()))

  def test_a_message_that_comes_twice_is_noticed(self, one):
    encoder, decoder = unroll_codec.Encoder(one.layout), decoder_of(one)
    decoder.decode(encoder.encode(one.unroll()))
    message = encoder.encode(one.unroll())
    decoder.decode(message)
    with pytest.raises(unroll_codec.OutOfStep):
      decoder.decode(message)
    unroll = one.unroll()
    assert_same(decoder.decode(encoder.encode(unroll)), unroll)

  def test_the_first_message_is_whole_after_the_numbers_run_out(self, one):
    encoder, decoder = unroll_codec.Encoder(one.layout), decoder_of(one)
    encoder._number = decoder._number = 2**32 - 1
    unrolls = one.unrolls(3)
    decoder._column = decoder_at(one, unrolls[0])._column
    decoder._frames = decoder_at(one, unrolls[0])._frames
    for unroll in unrolls[1:]:
      assert_same(decoder.decode(encoder.encode(unroll)), unroll)
    assert encoder._number == 1


def decoder_at(one, unroll):
  """A decoder that has just taken an unroll."""
  decoder = decoder_of(one)
  decoder.decode(one.layout.write(unroll, 0))
  return decoder


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


class TestMalformed:
  @pytest.fixture
  def one(self):
    return acting.Acting(make_clocks(), lstm=True)

  def test_a_number_that_is_none_is_no_action(self):
    one = acting.Acting(make_nests_of_numbers())
    encoder, decoder = unroll_codec.Encoder(one.layout), decoder_of(one)
    unroll = one.unroll()
    impossible = changed(unroll, 'agent_outputs/action', np.nan)
    with pytest.raises(unroll_codec.Malformed, match='finite floats'):
      decoder.decode(encoder.encode(impossible))

  def test_a_choice_that_is_none_is_no_action(self):
    one = acting.Acting(make_nests_of_choices())
    encoder, decoder = unroll_codec.Encoder(one.layout), decoder_of(one)
    impossible = changed(one.unroll(), 'agent_outputs/action', [0, 2])
    with pytest.raises(unroll_codec.Malformed, match=r'in 0 to \[2, 1\]'):
      decoder.decode(encoder.encode(impossible))

  @pytest.mark.parametrize('number', [0, 1])
  def test_bytes_of_no_unroll_harm_nothing(self, one, number):
    encoder, decoder = unroll_codec.Encoder(one.layout), decoder_of(one)
    for _ in range(number):
      decoder.decode(encoder.encode(one.unroll()))
    unroll = one.unroll()
    good = encoder.encode(unroll)
    body = good[HEADER.size :]
    bad = [
      b'',
      good[: HEADER.size - 1],
      good[: HEADER.size],
      good[:-1],
      good + b'\0',
      good + good,
      body,
      *(
        HEADER.pack(number, columns, 0, 0) + body
        for columns in (0, 1, NUM_ENVS + 1, MAX_COLUMNS + 1, 2**31, 2**32 - 1)
      ),
      # Of another number, which has other arrays.
      HEADER.pack(1 - number, NUM_ENVS, 0, 0) + body,
    ]
    for message in bad:
      with pytest.raises(unroll_codec.Malformed):
        decoder.decode(message)
    assert_same(decoder.decode(good), unroll)

  @pytest.mark.parametrize(('name', 'value'), IMPOSSIBLE)
  def test_what_no_actor_makes_harms_nothing(self, one, name, value):
    encoder, decoder = unroll_codec.Encoder(one.layout), decoder_of(one)
    for number in range(2):
      unroll = one.unroll()
      bad = changed(unroll, name, value)
      with pytest.raises(unroll_codec.Malformed) as error:
        decoder.decode(one.layout.write(bad, number))
      assert name.rpartition('/')[2].replace('_', ' ') in str(
        error.value
      ).replace('_', ' ')
      assert_same(decoder.decode(encoder.encode(unroll)), unroll)

  def test_the_number_of_columns_cannot_change_within_a_stream(self, one):
    encoder, decoder = unroll_codec.Encoder(one.layout), decoder_of(one)
    decoder.decode(encoder.encode(one.unroll()))
    unroll = one.unroll()
    fewer = structures.slice_columns(unroll, 0, 2)
    with pytest.raises(unroll_codec.Malformed, match='number of columns'):
      decoder.decode(one.layout.write(fewer, 1))
    assert_same(decoder.decode(encoder.encode(unroll)), unroll)
    assert_same(decoder.decode(one.layout.write(fewer, 0)), fewer)

  def test_a_message_may_have_as_many_columns_as_fit_and_no_more(self, one):
    message = one.layout.write(one.unroll(), 0)
    decoder_of(one, max_columns=NUM_ENVS).decode(message)
    with pytest.raises(unroll_codec.Malformed, match='at most 2 fit'):
      decoder_of(one, max_columns=NUM_ENVS - 1).decode(message)

  def test_a_header_alone_makes_nobody_allocate(self, one):
    decoder = decoder_of(one)
    tracemalloc.start()
    try:
      for max_columns in (2**31, 2**40):
        decoder._max_columns = max_columns
        for columns in (2**31 - 1, 2**32 - 1):
          with pytest.raises(unroll_codec.Malformed):
            decoder.decode(HEADER.pack(0, columns, 0, 0) + bytes(1000))
      _, peak = tracemalloc.get_traced_memory()
    finally:
      tracemalloc.stop()
    assert peak < 100_000

  def test_random_damage_is_an_error_or_an_unroll(self):
    """Whatever comes: its fields are in range, or it raises what is said."""
    one = acting.Acting(make_images(), frame_stack=4)
    rng = np.random.default_rng(0)
    messages = {
      number: one.layout.write(u, number)
      for number, u in enumerate(one.unrolls(3))
    }
    decoder = decoder_of(one)
    outcomes = {'unroll': 0, 'Malformed': 0, 'OutOfStep': 0}
    for _ in range(1500):
      message = damaged(messages[int(rng.integers(3))], rng)
      try:
        unroll = decoder.decode(message)
      except (unroll_codec.Malformed, unroll_codec.OutOfStep) as error:
        outcomes[type(error).__name__] += 1
      else:
        outcomes['unroll'] += 1
        assert_in_range(unroll)
    assert min(outcomes.values()) > 20, outcomes
    unrolls = one.unrolls(2)
    encoder = unroll_codec.Encoder(one.layout)
    for unroll in unrolls:
      assert_same(decoder.decode(encoder.encode(unroll)), unroll)


def damaged(message, rng):
  """A message cut off, with random bits or bytes, or nothing but these."""
  kind = rng.integers(5)
  if kind == 0:
    return message[: rng.integers(len(message))]
  if kind == 1:
    return rng.bytes(int(rng.integers(len(message) + 1)))
  changed = bytearray(message)
  # Most in the header, which decides more.
  end = HEADER.size if kind == 2 else len(message)
  for _ in range(int(rng.integers(1, 4))):
    place = int(rng.integers(end))
    changed[place] ^= 1 << int(rng.integers(8))
  return bytes(changed)


def assert_in_range(unroll):
  columns = len(unroll.level)
  assert 1 <= columns <= MAX_COLUMNS
  step, output = unroll.env_outputs, unroll.agent_outputs
  for array in tree.flatten((step, output)):
    assert array.shape[:2] == (LENGTH + 1, columns)
    assert np.isfinite(array).all()
  assert set(np.unique(step.step_type)) <= {0, 1, 2}
  assert ((output.action >= 0) & (output.action < 5)).all()
  assert ((step.discount >= 0) & (step.discount <= 1)).all()


@pytest.mark.parametrize(
  ('columns', 'pieces'), [(1, 1), (3, 1), (3, 2), (3, 3), (7, 3), (16, 5)]
)
def test_split_is_a_partition_into_even_shares(columns, pieces):
  one = acting.Acting(
    clockwork.ClockworkEnvironment(columns), unroll_length=2, lstm=True
  )
  unroll = one.unroll()
  parts = unroll_codec.split(unroll, pieces)
  sizes = [len(p.level) for p in parts]
  assert len(parts) == pieces
  assert max(sizes) <= -(-columns // pieces)
  assert min(sizes) >= columns // pieces
  in_time = ('env_outputs', 'agent_outputs')
  together = tree.map_structure_with_path(
    lambda path, *xs: np.concatenate(xs, int(path[0] in in_time)), *parts
  )
  assert_same(together, unroll)
