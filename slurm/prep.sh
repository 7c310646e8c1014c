#!/usr/bin/env bash
# Packs CelebA into shards on one node of a SLURM cluster. From the root of the checkout:
#
#   sbatch slurm/prep.sh --source ~/celeba --out data/celeba-train
#   sbatch --array=0-2 slurm/prep.sh --source ~/celeba --out data/celeba-SPLIT --split SPLIT
#
# The arguments are those of `python -m data_prep.celeba`. In an array the word SPLIT stands for train, valid and test.
# Interrupted and started again, it goes on where it was. Training can wait for it:
#
#   prep=$(sbatch --parsable slurm/prep.sh --source ~/celeba --out data/celeba-train)
#   sbatch --dependency=afterok:$prep slurm/train.sh
#
# Variables of the environment: VENV and MODULES, as for slurm/train.sh.

#SBATCH --job-name=dcgan-prep
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --time=01:00:00
#SBATCH --output=slurm-prep-%j.log
#SBATCH --requeue
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

# The cores of the job, where SLURM does not bind it to them, and some processes more that wait for files.
exec "$python" -m data_prep.celeba --workers "$((${SLURM_CPUS_PER_TASK:-1} + 6))" "${arguments[@]}"
