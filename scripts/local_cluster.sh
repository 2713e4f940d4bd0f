#!/usr/bin/env bash
#
# Starts learners and actors of one distributed run on this machine, and stops
# all of them on Ctrl-C; the same command goes on.
#
#   scripts/local_cluster.sh --num_actors=4 --num_learners=1 --level_name=pong
#
# Every process gets all the flags; see `experiment.py --help`. The status is
# the first learner's that failed, else 0; an actor that fails is reported, and
# the others go on. If all of them fail, so does the run, with the status of the
# first. PYTHON chooses the interpreter.

set -euo pipefail
root=$(dirname "${BASH_SOURCE[0]}")/..
num_actors=2
num_learners=1
for flag in "$@"; do
  case $flag in
    --num_actors=* | -num_actors=* | --num_workers=* | -num_workers=* | \
      --num_agents=* | -num_agents=*)
      num_actors=${flag#*=}
      ;;
    --num_learners=* | -num_learners=*) num_learners=${flag#*=} ;;
    --num_actors | --num_workers | --num_agents | --num_learners | \
      --job_name* | --task*)
      echo "local_cluster.sh: write --num_actors=N and --num_learners=N with" \
        "an equals sign, and neither --job_name nor --task: it sets them." >&2
      exit 2
      ;;
  esac
done
for number in "$num_actors" "$num_learners"; do
  [[ $number =~ ^[1-9][0-9]*$ ]] || {
    echo "local_cluster.sh: '$number' is no number of processes." >&2
    exit 2
  }
done
python=${PYTHON:-$root/.venv/bin/python}
[[ -n ${PYTHON:-} || -x $python ]] || python=python

learners=()
actors=()
stop() {
  # Children of a script ignore Ctrl-C; this is how they learn of it.
  kill -TERM ${learners[@]+"${learners[@]}"} ${actors[@]+"${actors[@]}"} \
    2>/dev/null || true
}
trap stop EXIT
trap 'stopped=1; stop' INT TERM

# Waits for a process, also when a signal came in between; sets `status`.
await() {
  status=0
  while :; do
    status=0
    wait "$1" || status=$?
    kill -0 "$1" 2>/dev/null || break
  done
}

run() {
  "$python" "$root/experiment.py" "$@" &
}

stopped=
for ((task = 0; task < num_learners; task++)); do
  run "$@" --job_name=learner --task="$task" --num_actors="$num_actors"
  learners+=($!)
done
for ((task = 0; task < num_actors; task++)); do
  run "$@" --job_name=actor --task="$task" --num_actors="$num_actors"
  actors+=($!)
done

# Whether all actors have failed; sets `status` to that of the first.
all_actors_failed() {
  local actor
  for actor in "${actors[@]}"; do
    kill -0 "$actor" 2>/dev/null && return 1
  done
  for ((actor = num_actors; actor--; )); do
    await "${actors[actor]}"
    ((status)) || return 1
  done
}

failure=0
# One that fails takes the others with it: they would wait for it.
left=("${learners[@]}")
while ((${#left[@]})); do
  if ((!failure)) && [[ -z $stopped ]] && all_actors_failed; then
    echo "local_cluster.sh: all actors have failed, the first with status" \
      "$status; stopping the learners." >&2
    failure=$status
    stop
  fi
  still=()
  for learner in "${left[@]}"; do
    if kill -0 "$learner" 2>/dev/null; then
      still+=("$learner")
      continue
    fi
    await "$learner"
    if ((status && !failure)); then
      failure=$status
      [[ -n $stopped ]] || stop
    fi
  done
  left=(${still[@]+"${still[@]}"})
  # A terminal's Ctrl-C ends it, too.
  sleep 0.2 || true
done
# Nobody is left who could tell the actors to end.
((failure)) && stop
for task in "${!actors[@]}"; do
  await "${actors[task]}"
  if ((status && !failure)) && [[ -z $stopped ]]; then
    echo "local_cluster.sh: actor $task ended with status $status." >&2
  fi
done
exit "$failure"
