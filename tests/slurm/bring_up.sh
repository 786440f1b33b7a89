#!/usr/bin/env bash
# A real SLURM on one machine: slurmctld, two slurmd that pose as two nodes, munged. Needs root and Debian packages
# only: no systemd, no cgroups, no database. By hand:
#
#   source <(tests/slurm/bring_up.sh up)     # prints "export SLURM_CONF=…"; sinfo, sbatch and squeue then work
#   tests/slurm/bring_up.sh down
#   tests/slurm/bring_up.sh install          # the packages alone
#
# SLURM_LAB (folder, default /tmp/segment-slide-slurm) and SLURM_LAB_PORT (default 26817) allow two of them side by side.
set -euo pipefail

lab=${SLURM_LAB:-/tmp/segment-slide-slurm}
port=${SLURM_LAB_PORT:-26817}
cpus=8 gpus=2
export SLURM_CONF=$lab/slurm.conf

install_packages() {
    if command -v slurmctld slurmd munged >/dev/null; then
        return
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge
}

start_munge() {
    if munge -n >/dev/null 2>&1; then
        return
    fi
    install -d -o munge -g munge -m 755 /run/munge
    if [[ ! -s /etc/munge/munge.key ]]; then
        (umask 077 && head -c 1024 /dev/urandom >/etc/munge/munge.key)
        chown munge:munge /etc/munge/munge.key
    fi
    runuser -u munge -- /usr/sbin/munged
}

# Count-only GPUs are dropped by slurmd ("Removing file-less GPU"): each fake one is a character device, a /dev/null
# of its own. With Flags=nvidia_gpu_env a job's CUDA_VISIBLE_DEVICES is set as for real ones.
make_gpus() {
    mkdir -p "$lab/dev"
    for ((g = 0; g < gpus; g++)); do
        [[ -c $lab/dev/gpu$g ]] || mknod -m 666 "$lab/dev/gpu$g" c 1 3
    done
    echo "Name=gpu File=$lab/dev/gpu[0-$((gpus - 1))] Flags=nvidia_gpu_env" >"$lab/gres.conf"
}

write_configuration() {
    local host memory
    host=$(hostname -s)
    memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.45)}' /proc/meminfo)
    cat >"$lab/slurm.conf" <<CONF
ClusterName=lab
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort=$port
SlurmdPort=$((port + 1))
AuthType=auth/munge
CredType=cred/munge
StateSaveLocation=$lab/state
SlurmdSpoolDir=$lab/spool/%n
SlurmctldPidFile=$lab/pid/slurmctld.pid
SlurmdPidFile=$lab/pid/%n.pid
SlurmctldLogFile=$lab/log/slurmctld.log
SlurmdLogFile=$lab/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
# nodes may claim more cores than the machine has
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=256
# a test rig answers at once
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=100000,batch_sched_delay=0
KillWait=3
CompleteWait=0
MinJobAge=60
ReturnToService=2
SlurmdTimeout=60
SlurmctldTimeout=60
GresTypes=gpu
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 11)) CPUs=$cpus CoresPerSocket=$cpus RealMemory=$memory Gres=gpu:$gpus
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 12)) CPUs=$cpus CoresPerSocket=$cpus RealMemory=$memory Gres=gpu:$gpus
PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=ALL MaxTime=01:00:00 State=UP
# takes jobs and starts none
PartitionName=closed Nodes=ALL State=DOWN
CONF
}

# Asked of the process, not of sinfo: without a controller that takes a minute to say so.
is_up() {
    [[ -s $lab/pid/slurmctld.pid ]] && kill -0 "$(<"$lab/pid/slurmctld.pid")" 2>/dev/null
}

show_logs() {
    tail -n 5 "$lab"/log/*.log >&2 || true
}

up() {
    install_packages >&2
    start_munge
    if ! is_up; then
        mkdir -p "$lab"/{state,log,pid} "$lab"/spool/{n1,n2}
        make_gpus
        write_configuration
        slurmctld -c >&2
        slurmd -N n1 -c >&2
        slurmd -N n2 -c >&2
    fi
    for ((try = 0; try < 150; try++)); do
        if [[ $(sinfo -h -N -p cpu -o %t 2>/dev/null | grep -c -E '^(idle|mix|alloc)$') == 2 ]]; then
            echo "export SLURM_CONF=$SLURM_CONF"
            return
        fi
        sleep 0.2
    done
    echo "the two nodes did not come up" >&2
    show_logs
    return 1
}

down() {
    local pid_file
    for pid_file in "$lab"/pid/{n1,n2,slurmctld}.pid; do
        [[ -s $pid_file ]] && kill "$(<"$pid_file")" 2>/dev/null || true
    done
    for ((try = 0; try < 50; try++)); do
        compgen -G "$lab/pid/*.pid" >/dev/null || break
        sleep 0.2
    done
    rm -rf "$lab"
}

case ${1:-} in
install) install_packages ;;
up) up ;;
down) down ;;
*)
    echo "usage: $0 install|up|down" >&2
    exit 2
    ;;
esac
