#!/usr/bin/env bash
# Tests on a SLURM cluster: one process for each GPU (or CPU process).
#   [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=...] bash tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options]
# GPUS_PER_NODE=0 requests no GPU; GPUS is then the number of CPU processes.
set -euo pipefail
source "$(dirname "$0")/_slurm.sh"
[ $# -ge 4 ] || usage 'slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of tools/test.py]'
submit "$1" "$2" test.py "${@:3}" --launcher slurm
