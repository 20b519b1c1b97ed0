#!/usr/bin/env bash
#SBATCH --job-name=negvision
#SBATCH --ntasks-per-node=1
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
# Train on the nodes of a SLURM job, one launcher a node. From the root of the clone:
#   sbatch --nodes 4 --gpus-per-node 8 tools/slurm_train.sh CONFIG [arguments of tools/train.py]
# 120 s before the time limit, and when it is preempted, the training saves; the job is queued again
# and goes on from there. Read from the environment:
#   GPUS_PER_NODE  processes on each node (what SLURM gave of GPUs, else 1)
#   PORT           a free port of the first node (made of the job's number)
#   MAX_RESTARTS   how often all ranks start again after a failure within the job (0)
set -euo pipefail

if [ $# -lt 1 ]; then
    echo "usage: sbatch [options of sbatch] $0 CONFIG [arguments of tools/train.py]" >&2
    exit 2
fi
if [ ! -f tools/dist_train.sh ]; then
    echo "$PWD has no tools/dist_train.sh: call sbatch in the root of the clone" >&2
    exit 2
fi
config=$1
shift
processes=${GPUS_PER_NODE:-${SLURM_GPUS_ON_NODE:-1}}

export NNODES=$SLURM_JOB_NUM_NODES
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
export MASTER_ADDR=${hosts%%$'\n'*} PORT=${PORT:-$((20000 + SLURM_JOB_ID % 10000))}

# A job that is queued again has the same command.
if [[ " $* " != *" --resume"* ]]; then
    set -- "$@" --resume auto
fi

# Signals are for the launchers; this script outlives them, to queue the job again.
trap : TERM USR1
# One node's end must not be that of another which still writes its checkpoint.
status=0
srun --kill-on-bad-exit=0 --wait=0 tools/dist_train.sh "$config" "$processes" "$@" || status=$?

if [ "$status" = 75 ]; then
    echo "interrupted and saved: job $SLURM_JOB_ID is queued again"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
