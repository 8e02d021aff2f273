#!/usr/bin/env bash
# Starts a Slurm cluster on this machine, without systemd: a controller, and NODES daemons with one processor each. Needs root.
#   cluster.sh start DIRECTORY [NODES=3]      then: export SLURM_CONF=DIRECTORY/slurm.conf
#   cluster.sh stop DIRECTORY
#   cluster.sh node DIRECTORY N               starts node N again
set -euo pipefail
command=$1
directory=$(realpath -m "$2")
export SLURM_CONF=$directory/slurm.conf

stop() {
    local pids
    pids=$(cat "$directory"/run/*.pid 2>/dev/null) || true
    kill $pids 2>/dev/null || true
    # The next cluster uses the same ports.
    timeout 30 bash -c 'while kill -0 "$@" 2>/dev/null; do sleep 0.2; done' - $pids || kill -9 $pids 2>/dev/null || true
}

case $command in
    stop) stop; exit ;;
    node) slurmd -N "node$3"; exit ;;
esac

nodes=${3:-3}
last=$((nodes - 1))
host=$(hostname)
mkdir -p "$directory"/{state,spool,run,log,cgroup}
# Debian's version 22.05 has no way to run without cgroups. Nothing uses them, so an empty directory serves.
cat > "$directory/cgroup.conf" <<END
CgroupPlugin=cgroup/v1
CgroupAutomount=no
CgroupMountpoint=$directory/cgroup
END
cat > "$directory/slurm.conf" <<END
ClusterName=kinoprobe
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16917
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# Jobs that are put back into the queue start when their credential has expired: after 120 s by default.
AuthInfo=socket=$directory/run/munge.socket,cred_expire=5
StateSaveLocation=$directory/state
SlurmdSpoolDir=$directory/spool/%n
SlurmctldPidFile=$directory/run/controller.pid
SlurmdPidFile=$directory/run/%n.pid
SlurmctldLogFile=$directory/log/controller.log
SlurmdLogFile=$directory/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
JobRequeue=1
SlurmdTimeout=10
NodeName=node[0-$last] NodeHostname=$host NodeAddr=127.0.0.1 Port=[17110-$((17110 + last))] CPUs=1 RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes=node[0-$last] Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=20
# Its jobs preempt those of the other partition, which are warned by SIGTERM and put back into the queue.
PartitionName=urgent Nodes=node[0-$last] MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
END
head -c 1024 /dev/urandom > "$directory/munge.key"
chmod 400 "$directory/munge.key"
chown munge "$directory/munge.key" "$directory/run" "$directory/log"
chmod 755 "$directory"
su munge -s /bin/bash -c "munged --key-file=$directory/munge.key --socket=$directory/run/munge.socket \
    --pid-file=$directory/run/munged.pid --log-file=$directory/log/munged.log --seed-file=$directory/run/seed --force"
slurmctld -i
for i in $(seq 0 "$last"); do
    slurmd -N "node$i"
done
