#!/usr/bin/env bash
# Tests `make slurm` on a Slurm cluster on this machine: an array with a limit, a node that fails, jobs that are interrupted and put back into
# the queue, killed processes, clips that fail, preemption and the time limit. The merged store must equal that of a single run. Called by
# `make test-slurm`.
#   run.sh DIRECTORY_OF_THE_PROGRAMS
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=$(realpath "$1")
work=$(mktemp -d)
chmod 755 "$work" # munge runs as another user
cluster=$work/cluster
export SLURM_CONF=$cluster/slurm.conf
shards=9

finish() {
    code=$?
    [ $code = 0 ] || { echo "test-slurm: FAILED (exit code $code)" >&2; tail -n 20 "$work"/out/features/slurm/*.log "$cluster"/log/*.log 2>/dev/null || true; }
    # Daemons do not end before their jobs.
    if scancel --me 2>/dev/null; then
        timeout 60 bash -c 'while [ -n "$(squeue --me --noheader 2>/dev/null)" ]; do sleep 0.2; done' || true
    fi
    tests/slurm/cluster.sh stop "$cluster"
    [ $code != 0 ] || rm -rf "$work"
}
trap finish EXIT
step() { echo "test-slurm: $*"; }
fail() { echo "test-slurm: $*" >&2; exit 1; }
# Waits up to two minutes for a condition.
await() {
    local deadline=$((SECONDS + 120))
    until eval "$1"; do
        [ $SECONDS -lt $deadline ] || fail "timed out: $1"
        sleep 0.2
    done
}

step "cluster of three nodes"
tests/slurm/cluster.sh start "$cluster" 3
await '[ "$(sinfo --noheader --partition=all --Node --format %T | grep -c idle)" = 3 ]'

step "clips, and the store of a single run"
"$bin/kinoprobe-demo" --out "$work/clips" >/dev/null
for i in 0 1 2; do
    echo "damaged" > "$work/clips/damaged$i.mp4"
    echo "damaged$i,damaged$i.mp4,$(sed -n '2p' "$work/clips/manifest.csv" | cut -d, -f3),test" >> "$work/clips/manifest.csv"
done
head -1 "$work/clips/manifest.csv" | grep -q '^id,path,label,split' || fail "another header of the manifest: $(head -1 "$work/clips/manifest.csv")"
# A network that takes seconds per shard.
make="make --no-print-directory --assume-old=build METHOD=cnn WEIGHTS=seeded MANIFEST=$work/clips/manifest.csv CARGO_TARGET_DIR=$(dirname "$bin")"
frames=(EXTRACT_FLAGS="--frames 2")
$make features OUT="$work/single" "${frames[@]}" >/dev/null 2>&1

store=$work/out/features/cnn.h5
directory=$work/out/features/cnn.shards
submit() { $make "$@" OUT="$work/out" "${frames[@]}" SHARDS=$shards ARRAY_LIMIT=2 CLASSIFIER=logistic SBATCH_FLAGS="--cpus-per-task=1"; }
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
running() { squeue --me --noheader --states=running --format %N; }

step "an array of $shards shards, at most 2 at a time"
submit slurm | tee "$work/submitted"
job=$(sed -n 's/^slurm: job \([0-9]*\) extracts.*/\1/p' "$work/submitted")
submit slurm > "$work/again" 2>&1 && fail "submitted twice"
grep -q "jobs are in the queue already: " "$work/again" || fail "$(cat "$work/again")"

# The process and those that it has started, itself or through others.
descendants() {
    local child
    echo "$1"
    for child in $(pgrep -P "$1"); do descendants "$child"; done
}

# At no time are there more than two jobs of the array.
maximum=0
observe() {
    local now
    now=$(squeue --me --noheader --states=running --jobs "$job" --format %i 2>/dev/null | wc -l)
    [ "$now" -le "$maximum" ] || maximum=$now
}

step "a node fails"
await 'observe; [ -n "$(running)" ]'
node=$(running | head -1)
# The node disappears: its daemon, and the processes of its jobs.
kill -9 "$(cat "$cluster/run/$node.pid")"
for id in $(squeue --noheader --nodelist "$node" --states=running --format %A); do
    for daemon in $(pgrep -f "^slurmstepd: \[$id\.batch\]"); do
        kill -9 $(descendants "$daemon") 2>/dev/null || true
    done
done
await 'observe; sinfo --noheader --nodes "$node" --format %T | grep -q down'
tests/slurm/cluster.sh node "$cluster" "${node#node}"

status() { "$bin/kinoprobe-status" "$directory" --json | field "$1"; }
# A running job of the array, as ARRAY_INDEX.
running_job() { squeue --me --noheader --states=running --jobs "$job" --format %i 2>/dev/null | head -1; }

step "a running job is put back into the queue, another one gets SIGTERM"
await 'observe; [ -n "$(running_job)" ]'
requeued=$(running_job)
scontrol requeue "$requeued"
await 'observe; [ -n "$(running_job)" ] && [ "$(running_job)" != "$requeued" ] && grep -qs UNTRAINED "$work/out/features/slurm/cnn-extract-$(running_job | cut -d_ -f2).log"'
terminated=$(running_job)
await 'scancel --batch --signal=TERM "$terminated"' # Slurm refuses it while it changes the job
await 'observe; [ -z "$(squeue --me --noheader)" ]'
[ "$maximum" = 2 ] || fail "$maximum jobs at a time, not 2"
[ "$(status missing) $(status failed)" = "0 3" ] || fail "$(status missing) missing, $(status failed) failed"
[ -e "$store" ] || fail "the shards were not merged"

step "a shard that is missing is submitted again"
rm "$directory/0004-of-0009.h5"
submit slurm | tee "$work/submitted"
grep -q 'extracts shards 4, at most 2' "$work/submitted" || fail "other shards were submitted"
await '[ -z "$(squeue --me --noheader)" ]'

step "the merged store equals that of the single run"
.venv-test/bin/python tests/compare_stores.py "$work/single/features" "$work/out/features" | tail -3
[ -s "$work/out/runs/cnn-logistic/metrics.json" ] || fail "no classifier was trained"

step "clips that failed are retried"
for i in 0 1 2; do cp "$work/clips/$(sed -n '2p' "$work/clips/manifest.csv" | cut -d, -f2)" "$work/clips/damaged$i.mp4"; done
submit slurm-retry
await '[ -z "$(squeue --me --noheader)" ]'
[ "$(status missing) $(status failed)" = "0 0" ] || fail "$(status missing) missing, $(status failed) failed"
$make slurm-status OUT="$work/out" > "$work/status"
grep -q "$shards shards: $shards done" "$work/status" || fail "slurm-status: $(cat "$work/status")"
$make features OUT="$work/single" EXTRACT_FLAGS="--frames 2 --retry-failed" >/dev/null 2>&1
.venv-test/bin/python tests/compare_stores.py "$work/single/features" "$work/out/features" | tail -1
step "a job is preempted, and then reaches its time limit"
head -25 "$work/clips/manifest.csv" > "$work/clips/long.csv"
make=${make/manifest.csv/long.csv}
frames=(EXTRACT_FLAGS="--frames 8")
$make features OUT="$work/long-single" "${frames[@]}" >/dev/null 2>&1
long=$work/long/features/cnn.shards
$make slurm OUT="$work/long" "${frames[@]}" SHARDS=1 SBATCH_FLAGS="--cpus-per-task=1 --time=2" | tee "$work/submitted"
job=$(sed -n 's/^slurm: job \([0-9]*\) extracts.*/\1/p' "$work/submitted")
log=$work/long/features/slurm/cnn-extract-0.log
restarts() { scontrol show job "${job}_0" | sed -n 's/.*Restarts=\([0-9]*\).*/\1/p' | head -1; }
extracted() { "$bin/kinoprobe-status" "$long" --json 2>/dev/null | field done; }
await '[ -e "$long" ] && [ "$(extracted)" -gt 0 ]'
urgent=$(sbatch --parsable --partition=urgent --nodes=3 --output=/dev/null --wrap 'sleep 1')
await '[ "$(restarts)" = 1 ]'
await '[ -z "$(squeue --noheader --jobs "$urgent" 2>/dev/null)" ]'
before=$(extracted)
await '[ "$(extracted)" -gt "$before" ]' # it continues where it was
interruptions() { grep -c 'slurm: interrupted; back into the queue' "$log" || true; }
interrupted=$(interruptions)
await '[ "$(restarts)" = 2 ]'
scontrol update JobId="${job}_0" TimeLimit=20
await '[ -z "$(squeue --me --noheader)" ]'
[ "$(interruptions)" -gt "$interrupted" ] || fail "not interrupted by the time limit: $(cat "$log")"
.venv-test/bin/python tests/compare_stores.py "$work/long-single/features" "$work/long/features" | tail -1
echo "test-slurm: passed"
