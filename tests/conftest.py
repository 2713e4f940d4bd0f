"""Set-up of all tests."""

import os

import pytest

# Before TensorFlow is imported: no start-up notes, and no test may depend on
# the memory or the rounding of a GPU.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ['CUDA_VISIBLE_DEVICES'] = ''

# Not tests themselves, so their assertions would fail without an explanation.
pytest.register_assert_rewrite('tests.environments.contract')
