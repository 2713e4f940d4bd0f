"""Set-up of all tests."""

import gc
import os
import pathlib
import signal

import pytest

from tests import programs

# Before TensorFlow is imported: no start-up notes, and no test may depend on
# the memory or the rounding of a GPU.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ['CUDA_VISIBLE_DEVICES'] = ''

# A shell has what it starts in the background ignore Ctrl-C, and all that this
# starts in turn; there are tests of Ctrl-C.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
  signal.signal(signal.SIGINT, signal.default_int_handler)

# Not tests themselves, so their assertions would fail without an explanation.
pytest.register_assert_rewrite('tests.environments.contract')


def pytest_collection_modifyitems(items):
  # Those of whole programs, the longest, lie beside this file. Left to the end,
  # one of them keeps a process busy after the others have nothing left to do.
  here = pathlib.Path(__file__).parent
  items.sort(key=lambda item: item.path.parent != here)


def pytest_collection_finish():
  # Every full collection would look again at all that TensorFlow consists of.
  gc.collect()
  gc.freeze()


def pytest_sessionfinish():
  programs.end()


@pytest.fixture(scope='session')
def tls(tmp_path_factory):
  """Credentials with certificates; see `certificates.Tls`."""
  from tests import certificates

  return certificates.Tls(tmp_path_factory.mktemp('tls'))
