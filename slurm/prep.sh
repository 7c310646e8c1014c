#!/usr/bin/env bash
# Packs CelebA into shards on one or more nodes of a SLURM cluster. From the root of the checkout:
#
#   sbatch slurm/prep.sh --source ~/celeba --out data/celeba-train
#   sbatch --nodes=4 slurm/prep.sh --source ~/celeba --out data/celeba-train
#   sbatch --array=0-2 slurm/prep.sh --source ~/celeba --out data/celeba-SPLIT --split SPLIT
#
# The arguments are those of `python -m data_prep.celeba`. In an array the word SPLIT stands for train, valid and test.
# Interrupted and started again, it goes on where it was. With several nodes, a cluster of Ray over them packs the shards
# (--engine ray, which needs the package ray) and ends with the job; the shards of a node that fails are packed by the
# others. Training can wait for it:
#
#   prep=$(sbatch --parsable slurm/prep.sh --source ~/celeba --out data/celeba-train)
#   sbatch --dependency=afterok:$prep slurm/train.sh
#
# Variables of the environment: VENV and MODULES, as for slurm/train.sh.

#SBATCH --job-name=dcgan-prep
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=01:00:00
#SBATCH --output=slurm-prep-%j.log
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --open-mode=append
##SBATCH --partition=cpu

set -uo pipefail

# shellcheck source=slurm/environment.sh
source slurm/environment.sh || { echo "error: $PWD is not the checkout: call sbatch from its root" >&2 && exit 1; }

arguments=("$@")
if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then
    splits=(train valid test)
    arguments=("${@//SPLIT/${splits[SLURM_ARRAY_TASK_ID]:?--array=0-2: no such split}}")
fi

# The cores of a node, where SLURM does not bind the job to them, and some processes more that wait for files.
workers=$((${SLURM_CPUS_PER_TASK:-1} + 6))
if ((${SLURM_JOB_NUM_NODES:-1} == 1)); then
    exec "$python" -m data_prep.celeba --workers "$workers" "${arguments[@]}"
fi

# Ray runs whatever it is sent, so only who knows this job's token may talk to it.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$("$python" -c 'import secrets; print(secrets.token_hex(32))')
head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 10000))
[[ -z ${SLURM_CPUS_PER_TASK:-} ]] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
srun --export=ALL --cpu-bind=none --no-kill --kill-on-bad-exit=0 bash slurm/ray_node.sh "$head_node" "$port" "$workers" &
ray=$!
until (exec 3<>"/dev/tcp/$head_node/$port") 2>/dev/null; do
    kill -0 "$ray" 2>/dev/null || fail "Ray could not start; the log above says why"
    sleep 1
done
"$python" -m data_prep.celeba --engine ray --ray-address "$head_node:$port" "${arguments[@]}"
status=$?
kill "$ray" && wait "$ray" 2>/dev/null
rm -rf "/tmp/ray-$SLURM_JOB_ID" # if the nodes were not given the time
exit $status
