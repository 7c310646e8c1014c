#!/usr/bin/env bash
# Trains on a SLURM cluster. From the root of the checkout:
#
#   sbatch slurm/train.sh [--section.field VALUE ...]
#   sbatch --nodes=2 --gpus-per-node=8 --cpus-per-task=64 slurm/train.sh --run.name sixteen --data.batch_size_per_rank 64
#
# The settings are those of `python -m dcgan_dist.train`. Preempted, out of time or hit by a broken node, the job queues
# itself again and goes on from its last checkpoint. docs/cluster.md tells the whole story.
#
# Variables of the environment, all optional:
#   VENV            the Python environment: a folder with bin/python, the same on every node (default: .venv)
#   RANKS_PER_NODE  processes on each node (default: the GPUs the job got there, else 1)
#   MODULES         environment modules to load first, such as "gcc cuda"
#   MAX_REQUEUES    how often in a row the job may start in vain, without a newer checkpoint (default: 20; 0: once)
#   PREFLIGHT       if set, the ranks do not train: they say whether they would (launch.preflight)
#   TORCHRUN_OPTIONS  more options for torchrun, such as "--numa-binding=node" on nodes with several sockets

#SBATCH --job-name=dcgan
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --time=04:00:00
#SBATCH --output=slurm-%j.log
##SBATCH --partition=gpu
##SBATCH --gpus-per-node=8
##SBATCH --cpus-per-task=64
##SBATCH --exclusive --mem=0

# Two minutes before the end the ranks are asked to write a checkpoint, and have 100 seconds for it (see below). Without
# "B:" it is they who hear it, not this script.
#SBATCH --signal=USR2@120
# After a node failure SLURM starts the job again under the same number, and the log goes on where it was.
#SBATCH --requeue
#SBATCH --open-mode=append

set -uo pipefail

# shellcheck source=slurm/environment.sh
source slurm/environment.sh || { echo "error: $PWD is not the checkout: call sbatch from its root" >&2 && exit 1; }
RANKS_PER_NODE=${RANKS_PER_NODE:-${SLURM_GPUS_ON_NODE:-1}}
MAX_REQUEUES=${MAX_REQUEUES:-20}
starts_before=${SLURM_RESTART_COUNT:-0}

# A mistake in the settings is told here, once, and not by every rank.
attempt=$(mktemp -d) || fail "no room for temporary files on $(hostname)"
trap 'rm -rf "$attempt"' EXIT
"$python" -m launch.before_run "$attempt/before.json" "$@" || exit
[[ -f $attempt/before.json ]] || exit 0 # --help or --print_config

# Missing shards, a full disk: better known before all nodes start.
if ((starts_before == 0)) && [[ -z ${PREFLIGHT:-} ]]; then
    RANKS_PER_NODE=$RANKS_PER_NODE "$python" -m launch.preflight --quick "$@" || exit 1
fi

# The ranks of all nodes meet on the first node, at a port and under a name that no other job or attempt has.
head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 10000))
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # after a restart, ranks would read the addresses of the dead ones

# How long torchrun waits for ranks that it has passed a signal on to; one may be in the middle of a score.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-100}

# What a crash leaves in the log: NCCL's own reason, the stack of every thread, and the last collectives of each rank.
export NCCL_DEBUG=${NCCL_DEBUG:-WARN} PYTHONFAULTHANDLER=1
export TORCH_CPP_LOG_LEVEL=${TORCH_CPP_LOG_LEVEL:-ERROR} # no C++ stacks because one node left a second before another
export TORCH_FR_BUFFER_SIZE=2000 TORCH_NCCL_DUMP_ON_TIMEOUT=1
export TORCH_FR_DUMP_TEMP_FILE=${TORCH_FR_DUMP_TEMP_FILE:-/tmp/dcgan-$SLURM_JOB_ID-collectives-}

# One task a node has all CPUs of the job there; srun would bind it to one, and forgets sbatch's --cpus-per-task. It
# takes the variables above along, also where the job was submitted with --export=NONE.
[[ -z ${SLURM_CPUS_PER_TASK:-} ]] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
step=(srun --export=ALL --cpu-bind=none --kill-on-bad-exit=1)
# In a container (docs/cluster.md): VENV, the shards and the run folder must be mounted under the same paths as here.
# mounts=$PWD,/path/to/VENV,/path/to/shards
# step+=(--container-image=/path/to/image.sqsh --container-mounts="$mounts" --container-workdir="$PWD")

# Restarts are for ranks that die: they go on from the last checkpoint without a new place in the queue.
program=launch.rank restarts=3
[[ -z ${PREFLIGHT:-} ]] || program=launch.preflight restarts=0
# shellcheck disable=SC2086 # TORCHRUN_OPTIONS is a list of words
"${step[@]}" "$python" -m launch.torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "$RANKS_PER_NODE" \
    --rdzv-backend c10d --rdzv-endpoint "$head_node:$port" --rdzv-id "$SLURM_JOB_ID-$starts_before" \
    --max-restarts $restarts --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR2 \
    ${TORCHRUN_OPTIONS:-} -m $program "$@" 2>&1 | tee "$attempt/log"
srun_status=${PIPESTATUS[0]}
if [[ -n ${PREFLIGHT:-} ]]; then
    ((srun_status == 0)) || fail "this job would fail; the log above says why"
    exit 0
fi

# How a run ended is in its status.json, not in an exit status: 0 done, 75 to be queued again, 1 failed.
"$python" -m launch.after_run "$attempt" --job "$SLURM_JOB_ID" --srun-status "$srun_status" --max-requeues "$MAX_REQUEUES"
case $? in
    0) exit 0 ;;
    75) scontrol requeue "$SLURM_JOB_ID" || fail "SLURM does not take job $SLURM_JOB_ID back: sbatch it again to go on" ;;
    *) exit 1 ;;
esac
