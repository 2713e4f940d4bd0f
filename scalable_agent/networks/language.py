"""Text: from words to features."""

import sonnet as snt
import tensorflow as tf

from scalable_agent import structures

EMBEDDING_SIZE = 20
LSTM_SIZE = 64


class Language(snt.Module):
  """An LSTM over embedded words (the instructions of IMPALA on DMLab).

  Of a text of no words the features are zeros.
  """

  def __init__(self, spec: structures.TextSpec):
    """Creates its variables.

    Args:
      spec: of the text.
    """
    super().__init__(name='language')
    self._length = spec.shape[0]
    self._embedding = snt.Embed(spec.num_buckets, EMBEDDING_SIZE)
    self._lstm = snt.LSTM(LSTM_SIZE)
    # Not in the loop below, where it would belong to one step.
    self._lstm(tf.zeros([1, EMBEDDING_SIZE]), self._lstm.initial_state(1))

  def __call__(self, words: tf.Tensor) -> tf.Tensor:
    """Returns features.

    Args:
      words: [N, length] int32, as of `structures.TextSpec`.

    Returns:
      [N, 64] float32, the LSTM's output at the last word.
    """
    counts = tf.reduce_sum(tf.cast(words > 0, tf.int32), -1)  # [N]
    # A stranger's words may be beyond the table.
    last = self._embedding.vocab_size - 1
    indices = tf.clip_by_value(words - 1, 0, last)

    def read(t, hidden, cell):
      output, state = self._lstm(
        self._embedding(indices[:, t]), snt.LSTMState(hidden, cell)
      )
      going = (t < counts)[:, None]
      return t + 1, tf.where(going, output, hidden), state.cell

    state = self._lstm.initial_state(tf.shape(words)[0])
    # As many steps as the longest text here has words: most have few, or none.
    most = tf.reduce_max(counts)
    _, hidden, _ = tf.while_loop(
      lambda t, *_: t < most,
      read,
      (tf.constant(0), state.hidden, state.cell),
      maximum_iterations=self._length,
    )
    return hidden
