#!/usr/bin/env bash
# Train on several processes, one a GPU (or on the CPU, over gloo), of this machine or of several.
#   tools/dist_train.sh CONFIG PROCESSES [arguments of tools/train.py]
# PROCESSES is the number on this machine. Read from the environment:
#   NNODES        machines, each of which runs this command (1), or MIN:MAX of them
#   NODE_RANK     0 on the machine that MASTER_ADDR names (else found out by the name)
#   MASTER_ADDR   one of the machines, by a name or address that all of them know
#   PORT          a free port there (29500)
#   MAX_RESTARTS  how often all ranks start again after a failure (0), from the newest checkpoint
# Exit status: 0; 1 after a failure; 2 after an error of the user's; 75 where a signal interrupted
# the training and it was saved.
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG PROCESSES [arguments of tools/train.py]" >&2
    exit 2
fi
config=$1
processes=$2
shift 2

nodes=${NNODES:-1}
restarts=${MAX_RESTARTS:-0}
launcher=(--nproc-per-node "$processes" --max-restarts "$restarts")
if [ "$nodes" = 1 ]; then
    # torchrun picks a free port, so that two runs on a machine do not meet.
    launcher+=(--standalone)
else
    : "${MASTER_ADDR:?NNODES=$nodes needs MASTER_ADDR, the name or address of one of the machines}"
    launcher+=(--nnodes "$nodes" --rdzv-backend c10d --rdzv-endpoint "$MASTER_ADDR:${PORT:-29500}"
        --rdzv-id "${SLURM_JOB_ID:-negvision}")
    NODE_RANK=${NODE_RANK:-${SLURM_NODEID:-}}
    if [ -n "$NODE_RANK" ]; then
        is_host=$([ "$NODE_RANK" = 0 ] && echo 1 || echo 0)
        launcher+=(--rdzv-conf "is_host=$is_host")
    fi
fi

# Ranks that start again go on from where they were.
if [ "$restarts" != 0 ] && [[ " $* " != *" --resume"* ]]; then
    set -- "$@" --resume auto
fi

python=${PYTHON:-python}
if ! "$python" -c 'import sys, importlib.util as u; sys.exit(u.find_spec("torch") is None)'; then
    echo "$python has no module 'torch': activate the environment of negvision (source" \
        ".venv/bin/activate), or set PYTHON to its interpreter" >&2
    exit 2
fi

root=$(dirname "$0")/..
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
exec "$python" -m negvision.engine.parallel.torchrun "${launcher[@]}" \
    "$root/tools/train.py" "$config" --launcher pytorch "$@"
