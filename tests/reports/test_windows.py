"""The window, with a toolkit that shows nothing."""

import numpy as np

from scalable_agent.reports import windows


class Toolkit:
  """What of tkinter is used."""

  def __init__(self):
    self.shown = []
    self.destroyed = 0

  def Tk(self):
    return self

  def title(self, text):
    self.text = text

  def protocol(self, name, function):
    assert name == 'WM_DELETE_WINDOW'
    self.close_by_user = function

  def update(self):
    pass

  def destroy(self):
    self.destroyed += 1

  def Label(self, root):
    assert root is self
    return self

  def pack(self):
    pass

  def configure(self, image):
    self.shown.append(image)

  def PhotoImage(self, master, data):
    assert master is self
    return data


class Clock:
  now = 5.0

  def __call__(self):
    return self.now

  def sleep(self, seconds):
    assert seconds >= 0
    self.now += seconds


def make_window(fps=10.0):
  toolkit, clock = Toolkit(), Clock()
  window = windows.Window('pong', fps, toolkit, clock, clock.sleep)
  return window, toolkit, clock


def test_a_frame_is_shown_large_enough_and_in_its_colours():
  window, toolkit, _ = make_window()
  frame = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
  window.add(frame)
  header, pixels = toolkit.shown[0].split(b'\n', 1)
  assert header == b'P6 320 400 255'
  image = np.frombuffer(pixels, np.uint8).reshape(400, 320, 3)
  np.testing.assert_array_equal(image[::80, ::80], frame)


def test_frames_are_shown_no_faster_than_they_are_to_be_seen():
  window, toolkit, clock = make_window(fps=10.0)
  start = clock.now
  for _ in range(11):
    window.add(np.zeros([400, 1, 3], np.uint8))
  np.testing.assert_allclose(clock.now - start, 1.0)
  # One that comes late does not make the next ones hurry.
  clock.now += 7
  late = clock.now
  for _ in range(11):
    window.add(np.zeros([400, 1, 3], np.uint8))
  np.testing.assert_allclose(clock.now - late, 1.0)
  assert len(toolkit.shown) == 22


def test_a_window_that_its_user_closed_shows_nothing_more():
  window, toolkit, _ = make_window()
  window.add(np.zeros([400, 1, 3], np.uint8))
  toolkit.close_by_user()
  window.add(np.zeros([400, 1, 3], np.uint8))
  window.close()
  assert len(toolkit.shown) == toolkit.destroyed == 1


def test_without_a_display_it_is_said_why_there_is_none(monkeypatch):
  monkeypatch.delenv('DISPLAY', raising=False)
  assert windows.why_not().startswith('There is no window: ')
