#!/usr/bin/env bash
# Tests on several GPUs or, without a GPU, in several CPU processes:
#   bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]
# Several machines: NNODES, NODE_RANK, MASTER_ADDR and PORT in the environment.
set -euo pipefail
source "$(dirname "$0")/_dist.sh"
[ $# -ge 3 ] || usage 'dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]'
launch "$3" test.py "$1" "$2" --launcher pytorch "${@:4}"
