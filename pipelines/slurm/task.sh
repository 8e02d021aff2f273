#!/usr/bin/env bash
# One job of the array: runs the command, which extracts the shard with the number of the job.
#
#   task.sh SHARDS COMMAND…      (without --shard)
#
# Preemption and the end of the time limit (--signal) arrive as SIGTERM. kinoprobe-extract then writes its journal and exits with 130, and the
# job is put back into the queue, unless it is being canceled; it continues with the clip that it was working on.
set -uo pipefail
shards=$1
shift
# One job of an array has the number of the array as its SLURM_JOB_ID, which would stand for all of its jobs.
job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID

"$@" --shard "$SLURM_ARRAY_TASK_ID/$shards" --wait &
child=$!
terminated=
trap 'terminated=1; kill -TERM "$child" 2>/dev/null' TERM
# A signal interrupts `wait`.
while wait "$child"; kill -0 "$child" 2>/dev/null; do :; done
wait "$child"
code=$?
case $code in
    0 | 3) exit 0 ;; # 3: some clips failed; they are recorded, and the others are complete
    130 | 143) # 143: it was not yet ready for signals
        state=$(squeue --noheader --jobs "$job" --format %T)
        if [ -n "$terminated" ] && [ "$state" = RUNNING ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
            echo "slurm: interrupted; back into the queue" >&2
            scontrol requeue "$job"
        fi
        ;;
esac
exit "$code"
