#!/bin/sh
#
# Trains on Catch for a minute, then tests what was learned: the default command
# of the Docker image, in whose container this script is process 1.
#
# Such a process hears only the signals that it asks for, and hands on none. So
# SIGTERM and Ctrl-C are handed on to the program that runs; once that has saved
# and ended, so does the script, with its status.

run() {
  python experiment.py "$@" &
  wait $!
}

stop() {
  kill -TERM $!
  wait $!
  exit $?
}

trap stop TERM INT
run --level_name=catch --total_environment_frames=200000 --logdir=logs/catch &&
  run --mode=test --logdir=logs/catch
