#!/usr/bin/env bash
# One job of the array: runs the command, which extracts a shard.
#
# Preemption and the end of the time limit (--signal) arrive as SIGTERM. kinoprobe-extract then writes its journal and exits with 130, and the
# job is put back into the queue, unless it is being canceled; it continues with the clip that it was working on.
set -uo pipefail

"$@" &
child=$!
terminated=
trap 'terminated=1; kill -TERM "$child" 2>/dev/null' TERM
while :; do
    wait "$child"
    code=$?
    # A signal interrupts `wait`.
    kill -0 "$child" 2>/dev/null || break
done
case $code in
    0 | 3) exit 0 ;; # 3: some clips failed; they are recorded, and the others are complete
    130)
        state=$(squeue --noheader --jobs "$SLURM_JOB_ID" --format %T)
        if [ -n "$terminated" ] && [ "$state" = RUNNING ]; then
            echo "slurm: interrupted; back into the queue" >&2
            scontrol requeue "$SLURM_JOB_ID"
        fi
        ;;
esac
exit "$code"
