#!/usr/bin/env bash
# Trains on several GPUs or, without a GPU, in several CPU processes:
#   bash tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
# Several machines: NNODES, NODE_RANK, MASTER_ADDR and PORT in the environment.
set -euo pipefail
source "$(dirname "$0")/_dist.sh"
[ $# -ge 2 ] || usage 'dist_train.sh CONFIG GPUS [options of tools/train.py]'
launch "$2" train.py "$1" --launcher pytorch "${@:3}"
