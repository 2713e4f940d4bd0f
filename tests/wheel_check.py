"""Checks an installed wheel: wheel_check.py SITE_PACKAGES.

Run outside of the repository, where there is no compiler; see `.ci/run`.
"""

import sys

import tensorflow as tf

import dynamic_batching
from dynamic_batching import build

assert dynamic_batching.__file__.startswith(sys.argv[1])
assert build.compiler() is None


@dynamic_batching.batch_fn
def double(x):
  return 2 * x


assert double(tf.constant([21])).numpy().tolist() == [42]
print(f'ops of the wheel: {build.find(tf.__version__)}')
