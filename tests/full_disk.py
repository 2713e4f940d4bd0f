"""A disk that is full, to whoever writes into an episode_log.EpisodeLog."""

import csv


def fill(log):
  """Has a log write to where there is never any room."""
  log._file.close()
  log._file = open('/dev/full', 'w', encoding='utf-8')  # noqa: SIM115
  log._writer = csv.writer(log._file)
