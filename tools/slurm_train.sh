#!/usr/bin/env bash
# Trains on a SLURM cluster: one process for each GPU (or CPU process).
#   [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=...] bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options]
# GPUS_PER_NODE=0 requests no GPU; GPUS is then the number of CPU processes.
set -euo pipefail
source "$(dirname "$0")/_slurm.sh"
[ $# -ge 3 ] || usage 'slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py]'
submit "$1" "$2" train.py "${@:3}" --launcher slurm
