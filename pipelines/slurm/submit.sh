#!/usr/bin/env bash
# Submits an extraction to Slurm: an array with one job per shard that is not complete, then a job that merges the shards, then one that
# trains a classifier. Called by `make slurm`; run it again to submit the shards that are missing. See docs/scale.md.
#
#   STORE=features/cnn.h5 SHARDS=200 submit.sh kinoprobe-extract --method cnn … --out features/cnn.h5      (without --shard)
#
# Environment:
#   STORE         the store, whose shards are extracted
#   SHARDS        number of shards
#   ARRAY_LIMIT   maximum number of jobs that run at the same time (default: no limit)
#   SBATCH_FLAGS  flags of sbatch for the array, such as "--partition=gpu --gres=gpu:1 --cpus-per-task=8 --time=4:00:00"
#   MERGE_FLAGS   flags of sbatch for the other two jobs, such as "--partition=short"
#   MERGE         command that merges the shards
#   CLASSIFY      command that trains the classifier
#   RETRY         1: submit the complete shards with failed clips too, and retry these clips
set -euo pipefail
# The jobs are not part of the make that submits them.
unset MAKEFLAGS MFLAGS MAKELEVEL
: "${STORE:?}" "${SHARDS:?}" "${MERGE:?}"
here=$(cd "$(dirname "$0")" && pwd)
bin=$(dirname "$1")
directory=${STORE%.h5}.shards
store=$(realpath -m "$STORE")

fail() { echo "slurm: $*" >&2; exit 1; }

command -v sbatch >/dev/null || fail "sbatch is missing: run this on a machine that submits jobs to Slurm"
[[ $SHARDS =~ ^[1-9][0-9]*$ ]] || fail "SHARDS=$SHARDS is not a number of shards: run make slurm SHARDS=200 …"
[[ ${ARRAY_LIMIT:-1} =~ ^[1-9][0-9]*$ ]] || fail "ARRAY_LIMIT=$ARRAY_LIMIT is not a number of jobs"
maximum=$(scontrol show config | awk '$1 == "MaxArraySize" { print $3 }')
[ "$SHARDS" -le "${maximum:-$SHARDS}" ] || fail "SHARDS=$SHARDS exceeds MaxArraySize=$maximum of this cluster: use at most $maximum shards"
queued=$(squeue --me --noheader --format '%F %k' | STORE=$store awk '{ job = $1; sub(/^[0-9]+ /, "") } $0 == ENVIRON["STORE"] { print job }' | sort -u | paste -sd ' ')
[ -z "$queued" ] || fail "$STORE: jobs are in the queue already: $queued (make slurm-status shows them; scancel $queued removes them)"

# Checks the manifest and the settings, and fetches and converts the weights once, so that the jobs need no network.
"$@" --shard "0/$SHARDS" --dry-run >/dev/null
# The flags are checked before anything is submitted.
# shellcheck disable=SC2086
sbatch --test-only ${MERGE_FLAGS:-} --wrap true 2>/dev/null || fail "sbatch refuses MERGE_FLAGS=${MERGE_FLAGS:-}: $(sbatch --test-only ${MERGE_FLAGS:-} --wrap true 2>&1 | tail -1)"

retry=()
shards=0-$((SHARDS - 1))
if [ -e "$directory/shards.json" ]; then
    list=shards
    [ -z "${RETRY:-}" ] || { list=retry; retry=(--retry-failed); }
    shards=$("${bin}/kinoprobe-status" "$directory" --list "$list")
fi

logs=$(dirname "$STORE")/slurm
mkdir -p "$logs"
name=$(basename "${STORE%.h5}")
# $1: name; $2: dependency; the rest: flags and the command.
submit() {
    local job=$1 after=$2
    shift 2
    sbatch --parsable --job-name="$name-$job" --comment="$store" ${after:+--dependency=afterok:$after --kill-on-invalid-dep=yes} "$@" | cut -d';' -f1
}

after=
if [ -n "$shards" ]; then
    # The signal gives an interrupted job time to write its journal; task.sh puts it back into the queue.
    # shellcheck disable=SC2086
    after=$(submit extract '' --array="$shards${ARRAY_LIMIT:+%$ARRAY_LIMIT}" --requeue --signal=B:TERM@60 --open-mode=append \
        --output="$logs/%x-%a.log" ${SBATCH_FLAGS:-} "$here/task.sh" "$SHARDS" "$@" ${retry[@]+"${retry[@]}"})
    echo "slurm: job $after extracts shards $shards${ARRAY_LIMIT:+, at most $ARRAY_LIMIT at a time}; logs: $logs"
else
    echo "slurm: all $SHARDS shards are complete"
fi
# shellcheck disable=SC2086
after=$(submit merge "$after" --output="$logs/%x.log" ${MERGE_FLAGS:-} --wrap "$MERGE")
echo "slurm: job $after merges them into $STORE"
if [ -n "${CLASSIFY:-}" ]; then
    # shellcheck disable=SC2086
    after=$(submit classify "$after" --output="$logs/%x.log" ${MERGE_FLAGS:-} --wrap "$CLASSIFY")
    echo "slurm: job $after trains the classifier"
fi
