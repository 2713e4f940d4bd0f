"""What the signs are of a run, and when they are worth a warning."""

import numpy as np
import pytest

from scalable_agent.reports import vital_signs

STUCK = {
  'entropy': 1.386,
  'vs_variance': 1.0,
  'mean_vs': 0.0,
  'error_variance': 1.0,
  'mean_baseline': 0.0,
}


def look(signs, frames, *updates):
  """Has the signs look at the metrics of updates that have all they need."""
  values = map(vital_signs.values_of, updates)
  return signs.look(frames, [v for v in values if v is not None])


def warnings(updates, start=0, step=50_000, **options):
  """Returns the warnings of a run, with the frames at which they came.

  Args:
    updates: function of frames that returns the metrics of an update.
    start: frames at which this process goes on.
    step: frames of one update.
    **options: of VitalSigns.
  """
  signs = vital_signs.VitalSigns(**options)
  found = []
  for frames in range(start + step, start + 3_000_000, step):
    warning = look(signs, frames, updates(frames))
    if warning is not None:
      found.append((frames, warning))
  return found


def test_explained_variance_is_that_of_all_targets_together():
  rng = np.random.default_rng(0)
  signs = vital_signs.VitalSigns()
  updates, all_targets, all_errors = [], [], []
  for batch in range(20):
    targets = rng.normal(
      loc=rng.normal(scale=2), scale=rng.choice([0.1, 3]), size=30
    )
    baselines = targets * 0.7 + rng.normal(loc=rng.normal(), size=30)
    all_targets.append(targets)
    all_errors.append(targets - baselines)
    updates.append(
      {
        'entropy': 1.0 + batch % 2,
        'vs_variance': np.float32(targets.var()),
        'mean_vs': np.float32(targets.mean()),
        'error_variance': np.float32((targets - baselines).var()),
        'mean_baseline': np.float32(baselines.mean()),
        'other': None,
      }
    )
  assert look(signs, 1000, *updates) is None
  found = signs.read('line')
  assert found.entropy == pytest.approx(1.5)
  assert found.explained_variance == pytest.approx(
    1 - np.var(all_errors) / np.var(all_targets), rel=1e-4
  )


def test_targets_without_variance_are_not_explained():
  signs = vital_signs.VitalSigns()
  look(signs, 1, STUCK | {'vs_variance': 0.0, 'error_variance': 0.0})
  assert signs.read('line').explained_variance == 0


def test_targets_that_differ_by_rounding_are_not_explained():
  signs = vital_signs.VitalSigns()
  alike = {'mean_vs': 300.0, 'mean_baseline': 5.0, 'vs_variance': 1e-3}
  look(signs, 1, STUCK | alike | {'error_variance': 4.0})
  assert signs.read('line').explained_variance == 0


def test_nothing_is_said_of_no_updates_or_of_metrics_without_signs():
  signs = vital_signs.VitalSigns()
  assert look(signs, 1) is None
  assert look(signs, 1, {'total_loss': 1.0, 'entropy': 2.0}) is None
  assert signs.read('line') is None


def test_each_reader_has_all_since_it_last_read():
  signs = vital_signs.VitalSigns()
  for entropy in (1.0, 2.0):
    look(signs, 1, STUCK | {'entropy': entropy})
    assert signs.read('line').entropy == entropy
  assert signs.read('line') is None
  assert signs.read('summary').entropy == 1.5
  assert signs.read('summary') is None


def test_a_run_that_does_not_move_for_a_million_frames_is_told_once():
  ((frames, text),) = warnings(lambda frames: STUCK)
  assert 1_000_000 <= frames <= 1_300_000
  assert f'After {frames:,} frames' in text
  assert '1.386 nats' in text
  assert '0%' in text
  assert '--learning_rate' in text


def test_a_run_is_judged_by_its_latest_frames():
  ((frames, _),) = warnings(
    lambda frames: (
      STUCK | {'entropy': 1.2} if 300_000 < frames < 700_000 else STUCK
    )
  )
  assert 1_000_000 <= frames <= 1_300_000


def test_a_run_that_goes_on_is_not_judged():
  assert not warnings(lambda frames: STUCK, start=7_000_000, resumed=True)


@pytest.mark.parametrize(
  'sign',
  [
    {'error_variance': 0.9},  # The baseline learns.
    {'entropy': 1.3},  # The policy does.
    {'entropy': 1.45},  # Also if it becomes more random than it was.
  ],
)
def test_a_sign_of_learning_is_enough(sign):
  assert not warnings(
    lambda frames: STUCK | sign if frames > 300_000 else STUCK
  )


def test_noise_is_no_sign_of_learning():
  rng = np.random.default_rng(0)
  assert warnings(
    lambda frames: (
      STUCK
      | {
        'entropy': 1.386 + rng.normal(scale=0.01),
        'error_variance': 1.0 + rng.normal(scale=0.1),
      }
    )
  )
